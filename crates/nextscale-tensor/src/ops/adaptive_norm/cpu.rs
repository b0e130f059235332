//! Adaptive layer norm on the CPU; its row functions also serve the gated residual.

use super::{Modulation, Sizes};
use crate::cpu::pool::PoolVec;
use crate::cpu::simd;
use crate::{Grads, Result, Tensor};
use rayon::prelude::*;

/// Rows of one task in the backward pass; sums over a sample's tokens are taken block by block, then in order.
pub(crate) const BLOCK: usize = 32;

/// Normalises and modulates one row; returns its mean and 1/σ.
#[inline(always)]
pub(crate) fn norm_row(
    x: &[f32],
    scale: &[f32],
    shift: &[f32],
    eps: f32,
    y: &mut [f32],
) -> [f32; 2] {
    let c = x.len();
    let mean = simd::sum_of(
        x,
        #[inline(always)]
        |x| x,
    ) / c as f32;
    let var = simd::sum_of(
        x,
        #[inline(always)]
        |x| (x - mean) * (x - mean),
    ) / c as f32;
    // Not a number where the variance is none or infinite, or everything would become zero.
    let rstd = 1.0 / (var + eps).sqrt() + 0.0 * var;
    for (((y, x), s), t) in y.iter_mut().zip(x).zip(scale).zip(shift) {
        *y = ((x - mean) * rstd) * (s + 1.0) + t;
    }
    [mean, rstd]
}

/// Adds one row's gradient to dx, and its share to the sums for scale and shift.
#[inline(always)]
pub(crate) fn norm_row_backward(
    x: &[f32],
    [mean, rstd]: [f32; 2],
    scale: &[f32],
    g: &[f32],
    dx: &mut [f32],
    (dscale, dshift): (&mut [f32], &mut [f32]),
) {
    let c = x.len();
    let mean_u = simd::sum_of2(
        g,
        scale,
        #[inline(always)]
        |g, s| g * (s + 1.0),
    ) / c as f32;
    let mean_ux = simd::sum_of3(
        g,
        scale,
        x,
        #[inline(always)]
        |g, s, x| (g * (s + 1.0)) * ((x - mean) * rstd),
    ) / c as f32;
    let inputs = x.iter().zip(scale).zip(g);
    let outputs = dx.iter_mut().zip(dscale).zip(dshift);
    for (((x, s), g), ((dx, ds), dt)) in inputs.zip(outputs) {
        let hat = (x - mean) * rstd;
        *dx += rstd * (g * (s + 1.0) - mean_u - hat * mean_ux);
        *ds += g * hat;
        *dt += g;
    }
}

/// Row `slot` of sample `b` in a table \[B, n, C\].
#[inline(always)]
pub(crate) fn table_row(table: &[f32], n: usize, c: usize, b: usize, slot: usize) -> &[f32] {
    &table[(b * n + slot) * c..][..c]
}

/// y and the rows' statistics.
pub(super) fn forward(
    s: Sizes,
    x: &Tensor,
    m: &Modulation<'_>,
    eps: f32,
) -> Result<(Tensor, Vec<[f32; 2]>)> {
    let (xs, table) = (x.f32()?, m.table.f32()?);
    let (c, n) = (s.c, m.table.dims()[1]);
    let mut y = PoolVec::scratch(xs.len());
    let mut stats = vec![[0.0; 2]; s.b * s.l];
    y.par_chunks_mut(c)
        .zip(xs.par_chunks(c).zip(stats.par_iter_mut()))
        .with_min_len(BLOCK)
        .enumerate()
        .for_each(|(row, (y, (x, stat)))| {
            let b = row / s.l;
            let scale = table_row(table, n, c, b, m.scale);
            let shift = table_row(table, n, c, b, m.shift);
            simd::run(
                #[inline(always)]
                || *stat = norm_row(x, scale, shift, eps, y),
            );
        });
    Ok((Tensor::from_buf(x.shape(), y), stats))
}

/// Adds to the gradients of x and of the table's rows.
pub(super) fn backward(
    s: Sizes,
    x: &Tensor,
    table: &Tensor,
    (scale, shift): (usize, usize),
    stats: &[[f32; 2]],
    g: &Tensor,
    grads: &mut Grads<'_>,
) -> Result<()> {
    let (xs, gs, t) = (x.f32()?, g.f32()?, table.f32()?);
    let (c, n) = (s.c, table.dims()[1]);
    let mut dx = PoolVec::zeros(xs.len());
    let sums = by_blocks(
        s,
        2,
        &mut [&mut dx],
        #[inline(always)]
        |b, row, out, sums| {
            let at = row * c;
            let (ds, dt) = sums.split_at_mut(c);
            let scale = table_row(t, n, c, b, scale);
            norm_row_backward(
                &xs[at..][..c],
                stats[row],
                scale,
                &gs[at..][..c],
                out[0],
                (ds, dt),
            );
        },
    );
    add_to_table(s, table, &[scale, shift], &sums, grads)?;
    grads.add(x, Tensor::from_buf(x.shape(), dx))
}

/// Runs `row` over all rows in blocks of one sample's tokens. It gets the sample, the row, the row of each output and
/// `width`·C sums that belong to its block; the sums come back added up by sample, \[B, width, C\].
pub(crate) fn by_blocks(
    s: Sizes,
    width: usize,
    outputs: &mut [&mut [f32]],
    row: impl Fn(usize, usize, &mut [&mut [f32]], &mut [f32]) + Sync,
) -> Vec<f32> {
    let c = s.c;
    // The blocks' tasks: their first row, and their part of every output.
    let blocks = s.l.div_ceil(BLOCK);
    let mut tasks: Vec<(usize, Vec<&mut [f32]>)> = (0..s.b * blocks)
        .map(|i| ((i / blocks) * s.l + (i % blocks) * BLOCK, Vec::new()))
        .collect();
    for out in outputs.iter_mut() {
        let mut rest: &mut [f32] = out;
        for (i, (_, parts)) in tasks.iter_mut().enumerate() {
            let rows = BLOCK.min(s.l - (i % blocks) * BLOCK);
            let (head, tail) = rest.split_at_mut(rows * c);
            parts.push(head);
            rest = tail;
        }
    }
    let partial: Vec<PoolVec> = tasks
        .into_par_iter()
        .map(|(first, mut parts)| {
            let mut sums = PoolVec::zeros(width * c);
            let rows = parts.first().map_or(0, |p| p.len() / c);
            simd::run(
                #[inline(always)]
                || {
                    for i in 0..rows {
                        let mut one: [&mut [f32]; 2] = [&mut [], &mut []];
                        for (o, p) in one.iter_mut().zip(parts.iter_mut()) {
                            *o = &mut p[i * c..(i + 1) * c];
                        }
                        row(first / s.l, first + i, &mut one, &mut sums);
                    }
                },
            );
            sums
        })
        .collect();
    let mut total = vec![0.0f32; s.b * width * c];
    for (i, sums) in partial.iter().enumerate() {
        let target = &mut total[i / blocks * width * c..][..width * c];
        target.iter_mut().zip(&sums[..]).for_each(|(t, s)| *t += s);
    }
    total
}

/// Adds sums \[B, slots, C\] to the rows `slots` of the table's gradient.
pub(crate) fn add_to_table(
    s: Sizes,
    table: &Tensor,
    slots: &[usize],
    sums: &[f32],
    grads: &mut Grads<'_>,
) -> Result<()> {
    let (c, n, w) = (s.c, table.dims()[1], slots.len());
    grads.accumulate(table, |slot| {
        for b in 0..s.b {
            for (i, at) in slots.iter().enumerate() {
                let from = &sums[(b * w + i) * c..][..c];
                let to = &mut slot[(b * n + at) * c..][..c];
                to.iter_mut().zip(from).for_each(|(t, f)| *t += f);
            }
        }
        Ok(())
    })
}
