//! Sums of weighted samples, for 48 columns or rows at a time.
//!
//! Two samples and two weights of 16 bits each are multiplied and added by one instruction (`vpmaddwd`), twice as
//! many as with 32-bit products. A weight has some 24 bits, so it is taken in two halves, with a sum for each.
//! All arithmetic is modulo 2³²: the result has the bits of a plain sum of 32-bit products.

use super::weights::{PRECISION, Weights};

/// Samples that are filtered together: 16 rows of RGB in the horizontal pass, 16 pixels of a row in the vertical one.
pub(super) const LANES: usize = 48;
/// Vectors of eight 32-bit sums.
const VECTORS: usize = LANES / 8;
/// Bits of the lower half of a weight.
const LOW_BITS: u32 = 15;

/// Two neighbours along the filter for each of [`LANES`] lanes: samples 2j and 2j + 1 of lane 0, then of lane 1, ...
pub(super) type Pairs = [[i16; 16]; VECTORS];

/// Weights of two neighbours, in halves: weight = high · 2¹⁵ + low.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PairWeights {
    low: [i16; 2],
    high: [i16; 2],
}

impl PairWeights {
    pub(super) fn new(first: i32, second: i32) -> Self {
        let mask = (1 << LOW_BITS) - 1;
        Self {
            low: [first, second].map(|weight| (weight & mask) as i16),
            high: [first, second].map(|weight| (weight >> LOW_BITS) as i16),
        }
    }

    /// The two weights.
    #[cfg(test)]
    pub(super) fn whole(self) -> [i32; 2] {
        [0, 1].map(|i| (i32::from(self.high[i]) << LOW_BITS) + i32::from(self.low[i]))
    }
}

/// An instruction set's way to make the sums of one output sample.
pub(super) trait PairSums: Copy {
    /// Sum over `pairs` of samples times weights, for each lane.
    fn sums(self, pairs: &[Pairs], weights: &[PairWeights]) -> [[i32; 8]; VECTORS];
}

impl PairSums for pulp::Scalar {
    #[inline(always)]
    fn sums(self, pairs: &[Pairs], weights: &[PairWeights]) -> [[i32; 8]; VECTORS] {
        let dot = |[a, b]: [i16; 2], [v, w]: [i16; 2]| {
            i32::from(a) * i32::from(v) + i32::from(b) * i32::from(w)
        };
        let (mut low, mut high) = ([[0i32; 8]; VECTORS], [[0i32; 8]; VECTORS]);
        for (pairs, weights) in pairs.iter().zip(weights) {
            let samples = pairs.as_flattened().as_chunks::<2>().0;
            let sums = low
                .as_flattened_mut()
                .iter_mut()
                .zip(high.as_flattened_mut());
            for ((low, high), &samples) in sums.zip(samples) {
                *low = low.wrapping_add(dot(samples, weights.low));
                *high = high.wrapping_add(dot(samples, weights.high));
            }
        }
        for (low, high) in low.as_flattened_mut().iter_mut().zip(high.as_flattened()) {
            *low = low.wrapping_add(high << LOW_BITS);
        }
        low
    }
}

#[cfg(target_arch = "x86_64")]
impl PairSums for pulp::x86::V3 {
    #[inline(always)]
    fn sums(self, pairs: &[Pairs], weights: &[PairWeights]) -> [[i32; 8]; VECTORS] {
        let zero = self.splat_i32x8(0);
        let (mut low, mut high) = ([zero; VECTORS], [zero; VECTORS]);
        for (pairs, weights) in pairs.iter().zip(weights) {
            let both = |pair: [i16; 2]| pulp::cast(self.splat_i32x8(pulp::cast(pair)));
            let (weights_low, weights_high) = (both(weights.low), both(weights.high));
            for ((low, high), &samples) in low.iter_mut().zip(&mut high).zip(pairs) {
                let samples = pulp::cast(samples);
                let product = self.multiply_wrapping_add_adjacent_i16x16(samples, weights_low);
                *low = self.wrapping_add_i32x8(*low, product);
                let product = self.multiply_wrapping_add_adjacent_i16x16(samples, weights_high);
                *high = self.wrapping_add_i32x8(*high, product);
            }
        }
        for (low, high) in low.iter_mut().zip(high) {
            *low = self.wrapping_add_i32x8(*low, self.shl_const_i32x8::<{ LOW_BITS as i32 }>(high));
        }
        pulp::cast(low)
    }
}

/// Filters [`LANES`] lanes: `pairs` begin with the first sample of `weights.range`; one result for each span.
#[inline(always)]
pub(super) fn filter(
    simd: impl PairSums,
    pairs: &[Pairs],
    weights: &Weights,
    results: &mut Vec<[u8; LANES]>,
) {
    let (base, _) = weights.range;
    results.resize(weights.spans.len(), [0; LANES]);
    for (span, result) in weights.spans.iter().zip(results) {
        let from = (span.first - base) / 2;
        let sums = simd.sums(&pairs[from..], weights.pairs_of(span));
        for (sample, &sum) in result.iter_mut().zip(sums.as_flattened()) {
            let rounded = sum.wrapping_add(1 << (PRECISION - 1)) >> PRECISION;
            *sample = rounded.clamp(0, 255) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nextscale_tensor::rng::{Purpose, Stream};

    /// Sums of 32-bit products modulo 2³², one by one.
    fn plain(pairs: &[Pairs], weights: &[[i32; 2]]) -> Vec<i32> {
        let sum = |lane: usize| {
            let taps = pairs.iter().zip(weights).flat_map(|(pairs, weights)| {
                let samples = &pairs.as_flattened()[2 * lane..2 * lane + 2];
                samples.iter().zip(weights)
            });
            taps.fold(0i32, |sum, (&sample, &weight)| {
                sum.wrapping_add(i32::from(sample).wrapping_mul(weight))
            })
        };
        (0..LANES).map(sum).collect()
    }

    #[test]
    fn halves_of_weights_make_the_sums_of_whole_ones() {
        let stream = Stream::new(5, Purpose::Test, 0, 0);
        let mut words = (0..).map(|at| stream.word_at(at));
        for count in [1, 2, 7, 300] {
            let mut pairs = vec![Pairs::default(); count];
            for sample in pairs.as_flattened_mut().as_flattened_mut() {
                *sample = words.next().unwrap() as u8 as i16;
            }
            let mut weights = vec![[0; 2]; count];
            for weight in weights.as_flattened_mut() {
                // As large as halves of 15 and 16 bits can hold.
                *weight = words.next().unwrap() as i32 >> 1;
            }
            let want = plain(&pairs, &weights);
            let halves: Vec<_> = weights
                .iter()
                .map(|&[a, b]| PairWeights::new(a, b))
                .collect();
            let whole: Vec<_> = halves.iter().map(|pair| pair.whole()).collect();
            assert_eq!(whole, weights);
            assert_eq!(pulp::Scalar.sums(&pairs, &halves).as_flattened(), want);
            #[cfg(target_arch = "x86_64")]
            match pulp::x86::V3::try_new() {
                Some(simd) => {
                    assert_eq!(simd.sums(&pairs, &halves).as_flattened(), want);
                }
                None => eprintln!("skipped: no AVX2"),
            }
        }
    }
}
