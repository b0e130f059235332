//! Attention over positions on the CPU: samples side by side, tiles of queries one after the other.

use super::Sizes;
use crate::cpu::gemm::pack::{Rows, Transposed};
use crate::cpu::gemm::{PackedB, Plain, gemm, gemm_packed, inline_epilogue};
use crate::cpu::pool::PoolVec;
use crate::cpu::simd;
use crate::{Result, Tensor};
use rayon::prelude::*;

/// Queries of one tile.
const TILE: usize = 256;

/// The tile's probabilities \[queries, positions\].
fn probabilities(s: Sizes, q: &[f32], keys: &PackedB, queries: usize) -> PoolVec {
    let (n, c) = (s.positions, s.c);
    let scale = 1.0 / (c as f32).sqrt();
    let mut p = PoolVec::scratch(queries * n);
    let soften = inline_epilogue(
        #[inline(always)]
        |_row: usize, x: &mut [f32]| {
            let max = simd::max(x);
            for x in x.iter_mut() {
                *x = simd::exp((*x - max) * scale);
            }
            let sum = simd::sum_of(
                x,
                #[inline(always)]
                |x| x,
            );
            for x in x.iter_mut() {
                *x /= sum;
            }
        },
    );
    let q = Rows::new(q, 3 * c);
    gemm_packed((queries, n, c), &q, keys, &mut p, false, &soften);
    p
}

pub(super) fn forward(s: Sizes, qkv: &Tensor) -> Result<Tensor> {
    let (n, c) = (s.positions, s.c);
    let all = qkv.f32()?;
    let mut y = PoolVec::scratch(s.batch * n * c);
    y.par_chunks_mut(n * c)
        .zip(all.par_chunks(n * 3 * c))
        .for_each(|(y, qkv)| {
            let keys = PackedB::new(&Transposed::new(&qkv[c..], 3 * c), n, c);
            let values = PackedB::new(&Rows::new(&qkv[2 * c..], 3 * c), c, n);
            for (tile, y) in y.chunks_mut(TILE * c).enumerate() {
                let queries = y.len() / c;
                let p = probabilities(s, &qkv[tile * TILE * 3 * c..], &keys, queries);
                let p = Rows::new(&p, n);
                gemm_packed((queries, c, n), &p, &values, y, false, &Plain);
            }
        });
    let d = qkv.dims();
    Ok(Tensor::from_buf([d[0], d[1], d[2], c], y))
}

/// The gradient of qkv.
pub(super) fn backward(s: Sizes, qkv: &Tensor, g: &Tensor) -> Result<Tensor> {
    let (n, c) = (s.positions, s.c);
    let scale = 1.0 / (c as f32).sqrt();
    let mut out = PoolVec::scratch(qkv.numel());
    out.par_chunks_mut(n * 3 * c)
        .zip(qkv.f32()?.par_chunks(n * 3 * c))
        .zip(g.f32()?.par_chunks(n * c))
        .for_each(|((out, qkv), g)| {
            let keys = PackedB::new(&Transposed::new(&qkv[c..], 3 * c), n, c);
            let values_t = PackedB::new(&Transposed::new(&qkv[2 * c..], 3 * c), n, c);
            let key_rows = PackedB::new(&Rows::new(&qkv[c..], 3 * c), c, n);
            let mut dk = PoolVec::zeros(n * c);
            let mut dv = PoolVec::zeros(n * c);
            for (tile, g) in g.chunks(TILE * c).enumerate() {
                let queries = g.len() / c;
                let q = &qkv[tile * TILE * 3 * c..];
                let p = probabilities(s, q, &keys, queries);
                let rows = Rows::new(g, c);
                gemm(
                    (n, c, queries),
                    &Transposed::new(&p, n),
                    &rows,
                    &mut dv,
                    true,
                    &Plain,
                );
                // Rows' sums of p∘(g·vᵀ) are those of g∘y.
                let mut ds = PoolVec::scratch(queries * n);
                let epilogue = inline_epilogue(
                    #[inline(always)]
                    |row: usize, x: &mut [f32]| {
                        let p = &p[row * n..][..n];
                        let d = simd::sum_of2(
                            p,
                            x,
                            #[inline(always)]
                            |p, x| p * x,
                        );
                        for (x, p) in x.iter_mut().zip(p) {
                            *x = p * (*x - d) * scale;
                        }
                    },
                );
                gemm_packed((queries, n, c), &rows, &values_t, &mut ds, false, &epilogue);
                let mut dq = PoolVec::scratch(queries * c);
                let ds_rows = Rows::new(&ds, n);
                gemm_packed((queries, c, n), &ds_rows, &key_rows, &mut dq, false, &Plain);
                let ds_t = Transposed::new(&ds, n);
                gemm(
                    (n, c, queries),
                    &ds_t,
                    &Rows::new(q, 3 * c),
                    &mut dk,
                    true,
                    &Plain,
                );
                for (out, dq) in out[tile * TILE * 3 * c..]
                    .chunks_exact_mut(3 * c)
                    .zip(dq.chunks_exact(c))
                {
                    out[..c].copy_from_slice(dq);
                }
            }
            for ((out, dk), dv) in out
                .chunks_exact_mut(3 * c)
                .zip(dk.chunks_exact(c))
                .zip(dv.chunks_exact(c))
            {
                out[c..2 * c].copy_from_slice(dk);
                out[2 * c..].copy_from_slice(dv);
            }
        });
    Ok(Tensor::from_buf(qkv.shape(), out))
}
