//! The tokenizer's attention block: one head over all positions.

use super::norm;
use crate::Result;
use crate::model::ForwardPass;
use crate::model::layers::{Conv2d, GroupNorm};
use nextscale_tensor::{Params, ParamsBuilder, Tensor, ops};

/// `AttnBlock` of the reference.
pub(super) struct AttnBlock {
    norm: GroupNorm,
    qkv: Conv2d,
    proj_out: Conv2d,
}

impl AttnBlock {
    pub(super) fn new(b: &mut ParamsBuilder, name: &str, c: usize) -> Self {
        Self {
            norm: norm(b, &format!("{name}.norm"), c),
            qkv: Conv2d::same(b, &format!("{name}.qkv"), (c, 3 * c), 1),
            proj_out: Conv2d::same(b, &format!("{name}.proj_out"), (c, c), 1),
        }
    }

    pub(super) fn forward(&self, pass: &ForwardPass<'_>, p: &Params, x: &Tensor) -> Result<Tensor> {
        let h = self.norm.forward(pass, p, x, false)?;
        let qkv = self.qkv.forward(pass, p, &h)?;
        let h = ops::spatial_attention(&pass.cx, &qkv)?;
        self.proj_out.forward_plus(pass, p, &h, Some(x))
    }
}
