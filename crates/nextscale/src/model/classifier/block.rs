//! The residual block: norm, SiLU, convolution, twice, plus the input.

use super::norm;
use crate::Result;
use crate::model::ForwardPass;
use crate::model::layers::{Conv2d, GroupNorm};
use nextscale_tensor::ops::{self, Conv, Window};
use nextscale_tensor::{Params, ParamsBuilder, Tensor};

/// A block, which may halve the sides of its map.
pub(super) struct Block {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
    halves: bool,
}

/// What a shortcut averages where the block halves the sides.
const HALVED: Window = Window {
    size: 2,
    stride: 2,
    pad: 0,
};

impl Block {
    pub(super) fn new(
        b: &mut ParamsBuilder,
        name: &str,
        (i, o): (usize, usize),
        halves: bool,
    ) -> Self {
        let first = match halves {
            true => Conv::halve(),
            false => Conv::same(3),
        };
        Self {
            norm1: norm(b, &format!("{name}.norm1"), i),
            conv1: Conv2d::new(b, &format!("{name}.conv1"), (i, o), 3, first),
            norm2: norm(b, &format!("{name}.norm2"), o),
            conv2: Conv2d::same(b, &format!("{name}.conv2"), (o, o), 3),
            shortcut: (i != o).then(|| Conv2d::same(b, &format!("{name}.shortcut"), (i, o), 1)),
            halves,
        }
    }

    /// x \[B, H, W, in\] to \[B, H, W, out\], or to half the sides, rounded down.
    pub(super) fn forward(&self, pass: &ForwardPass<'_>, p: &Params, x: &Tensor) -> Result<Tensor> {
        let h = self.conv1.behind(&self.norm1, pass, p, x, None)?;
        let mut aside = match self.halves {
            true => ops::avg_pool(&pass.cx, x, HALVED, false)?,
            false => x.clone(),
        };
        if let Some(shortcut) = &self.shortcut {
            aside = shortcut.forward(pass, p, &aside)?;
        }
        self.conv2.behind(&self.norm2, pass, p, &h, Some(&aside))
    }
}
