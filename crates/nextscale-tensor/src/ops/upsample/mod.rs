//! Nearest-neighbour upsampling by two: every pixel becomes four.
//!
//! Shapes: x \[B, H, W, C\], y \[B, 2H, 2W, C\]. Gradient: the sum of the four. Nothing is kept on the tape.

pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use crate::cpu::pool::PoolVec;
use crate::{Cx, Device, Error, Result, Tensor};
use rayon::prelude::*;

/// x at twice its height and width.
///
/// # Errors
/// When x is no feature map.
pub fn upsample_nearest2x(cx: &Cx<'_>, x: &Tensor) -> Result<Tensor> {
    let &[b, h, w, c] = x.dims() else {
        let detail = format!("x is {}, expected [B, H, W, C]", x.shape());
        return Err(Error::shape("upsample_nearest2x", detail));
    };
    let mut y = match x.device() {
        Device::Cuda(_) => cuda::forward(x, [b, h, w, c])?,
        Device::Cpu => {
            let xs = x.f32()?;
            let mut y = PoolVec::scratch(4 * xs.len());
            y.par_chunks_mut((2 * w * c).max(1))
                .with_min_len(2)
                .enumerate()
                .for_each(|(row, y)| {
                    let source = &xs[row / 2 * w * c..][..w * c];
                    for (y, x) in y.chunks_exact_mut(2 * c).zip(source.chunks_exact(c)) {
                        y[..c].copy_from_slice(x);
                        y[c..].copy_from_slice(x);
                    }
                });
            Tensor::from_buf([b, 2 * h, 2 * w, c], y)
        }
    };
    if cx.records(&[x]) {
        let x = x.without_data();
        cx.record_one(&mut y, move |g, grads| {
            if let Device::Cuda(_) = g.device() {
                return grads.add(&x, cuda::backward(&g, [b, h, w, c])?);
            }
            let g = g.f32()?;
            let mut dx = PoolVec::scratch(x.numel());
            dx.par_chunks_mut((w * c).max(1))
                .enumerate()
                .for_each(|(row, dx)| {
                    let (top, bottom) = g[row * 4 * w * c..][..4 * w * c].split_at(2 * w * c);
                    for (i, dx) in dx.chunks_exact_mut(c).enumerate() {
                        let (t, b) = (&top[2 * i * c..][..2 * c], &bottom[2 * i * c..][..2 * c]);
                        for (j, dx) in dx.iter_mut().enumerate() {
                            *dx = (t[j] + t[c + j]) + (b[j] + b[c + j]);
                        }
                    }
                });
            grads.add(&x, Tensor::from_buf(x.shape(), dx))
        });
    }
    Ok(y)
}
