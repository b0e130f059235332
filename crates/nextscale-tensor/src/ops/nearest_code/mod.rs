//! The nearest code of every vector: argmin ‖x − e‖², or argmax of the cosine.
//!
//! Shapes: x \[M, C\], codebook \[V, C\], indices \[M\]. Distances are |x|² + |e|² − 2x·e in float32, block by block: M×V
//! numbers are never stored. The first code wins a tie. Not differentiable.

pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use crate::cpu::gemm::pack::{Rows, Transposed};
use crate::cpu::gemm::{PackedB, Plain, gemm_packed};
use crate::cpu::pool::PoolVec;
use crate::cpu::simd;
use crate::ops::NO_CODE;
use crate::{Device, Error, Result, Tensor};
use rayon::prelude::*;

/// Vectors of one block.
const BLOCK: usize = 96;

/// Indices \[M\] of the codes nearest to x \[M, C\]. With `by_angle` both are normalised first (`using_znorm`). A vector that holds
/// what is no number, or whose length is beyond float32, has none: [`NO_CODE`].
///
/// # Errors
/// When shapes do not fit.
pub fn nearest_code(x: &Tensor, codebook: &Tensor, by_angle: bool) -> Result<Tensor> {
    let (&[m, c], &[v, width]) = (x.dims(), codebook.dims()) else {
        let detail = format!("x is {}, codebook is {}", x.shape(), codebook.shape());
        return Err(Error::shape("nearest_code", detail));
    };
    if c != width || v == 0 || c == 0 {
        let detail = format!("x is {}, codebook is {}", x.shape(), codebook.shape());
        return Err(Error::shape("nearest_code", detail));
    }
    match x.device() {
        Device::Cuda(_) => cuda::search(x, codebook, by_angle),
        Device::Cpu => {
            let (mut xs, mut codes) = (x.f32()?.to_vec(), codebook.f32()?.to_vec());
            if by_angle {
                normalise(&mut xs, c);
                normalise(&mut codes, c);
            }
            let square = |rows: &[f32]| -> Vec<f32> {
                rows.chunks_exact(c)
                    .map(|r| {
                        simd::sum_of(
                            r,
                            #[inline(always)]
                            |r| r * r,
                        )
                    })
                    .collect()
            };
            let code_squares = square(&codes);
            let packed = PackedB::new(&Transposed::new(&codes, c), v, c);
            let mut out = vec![0i32; m];
            out.par_chunks_mut(BLOCK)
                .zip(xs.par_chunks(BLOCK * c))
                .for_each(|(out, x)| {
                    let rows = out.len();
                    let mut dots = PoolVec::scratch(rows * v);
                    let a = Rows::new(x, c);
                    gemm_packed((rows, v, c), &a, &packed, &mut dots, false, &Plain);
                    let squares = square(x);
                    for ((out, dots), sq) in
                        out.iter_mut().zip(dots.chunks_exact_mut(v)).zip(&squares)
                    {
                        simd::run(
                            #[inline(always)]
                            || {
                                // One rule for both: the smallest of what follows.
                                for (d, e) in dots.iter_mut().zip(&code_squares) {
                                    *d = if by_angle { -*d } else { (sq + e) - 2.0 * *d };
                                }
                            },
                        );
                        *out = first_minimum(dots);
                    }
                });
            Ok(Tensor::from_i32([m], out))
        }
    }
}

/// Index of the first smallest element; [`NO_CODE`] where none is a finite number.
fn first_minimum(x: &[f32]) -> i32 {
    let mut low = [f32::INFINITY; 16];
    let (full, rest) = x.as_chunks::<16>();
    simd::run(
        #[inline(always)]
        || {
            for x in full {
                for (l, x) in low.iter_mut().zip(x) {
                    *l = if *x < *l { *x } else { *l };
                }
            }
        },
    );
    let least = low
        .iter()
        .chain(rest)
        .copied()
        .fold(f32::INFINITY, f32::min);
    if !least.is_finite() {
        return NO_CODE;
    }
    x.iter()
        .position(|&x| x == least)
        .map_or(NO_CODE, |at| at as i32)
}

/// Divides every row of `c` numbers by its length, at least 1e-12; by what is no number where the length is infinite.
fn normalise(rows: &mut [f32], c: usize) {
    for r in rows.chunks_exact_mut(c) {
        let norm = simd::sum_of(
            r,
            #[inline(always)]
            |r| r * r,
        )
        .sqrt()
        .max(1e-12);
        let norm = norm + 0.0 * norm;
        r.iter_mut().for_each(|x| *x /= norm);
    }
}
