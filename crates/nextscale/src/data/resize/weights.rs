//! Weights of the Lanczos filter in fixed point.

use super::filter::PairWeights;

/// Fractional bits of a weight: 8 bits for the sample and 2 for overshoot leave 22 of 32.
pub(super) const PRECISION: u32 = 22;
/// Half the width of the kernel, in output pixels.
const LOBES: f64 = 3.0;

/// Which input samples make an output sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// The first input sample; even, unless the side is unchanged.
    pub(super) first: usize,
    /// Where its pairs of weights lie.
    start: usize,
    pairs: usize,
}

/// Filter weights along one side, for a run of output samples.
#[derive(Debug, Default)]
pub(super) struct Weights {
    /// One for each output sample.
    pub(super) spans: Vec<Span>,
    /// Input and output have the same size: every output sample is one input sample.
    pub(super) identity: bool,
    /// The input samples used by any output sample: from, to (exclusive).
    pub(super) range: (usize, usize),
    pairs: Vec<PairWeights>,
    exact: Vec<f64>,
    fixed: Vec<i32>,
}

impl Weights {
    /// Weights of an output sample, two by two from `span.first` on.
    #[inline(always)]
    pub(super) fn pairs_of(&self, span: &Span) -> &[PairWeights] {
        &self.pairs[span.start..span.start + span.pairs]
    }

    /// Weights of output samples `from..from + count` (at least one) of `output`, over `input` samples.
    pub(super) fn compute(&mut self, input: usize, output: usize, from: usize, count: usize) {
        self.spans.clear();
        self.pairs.clear();
        self.identity = input == output;
        if self.identity {
            self.range = (from, from + count);
            self.spans.extend((from..from + count).map(|first| Span {
                first,
                start: 0,
                pairs: 0,
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
            let fixed = self.exact.iter().map(|w| (w * unit).round() as i32);
            self.fixed.clear();
            // Pairs begin at an even sample; what is missing on either side weighs nothing.
            self.fixed.extend((first % 2 == 1).then_some(0));
            self.fixed.extend(fixed);
            self.fixed.extend((end % 2 == 1).then_some(0));
            let start = self.pairs.len();
            let pairs = self.fixed.as_chunks::<2>().0;
            self.pairs
                .extend(pairs.iter().map(|&[a, b]| PairWeights::new(a, b)));
            let first = first - first % 2;
            // First samples and ends both rise along the run.
            if out == from {
                self.range.0 = first;
            }
            self.range.1 = end;
            self.spans.push(Span {
                first,
                start,
                pairs: self.pairs.len() - start,
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
