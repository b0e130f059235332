//! The optimizer: gradient norm and AdamW, each one pass over flat buffers.
//!
//! AdamW (Loshchilov and Hutter 2019) with decoupled decay first, as PyTorch orders it: p ← p·(1 − lr·wd);
//! m ← β1·m + (1 − β1)·g; v ← β2·v + (1 − β2)·g²; p ← p − lr/(1 − β1ᵗ)·m/(√v/√(1 − β2ᵗ) + ε).

#[cfg(test)]
mod tests;

use crate::cpu::{CHUNK, simd};
use crate::{Error, GradBuffer, Result};
use rayon::prelude::*;
use std::ops::Range;

/// AdamW's numbers for one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Weight decay, times each range's own factor.
    pub weight_decay: f64,
    /// Number of this update, from 1.
    pub step: u64,
    /// Factor on the gradients: clipping, and one over the loss scale.
    pub grad_scale: f32,
}

/// The Euclidean norm of all gradients, summed in float64 in a fixed order.
///
/// # Errors
/// When the gradients are on a GPU.
pub fn grad_norm(grads: &GradBuffer) -> Result<f64> {
    let parts: Vec<f64> = grads
        .cpu()?
        .par_chunks(CHUNK)
        .map(|c| {
            // Squares of short runs in float32 lose nothing that matters; their sums are kept in float64.
            c.chunks(256)
                .map(|r| {
                    f64::from(simd::run(
                        #[inline(always)]
                        || {
                            simd::sum_of(
                                r,
                                #[inline(always)]
                                |r| r * r,
                            )
                        },
                    ))
                })
                .sum()
        })
        .collect();
    Ok(parts.iter().sum::<f64>().sqrt())
}

/// Updates `params` and the moments. `ranges` are the parameters' places, ascending, with each one's factor on the
/// weight decay; what lies between them is left alone.
///
/// # Errors
/// When buffers differ in length, or ranges overlap or leave them.
pub fn adamw_step(
    params: &mut [f32],
    grads: &GradBuffer,
    exp_avg: &mut GradBuffer,
    exp_avg_sq: &mut GradBuffer,
    hyper: &AdamW,
    ranges: &[(Range<usize>, f32)],
) -> Result<()> {
    let n = params.len();
    let g = grads.cpu()?;
    let (m, v) = (exp_avg.cpu_mut()?, exp_avg_sq.cpu_mut()?);
    if g.len() != n || m.len() != n || v.len() != n {
        return Err(Error::Params(
            "gradients or moments of another model".into(),
        ));
    }
    let ordered = ranges.windows(2).all(|w| w[0].0.end <= w[1].0.start);
    if !ordered || ranges.last().is_some_and(|r| r.0.end > n) {
        return Err(Error::Params("ranges overlap or leave the buffer".into()));
    }
    let bias1 = 1.0 - hyper.beta1.powf(hyper.step as f64);
    let bias2 = 1.0 - hyper.beta2.powf(hyper.step as f64);
    let (b1, b2) = (hyper.beta1 as f32, hyper.beta2 as f32);
    let (c1, c2) = ((1.0 - hyper.beta1) as f32, (1.0 - hyper.beta2) as f32);
    let size = (hyper.lr / bias1) as f32;
    let root = bias2.sqrt() as f32;
    let (eps, gs) = (hyper.eps as f32, hyper.grad_scale);
    let update = |p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], keep: f32| {
        simd::run(
            #[inline(always)]
            || {
                for (((p, m), v), g) in p.iter_mut().zip(m).zip(v).zip(g) {
                    let g = g * gs;
                    *m = b1.mul_add(*m, c1 * g);
                    *v = b2.mul_add(*v, c2 * g * g);
                    let denominator = v.sqrt() / root + eps;
                    *p = *p * keep - size * (*m / denominator);
                }
            },
        );
    };
    params
        .par_chunks_mut(CHUNK)
        .zip(m.par_chunks_mut(CHUNK))
        .zip(v.par_chunks_mut(CHUNK))
        .zip(g.par_chunks(CHUNK))
        .enumerate()
        .for_each(|(i, (((p, m), v), g))| {
            let (from, to) = (i * CHUNK, i * CHUNK + p.len());
            let first = ranges.partition_point(|r| r.0.end <= from);
            for (range, factor) in ranges[first..].iter().take_while(|r| r.0.start < to) {
                let (a, b) = (range.start.max(from) - from, range.end.min(to) - from);
                let keep = (1.0 - hyper.lr * hyper.weight_decay * f64::from(*factor)) as f32;
                update(&mut p[a..b], &mut m[a..b], &mut v[a..b], &g[a..b], keep);
            }
        });
    Ok(())
}
