//! One head of one batch element, forward.

use super::rows::{exp_and_sum, max, vector_pass};
use super::tiles::TilePlan;
use crate::cpu::gemm::pack::{Rows, Transposed};
use crate::cpu::gemm::{KC, PackedB, Plain, dot_rows, gemm_packed};
use crate::cpu::pool::PoolVec;

/// Up to this many queries, packing keys and values costs more than it saves.
const FEW: usize = 4;

/// The operands: queries and keys as they enter the product, gapless rows of `dim`; values in rows `stride` apart.
pub(super) struct Head<'a> {
    pub dim: usize,
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    pub v_stride: usize,
}

/// Scores are sums of this many products at a time: normalised queries are multiplied by up to 100, so that one chain of
/// additions over a whole head would leave more noise than everything before it.
pub(super) const SCORE_CHAIN: usize = 16;
/// The same for the gradients of probabilities, which lose digits in the difference that follows.
pub(super) const PROBABILITY_CHAIN: usize = 32;

/// Products with the first n rows of a matrix, transposed; packed once for every n, a part of the inner dimension at a
/// time.
pub(super) struct ByRows {
    parts: Vec<PackedB>,
    dim: usize,
    chain: usize,
}

impl ByRows {
    /// `data` has rows of `dim`, `stride` apart; at most the first `most` are asked for. Sums are taken over `chain`
    /// (at most [`KC`]) products at a time.
    pub fn new(data: &[f32], stride: usize, (dim, most): (usize, usize), chain: usize) -> Self {
        let chain = chain.min(KC);
        let parts = (0..dim)
            .step_by(chain)
            // A part is a single block, whose panels follow each other: the first panels serve any smaller n.
            .map(|k| {
                let part = Transposed::new(&data[k..], stride);
                PackedB::new(&part, most, chain.min(dim - k))
            })
            .collect();
        Self { parts, dim, chain }
    }

    /// C\[m×n\] = A·(the first n rows)ᵀ.
    pub fn product(&self, (m, n): (usize, usize), a: &Rows<'_>, c: &mut [f32]) {
        for (i, b) in self.parts.iter().enumerate() {
            let k = i * self.chain;
            let extents = (m, n, self.chain.min(self.dim - k));
            gemm_packed(extents, &a.from_column(k), b, c, i > 0, &Plain);
        }
    }
}

/// A row-major matrix whose first n rows are a right operand, packed anew only when n changes.
pub(super) struct Prefix<'a> {
    source: Rows<'a>,
    dim: usize,
    packed: Option<(usize, PackedB)>,
}

impl<'a> Prefix<'a> {
    /// `data` has rows of `dim`, `stride` apart.
    pub fn new(data: &'a [f32], stride: usize, dim: usize) -> Self {
        Self {
            source: Rows::new(data, stride),
            dim,
            packed: None,
        }
    }

    /// C\[m×dim\] = A\[m×n\]·(the first n rows).
    pub fn product(&mut self, (m, n): (usize, usize), a: &[f32], c: &mut [f32]) {
        if self.packed.as_ref().is_none_or(|(held, _)| *held != n) {
            // Gives the memory back before asking for more.
            self.packed = None;
        }
        let (source, dim) = (&self.source, self.dim);
        let (_, b) = self
            .packed
            .get_or_insert_with(|| (n, PackedB::new(source, dim, n)));
        gemm_packed((m, dim, n), &Rows::new(a, n), b, c, false, &Plain);
    }
}

/// Writes every query's result to its row of `out` and, to `stats`, its largest score and the reciprocal of its sum of
/// exponentials.
pub(super) fn forward(head: &Head<'_>, plan: &TilePlan, out: &mut [&mut [f32]], stats: &mut [f32]) {
    let mut scores = PoolVec::scratch(plan.most_scores());
    if plan.rows() <= FEW {
        return forward_few(head, plan, &mut scores, out, stats);
    }
    let dim = head.dim;
    let keys = ByRows::new(head.k, dim, (dim, plan.keys()), SCORE_CHAIN);
    let mut values = Prefix::new(head.v, head.v_stride, dim);
    let mut sums = PoolVec::scratch(plan.most_rows() * dim);
    for tile in &plan.tiles {
        let (m, n, rows) = (tile.rows.len(), tile.keys, tile.rows.clone());
        let (p, o) = (&mut scores[..m * n], &mut sums[..m * dim]);
        keys.product((m, n), &Rows::new(&head.q[rows.start * dim..], dim), p);
        let stats = &mut stats[2 * rows.start..2 * rows.end];
        exponentials(p, n, &plan.visible[rows.clone()], stats);
        values.product((m, n), p, o);
        write_out(o, dim, stats, &mut out[rows]);
    }
}

/// [`forward`] without packing.
fn forward_few(
    head: &Head<'_>,
    plan: &TilePlan,
    scores: &mut [f32],
    out: &mut [&mut [f32]],
    stats: &mut [f32],
) {
    let (m, n, dim) = (plan.rows(), plan.keys(), head.dim);
    dot_rows((m, n, dim), &head.q[..m * dim], &head.k[..n * dim], scores);
    exponentials(scores, n, &plan.visible, stats);
    weigh_few(scores, head.v, head.v_stride, plan, stats, out);
}

vector_pass! {
    /// Sums of value rows, weighed with the rows of `p`, without packing.
    fn weigh_few<'a, 'b>(
        p: &'a [f32],
        v: &'a [f32],
        v_stride: usize,
        plan: &'a TilePlan,
        stats: &'a [f32],
        out: &'a mut [&'b mut [f32]],
    ) -> () {
        let n = plan.keys();
        for (i, out) in out.iter_mut().enumerate() {
            out.fill(0.0);
            let p = &p[i * n..][..plan.visible[i]];
            for (p, v) in p.iter().zip(v.chunks(v_stride)) {
                out.iter_mut()
                    .zip(v)
                    .for_each(|(o, v)| *o = p.mul_add(*v, *o));
            }
            out.iter_mut().for_each(|o| *o *= stats[2 * i + 1]);
        }
    }
}

vector_pass! {
    /// Divides gapless rows of `dim` by their sums of exponentials and puts them where they belong.
    fn write_out<'a, 'b>(
        from: &'a [f32],
        dim: usize,
        stats: &'a [f32],
        out: &'a mut [&'b mut [f32]],
    ) -> () {
        let rows = out.iter_mut().zip(from.chunks_exact(dim));
        for ((out, o), s) in rows.zip(stats.chunks_exact(2)) {
            out.iter_mut().zip(o).for_each(|(out, o)| *out = o * s[1]);
        }
    }
}

vector_pass! {
    /// Scores become exponentials of their distance from the row's largest; what a query does not see becomes zero.
    fn exponentials<'a>(
        scores: &'a mut [f32],
        n: usize,
        visible: &'a [usize],
        stats: &'a mut [f32],
    ) -> () {
        let rows = scores.chunks_exact_mut(n).zip(visible);
        for ((row, visible), stats) in rows.zip(stats.chunks_exact_mut(2)) {
            let (seen, hidden) = row.split_at_mut(*visible);
            let most = max(seen);
            stats[0] = most;
            stats[1] = 1.0 / exp_and_sum(seen, most);
            hidden.fill(0.0);
        }
    }
}
