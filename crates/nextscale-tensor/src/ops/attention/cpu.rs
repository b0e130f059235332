//! Attention on the CPU: every head of every batch element is a task of its own and writes its own columns.

mod attend;
mod gradient;
mod rows;
mod tiles;

use super::Sizes;
use crate::cpu::pool::PoolVec;
use crate::{Grads, Result, Tensor};
use attend::Head;
use gradient::Upstream;
use rayon::prelude::*;
use rows::Scaling;
use tiles::TilePlan;

/// y, and the largest score and the reciprocal of the sum of exponentials of every query, \[B, H, L, 2\].
pub(super) fn forward(
    qkv: &Tensor,
    scale_mul: Option<&Tensor>,
    s: Sizes,
    level_ends: &[usize],
) -> Result<(Tensor, Tensor)> {
    let scalings = scalings(scale_mul, s)?;
    let plan = TilePlan::levels(level_ends);
    let (l, c, x) = (s.tokens, s.width(), qkv.f32()?);
    let mut y = PoolVec::scratch(s.batch * l * c);
    let mut stats = PoolVec::scratch(s.batch * s.heads * l * 2);
    y.par_chunks_mut(l * c)
        .zip(stats.par_chunks_mut(s.heads * l * 2))
        .zip(x.par_chunks(l * 3 * c))
        .for_each(|((y, stats), x)| {
            by_head(y, s)
                .par_iter_mut()
                .zip(stats.par_chunks_mut(l * 2))
                .zip(&scalings)
                .enumerate()
                .for_each(|(h, ((y, stats), scaling))| {
                    let (q, k) = queries_and_keys(x, s, h, *scaling);
                    attend::forward(&head(x, s, h, &q, &k), &plan, y, stats);
                });
        });
    let stats = Tensor::from_buf([s.batch, s.heads, l, 2], stats);
    Ok((Tensor::from_buf([s.batch, l, c], y), stats))
}

/// Adds to the gradients of qkv and scale_mul. `out` is what [`forward`] returned.
pub(super) fn backward(
    qkv: &Tensor,
    scale_mul: Option<&Tensor>,
    s: Sizes,
    level_ends: &[usize],
    (y, stats): (&Tensor, &Tensor),
    g: &Tensor,
    grads: &mut Grads<'_>,
) -> Result<()> {
    let scalings = scalings(scale_mul, s)?;
    let plan = TilePlan::levels(level_ends);
    let (l, c, x, y, g) = (s.tokens, s.width(), qkv.f32()?, y.f32()?, g.f32()?);
    let stats = stats.f32()?;
    let mut dx = PoolVec::scratch(s.batch * l * 3 * c);
    // The gradient of scale_mul for every batch element and head.
    let slopes: Vec<Vec<f64>> = dx
        .par_chunks_mut(l * 3 * c)
        .enumerate()
        .map(|(b, dx)| {
            let x = &x[b * l * 3 * c..][..l * 3 * c];
            let (y, g) = (&y[b * l * c..][..l * c], &g[b * l * c..][..l * c]);
            let stats = &stats[b * s.heads * l * 2..][..s.heads * l * 2];
            let mut parts = by_head(dx, s).into_iter();
            let mut part = || parts.by_ref().take(s.heads).collect::<Vec<_>>();
            let (dq, dk, dv) = (part(), part(), part());
            dq.into_par_iter()
                .zip(dk)
                .zip(dv)
                .enumerate()
                .map(|(h, ((mut dq, mut dk), mut dv))| {
                    let (q, k) = queries_and_keys(x, s, h, scalings[h]);
                    let up = Upstream {
                        y: &y[h * s.dim..],
                        g: &g[h * s.dim..],
                        stride: c,
                        stats: &stats[h * l * 2..][..l * 2],
                    };
                    let grad = gradient::backward(&head(x, s, h, &q, &k), &plan, &up);
                    let from = |part: usize| &x[part * c + h * s.dim..];
                    let Scaling { unit, factor, .. } = scalings[h];
                    rows::gather_backward(from(1), 3 * c, &k, &grad.k, s.dim, (unit, 1.0), &mut dk);
                    let rows = dv.iter_mut().zip(grad.v.chunks_exact(s.dim));
                    rows.for_each(|(dv, g)| dv.copy_from_slice(g));
                    rows::gather_backward(
                        from(0),
                        3 * c,
                        &q,
                        &grad.q,
                        s.dim,
                        (unit, factor),
                        &mut dq,
                    )
                })
                .collect()
        })
        .collect();
    grads.add(qkv, Tensor::from_buf([s.batch, l, 3 * c], dx))?;
    if let Some(scale_mul) = scale_mul {
        grads.accumulate(scale_mul, |slot| {
            for (h, slot) in slot.iter_mut().enumerate() {
                if scalings[h].moves {
                    *slot += slopes.iter().map(|of_b| of_b[h]).sum::<f64>() as f32;
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Appends keys and values to a cache that holds `held` of `capacity` tokens, then attends to all of it.
pub(super) fn cached(
    qkv: &Tensor,
    scale_mul: Option<&Tensor>,
    s: Sizes,
    (keys, values): (&mut [f32], &mut [f32]),
    (held, capacity): (usize, usize),
) -> Result<Tensor> {
    let scalings = scalings(scale_mul, s)?;
    let (l, c, dim, x) = (s.tokens, s.width(), s.dim, qkv.f32()?);
    let plan = TilePlan::all(l, held + l);
    let of_head = capacity * dim;
    let mut y = PoolVec::scratch(s.batch * l * c);
    y.par_chunks_mut(l * c)
        .zip(keys.par_chunks_mut(s.heads * of_head))
        .zip(values.par_chunks_mut(s.heads * of_head))
        .zip(x.par_chunks(l * 3 * c))
        .for_each(|(((y, keys), values), x)| {
            by_head(y, s)
                .par_iter_mut()
                .zip(keys.par_chunks_mut(of_head))
                .zip(values.par_chunks_mut(of_head))
                .zip(&scalings)
                .enumerate()
                .for_each(|(h, (((y, keys), values), scaling))| {
                    let from = |part: usize| &x[part * c + h * dim..];
                    let Scaling { unit, factor, .. } = *scaling;
                    let mut q = PoolVec::scratch(l * dim);
                    let mut stats = PoolVec::scratch(l * 2);
                    let new = held * dim..(held + l) * dim;
                    rows::gather(from(0), 3 * c, dim, unit, factor, &mut q);
                    rows::gather(from(1), 3 * c, dim, unit, 1.0, &mut keys[new.clone()]);
                    rows::gather(from(2), 3 * c, dim, false, 1.0, &mut values[new]);
                    let head = Head {
                        dim,
                        q: &q,
                        k: keys,
                        v: values,
                        v_stride: dim,
                    };
                    attend::forward(&head, &plan, y, &mut stats);
                });
        });
    Ok(Tensor::from_buf([s.batch, l, c], y))
}

fn scalings(scale_mul: Option<&Tensor>, s: Sizes) -> Result<Vec<Scaling>> {
    Ok(match scale_mul {
        Some(t) => t
            .f32()?
            .iter()
            .map(|x| Scaling::new(Some(*x), s.dim))
            .collect(),
        None => vec![Scaling::new(None, s.dim); s.heads],
    })
}

/// The rows of every block of `dim` columns of one batch element: disjoint, so tasks can write them side by side.
fn by_head(of_batch: &mut [f32], s: Sizes) -> Vec<Vec<&mut [f32]>> {
    let blocks = of_batch.len() / (s.tokens * s.dim);
    let mut out: Vec<Vec<&mut [f32]>> = (0..blocks).map(|_| Vec::with_capacity(s.tokens)).collect();
    for row in of_batch.chunks_exact_mut(blocks * s.dim) {
        let blocks = row.chunks_exact_mut(s.dim);
        out.iter_mut().zip(blocks).for_each(|(o, b)| o.push(b));
    }
    out
}

/// Queries and keys of head `h` as they enter the product; `x` is one batch element.
fn queries_and_keys(x: &[f32], s: Sizes, h: usize, scaling: Scaling) -> (PoolVec, PoolVec) {
    let (n, stride) = (s.tokens * s.dim, 3 * s.width());
    let (mut q, mut k) = (PoolVec::scratch(n), PoolVec::scratch(n));
    let Scaling { unit, factor, .. } = scaling;
    let at = h * s.dim;
    rows::gather(&x[at..], stride, s.dim, unit, factor, &mut q);
    rows::gather(&x[s.width() + at..], stride, s.dim, unit, 1.0, &mut k);
    (q, k)
}

/// The operands of head `h`; `x` is one batch element.
fn head<'a>(x: &'a [f32], s: Sizes, h: usize, q: &'a [f32], k: &'a [f32]) -> Head<'a> {
    Head {
        dim: s.dim,
        q,
        k,
        v: &x[2 * s.width() + h * s.dim..],
        v_stride: 3 * s.width(),
    }
}
