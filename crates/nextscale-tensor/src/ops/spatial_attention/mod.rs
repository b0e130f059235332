//! The tokenizer's attention: one head over all positions of a feature map, softmax(q·kᵀ/√C)·v.
//!
//! Shapes: qkv \[B, H, W, 3C\], the thirds being q, k and v; y \[B, H, W, C\]. Queries go in tiles, so that at most a tile's
//! rows of the H·W × H·W matrix exist at once. Gradient, with p the probabilities and D = rows' sums of g∘y: dv = pᵀ·g,
//! ds = p∘(g·vᵀ − D), dq = ds·k/√C, dk = dsᵀ·q/√C. Kept on the tape: qkv; probabilities are computed again.

mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use crate::{Cx, Device, Error, Result, Tensor};

/// Sizes of one call.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    batch: usize,
    positions: usize,
    c: usize,
}

/// softmax(q·kᵀ/√C)·v; see the module for shapes.
///
/// # Errors
/// When shapes do not fit.
pub fn spatial_attention(cx: &Cx<'_>, qkv: &Tensor) -> Result<Tensor> {
    let &[b, h, w, c3] = qkv.dims() else {
        let detail = format!("qkv is {}, expected [B, H, W, 3C]", qkv.shape());
        return Err(Error::shape("spatial_attention", detail));
    };
    if c3 == 0 || c3 % 3 != 0 || h * w == 0 {
        let detail = format!("qkv is {}, expected [B, H, W, 3C]", qkv.shape());
        return Err(Error::shape("spatial_attention", detail));
    }
    let s = Sizes {
        batch: b,
        positions: h * w,
        c: c3 / 3,
    };
    let mut y = match qkv.device() {
        Device::Cuda(_) => cuda::forward(cx.math(), s, qkv)?,
        Device::Cpu => cpu::forward(s, qkv)?,
    };
    if cx.records(&[qkv]) {
        let (qkv, math) = (qkv.clone(), cx.math());
        cx.record_one(&mut y, move |g, grads| {
            let d = match qkv.device() {
                Device::Cuda(_) => cuda::backward(math, s, &qkv, &g)?,
                Device::Cpu => cpu::backward(s, &qkv, &g)?,
            };
            grads.add(&qkv, d)
        });
    }
    Ok(y)
}
