//! 3×3 convolution of narrow maps without gathering patches. With few output channels gathering costs as much as it
//! feeds; here a strip of rows is copied once into a frame of zeros, and the register tile reads every tap's pixels
//! where they lie. Positions run through the frame, its edge included, so that a tile's pixels are always
//! neighbours; what falls on the edge is not written.

use super::{Conv, Sizes};
use crate::cpu::gemm::pack::PackB;
use crate::cpu::gemm::{Epilogue, KC, tile, write_tile};
use crate::cpu::pool::PoolVec;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

/// Below this width too many positions of the frame would be edge.
const LEAST_WIDTH: usize = 16;
/// Pixels past the frame that the last tile may touch.
pub(super) const SLACK: usize = 16;

/// Whether the geometry keeps the map's size with a 3×3 kernel.
pub(super) fn keeps_size(s: Sizes, conv: Conv) -> bool {
    (s.kh, s.kw) == (3, 3) && conv == Conv::same(3)
}

/// Whether [`product`] serves maps of `channels` and this width.
pub(super) fn serves(width: usize, channels: usize) -> bool {
    width >= LEAST_WIDTH && matches!(channels, 32 | 64)
}

/// Rows in a strip: a divisor of `height`, so that no strip crosses images.
pub(super) fn strip_rows(height: usize, most: usize) -> usize {
    (1..=most.min(height).max(1))
        .rev()
        .find(|r| height.is_multiple_of(*r))
        .unwrap_or(1)
}

/// Rows `first..first + rows` of an image and one more on every side, zeros outside the image.
pub(super) fn frame(
    image: &[f32],
    (h, w, c): (usize, usize, usize),
    first: usize,
    rows: usize,
    out: &mut [f32],
) {
    let line = (w + 2) * c;
    for (i, out) in out.chunks_exact_mut(line).take(rows + 2).enumerate() {
        match (first + i).checked_sub(1).filter(|y| *y < h) {
            Some(y) => {
                out[..c].fill(0.0);
                out[c..line - c].copy_from_slice(&image[y * w * c..][..w * c]);
                out[line - c..].fill(0.0);
            }
            None => out.fill(0.0),
        }
    }
}

/// y\[B, H, W, outputs\]: for every position the sum over the taps of `b`, whose inner index is (tap, channel). A tap
/// reads the pixel at its offset (down, right) from the position, each −1 to 1.
pub(super) fn product<B: PackB, F: Epilogue>(
    (h, w, c): (usize, usize, usize),
    outputs: usize,
    x: &[f32],
    b: &B,
    taps: [(isize, isize); 9],
    y: &mut [f32],
    epilogue: &F,
) {
    let (_, nr) = tile();
    let panels = outputs.div_ceil(nr);
    let mut packed = PoolVec::scratch(panels * nr * 9 * c);
    for (p, out) in packed.chunks_exact_mut(nr * 9 * c).enumerate() {
        b.pack(0, 9 * c, p * nr, nr.min(outputs - p * nr), nr, out);
    }
    let at = |(down, right): (isize, isize)| {
        (1usize.wrapping_add_signed(down)) * (w + 2) + 1usize.wrapping_add_signed(right)
    };
    let taps = taps.map(at);
    // About two hundred positions: enough to spread the frame's edge, small enough for the second-level cache.
    let rows = strip_rows(h, 512 / w.max(1));
    let strips = h / rows;
    y.par_chunks_mut(rows * w * outputs)
        .enumerate()
        .for_each(|(i, y)| {
            let mut strip = PoolVec::scratch(((rows + 2) * (w + 2) + SLACK) * c);
            let image = &x[i / strips * h * w * c..][..h * w * c];
            frame(image, (h, w, c), i % strips * rows, rows, &mut strip);
            let first = i * rows * w;
            let job = Strip {
                strip: &strip,
                b: &packed,
                taps: &taps,
                extents: (rows, w, outputs),
                first,
                y,
                epilogue,
            };
            match c {
                32 => crate::cpu::simd::arch().dispatch(Channels::<32, F>(job)),
                _ => crate::cpu::simd::arch().dispatch(Channels::<64, F>(job)),
            }
        });
}

/// One strip's work.
struct Strip<'a, F> {
    strip: &'a [f32],
    b: &'a [f32],
    taps: &'a [usize; 9],
    /// Rows, width and output channels.
    extents: (usize, usize, usize),
    /// The first position, counted over the whole batch.
    first: usize,
    y: &'a mut [f32],
    epilogue: &'a F,
}

/// A strip whose pixels have `C` channels.
struct Channels<'a, const C: usize, F>(Strip<'a, F>);

impl<const C: usize, F: Epilogue> WithSimd for Channels<'_, C, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::F32_LANES == 16 {
            run::<S, F, 12, C>(simd, self.0);
        } else if S::F32_LANES == 8 {
            run::<S, F, 6, C>(simd, self.0);
        } else {
            run::<S, F, 4, C>(simd, self.0);
        }
    }
}

#[inline(always)]
fn run<S: Simd, F: Epilogue, const MR: usize, const C: usize>(simd: S, job: Strip<'_, F>) {
    let (rows, w, n) = job.extents;
    let nr = 2 * S::F32_LANES;
    let (pixels, _) = job.strip.as_chunks::<C>();
    let line = w + 2;
    for first in (0..(rows - 1) * line + w).step_by(MR) {
        for (q, b) in job.b.chunks_exact(nr * 9 * C).enumerate() {
            let cols = nr.min(n - q * nr);
            // A chain of additions as long as the matrix product's, for the same rounding errors.
            let most = KC / C;
            let parts = job.taps.chunks(most).zip(b.chunks(most * C * nr));
            for (part, (taps, b)) in parts.enumerate() {
                let acc = sums::<S, MR, C>(simd, pixels, first, taps, b);
                for (i, acc) in acc.iter().enumerate() {
                    let (row, x) = ((first + i) / line, (first + i) % line);
                    if x < w && row < rows {
                        let y = &mut job.y[(row * w + x) * n..][..n];
                        write_tile::<S, 1>(simd, &[*acc], y, (n, q * nr, 1, cols), part == 0);
                    }
                }
            }
        }
    }
    for (i, row) in job.y.chunks_exact_mut(n).enumerate() {
        job.epilogue.row(job.first + i, row);
    }
}

/// The register tile: MR neighbouring pixels of the frame times two vectors of output channels.
#[inline(always)]
fn sums<S: Simd, const MR: usize, const C: usize>(
    simd: S,
    pixels: &[[f32; C]],
    first: usize,
    taps: &[usize],
    b: &[f32],
) -> [[S::f32s; 2]; MR] {
    let zero = simd.splat_f32s(0.0);
    let mut acc = [[zero; 2]; MR];
    let (b, _) = S::as_simd_f32s(b);
    let (b, _) = b.as_chunks::<2>();
    let (b, _) = b.as_chunks::<C>();
    for (tap, b) in taps.iter().zip(b) {
        let rows = pixels[first + tap..]
            .first_chunk::<MR>()
            .expect("the frame ends with slack for a whole tile");
        for k in 0..C {
            let [b0, b1] = b[k];
            let xs: [f32; MR] = std::array::from_fn(|i| rows[i][k]);
            for i in 0..MR {
                let x = simd.splat_f32s(xs[i]);
                acc[i][0] = simd.mul_add_f32s(x, b0, acc[i][0]);
                acc[i][1] = simd.mul_add_f32s(x, b1, acc[i][1]);
            }
        }
    }
    acc
}
