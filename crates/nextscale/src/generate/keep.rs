//! An edited image's own pixels put back outside the region that was drawn anew.
//!
//! The decoder spreads every token over its surroundings, and the tokenizer loses a little everywhere, so an edited image differs from its
//! source outside the region too. Here its pixels come back, with a soft edge around the region.

use super::Region;
use crate::{Error, Result};

/// How much of each pixel is the drawn one's.
pub struct Seam {
    /// 1: drawn, 0: the source's; row-major.
    shares: Vec<f32>,
}

impl Seam {
    /// For images of `height`×`width`: 1 in the region, 0 from `feather` pixels away from it on, and evenly falling between.
    pub fn around(region: &Region, (height, width): (usize, usize), feather: usize) -> Self {
        // The region grown by half of the way, then blurred over the whole of it: what lies in the region keeps its 1.
        let grown = feather.div_ceil(2);
        let blurred = feather - feather / 2;
        let mut shares = region.shares(height, width);
        let most = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0, f32::max);
        let mean = |values: &mut dyn Iterator<Item = f32>| {
            let (sum, n) = values.fold((0.0, 0.0), |(sum, n), v| (sum + v, n + 1.0f32));
            sum / n
        };
        along_both(&mut shares, (height, width), grown, &most);
        along_both(&mut shares, (height, width), blurred, &mean);
        Self { shares }
    }

    /// Puts the pixels of `source` back into `drawn`, both `[height, width, 3]`.
    ///
    /// # Errors
    /// When they have another size.
    pub fn put_back(&self, drawn: &mut [u8], source: &[u8]) -> Result<()> {
        if drawn.len() != source.len() || drawn.len() != self.shares.len() * 3 {
            return Err(Error::failed("an image and its source differ in size"));
        }
        let pixels = drawn.chunks_exact_mut(3).zip(source.chunks_exact(3));
        for ((drawn, source), share) in pixels.zip(&self.shares) {
            for (d, s) in drawn.iter_mut().zip(source) {
                let (new, old) = (f32::from(*d), f32::from(*s));
                *d = (old + share * (new - old)).round() as u8;
            }
        }
        Ok(())
    }
}

/// Replaces every value by what `of` makes of those up to `reach` away, along rows and then along columns.
fn along_both(
    values: &mut [f32],
    (height, width): (usize, usize),
    reach: usize,
    of: &dyn Fn(&mut dyn Iterator<Item = f32>) -> f32,
) {
    let near = |at: usize, size: usize| at.saturating_sub(reach)..(at + reach + 1).min(size);
    let mut line = vec![0.0; width.max(height)];
    for row in values.chunks_exact_mut(width) {
        line[..width].copy_from_slice(row);
        for (x, out) in row.iter_mut().enumerate() {
            *out = of(&mut line[near(x, width)].iter().copied());
        }
    }
    for x in 0..width {
        for (y, kept) in line[..height].iter_mut().enumerate() {
            *kept = values[y * width + x];
        }
        for y in 0..height {
            values[y * width + x] = of(&mut line[near(y, height)].iter().copied());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of white drawn over black.
    fn shown(region: &Region, side: usize, feather: usize) -> Vec<u8> {
        let mut drawn = vec![255; side * side * 3];
        let seam = Seam::around(region, (side, side), feather);
        seam.put_back(&mut drawn, &vec![0; side * side * 3])
            .unwrap();
        drawn.chunks(3).map(|p| p[0]).collect()
    }

    #[test]
    fn the_region_stays_drawn_what_is_far_is_the_source_s_and_the_way_between_is_even() {
        let side = 64;
        let left = Region::rectangle((0.0, 0.0, 0.25, 1.0), false).unwrap();
        for feather in [0, 1, 2, 5, 8, 16] {
            let row = &shown(&left, side, feather)[..side];
            assert!(row[..16].iter().all(|&v| v == 255), "{feather}: {row:?}");
            assert!(
                row[16 + 2 * feather.div_ceil(2)..].iter().all(|&v| v == 0),
                "{feather}: {row:?}"
            );
            let steps: Vec<u8> = row.windows(2).map(|w| w[0] - w[1]).collect();
            let largest = steps.iter().max().unwrap();
            // Over n pixels between 255 and 0 lie n + 1 steps.
            assert!(
                usize::from(*largest) <= 255 / (feather + 1) + 1,
                "{feather}: {row:?}"
            );
        }
    }

    #[test]
    fn corners_edges_and_soft_masks() {
        // A region that touches the border keeps its 1 there.
        let corner = Region::rectangle((0.5, 0.5, 1.0, 1.0), false).unwrap();
        let got = shown(&corner, 32, 4);
        assert!((16..32).all(|y| got[y * 32 + 16..y * 32 + 32].iter().all(|&v| v == 255)));
        assert!((0..12).all(|y| got[y * 32..y * 32 + 32].iter().all(|&v| v == 0)));
        let gray = Region::from_mask(4, 4, vec![0.5; 16]).unwrap();
        assert!(shown(&gray, 4, 0).iter().all(|&v| v == 128));
        let seam = Seam::around(&gray, (4, 4), 2);
        assert!(seam.put_back(&mut [0; 48], &[0; 45]).is_err());
    }
}
