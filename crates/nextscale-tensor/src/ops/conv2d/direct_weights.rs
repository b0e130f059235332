//! The weight gradient of a 3×3 convolution without gathering patches: both operands are read where they lie, channels
//! of a pixel being neighbours in x and in dy. Strips of rows are summed side by side and added in a fixed order.

use super::Sizes;
use super::direct::{frame, strip_rows};
use crate::cpu::gemm::tile;
use crate::cpu::pool::PoolVec;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Sums that are taken side by side.
const MOST_PARTS: usize = 8;

/// Whether [`add`] serves these channels.
pub(super) fn serves(s: Sizes) -> bool {
    let (_, nr) = tile();
    s.inputs.is_multiple_of(nr) && s.outputs.is_multiple_of(8)
}

/// Adds the gradient of the weight \[O, 3, 3, I\] to `slot`.
pub(super) fn add(s: Sizes, x: &[f32], dy: &[f32], slot: &mut [f32]) {
    let (h, w, c, n) = (s.h, s.w, s.inputs, s.outputs);
    let rows = strip_rows(h, (128 / w.max(1)).max(1));
    let strips = h / rows;
    let units = s.batch * strips;
    let per_part = units.div_ceil(MOST_PARTS).max(1);
    let part = |p: usize| {
        let mut sum = PoolVec::zeros(slot.len());
        let mut strip = PoolVec::scratch((rows + 2) * (w + 2) * c);
        for unit in p * per_part..((p + 1) * per_part).min(units) {
            let image = &x[unit / strips * h * w * c..][..h * w * c];
            frame(image, (h, w, c), unit % strips * rows, rows, &mut strip);
            crate::cpu::simd::arch().dispatch(Unit {
                strip: &strip,
                dy: &dy[unit * rows * w * n..][..rows * w * n],
                extents: (rows, w, c, n),
                sum: &mut sum,
            });
        }
        sum
    };
    let parts: Vec<PoolVec> = (0..units.div_ceil(per_part))
        .into_par_iter()
        .map(part)
        .collect();
    for part in &parts {
        crate::cpu::add_assign(slot, part);
    }
}

/// One strip's work.
struct Unit<'a> {
    strip: &'a [f32],
    dy: &'a [f32],
    /// Rows, width, input and output channels.
    extents: (usize, usize, usize, usize),
    sum: &'a mut [f32],
}

impl WithSimd for Unit<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::F32_LANES == 16 {
            run::<S, 8>(simd, self);
        } else {
            run::<S, 4>(simd, self);
        }
    }
}

#[inline(always)]
fn run<S: Simd, const MR: usize>(simd: S, job: Unit<'_>) {
    let (_, w, c, n) = job.extents;
    let nr = 2 * S::F32_LANES;
    for channel in (0..c).step_by(nr) {
        for tap in 0..9 {
            let start = (tap / 3 * (w + 2) + tap % 3) * c + channel;
            for o in (0..n).step_by(MR) {
                let acc = sums::<S, MR>(simd, &job.strip[start..], &job.dy[o..], job.extents);
                for (i, acc) in acc.iter().enumerate() {
                    let out = &mut job.sum[((o + i) * 9 + tap) * c + channel..][..nr];
                    let (out, _) = S::as_mut_simd_f32s(out);
                    out[0] = simd.add_f32s(out[0], acc[0]);
                    out[1] = simd.add_f32s(out[1], acc[1]);
                }
            }
        }
    }
}

/// Σ over positions of MR channels of dy times two vectors of channels of x.
#[inline(always)]
fn sums<S: Simd, const MR: usize>(
    simd: S,
    x: &[f32],
    dy: &[f32],
    (rows, w, c, n): (usize, usize, usize, usize),
) -> [[S::f32s; 2]; MR] {
    let zero = simd.splat_f32s(0.0);
    let mut acc = [[zero; 2]; MR];
    for row in 0..rows {
        let (x, dy) = (&x[row * (w + 2) * c..], &dy[row * w * n..]);
        for (x, dy) in x.chunks(c).zip(dy.chunks(n)).take(w) {
            let (x, _) = S::as_simd_f32s(x);
            let (Some([b0, b1]), Some(a)) = (x.first_chunk::<2>(), dy.first_chunk::<MR>()) else {
                break;
            };
            for i in 0..MR {
                let a = simd.splat_f32s(a[i]);
                acc[i][0] = simd.mul_add_f32s(a, *b0, acc[i][0]);
                acc[i][1] = simd.mul_add_f32s(a, *b1, acc[i][1]);
            }
        }
    }
    acc
}
