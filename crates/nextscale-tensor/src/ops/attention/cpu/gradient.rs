//! One head of one batch element, backward.

use super::attend::{ByRows, Head, PROBABILITY_CHAIN, Prefix, SCORE_CHAIN};
use super::rows::{dot, vector_pass};
use super::tiles::{Tile, TilePlan};
use crate::cpu::gemm::pack::{Rows, Transposed};
use crate::cpu::gemm::{Plain, gemm};
use crate::cpu::pool::PoolVec;
use crate::cpu::simd;

/// What came out and its gradient, both in rows `stride` apart, and what [`forward`](super::attend::forward) left in
/// `stats`.
pub(super) struct Upstream<'a> {
    pub y: &'a [f32],
    pub g: &'a [f32],
    pub stride: usize,
    pub stats: &'a [f32],
}

/// Gradients of the head's queries, keys and values: gapless rows of its width.
pub(super) struct HeadGradient {
    pub q: PoolVec,
    pub k: PoolVec,
    pub v: PoolVec,
}

/// The gradients of a head's operands.
pub(super) fn backward(head: &Head<'_>, plan: &TilePlan, up: &Upstream<'_>) -> HeadGradient {
    let dim = head.dim;
    let mut grad = HeadGradient {
        q: PoolVec::scratch(plan.rows() * dim),
        k: PoolVec::zeros(plan.keys() * dim),
        v: PoolVec::zeros(plan.keys() * dim),
    };
    let keys = ByRows::new(head.k, dim, (dim, plan.keys()), SCORE_CHAIN);
    let values = ByRows::new(head.v, head.v_stride, (dim, plan.keys()), PROBABILITY_CHAIN);
    let mut key_rows = Prefix::new(head.k, dim, dim);
    let mut p = PoolVec::scratch(plan.most_scores());
    let mut ds = PoolVec::scratch(plan.most_scores());
    for tile in &plan.tiles {
        let (m, n, rows) = (tile.rows.len(), tile.keys, tile.rows.clone());
        let (p, ds) = (&mut p[..m * n], &mut ds[..m * n]);
        let q = Rows::new(&head.q[rows.start * dim..], dim);
        let g = Rows::new(&up.g[rows.start * up.stride..], up.stride);
        keys.product((m, n), &q, p);
        values.product((m, n), &g, ds);
        through_softmax(p, ds, tile, plan, up, dim);
        key_rows.product((m, n), ds, &mut grad.q[rows.start * dim..rows.end * dim]);
        let (pt, dst) = (Transposed::new(p, n), Transposed::new(ds, n));
        gemm((n, dim, m), &pt, &g, &mut grad.v[..n * dim], true, &Plain);
        gemm((n, dim, m), &dst, &q, &mut grad.k[..n * dim], true, &Plain);
    }
    grad
}

vector_pass! {
    /// In a tile, turns scores `p` into probabilities and their gradient `ds` into that of the scores.
    fn through_softmax<'a, 'b>(
        p: &'a mut [f32],
        ds: &'a mut [f32],
        tile: &'a Tile,
        plan: &'a TilePlan,
        up: &'a Upstream<'b>,
        dim: usize,
    ) -> () {
        let n = tile.keys;
        let lines = p.chunks_exact_mut(n).zip(ds.chunks_exact_mut(n));
        for (row, (p, ds)) in tile.rows.clone().zip(lines) {
            let at = row * up.stride;
            let along = dot(&up.y[at..at + dim], &up.g[at..at + dim]);
            let (most, inverse) = (up.stats[2 * row], up.stats[2 * row + 1]);
            let (p, hidden) = p.split_at_mut(plan.visible[row]);
            let (ds, hidden_ds) = ds.split_at_mut(plan.visible[row]);
            for (p, ds) in p.iter_mut().zip(ds) {
                *p = simd::exp(*p - most) * inverse;
                *ds = *p * (*ds - along);
            }
            hidden.fill(0.0);
            hidden_ds.fill(0.0);
        }
    }
}
