//! Products with few rows: there packing the right operand would cost as much as the product itself.

use crate::cpu::simd;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Up to this many rows [`dot_rows`] is the faster way.
pub const SMALL_ROWS: usize = 16;

/// C\[m×n\] = X\[m×k\]·W\[n×k\]ᵀ for few rows m, both operands row-major without gaps. Every element is one dot
/// product in a fixed order.
///
/// # Panics
/// When a slice does not hold its matrix.
pub fn dot_rows((m, n, k): (usize, usize, usize), x: &[f32], w: &[f32], c: &mut [f32]) {
    assert!(x.len() == m * k && w.len() == n * k && c.len() == m * n);
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        c.fill(0.0);
        return;
    }
    // Columns are shared out; a task's results are gathered column by column and then laid out.
    let cols = (1 << 16).max(k) / k;
    let cols = cols.next_multiple_of(4);
    let parts: Vec<Vec<f32>> = w
        .par_chunks(cols * k)
        .map(|w| {
            let mut out = vec![0.0; w.len() / k * m];
            simd::arch().dispatch(Dots {
                m,
                k,
                x,
                w,
                out: &mut out,
            });
            out
        })
        .collect();
    for (p, part) in parts.iter().enumerate() {
        let width = part.len() / m;
        for (i, row) in part.chunks_exact(width).enumerate() {
            c[i * n + p * cols..][..width].copy_from_slice(row);
        }
    }
}

struct Dots<'a> {
    m: usize,
    k: usize,
    x: &'a [f32],
    w: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Sixteen partial sums whatever the vectors' width: the same bits on every machine.
        match S::F32_LANES {
            16 => self.tiles::<S, 1>(simd),
            8 => self.tiles::<S, 2>(simd),
            4 => self.tiles::<S, 4>(simd),
            _ => self.tiles::<S, 16>(simd),
        }
    }
}

impl Dots<'_> {
    /// With `P` vectors of partial sums for every result.
    #[inline(always)]
    fn tiles<S: Simd, const P: usize>(self, simd: S) {
        let Self { m, k, x, w, out } = self;
        let width = w.len() / k;
        let mut j = 0;
        while j < width {
            let nj = (width - j).min(4);
            let mut i = 0;
            while i < m {
                let mi = (m - i).min(4);
                let (xs, ws) = (&x[i * k..], &w[j * k..]);
                if nj == 4 && mi == 4 && P == 1 {
                    let t = tile::<S, 4, 4, P>(simd, xs, ws, k);
                    put(&t, out, (i, j, width));
                } else if nj == 4 && mi == 1 {
                    let t = tile::<S, 1, 4, P>(simd, xs, ws, k);
                    put(&t, out, (i, j, width));
                } else if nj == 4 && mi % 2 == 0 {
                    // Half as many results at once, so that narrower vectors' sums stay in registers.
                    for a in (0..mi).step_by(2) {
                        for b in [0, 2] {
                            let t = tile::<S, 2, 2, P>(simd, &xs[a * k..], &ws[b * k..], k);
                            put(&t, out, (i + a, j + b, width));
                        }
                    }
                } else {
                    for a in 0..mi {
                        for b in 0..nj {
                            let t = tile::<S, 1, 1, P>(simd, &xs[a * k..], &ws[b * k..], k);
                            put(&t, out, (i + a, j + b, width));
                        }
                    }
                }
                i += mi;
            }
            j += nj;
        }
    }
}

#[inline(always)]
fn put<const I: usize, const J: usize>(
    t: &[[f32; J]; I],
    out: &mut [f32],
    (i, j, width): (usize, usize, usize),
) {
    for (a, t) in t.iter().enumerate() {
        out[(i + a) * width + j..][..J].copy_from_slice(t);
    }
}

/// I×J dot products of length k, each in P vectors of partial sums, sixteen in all.
#[inline(always)]
#[allow(
    clippy::needless_range_loop,
    reason = "indices keep the sums in registers"
)]
fn tile<S: Simd, const I: usize, const J: usize, const P: usize>(
    simd: S,
    x: &[f32],
    w: &[f32],
    k: usize,
) -> [[f32; J]; I] {
    let zero = simd.splat_f32s(0.0);
    let mut acc = [[[zero; P]; J]; I];
    let steps = k / 16;
    let xs: [&[f32]; I] = std::array::from_fn(|i| &x[i * k..(i + 1) * k]);
    let ws: [&[f32]; J] = std::array::from_fn(|j| &w[j * k..(j + 1) * k]);
    let full = 16 * steps;
    let xv: [&[S::f32s]; I] =
        std::array::from_fn(|i| &S::as_simd_f32s(&xs[i][..full]).0[..P * steps]);
    let wv: [&[S::f32s]; J] =
        std::array::from_fn(|j| &S::as_simd_f32s(&ws[j][..full]).0[..P * steps]);
    for v in 0..steps {
        for p in 0..P {
            for i in 0..I {
                for j in 0..J {
                    let at = P * v + p;
                    acc[i][j][p] = simd.mul_add_f32s(xv[i][at], wv[j][at], acc[i][j][p]);
                }
            }
        }
    }
    std::array::from_fn(|i| {
        std::array::from_fn(|j| {
            let mut sums = [0.0f32; 16];
            let (parts, _) = S::as_mut_simd_f32s(&mut sums);
            parts.copy_from_slice(&acc[i][j]);
            let pairs = xs[i][full..].iter().zip(&ws[j][full..]);
            let tail: f32 = pairs.map(|(a, b)| a * b).sum();
            simd::fold(sums) + tail
        })
    })
}
