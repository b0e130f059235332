//! Distances between images or features: mean squared and mean absolute difference, each one number \[1\].
//!
//! Gradients for either side that wants one: ±2(a − b)/n and ±sign(a − b)/n. Kept on the tape: a and b.

#[cfg(test)]
mod tests;

use super::arithmetic::{times, zip_map};
use crate::cpu::{CHUNK, simd};
use crate::{Cx, Device, Result, Tensor, expect_dims};
use rayon::prelude::*;

/// mean((a − b)²).
///
/// # Errors
/// When shapes differ.
pub fn mse(cx: &Cx<'_>, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    mean_of("mse", cx, a, b, |d| d * d, |d| 2.0 * d)
}

/// mean(|a − b|).
///
/// # Errors
/// When shapes differ.
pub fn l1(cx: &Cx<'_>, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let sign = |d: f32| {
        if d > 0.0 {
            1.0
        } else if d < 0.0 {
            -1.0
        } else {
            0.0
        }
    };
    mean_of("l1", cx, a, b, f32::abs, sign)
}

fn mean_of(
    op: &'static str,
    cx: &Cx<'_>,
    a: &Tensor,
    b: &Tensor,
    value: impl Fn(f32) -> f32 + Sync,
    slope: impl Fn(f32) -> f32 + Sync + 'static,
) -> Result<Tensor> {
    expect_dims(op, "the second operand", b, a.dims())?;
    let n = a.numel().max(1) as f64;
    let sum: f64 = match a.device() {
        Device::Cuda(_) => return Err(crate::Error::not_on_gpu("image_loss")),
        Device::Cpu => {
            let parts: Vec<f64> = a
                .f32()?
                .par_chunks(CHUNK)
                .zip(b.f32()?.par_chunks(CHUNK))
                .map(|(a, b)| {
                    // Short runs in float32, their sums in float64.
                    a.chunks(256)
                        .zip(b.chunks(256))
                        .map(|(a, b)| {
                            f64::from(simd::sum_of2(
                                a,
                                b,
                                #[inline(always)]
                                |a, b| value(a - b),
                            ))
                        })
                        .sum()
                })
                .collect();
            parts.iter().sum()
        }
    };
    let mut y = Tensor::from_vec([1], vec![(sum / n) as f32]);
    if cx.records(&[a, b]) {
        let (a, b) = (a.clone(), b.clone());
        cx.record_one(&mut y, move |g, grads| {
            let f = (f64::from(g.scalar()?) / n) as f32;
            let d = zip_map(op, &a, &b, |a, b| slope(a - b) * f)?;
            if grads.wants(&b) {
                grads.add(&b, times(&d, -1.0)?)?;
            }
            grads.add(&a, d)
        });
    }
    Ok(y)
}
