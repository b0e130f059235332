//! Matrix products for every operator that has one: linear layers, convolutions (their input patches are
//! gathered while packing, never stored as a whole), code search and attention.
//!
//! The structure is that of Goto and van de Geijn ("Anatomy of high-performance matrix multiplication", 2008):
//! operands are packed into panels as wide as the register tile, a block of the inner dimension at a time. Packing is a
//! trait, so one loop nest serves plain, transposed and gathered operands. Sums are taken in one fixed order: results do
//! not depend on the number of threads.

mod dot;
mod kernel;
pub mod pack;

pub use dot::{SMALL_ROWS, dot_rows};
pub use kernel::tile;
pub(crate) use kernel::write_tile;

use crate::cpu::pool::PoolVec;
use pack::{PackA, PackB};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Inner-dimension block: 9·32, so that 3×3 convolutions of any multiple of 32 channels divide evenly.
pub(crate) const KC: usize = 288;
/// Columns of B that are kept in the second-level cache while the rows of a task pass by.
const NC: usize = 512;
/// Most rows in one task.
const MC: usize = 96;

/// What happens to a finished row of C: bias, activation, residual.
pub trait Epilogue: Sync {
    /// `row` is the row's index, `c` its n columns.
    fn row(&self, row: usize, c: &mut [f32]);
}

/// Leaves the rows as they are.
pub struct Plain;

impl Epilogue for Plain {
    #[inline(always)]
    fn row(&self, _row: usize, _c: &mut [f32]) {}
}

impl<F: Fn(usize, &mut [f32]) + Sync> Epilogue for F {
    #[inline(always)]
    fn row(&self, row: usize, c: &mut [f32]) {
        self(row, c);
    }
}

/// A closure as an [`Epilogue`]. Mark it `#[inline(always)]`: only then is it compiled for the machine's widest vectors
/// together with the product.
#[inline(always)]
pub fn inline_epilogue<F: Fn(usize, &mut [f32]) + Sync>(f: F) -> F {
    f
}

/// C = A·B (or C += A·B with `accumulate`), then `epilogue` on every row. A is m×k and B is k×n, both behind packing
/// traits; C is row-major m×n without gaps.
///
/// # Panics
/// When `c` does not hold m·n floats (a programming error in an operator).
pub fn gemm<A: PackA, B: PackB, F: Epilogue>(
    (m, n, k): (usize, usize, usize),
    a: &A,
    b: &B,
    c: &mut [f32],
    accumulate: bool,
    epilogue: &F,
) {
    let packed = PackedB::new(b, n, k);
    gemm_packed((m, n, k), a, &packed, c, accumulate, epilogue);
}

/// C += A·B where the inner dimension is by far the longest (weight gradients of convolutions): it is split into a
/// fixed number of parts that run side by side and are added in order, and only one block of B is packed at a time.
///
/// # Panics
/// When `c` does not hold m·n floats.
pub fn gemm_long<A: PackA, B: PackB>(
    (m, n, k): (usize, usize, usize),
    a: &A,
    b: &B,
    c: &mut [f32],
) {
    const MOST_PARTS: usize = 8;
    assert_eq!(c.len(), m * n, "C holds m·n floats");
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    let (mr, nr) = tile();
    let blocks = k.div_ceil(KC);
    let per_part = blocks.div_ceil(MOST_PARTS);
    let panels = n.div_ceil(nr);
    let rows = MC.next_multiple_of(mr);
    let part = |p: usize| {
        let mut sum = PoolVec::scratch(m * n);
        let mut packed = PoolVec::scratch(panels * nr * KC);
        for block in p * per_part..((p + 1) * per_part).min(blocks) {
            let k0 = block * KC;
            let kc = KC.min(k - k0);
            for (q, out) in packed.chunks_exact_mut(nr * kc).take(panels).enumerate() {
                b.pack(k0, kc, q * nr, nr.min(n - q * nr), nr, out);
            }
            for (task, c) in sum.chunks_mut(rows * n).enumerate() {
                super::simd::arch().dispatch(Block {
                    a,
                    b: &packed,
                    row0: task * rows,
                    n,
                    first_k: k0,
                    k: kc,
                    c,
                    accumulate: block > p * per_part,
                    epilogue: &Plain,
                });
            }
        }
        sum
    };
    let parts: Vec<PoolVec> = (0..blocks.div_ceil(per_part))
        .into_par_iter()
        .map(part)
        .collect();
    for part in &parts {
        super::add_assign(c, part);
    }
}

/// B packed once, for several products with the same right operand.
pub struct PackedB {
    data: PoolVec,
}

impl PackedB {
    /// Packs the k×n operand.
    pub fn new<B: PackB>(b: &B, n: usize, k: usize) -> Self {
        let (_, nr) = tile();
        let panels = n.div_ceil(nr);
        let mut data = PoolVec::scratch(panels * nr * k);
        // Block kb holds its panels one after the other; every panel of a block has nr·kc floats.
        let fill = |kb: usize, block: &mut [f32]| {
            let k0 = kb * KC;
            let kc = KC.min(k - k0);
            block
                .par_chunks_mut(nr * kc)
                .with_min_len((1 << 14) / (nr * kc) + 1)
                .enumerate()
                .for_each(|(p, out)| {
                    b.pack(k0, kc, p * nr, nr.min(n - p * nr), nr, out);
                });
        };
        if k > 0 {
            data.par_chunks_mut(panels * nr * KC)
                .enumerate()
                .for_each(|(kb, block)| fill(kb, block));
        }
        Self { data }
    }
}

/// [`gemm`] with a packed right operand.
pub fn gemm_packed<A: PackA, F: Epilogue>(
    (m, n, k): (usize, usize, usize),
    a: &A,
    b: &PackedB,
    c: &mut [f32],
    accumulate: bool,
    epilogue: &F,
) {
    assert_eq!(c.len(), m * n, "C holds m·n floats");
    if m == 0 || n == 0 {
        return;
    }
    let (mr, _) = tile();
    // Enough tasks for an even split over the threads, none smaller than a few panels.
    let want = m.div_ceil(4 * rayon::current_num_threads());
    let rows = want.clamp(4 * mr, MC.max(mr)).next_multiple_of(mr);
    let work = |task: usize, c: &mut [f32]| {
        let job = Block {
            a,
            b: &b.data,
            row0: task * rows,
            n,
            first_k: 0,
            k,
            c,
            accumulate,
            epilogue,
        };
        super::simd::arch().dispatch(job);
    };
    if m <= rows || 2 * m * n * k < 1 << 18 {
        // Too little to share out.
        for (task, c) in c.chunks_mut(rows * n).enumerate() {
            work(task, c);
        }
    } else {
        c.par_chunks_mut(rows * n)
            .enumerate()
            .for_each(|(task, c)| work(task, c));
    }
}

/// The rows of one task.
struct Block<'a, A, F> {
    a: &'a A,
    b: &'a [f32],
    row0: usize,
    n: usize,
    first_k: usize,
    k: usize,
    c: &'a mut [f32],
    accumulate: bool,
    epilogue: &'a F,
}

impl<A: PackA, F: Epilogue> WithSimd for Block<'_, A, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // The register file decides the tile's height: 32 vectors with AVX-512, 16 with AVX2, as `tile` says.
        if S::F32_LANES == 16 {
            run_block::<S, A, F, 12>(simd, self);
        } else if S::F32_LANES == 8 {
            run_block::<S, A, F, 6>(simd, self);
        } else {
            run_block::<S, A, F, 4>(simd, self);
        }
    }
}

#[inline(always)]
fn run_block<S: Simd, A: PackA, F: Epilogue, const MR: usize>(simd: S, job: Block<'_, A, F>) {
    let Block {
        a,
        b,
        row0,
        n,
        first_k,
        k,
        c,
        accumulate,
        epilogue,
    } = job;
    let panels_b = n.div_ceil(2 * S::F32_LANES);
    let nr = 2 * S::F32_LANES;
    let rows = c.len() / n;
    let panels_a = rows.div_ceil(MR);
    if !accumulate && k == 0 {
        c.fill(0.0);
    }
    let mut packed_a = PoolVec::scratch(panels_a * MR * KC);
    for k0 in (0..k).step_by(KC) {
        let kc = KC.min(k - k0);
        for (p, panel) in packed_a.chunks_exact_mut(MR * KC).enumerate() {
            let valid = MR.min(rows - p * MR);
            a.pack(row0 + p * MR, valid, first_k + k0, kc, MR, panel);
        }
        let block_b = &b[k0 * panels_b * nr..][..panels_b * nr * kc];
        let store = k0 == 0 && !accumulate;
        for first in (0..panels_b).step_by(NC / nr) {
            let last = (first + NC / nr).min(panels_b);
            for (p, panel_a) in packed_a.chunks_exact(MR * KC).enumerate() {
                let valid = MR.min(rows - p * MR);
                for q in first..last {
                    let panel_b = &block_b[q * nr * kc..][..nr * kc];
                    let acc = if A::K_MAJOR {
                        kernel::k_major::<S, MR>(simd, panel_a, panel_b, kc)
                    } else {
                        kernel::row_major::<S, MR>(simd, panel_a, panel_b, kc)
                    };
                    let col = q * nr;
                    kernel::write_tile::<S, MR>(
                        simd,
                        &acc,
                        &mut c[p * MR * n..],
                        (n, col, valid, nr.min(n - col)),
                        store,
                    );
                }
            }
        }
    }
    for (i, row) in c.chunks_exact_mut(n).enumerate() {
        epilogue.row(row0 + i, row);
    }
}

#[cfg(test)]
mod tests;
