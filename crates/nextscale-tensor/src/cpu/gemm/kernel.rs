//! The register tile: MR rows times two vectors of columns, summed over one block of the inner dimension.

use super::KC;
use pulp::{Simd, WithSimd};

/// Rows and columns of the register tile on this machine.
pub fn tile() -> (usize, usize) {
    struct Lanes;
    impl WithSimd for Lanes {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _simd: S) -> usize {
            S::F32_LANES
        }
    }
    match crate::cpu::simd::arch().dispatch(Lanes) {
        16 => (12, 32),
        8 => (6, 16),
        lanes => (4, 2 * lanes),
    }
}

/// The tile with A's panel stored by rows, [`KC`] floats apart.
#[inline(always)]
pub(super) fn row_major<S: Simd, const MR: usize>(
    simd: S,
    a: &[f32],
    b: &[f32],
    kc: usize,
) -> [[S::f32s; 2]; MR] {
    // One base address with constant distances: separate slices would cost a pointer register a row.
    let (rows, _) = a.as_chunks::<KC>();
    let rows = rows.first_chunk::<MR>().expect("a panel has MR rows");
    let zero = simd.splat_f32s(0.0);
    let mut acc = [[zero; 2]; MR];
    let (b, _) = S::as_simd_f32s(b);
    let (b, _) = b.as_chunks::<2>();
    // Bounds the compiler can see: a check inside the loop would force the sums through memory.
    let kc = kc.min(KC).min(b.len());
    let b = &b[..kc];
    for k in 0..kc {
        let [b0, b1] = b[k];
        let xs: [f32; MR] = std::array::from_fn(|i| rows[i][k]);
        for i in 0..MR {
            let x = simd.splat_f32s(xs[i]);
            acc[i][0] = simd.mul_add_f32s(x, b0, acc[i][0]);
            acc[i][1] = simd.mul_add_f32s(x, b1, acc[i][1]);
        }
    }
    acc
}

/// The tile with A's panel stored k-major: MR floats for every k.
#[inline(always)]
pub(super) fn k_major<S: Simd, const MR: usize>(
    simd: S,
    a: &[f32],
    b: &[f32],
    kc: usize,
) -> [[S::f32s; 2]; MR] {
    let zero = simd.splat_f32s(0.0);
    let mut acc = [[zero; 2]; MR];
    let (b, _) = S::as_simd_f32s(b);
    for (a, b) in a[..kc * MR].chunks_exact(MR).zip(b.chunks_exact(2)) {
        let (b0, b1) = (b[0], b[1]);
        for i in 0..MR {
            let x = simd.splat_f32s(a[i]);
            acc[i][0] = simd.mul_add_f32s(x, b0, acc[i][0]);
            acc[i][1] = simd.mul_add_f32s(x, b1, acc[i][1]);
        }
    }
    acc
}

/// Writes (or adds) the valid part of a tile into C, whose rows are `n` apart.
#[inline(always)]
pub(crate) fn write_tile<S: Simd, const MR: usize>(
    simd: S,
    acc: &[[S::f32s; 2]; MR],
    c: &mut [f32],
    (n, col, rows, cols): (usize, usize, usize, usize),
    store: bool,
) {
    let lanes = S::F32_LANES;
    for (i, acc) in acc.iter().enumerate() {
        if i >= rows {
            break;
        }
        let out = &mut c[i * n + col..i * n + col + cols];
        if cols == 2 * lanes {
            let (out, _) = S::as_mut_simd_f32s(out);
            if store {
                out[0] = acc[0];
                out[1] = acc[1];
            } else {
                out[0] = simd.add_f32s(out[0], acc[0]);
                out[1] = simd.add_f32s(out[1], acc[1]);
            }
        } else {
            let mut full = [0.0f32; 64];
            let (head, _) = S::as_mut_simd_f32s(&mut full[..2 * lanes]);
            head[0] = acc[0];
            head[1] = acc[1];
            for (o, v) in out.iter_mut().zip(&full) {
                *o = if store { *v } else { *o + *v };
            }
        }
    }
}
