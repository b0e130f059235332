//! What the CPU versions of the operators share: buffers, threads, vector arithmetic, matrix products.

pub mod gemm;
pub mod pool;
pub mod simd;

use rayon::prelude::*;

/// Elements per task of a pass over memory: large enough to hide rayon's cost, a fixed number so that results
/// never depend on how many threads there are.
pub const CHUNK: usize = 1 << 15;

/// `a += b`, element by element.
pub fn add_assign(a: &mut [f32], b: &[f32]) {
    a.par_chunks_mut(CHUNK)
        .zip(b.par_chunks(CHUNK))
        .for_each(|(a, b)| {
            simd::run(
                #[inline(always)]
                || a.iter_mut().zip(b).for_each(|(a, b)| *a += b),
            )
        });
}

/// Sets everything to zero.
pub fn fill_zero(a: &mut [f32]) {
    a.par_chunks_mut(CHUNK).for_each(|c| c.fill(0.0));
}
