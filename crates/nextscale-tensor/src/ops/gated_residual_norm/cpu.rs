//! The gated residual with its norm on the CPU.

use super::{Gate, Modulation};
use crate::cpu::pool::PoolVec;
use crate::cpu::simd;
use crate::ops::adaptive_norm::Sizes;
use crate::ops::adaptive_norm::cpu::{
    BLOCK, add_to_table, by_blocks, norm_row, norm_row_backward, table_row,
};
use crate::{Grads, Result, Tensor};
use rayon::prelude::*;

/// What the gradient needs.
pub(super) struct Saved {
    pub(super) x: Tensor,
    pub(super) h: Tensor,
    pub(super) gate: (Tensor, usize),
    pub(super) next: (Tensor, usize, usize),
    pub(super) keep: Option<Tensor>,
    pub(super) sum: Tensor,
    pub(super) stats: Vec<[f32; 2]>,
}

pub(super) fn forward(
    s: Sizes,
    x: &Tensor,
    h: &Tensor,
    gate: &Gate<'_>,
    keep: Option<&Tensor>,
    next: &Modulation<'_>,
    eps: f32,
) -> Result<(Tensor, Tensor, Vec<[f32; 2]>)> {
    let (xs, hs) = (x.f32()?, h.f32()?);
    let (gates, table) = (gate.table.f32()?, next.table.f32()?);
    let keep = keep.map(Tensor::f32).transpose()?;
    let (c, ng, nt) = (s.c, gate.table.dims()[1], next.table.dims()[1]);
    let mut sum = PoolVec::scratch(xs.len());
    let mut y = PoolVec::scratch(xs.len());
    let mut stats = vec![[0.0; 2]; s.b * s.l];
    sum.par_chunks_mut(c)
        .zip(y.par_chunks_mut(c))
        .zip(stats.par_iter_mut())
        .with_min_len(BLOCK)
        .enumerate()
        .for_each(|(row, ((sum, y), stat))| {
            let b = row / s.l;
            let (x, h) = (&xs[row * c..][..c], &hs[row * c..][..c]);
            let gamma = table_row(gates, ng, c, b, gate.slot);
            let scale = table_row(table, nt, c, b, next.scale);
            let shift = table_row(table, nt, c, b, next.shift);
            let k = keep.map_or(1.0, |k| k[b]);
            simd::run(
                #[inline(always)]
                || {
                    for (((o, x), h), g) in sum.iter_mut().zip(x).zip(h).zip(gamma) {
                        *o = x + (h * g) * k;
                    }
                    *stat = norm_row(sum, scale, shift, eps, y);
                },
            );
        });
    Ok((
        Tensor::from_buf(x.shape(), sum),
        Tensor::from_buf(x.shape(), y),
        stats,
    ))
}

pub(super) fn backward(
    s: Sizes,
    saved: Saved,
    d_sum: Option<Tensor>,
    d_y: Option<Tensor>,
    grads: &mut Grads<'_>,
) -> Result<()> {
    let Saved {
        x,
        h,
        gate: (gates, slot),
        next: (table, scale, shift),
        keep,
        sum,
        stats,
    } = saved;
    let c = s.c;
    let mut d = match d_sum {
        Some(d) => d,
        None => Tensor::zeros(x.shape()),
    };
    let mut dh = PoolVec::scratch(x.numel());
    let (hs, sums_in, gy) = (
        h.f32()?,
        sum.f32()?,
        d_y.as_ref().map(Tensor::f32).transpose()?,
    );
    let (g, t) = (gates.f32()?, table.f32()?);
    let keep = keep.as_ref().map(Tensor::f32).transpose()?;
    let (ng, nt) = (gates.dims()[1], table.dims()[1]);
    let sums = by_blocks(
        s,
        3,
        &mut [d.make_mut()?, &mut dh],
        #[inline(always)]
        |b, row, out, sums| {
            let at = row * c;
            let (d_gamma, rest) = sums.split_at_mut(c);
            let (d_scale, d_shift) = rest.split_at_mut(c);
            let [d, dh] = out else { return };
            if let Some(gy) = gy {
                let scale = table_row(t, nt, c, b, scale);
                let x = &sums_in[at..][..c];
                norm_row_backward(x, stats[row], scale, &gy[at..][..c], d, (d_scale, d_shift));
            }
            let gamma = table_row(g, ng, c, b, slot);
            let k = keep.map_or(1.0, |k| k[b]);
            let h = &hs[at..][..c];
            let outputs = dh.iter_mut().zip(d_gamma);
            let inputs = d.iter().zip(gamma).zip(h);
            for (((d, gamma), h), (dh, dg)) in inputs.zip(outputs) {
                let dk = d * k;
                *dh = dk * gamma;
                *dg += dk * h;
            }
        },
    );
    let width = 3 * c;
    let pick = |from: usize, n: usize| -> Vec<f32> {
        sums.chunks_exact(width)
            .flat_map(|s| s[from * c..(from + n) * c].to_vec())
            .collect()
    };
    add_to_table(s, &gates, &[slot], &pick(0, 1), grads)?;
    add_to_table(s, &table, &[scale, shift], &pick(1, 2), grads)?;
    grads.add(&h, Tensor::from_buf(h.shape(), dh))?;
    grads.add(&x, d)
}
