//! A k-nearest-neighbour classifier on raw pixels: the plainest judge of whether pictures can be recognised.

use rayon::prelude::*;

use crate::{Error, Result};

/// Pictures handled together, so that a training picture fetched from memory serves several.
const TOGETHER: usize = 8;
/// 8-bit samples whose squared differences can't overflow 32 bits.
const EXACT: usize = 1 << 15;

/// Remembers labelled pictures and names others by the majority of the `k` closest in Euclidean distance.
///
/// Distances are exact integers. Of equally distant pictures the one given first is closer; a tied vote goes to
/// the label among the tied whose picture is closest. So the answer does not depend on threads or timing.
#[derive(Clone, Debug)]
pub struct KnnClassifier {
    images: Vec<u8>,
    labels: Vec<u32>,
    pixels: usize,
    k: usize,
}

impl KnnClassifier {
    /// Keeps `images` (`[N, pixels]`, 8-bit samples) with their `labels`.
    ///
    /// # Errors
    /// [`Error::Input`] where there are no pictures, the lengths do not fit together, or `k` is 0 or above N.
    pub fn fit(images: Vec<u8>, labels: Vec<u32>, pixels: usize, k: usize) -> Result<Self> {
        if labels.is_empty()
            || labels.len().checked_mul(pixels) != Some(images.len())
            || pixels == 0
        {
            return Err(Error::input(format!(
                "nearest neighbours: {} labels do not fit {} bytes of {pixels} each",
                labels.len(),
                images.len()
            )));
        }
        if k == 0 || k > labels.len() {
            return Err(Error::input(format!(
                "nearest neighbours: k={k} must be from 1 to the number of pictures, {}",
                labels.len()
            )));
        }
        Ok(Self {
            images,
            labels,
            pixels,
            k,
        })
    }

    /// The labels of `images` (`[M, pixels]`).
    ///
    /// # Errors
    /// [`Error::Input`] where `images` is not a whole number of pictures.
    pub fn predict(&self, images: &[u8]) -> Result<Vec<u32>> {
        if !images.len().is_multiple_of(self.pixels) {
            return Err(Error::input(format!(
                "nearest neighbours: {} bytes are not a whole number of pictures of {}",
                images.len(),
                self.pixels
            )));
        }
        let found: Vec<Vec<u32>> = images
            .par_chunks(self.pixels * TOGETHER)
            .map(|group| self.predict_group(group))
            .collect();
        Ok(found.concat())
    }

    fn predict_group(&self, group: &[u8]) -> Vec<u32> {
        let arch = pulp::Arch::new();
        // The k closest so far of each picture: (distance, place), closest first.
        let mut best = vec![Vec::with_capacity(self.k + 1); group.len() / self.pixels];
        for (place, known) in self.images.chunks_exact(self.pixels).enumerate() {
            for (image, best) in group.chunks_exact(self.pixels).zip(&mut best) {
                let distance = arch.dispatch(Distance(image, known));
                if best.len() == self.k && best.last().is_some_and(|&(d, _)| d <= distance) {
                    continue;
                }
                let at = best.partition_point(|&(d, _)| d <= distance);
                best.insert(at, (distance, place));
                best.truncate(self.k);
            }
        }
        best.iter().map(|near| self.vote(near)).collect()
    }

    /// The most frequent label; of several, the one met first.
    fn vote(&self, near: &[(u64, usize)]) -> u32 {
        let labels: Vec<u32> = near.iter().map(|&(_, place)| self.labels[place]).collect();
        let count = |label: u32| labels.iter().filter(|&&l| l == label).count();
        let mut winner = (0, 0);
        for &label in &labels {
            if count(label) > winner.0 {
                winner = (count(label), label);
            }
        }
        winner.1
    }
}

/// The squared Euclidean distance of two pictures, compiled for each instruction set.
struct Distance<'a>(&'a [u8], &'a [u8]);

impl pulp::WithSimd for Distance<'_> {
    type Output = u64;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> u64 {
        let mut sum = 0;
        for (a, b) in self.0.chunks(EXACT).zip(self.1.chunks(EXACT)) {
            let mut part = 0u32;
            for (&a, &b) in a.iter().zip(b) {
                let d = i32::from(a) - i32::from(b);
                part += (d * d) as u32;
            }
            sum += u64::from(part);
        }
        sum
    }
}

#[cfg(test)]
mod tests;
