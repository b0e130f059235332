//! SiLU: y = x·σ(x) (Elfwing et al. 2017), element by element on any shape.
//!
//! Gradient: dx = g·σ(x)·(1 + x·(1 − σ(x))). Kept on the tape: x.

pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use crate::cpu::pool::PoolVec;
use crate::cpu::{CHUNK, simd};
use crate::{Cx, Device, Result, Tensor};
use rayon::prelude::*;

/// x·σ(x).
///
/// # Errors
/// When x holds integers.
pub fn silu(cx: &Cx<'_>, x: &Tensor) -> Result<Tensor> {
    let mut y = match x.device() {
        Device::Cuda(_) => cuda::forward(x)?,
        Device::Cpu => map(x, &Tensor::clone(x), |x, _| x * simd::sigmoid(x))?,
    };
    if cx.records(&[x]) {
        let x = x.clone();
        cx.record_one(&mut y, move |g, grads| match x.device() {
            Device::Cuda(_) => grads.add(&x, cuda::backward(&x, &g)?),
            Device::Cpu => {
                let dx = map(&x, &g, |x, g| {
                    let s = simd::sigmoid(x);
                    g * s * (1.0 + x * (1.0 - s))
                })?;
                grads.add(&x, dx)
            }
        });
    }
    Ok(y)
}

/// f of two tensors, element by element.
#[inline(always)]
fn map(a: &Tensor, b: &Tensor, f: impl Fn(f32, f32) -> f32 + Sync) -> Result<Tensor> {
    let (xs, ys) = (a.f32()?, b.f32()?);
    let mut out = PoolVec::scratch(xs.len());
    out.par_chunks_mut(CHUNK)
        .zip(xs.par_chunks(CHUNK).zip(ys.par_chunks(CHUNK)))
        .for_each(|(o, (x, y))| {
            simd::run(
                #[inline(always)]
                || {
                    for ((o, x), y) in o.iter_mut().zip(x).zip(y) {
                        *o = f(*x, *y);
                    }
                },
            );
        });
    Ok(Tensor::from_buf(a.shape(), out))
}
