//! Lanczos resizing of 8-bit pictures, equal to Pillow's, computing only the crop that is wanted.
//!
//! Two passes with 8-bit rounding and clipping between them: the horizontal one first, but for pictures whose
//! height shrinks by more than twice what their width does (Pillow 13's choice). The filter is the 3-lobe Lanczos
//! kernel, widened when shrinking (antialias); its weights are normalised in double precision and rounded to
//! 22-bit fixed point. An unchanged side is not filtered.
//!
//! Both passes pack samples that are neighbours along the filter two by two, for 16 rows or 16 columns at once, and
//! give them to the same [`filter`](filter::filter). All of it is compiled for each instruction set and chosen at
//! run time.

mod filter;
mod weights;

use pulp::Simd;

use self::filter::{LANES, PairSums, Pairs, filter};
use self::weights::Weights;
use super::RgbImage8;
use crate::{Error, Result};

/// Rows that the horizontal pass handles together.
const ROWS: usize = LANES / 3;

/// The part of a resized picture that is wanted, in pixels of the resized picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CropWindow {
    /// Columns left of the part.
    pub left: usize,
    /// Rows above the part.
    pub top: usize,
    /// Columns of the part.
    pub width: usize,
    /// Rows of the part.
    pub height: usize,
}

/// Resizes and crops; keeps its buffers, so every thread holds its own.
#[derive(Debug, Default)]
pub struct Resizer {
    horizontal: Weights,
    vertical: Weights,
    /// The rows between the two passes.
    middle: Vec<u8>,
    buffers: Buffers,
}

/// What a pass works with.
#[derive(Debug, Default)]
struct Buffers {
    /// Samples for the filter.
    pairs: Vec<Pairs>,
    /// What the filter makes of them.
    results: Vec<[u8; LANES]>,
    /// A mirrored row.
    mirrored: Vec<u8>,
}

impl Resizer {
    /// Mirrors `source` left to right if `flip`, resizes it to `size` = (width, height), and writes the part
    /// `window` into `out` (`[window.height, window.width, 3]`).
    ///
    /// # Errors
    /// [`Error::Input`] where the source is empty, the window does not lie in the resized picture, or `out` has
    /// another length.
    pub fn resize_crop(
        &mut self,
        source: &RgbImage8,
        size: (usize, usize),
        window: CropWindow,
        flip: bool,
        out: &mut [u8],
    ) -> Result<()> {
        let (w, h) = (source.width(), source.height());
        let inside = |from: usize, len: usize, side: usize| {
            len > 0 && from.checked_add(len).is_some_and(|end| end <= side)
        };
        if w == 0
            || h == 0
            || !inside(window.left, window.width, size.0)
            || !inside(window.top, window.height, size.1)
            || out.len() != 3 * window.width * window.height
        {
            return Err(Error::input(format!(
                "can't take {window:?} from a {w}x{h} image resized to {}x{}, into {} bytes",
                size.0,
                size.1,
                out.len()
            )));
        }
        self.horizontal
            .compute(w, size.0, window.left, window.width);
        self.vertical.compute(h, size.1, window.top, window.height);
        let work = Work {
            resizer: self,
            source,
            vertical_first: vertical_first((w, h), size),
            flip,
            out,
        };
        match pulp::Arch::new() {
            #[cfg(target_arch = "x86_64")]
            pulp::Arch::V4(wide) => Simd::vectorize(wide, Run { simd: *wide, work }),
            #[cfg(target_arch = "x86_64")]
            pulp::Arch::V3(simd) => Simd::vectorize(simd, Run { simd, work }),
            other => other.dispatch(Run {
                simd: pulp::Scalar,
                work,
            }),
        }
        Ok(())
    }
}

/// Whether the vertical pass comes first.
fn vertical_first(from: (usize, usize), to: (usize, usize)) -> bool {
    let shrink = |from: usize, to: usize| from as i128 - to as i128;
    let (width, height) = (shrink(from.0, to.0), shrink(from.1, to.1));
    height > 0 && height > 2 * width
}

/// The work of one call.
struct Work<'a> {
    resizer: &'a mut Resizer,
    source: &'a RgbImage8,
    vertical_first: bool,
    flip: bool,
    out: &'a mut [u8],
}

impl Work<'_> {
    #[inline(always)]
    fn run(self, simd: impl PairSums) {
        let Resizer {
            horizontal,
            vertical,
            middle,
            buffers,
        } = self.resizer;
        // The rows and columns that the wanted part depends on; columns count from the right if mirrored.
        let ((x0, x1), (y0, y1)) = (horizontal.range, vertical.range);
        let left = if self.flip {
            self.source.width() - x1
        } else {
            x0
        };
        let stride = 3 * self.source.width();
        let source = Rows {
            data: &self.source.data()[y0 * stride..y1 * stride],
            stride,
            start: 3 * left,
            bytes: 3 * (x1 - x0),
        };
        if vertical.identity {
            across(simd, source, self.flip, horizontal, buffers, self.out);
        } else if self.vertical_first {
            let bytes = source.bytes;
            middle.resize(vertical.spans.len() * bytes, 0);
            down(simd, source, vertical, buffers, middle);
            let rows = Rows::whole(middle, bytes);
            across(simd, rows, self.flip, horizontal, buffers, self.out);
        } else {
            let bytes = 3 * horizontal.spans.len();
            middle.resize((y1 - y0) * bytes, 0);
            across(simd, source, self.flip, horizontal, buffers, middle);
            let rows = Rows::whole(middle, bytes);
            down(simd, rows, vertical, buffers, self.out);
        }
    }
}

/// [`Work`] with the instruction set to compile it for. (A closure would not do: it would be compiled apart from the
/// dispatcher, for the oldest instruction set.)
struct Run<'a, P> {
    simd: P,
    work: Work<'a>,
}

impl<P: PairSums> pulp::WithSimd for Run<'_, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        self.work.run(self.simd);
    }
}

/// Rows of RGB pixels, some columns of each.
#[derive(Clone, Copy)]
struct Rows<'a> {
    data: &'a [u8],
    /// Bytes from one row to the next.
    stride: usize,
    /// The first byte of a row that is meant, and how many.
    start: usize,
    bytes: usize,
}

impl<'a> Rows<'a> {
    fn whole(data: &'a [u8], bytes: usize) -> Self {
        Self {
            data,
            stride: bytes,
            start: 0,
            bytes,
        }
    }

    #[inline(always)]
    fn iter(self) -> impl ExactSizeIterator<Item = &'a [u8]> {
        self.data
            .chunks_exact(self.stride)
            .map(move |row| &row[self.start..self.start + self.bytes])
    }
}

/// The horizontal pass: every row is mirrored if `flip`, then filtered into a row of `out`.
#[inline(always)]
fn across(
    simd: impl PairSums,
    rows: Rows<'_>,
    flip: bool,
    weights: &Weights,
    buffers: &mut Buffers,
    out: &mut [u8],
) {
    let Buffers {
        pairs,
        results,
        mirrored,
    } = buffers;
    pairs.resize(rows.bytes.div_ceil(6), Pairs::default());
    let bytes = 3 * weights.spans.len();
    let mut rows = rows.iter();
    for out in out.chunks_mut(ROWS * bytes) {
        // Of the last rows there may be fewer: the results of the lanes left over are not taken out.
        for (i, out) in out.chunks_exact_mut(bytes).enumerate() {
            let Some(mut row) = rows.next() else { break };
            if flip {
                mirror(row, mirrored);
                row = mirrored;
            }
            if weights.identity {
                out.copy_from_slice(row);
            } else {
                pack_row(row, i, pairs);
            }
        }
        if !weights.identity {
            filter(simd, pairs, weights, results);
            for (i, row) in out.chunks_exact_mut(bytes).enumerate() {
                for (rgb, result) in row.as_chunks_mut::<3>().0.iter_mut().zip(&*results) {
                    *rgb = [result[3 * i], result[3 * i + 1], result[3 * i + 2]];
                }
            }
        }
    }
}

/// The vertical pass: `rows` begin with the first one that any row of `out` depends on.
#[inline(always)]
fn down(
    simd: impl PairSums,
    rows: Rows<'_>,
    weights: &Weights,
    buffers: &mut Buffers,
    out: &mut [u8],
) {
    let Buffers { pairs, results, .. } = buffers;
    let count = rows.iter().len();
    pairs.resize(count.div_ceil(2), Pairs::default());
    for from in (0..rows.bytes).step_by(LANES) {
        let to = rows.bytes.min(from + LANES);
        let mut rest = rows.iter().map(|row| &row[from..to]);
        for pairs in &mut *pairs {
            let (first, second) = (rest.next(), rest.next());
            pack_columns(first.unwrap_or(&[]), second.unwrap_or(&[]), pairs);
        }
        filter(simd, pairs, weights, results);
        for (row, result) in out.chunks_exact_mut(rows.bytes).zip(&*results) {
            row[from..to].copy_from_slice(&result[..to - from]);
        }
    }
}

/// A row from its end, pixel by pixel.
#[inline(always)]
fn mirror(row: &[u8], mirrored: &mut Vec<u8>) {
    mirrored.resize(row.len(), 0);
    let pixels = mirrored.as_chunks_mut::<3>().0;
    for (to, from) in pixels.iter_mut().zip(row.as_chunks::<3>().0.iter().rev()) {
        *to = *from;
    }
}

/// Puts a row of pixels into the lanes of row `i` of sixteen, two pixels in each element of `pairs`.
#[inline(always)]
fn pack_row(row: &[u8], i: usize, pairs: &mut [Pairs]) {
    let (twos, odd) = row.as_chunks::<6>();
    let lanes = 6 * i..6 * i + 6;
    let mut put = |j: usize, [a, b, c, d, e, f]: [u8; 6]| {
        let pair = [a, d, b, e, c, f].map(i16::from);
        pairs[j].as_flattened_mut()[lanes.clone()].copy_from_slice(&pair);
    };
    for (j, &two) in twos.iter().enumerate() {
        put(j, two);
    }
    if let &[r, g, b] = odd {
        put(twos.len(), [r, g, b, 0, 0, 0]);
    }
}

/// Puts samples of two rows side by side; what is missing of [`LANES`] is zero.
#[inline(always)]
fn pack_columns(first: &[u8], second: &[u8], pairs: &mut Pairs) {
    let whole = |row: &[u8]| -> [u8; LANES] {
        row.first_chunk().copied().unwrap_or_else(|| {
            let mut padded = [0; LANES];
            padded[..row.len()].copy_from_slice(row);
            padded
        })
    };
    let (first, second) = (whole(first), whole(second));
    let pairs = pairs.as_flattened_mut().as_chunks_mut::<2>().0;
    for ((pair, a), b) in pairs.iter_mut().zip(first).zip(second) {
        *pair = [a.into(), b.into()];
    }
}

#[cfg(test)]
mod tests;
