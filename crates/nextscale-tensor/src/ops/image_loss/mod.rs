//! Distances between images or features: mean squared and mean absolute difference, each one number \[1\].
//!
//! Gradients for either side that wants one: ±2(a − b)/n and ±sign(a − b)/n. Kept on the tape: a and b.

pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use super::arithmetic::{times, zip_on_cpu};
use crate::cpu::{CHUNK, simd};
use crate::{Cx, Device, Result, Tensor, expect_dims};
use rayon::prelude::*;

/// Which distance.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Squared,
    Absolute,
}

/// mean((a − b)²).
///
/// # Errors
/// When shapes differ.
pub fn mse(cx: &Cx<'_>, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    mean_of("mse", Kind::Squared, cx, a, b)
}

/// mean(|a − b|).
///
/// # Errors
/// When shapes differ.
pub fn l1(cx: &Cx<'_>, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    mean_of("l1", Kind::Absolute, cx, a, b)
}

fn mean_of(op: &'static str, kind: Kind, cx: &Cx<'_>, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    expect_dims(op, "the second operand", b, a.dims())?;
    let n = a.numel().max(1) as f64;
    let mut y = match (a.device(), kind) {
        (Device::Cuda(_), _) => cuda::forward(kind, a, b)?,
        (Device::Cpu, Kind::Squared) => on_cpu(a, b, |d| d * d)?,
        (Device::Cpu, Kind::Absolute) => on_cpu(a, b, f32::abs)?,
    };
    if cx.records(&[a, b]) {
        let (a, b) = (a.clone(), b.clone());
        cx.record_one(&mut y, move |g, grads| {
            if let Device::Cuda(_) = a.device() {
                return cuda::backward(kind, &a, &b, &g, grads);
            }
            let f = (f64::from(g.scalar()?) / n) as f32;
            let d = match kind {
                Kind::Squared => zip_on_cpu(&a, &b, |a, b| 2.0 * (a - b) * f)?,
                Kind::Absolute => zip_on_cpu(&a, &b, |a, b| sign(a - b) * f)?,
            };
            if grads.wants(&b) {
                grads.add(&b, times(&d, -1.0)?)?;
            }
            grads.add(&a, d)
        });
    }
    Ok(y)
}

fn sign(d: f32) -> f32 {
    if d > 0.0 {
        1.0
    } else if d < 0.0 {
        -1.0
    } else {
        0.0
    }
}

/// The mean of `value` of all differences.
fn on_cpu(a: &Tensor, b: &Tensor, value: impl Fn(f32) -> f32 + Sync) -> Result<Tensor> {
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
    let mean = parts.iter().sum::<f64>() / a.numel().max(1) as f64;
    Ok(Tensor::from_vec([1], vec![mean as f32]))
}
