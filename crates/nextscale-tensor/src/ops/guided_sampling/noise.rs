//! Where the random numbers of a draw come from.

use crate::rng::{Purpose, Stream};
use crate::{Error, Result, Tensor};

/// Where a draw's noise comes from.
#[derive(Clone, Copy, Debug)]
pub enum Draw<'a> {
    /// From counters: a token's noise depends on the seed, the scale and its image's number alone.
    Seed {
        /// Seed of the whole drawing.
        seed: u64,
        /// The scale.
        scale: u64,
        /// Number of the batch's first image.
        first: u64,
    },
    /// The same numbers with seed and first image on the device: a graph that is replayed reads them anew.
    Device {
        /// Integers \[4\] as [`draw_params`] makes them.
        params: &'a Tensor,
        /// The scale.
        scale: u64,
    },
    /// Given numbers \[B, l, V\].
    Given(&'a [f32]),
}

/// Seed and number of the first image as [`Draw::Device`] has them: the seed's low word, its high word, then the number's.
pub fn draw_params(seed: u64, first: u64) -> [i32; 4] {
    [seed, seed >> 32, first, first >> 32].map(|w| w as u32 as i32)
}

impl<'a> Draw<'a> {
    /// Whether it fits logits \[B, l, V\] of `n` elements, `l`·V of them an image.
    pub(super) fn check(&self, op: &'static str, n: usize, image: usize) -> Result<()> {
        match self {
            Self::Given(e) if e.len() != n => Err(Error::shape(
                op,
                format!("{} noise numbers for {n} logits", e.len()),
            )),
            Self::Device { params, .. } if params.numel() != 4 => Err(Error::shape(
                op,
                format!("parameters are {}, expected [4]", params.shape()),
            )),
            Self::Seed { .. } | Self::Device { .. } if image > u32::MAX as usize => Err(
                Error::shape(op, format!("{image} logits of an image are too many")),
            ),
            _ => Ok(()),
        }
    }

    /// With the numbers of a device brought to the host, for the CPU.
    pub(super) fn here(self) -> Result<Self> {
        let Self::Device { params, scale } = self else {
            return Ok(self);
        };
        let words = params.i32()?;
        let pair = |i: usize| u64::from(words[i] as u32) | u64::from(words[i + 1] as u32) << 32;
        Ok(Self::Seed {
            seed: pair(0),
            scale,
            first: pair(2),
        })
    }
}

/// The noise of one row.
pub(super) enum RowNoise<'a> {
    Stream(Stream, u64),
    Given(&'a [f32]),
}

impl<'a> RowNoise<'a> {
    /// Of `row` among \[B, l\]; `noise` is on the host.
    pub(super) fn new(noise: &Draw<'a>, purpose: Purpose, row: usize, l: usize, v: usize) -> Self {
        match noise {
            Draw::Seed { seed, scale, first } => {
                let image = first + (row / l) as u64;
                Self::Stream(
                    Stream::new(*seed, purpose, *scale, image),
                    (row % l * v) as u64,
                )
            }
            Draw::Given(all) => Self::Given(&all[row * v..(row + 1) * v]),
            Draw::Device { .. } => unreachable!("brought to the host before"),
        }
    }

    /// The unit-exponential number of a code.
    pub(super) fn exponential(&self, i: usize) -> f32 {
        match self {
            Self::Stream(s, at) => s.exponential_at(at + i as u64),
            Self::Given(e) => e[i],
        }
    }

    /// The Gumbel number of a code.
    pub(super) fn gumbel(&self, i: usize) -> f32 {
        match self {
            Self::Stream(s, at) => -s.exponential_at(at + i as u64).ln(),
            Self::Given(g) => g[i],
        }
    }
}
