//! Distance between feature maps whose channels are scaled to length one, as LPIPS has it (Zhang et al. 2018):
//! y = mean over pixels of Σ_c w_c·(â_c − b̂_c)², with â = a/(‖a‖ + 1e-10) pixel by pixel.
//!
//! Shapes: a and b \[B, H, W, C\], w \[C\] in float32, y \[B\] in float32. Gradients for a and b, not for w:
//! 2·w·(â − b̂)·g/(H·W) through the scaling. Where all channels of a pixel are zero, which has no direction, its gradient is zero. Kept on
//! the tape: a, b and w.

mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use crate::{Cx, Device, Error, Result, Tensor, expect_dims};

/// Added to lengths.
const EPSILON: f32 = 1e-10;

/// Sizes of the maps.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    batch: usize,
    pixels: usize,
    channels: usize,
}

/// The distance of every pair of maps.
///
/// # Errors
/// When shapes do not fit, or w wants a gradient.
pub fn unit_distance(cx: &Cx<'_>, a: &Tensor, b: &Tensor, w: &Tensor) -> Result<Tensor> {
    const OP: &str = "unit_distance";
    let &[batch, h, width, channels] = a.dims() else {
        let detail = format!("a is {}, expected [B, H, W, C]", a.shape());
        return Err(Error::shape(OP, detail));
    };
    expect_dims(OP, "b", b, a.dims())?;
    expect_dims(OP, "w", w, &[channels])?;
    if h * width == 0 || channels == 0 {
        return Err(Error::shape(OP, format!("a is {}: empty", a.shape())));
    }
    if cx.records(&[w]) {
        return Err(Error::shape(OP, "w has no gradient".to_owned()));
    }
    let s = Sizes {
        batch,
        pixels: h * width,
        channels,
    };
    let mut y = match a.device() {
        Device::Cuda(_) => cuda::forward(s, a, b, w)?,
        Device::Cpu => cpu::forward(s, a, b, w)?,
    };
    if cx.records(&[a, b]) {
        let (a, b, w) = (a.clone(), b.clone(), w.clone());
        cx.record_one(&mut y, move |g, grads| {
            let wanted = (grads.wants(&a), grads.wants(&b));
            let (da, db) = match a.device() {
                Device::Cuda(_) => cuda::backward(s, &a, &b, &w, &g, wanted)?,
                Device::Cpu => cpu::backward(s, &a, &b, &w, &g, wanted)?,
            };
            if let Some(d) = db {
                grads.add(&b, d)?;
            }
            if let Some(d) = da {
                grads.add(&a, d)?;
            }
            Ok(())
        });
    }
    Ok(y)
}
