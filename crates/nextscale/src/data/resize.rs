//! Lanczos resizing of 8-bit pictures, equal to Pillow's, computing only the crop that is wanted.
//!
//! Two passes with 8-bit rounding and clipping between them: the horizontal one first, but for pictures whose
//! height shrinks by more than twice what their width does (Pillow 13's choice). The filter is the 3-lobe Lanczos
//! kernel, widened when shrinking (antialias); its weights are normalised in double precision and rounded to
//! 22-bit fixed point. An unchanged side is not filtered.
//!
//! For speed the horizontal pass handles four rows at once as sixteen 32-bit lanes (RGB and one idle lane each)
//! and the vertical pass 16 samples of a row; both are plain loops that the compiler vectorises for the
//! instruction set found at run time.

use super::RgbImage8;
use crate::{Error, Result};

/// Fractional bits of a weight: 8 bits for the sample and 2 for overshoot leave 22 of 32.
const PRECISION: u32 = 22;
/// Half a unit, for rounding.
const HALF: i32 = 1 << (PRECISION - 1);
/// Half the width of the kernel, in output pixels.
const LOBES: f64 = 3.0;
/// Samples that the vertical pass handles together.
const BLOCK: usize = 16;

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
    /// Four rows of the source, interleaved pixel by pixel.
    packed: Vec<[u8; 16]>,
    /// Four rows of the intermediate picture, interleaved likewise.
    line: Vec<[u8; 16]>,
    /// Rows for the vertical pass, each of whole blocks.
    rows: Vec<u8>,
    /// The result of a vertical pass that comes first.
    middle: RgbImage8,
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
        pulp::Arch::new().dispatch(Run {
            resizer: self,
            source,
            vertical_first: vertical_first((w, h), size),
            window,
            flip,
            out,
        });
        Ok(())
    }

    /// Horizontal pass, then vertical pass.
    #[inline(always)]
    fn across_then_down(
        &mut self,
        source: &RgbImage8,
        window: CropWindow,
        flip: bool,
        out: &mut [u8],
    ) {
        // Rows of the source that the wanted rows depend on.
        let (y0, y1) = self.vertical.input_range();
        let bytes = 3 * window.width;
        // Whole blocks, so that the vertical pass needs no remainder.
        let stride = bytes.next_multiple_of(BLOCK);
        self.rows.resize(stride * (y1 - y0), 0);
        let mut rows = std::mem::take(&mut self.rows);
        self.across(
            source,
            self.horizontal.input_range(),
            y0,
            flip,
            bytes,
            rows.chunks_mut(stride),
        );
        down(&rows, stride, &self.vertical, out, bytes);
        self.rows = rows;
    }

    /// Vertical pass, then horizontal pass.
    #[inline(always)]
    fn down_then_across(
        &mut self,
        source: &RgbImage8,
        window: CropWindow,
        flip: bool,
        out: &mut [u8],
    ) {
        let (y0, y1) = self.vertical.input_range();
        // Columns of the (mirrored) source that the wanted columns depend on.
        let (x0, x1) = self.horizontal.input_range();
        let from = if flip { source.width() - x1 } else { x0 };
        let bytes = 3 * (x1 - x0);
        let stride = bytes.next_multiple_of(BLOCK);
        self.rows.resize(stride * (y1 - y0), 0);
        for (row, y) in self.rows.chunks_exact_mut(stride).zip(y0..) {
            row[..bytes].copy_from_slice(&source.row(y)[3 * from..3 * from + bytes]);
        }
        let mut middle = std::mem::take(&mut self.middle);
        let filtered = middle.reset(x1 - x0, window.height);
        down(&self.rows, stride, &self.vertical, filtered, bytes);
        let bytes = 3 * window.width;
        self.across(&middle, (0, x1 - x0), 0, flip, bytes, out.chunks_mut(bytes));
        self.middle = middle;
    }

    /// The horizontal pass over rows of `source` from `y` on, columns `range` of the (mirrored) picture: `bytes` bytes of
    /// each row of the result.
    #[inline(always)]
    fn across<'a>(
        &mut self,
        source: &RgbImage8,
        range: (usize, usize),
        mut y: usize,
        flip: bool,
        bytes: usize,
        rows: impl ExactSizeIterator<Item = &'a mut [u8]>,
    ) {
        let mut rows = rows.peekable();
        while rows.peek().is_some() {
            pack(source, y, range, flip, &mut self.packed);
            y += 4;
            if self.horizontal.identity {
                // Unchanged width: the window's columns as they are.
                self.line.clone_from(&self.packed);
            } else {
                self.line.resize(bytes / 3, [0; 16]);
                filter_row(&self.packed, &self.horizontal, &mut self.line);
            }
            for (lane, row) in rows.by_ref().take(4).enumerate() {
                unpack(&self.line, lane, &mut row[..bytes]);
            }
        }
    }
}

/// Whether the vertical pass comes first.
fn vertical_first(from: (usize, usize), to: (usize, usize)) -> bool {
    let shrink = |from: usize, to: usize| from as i128 - to as i128;
    let (width, height) = (shrink(from.0, to.0), shrink(from.1, to.1));
    height > 0 && height > 2 * width
}

/// The vertical pass: `rows` begin with the first one that any row of the result depends on.
#[inline(always)]
fn down(rows: &[u8], stride: usize, weights: &Weights, out: &mut [u8], bytes: usize) {
    let (y0, _) = weights.input_range();
    for (taps, out) in weights.spans.iter().zip(out.chunks_exact_mut(bytes)) {
        let first = (taps.first - y0) * stride;
        if weights.identity {
            out.copy_from_slice(&rows[first..first + bytes]);
        } else {
            filter_column(&rows[first..], stride, weights.of(taps), out);
        }
    }
}

/// The work of one call, to be compiled once for each instruction set. (A closure would not do: it would be
/// compiled apart from the dispatcher, for the oldest instruction set.)
struct Run<'a> {
    resizer: &'a mut Resizer,
    source: &'a RgbImage8,
    vertical_first: bool,
    window: CropWindow,
    flip: bool,
    out: &'a mut [u8],
}

impl pulp::WithSimd for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let (source, window, flip) = (self.source, self.window, self.flip);
        if self.vertical_first {
            self.resizer
                .down_then_across(source, window, flip, self.out);
        } else {
            self.resizer
                .across_then_down(source, window, flip, self.out);
        }
    }
}

/// Interleaves four rows of the source from `y` on, columns `range` of the (mirrored) picture. Rows beyond the
/// end are repeats of the last and are never read.
#[inline(always)]
fn pack(
    source: &RgbImage8,
    y: usize,
    range: (usize, usize),
    flip: bool,
    packed: &mut Vec<[u8; 16]>,
) {
    let (x0, x1) = range;
    let (from, to) = if flip {
        (source.width() - x1, source.width() - x0)
    } else {
        (x0, x1)
    };
    let row = |i: usize| {
        let bytes = source.row((y + i).min(source.height() - 1));
        bytes[3 * from..3 * to].as_chunks::<3>().0
    };
    let (a, b, c, d) = (row(0), row(1), row(2), row(3));
    packed.resize(a.len(), [0; 16]);
    let last = a.len().wrapping_sub(1);
    for (i, (((a, b), c), d)) in a.iter().zip(b).zip(c).zip(d).enumerate() {
        let at = if flip { last - i } else { i };
        packed[at] = [
            a[0], a[1], a[2], 0, b[0], b[1], b[2], 0, c[0], c[1], c[2], 0, d[0], d[1], d[2], 0,
        ];
    }
}

/// Takes one of four interleaved rows out.
#[inline(always)]
fn unpack(line: &[[u8; 16]], lane: usize, row: &mut [u8]) {
    let at = 4 * lane;
    for (rgb, pixel) in row.as_chunks_mut::<3>().0.iter_mut().zip(line) {
        *rgb = [pixel[at], pixel[at + 1], pixel[at + 2]];
    }
}

/// The horizontal pass over four interleaved rows.
#[inline(always)]
fn filter_row(packed: &[[u8; 16]], weights: &Weights, line: &mut [[u8; 16]]) {
    let (x0, _) = weights.input_range();
    for (taps, out) in weights.spans.iter().zip(line) {
        let mut sum = [HALF; 16];
        let first = taps.first - x0;
        for (pixel, &weight) in packed[first..].iter().zip(weights.of(taps)) {
            for (sum, &sample) in sum.iter_mut().zip(pixel) {
                *sum = sum.wrapping_add(i32::from(sample).wrapping_mul(weight));
            }
        }
        for (out, sum) in out.iter_mut().zip(sum) {
            *out = (sum >> PRECISION).clamp(0, 255) as u8;
        }
    }
}

/// The vertical pass for one row of the result: `rows` begins at its first tap.
#[inline(always)]
fn filter_column(rows: &[u8], stride: usize, weights: &[i32], out: &mut [u8]) {
    for (block, out) in out.chunks_mut(BLOCK).enumerate() {
        let mut sum = [HALF; BLOCK];
        for (&weight, row) in weights.iter().zip(rows.chunks_exact(stride)) {
            let Some(samples) = row.as_chunks::<BLOCK>().0.get(block) else {
                continue;
            };
            for (sum, &sample) in sum.iter_mut().zip(samples) {
                *sum = sum.wrapping_add(i32::from(sample).wrapping_mul(weight));
            }
        }
        let mut samples = [0u8; BLOCK];
        for (sample, sum) in samples.iter_mut().zip(sum) {
            *sample = (sum >> PRECISION).clamp(0, 255) as u8;
        }
        out.copy_from_slice(&samples[..out.len()]);
    }
}

/// Which input samples make an output sample.
#[derive(Clone, Copy, Debug)]
struct Span {
    /// The first input sample.
    first: usize,
    /// Where its weights lie.
    start: usize,
    len: usize,
}

/// Filter weights along one side, for a run of output samples.
#[derive(Debug, Default)]
struct Weights {
    spans: Vec<Span>,
    fixed: Vec<i32>,
    /// Input and output have the same size: every output sample is one input sample.
    identity: bool,
    exact: Vec<f64>,
}

impl Weights {
    #[inline(always)]
    fn of(&self, span: &Span) -> &[i32] {
        &self.fixed[span.start..span.start + span.len]
    }

    /// The input samples used by any output sample: from, to (exclusive).
    #[inline(always)]
    fn input_range(&self) -> (usize, usize) {
        // First samples and ends both rise along the run.
        match (self.spans.first(), self.spans.last()) {
            (Some(a), Some(b)) => (a.first, b.first + b.len),
            _ => (0, 0),
        }
    }

    /// Weights of output samples `from..from + count` of `output`, over `input` samples.
    fn compute(&mut self, input: usize, output: usize, from: usize, count: usize) {
        self.spans.clear();
        self.fixed.clear();
        self.identity = input == output;
        if self.identity {
            self.spans.extend((from..from + count).map(|first| Span {
                first,
                start: 0,
                len: 1,
            }));
            return;
        }
        let scale = input as f64 / output as f64;
        let filter_scale = scale.max(1.0);
        let support = LOBES * filter_scale;
        let step = 1.0 / filter_scale;
        let turn = Turn::new(step);
        for out in from..from + count {
            let center = (out as f64 + 0.5) * scale;
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(input);
            self.exact.clear();
            let mut sum = 0.0;
            let mut at = turn.start((first as f64 - center + 0.5) * step);
            for _ in first..end {
                let weight = at.lanczos();
                sum += weight;
                self.exact.push(weight);
                at = turn.next(at);
            }
            let unit = f64::from(1u32 << PRECISION) / sum;
            let start = self.fixed.len();
            self.fixed
                .extend(self.exact.iter().map(|w| (w * unit).round() as i32));
            self.spans.push(Span {
                first,
                start,
                len: end - first,
            });
        }
    }
}

/// Walks the kernel in equal steps. Sine and cosine of πx/3 are turned along instead of being evaluated anew:
/// the error stays near 1e-15, far below half a unit of a weight (1e-7), and it is several times faster.
struct Turn {
    step: f64,
    sin: f64,
    cos: f64,
}

/// A point of the kernel.
#[derive(Clone, Copy)]
struct Point {
    x: f64,
    sin: f64,
    cos: f64,
}

impl Turn {
    fn new(step: f64) -> Self {
        let (sin, cos) = (step * (std::f64::consts::PI / LOBES)).sin_cos();
        Self { step, sin, cos }
    }

    fn start(&self, x: f64) -> Point {
        let (sin, cos) = (x * (std::f64::consts::PI / LOBES)).sin_cos();
        Point { x, sin, cos }
    }

    fn next(&self, p: Point) -> Point {
        Point {
            x: p.x + self.step,
            sin: p.sin * self.cos + p.cos * self.sin,
            cos: p.cos * self.cos - p.sin * self.sin,
        }
    }
}

impl Point {
    /// sinc(x)·sinc(x/3) within the three lobes, with sin 3θ = 3 sin θ − 4 sin³ θ.
    fn lanczos(self) -> f64 {
        if self.x < -LOBES || self.x >= LOBES {
            return 0.0;
        }
        let px = self.x * std::f64::consts::PI;
        if px.abs() < 1e-9 {
            return 1.0;
        }
        let s = self.sin;
        LOBES * s * s * (3.0 - 4.0 * s * s) / (px * px)
    }
}

#[cfg(test)]
mod tests;
