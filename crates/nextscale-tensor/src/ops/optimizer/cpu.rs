//! Norm and update on the CPU.

use super::{AdamW, Decay};
use crate::cpu::{CHUNK, simd};
use crate::{Error, GradBuffer, Result};
use rayon::prelude::*;

/// The Euclidean norm of all gradients, summed in float64 in a fixed order.
///
/// # Errors
/// When the gradients are on a GPU.
pub(super) fn grad_norm(grads: &GradBuffer) -> Result<f64> {
    Ok(squares(grads.cpu()?).sqrt())
}

/// The sum of squares, in float64 in a fixed order.
pub(super) fn squares(grads: &[f32]) -> f64 {
    let parts: Vec<f64> = grads
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
    parts.iter().sum()
}

/// Update number `step` (from 1) of `params` and the moments, with `grad_scale` on the gradients. `ranges` are checked; what
/// lies between them is left alone.
///
/// # Errors
/// When buffers differ in length.
pub(super) fn adamw(
    params: &mut [f32],
    grads: &GradBuffer,
    exp_avg: &mut GradBuffer,
    exp_avg_sq: &mut GradBuffer,
    hyper: &AdamW,
    (step, grad_scale): (u64, f32),
    ranges: &[Decay],
) -> Result<()> {
    let n = params.len();
    let g = grads.cpu()?;
    let (m, v) = (exp_avg.cpu_mut()?, exp_avg_sq.cpu_mut()?);
    if g.len() != n || m.len() != n || v.len() != n {
        return Err(Error::Params(
            "gradients or moments of another model".into(),
        ));
    }
    let bias1 = 1.0 - hyper.beta1.powf(step as f64);
    let bias2 = 1.0 - hyper.beta2.powf(step as f64);
    let (b1, b2) = (hyper.beta1 as f32, hyper.beta2 as f32);
    let (c1, c2) = ((1.0 - hyper.beta1) as f32, (1.0 - hyper.beta2) as f32);
    let size = (hyper.lr / bias1) as f32;
    let root = bias2.sqrt() as f32;
    let (eps, gs) = (hyper.eps as f32, grad_scale);
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
