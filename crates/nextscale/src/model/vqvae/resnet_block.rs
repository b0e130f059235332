//! The residual block: norm, SiLU, convolution, twice, plus the input.

use super::{DropoutDraw, norm};
use crate::Result;
use crate::model::ForwardPass;
use crate::model::layers::{Conv2d, GroupNorm};
use nextscale_tensor::rng::{Purpose, Stream};
use nextscale_tensor::{Params, ParamsBuilder, Tensor, ops};

/// `ResnetBlock` of the reference.
pub(super) struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    nin_shortcut: Option<Conv2d>,
    dropout: f32,
    /// Tells this block's dropout from the others'.
    lane: u64,
}

impl ResnetBlock {
    pub(super) fn new(
        b: &mut ParamsBuilder,
        name: &str,
        (i, o): (usize, usize),
        dropout: f32,
    ) -> Self {
        Self {
            norm1: norm(b, &format!("{name}.norm1"), i),
            conv1: Conv2d::same(b, &format!("{name}.conv1"), (i, o), 3),
            norm2: norm(b, &format!("{name}.norm2"), o),
            conv2: Conv2d::same(b, &format!("{name}.conv2"), (o, o), 3),
            nin_shortcut: (i != o)
                .then(|| Conv2d::same(b, &format!("{name}.nin_shortcut"), (i, o), 1)),
            dropout,
            lane: lane_of(name),
        }
    }

    pub(super) fn forward(
        &self,
        pass: &ForwardPass<'_>,
        p: &Params,
        x: &Tensor,
        drop: Option<DropoutDraw>,
    ) -> Result<Tensor> {
        let h = self.conv1.behind(&self.norm1, pass, p, x, None)?;
        let shortcut = match &self.nin_shortcut {
            Some(shortcut) => &shortcut.forward(pass, p, x)?,
            None => x,
        };
        let Some(d) = drop.filter(|_| self.dropout > 0.0) else {
            return self.conv2.behind(&self.norm2, pass, p, &h, Some(shortcut));
        };
        let h = self.norm2.forward(pass, p, &h, true)?;
        let stream = Stream::new(d.seed, Purpose::Dropout, d.step, self.lane);
        let each = h.numel() / h.dims()[0].max(1);
        let h = ops::dropout(&pass.cx, &h, self.dropout, &stream, d.first * each as u64)?;
        self.conv2.forward_plus(pass, p, &h, Some(shortcut))
    }
}

/// A number for a block's name that does not change when blocks are added elsewhere (FNV-1a).
fn lane_of(name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    hash & 0xffff_ffff
}
