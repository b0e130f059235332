//! How near pictures of 8 bits are to others, pixel by pixel: PSNR and SSIM, in float64.
//!
//! Both are of a pair of pictures; over many the field gives the mean of the pairs' values, and so does [`PixelMeans`].

use crate::data::RgbImage8;
use crate::{Error, Result};
use rayon::prelude::*;

/// The largest value of a pixel.
const RANGE: f64 = 255.0;
/// Pixels on each side of a window's middle: `scikit-image` cuts its Gaussian at 3.5 σ, which makes 11 × 11 pixels of σ = 1.5.
const RADIUS: usize = 5;
/// Side of a window.
const WINDOW: usize = 2 * RADIUS + 1;
const SIGMA: f64 = 1.5;
const K1: f64 = 0.01;
const K2: f64 = 0.03;
const CHANNELS: usize = 3;

/// What one pair of pictures gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PixelScore {
    /// Peak signal-to-noise ratio in decibels; infinite for equal pictures.
    pub psnr: f64,
    /// Structural similarity, 1 for equal pictures; `None` where a side is smaller than the window of 11 pixels.
    pub ssim: Option<f64>,
}

/// Means over pairs.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PixelMeans {
    /// Pairs so far.
    pub count: usize,
    /// Those of them that are equal. Their PSNR is infinite, and so is the mean as soon as there is one.
    pub equal: usize,
    /// Those of them that are too small for SSIM.
    pub small: usize,
    psnr: f64,
    ssim: f64,
}

impl PixelMeans {
    /// Adds a pair.
    pub fn add(&mut self, score: PixelScore) {
        self.count += 1;
        self.psnr += score.psnr;
        self.equal += usize::from(score.psnr.is_infinite());
        match score.ssim {
            Some(ssim) => self.ssim += ssim,
            None => self.small += 1,
        }
    }

    /// The mean of the pairs' PSNR, as `scikit-image`'s of each picture averaged: not the PSNR of the mean error, which is lower.
    /// `None` without pairs.
    pub fn psnr(&self) -> Option<f64> {
        (self.count > 0).then(|| self.psnr / self.count as f64)
    }

    /// The mean of the pairs' SSIM, without those that are too small; `None` where that leaves none.
    pub fn ssim(&self) -> Option<f64> {
        let count = self.count - self.small;
        (count > 0).then(|| self.ssim / count as f64)
    }
}

/// PSNR and SSIM of pairs, on all threads, in the order of the pairs.
///
/// # Errors
/// When the two of a pair differ in size.
pub fn pixel_scores(pairs: &[(RgbImage8, RgbImage8)]) -> Result<Vec<PixelScore>> {
    let one = |(a, b): &(RgbImage8, RgbImage8)| {
        Ok(PixelScore {
            psnr: psnr(a, b)?,
            ssim: ssim(a, b)?,
        })
    };
    pairs.par_iter().map(one).collect()
}

fn same_size(a: &RgbImage8, b: &RgbImage8) -> Result<()> {
    if (a.width(), a.height()) == (b.width(), b.height()) {
        return Ok(());
    }
    Err(Error::input(format!(
        "pictures of {}x{} and {}x{} pixels can't be compared pixel by pixel; give pictures of the same size",
        a.width(),
        a.height(),
        b.width(),
        b.height()
    )))
}

/// The peak signal-to-noise ratio in decibels of two pictures: 10 log₁₀ (255² / the mean of squared differences over all pixels and
/// channels); infinite where they are equal.
///
/// # Errors
/// When they differ in size.
pub fn psnr(a: &RgbImage8, b: &RgbImage8) -> Result<f64> {
    same_size(a, b)?;
    let squares = a.data().iter().zip(b.data()).map(|(&a, &b)| {
        let difference = u64::from(a.abs_diff(b));
        difference * difference
    });
    // Whole numbers: exact.
    let sum: u64 = squares.sum();
    let mean = sum as f64 / a.data().len() as f64;
    Ok(10.0 * (RANGE * RANGE / mean).log10())
}

/// The structural similarity of two pictures (Wang et al. 2004), as `scikit-image`'s `structural_similarity` computes it with
/// `gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255` on each channel: windows of 11 × 11 pixels that lie
/// inside the picture, K₁ = 0.01, K₂ = 0.03, and the mean over windows and channels. That function's default is another number, of
/// windows of 7 × 7 pixels with equal weights. `None` where a side has less than 11 pixels.
///
/// # Errors
/// When they differ in size.
pub fn ssim(a: &RgbImage8, b: &RgbImage8) -> Result<Option<f64>> {
    same_size(a, b)?;
    let (width, height) = (a.width(), a.height());
    if width < WINDOW || height < WINDOW {
        return Ok(None);
    }
    let (c1, c2) = ((K1 * RANGE).powi(2), (K2 * RANGE).powi(2));
    let weights = gaussian();
    let (columns, rows) = (width - 2 * RADIUS, height - 2 * RADIUS);
    let mut sum = 0.0;
    for channel in 0..CHANNELS {
        // Sums along rows, of the last eleven rows: x, y, xx, yy and xy of each column.
        let mut along = vec![[0.0; 5]; WINDOW * columns];
        for y in 0..height {
            let (xs, ys) = (a.row(y), b.row(y));
            let of_row = &mut along[y % WINDOW * columns..][..columns];
            for (column, sums) in of_row.iter_mut().enumerate() {
                *sums = [0.0; 5];
                for (i, weight) in weights.iter().enumerate() {
                    let at = (column + i) * CHANNELS + channel;
                    let (x, y) = (f64::from(xs[at]), f64::from(ys[at]));
                    for (sum, value) in sums.iter_mut().zip([x, y, x * x, y * y, x * y]) {
                        *sum += weight * value;
                    }
                }
            }
            let Some(top) = (y + 1).checked_sub(WINDOW) else {
                continue;
            };
            let mut of_window_row = 0.0;
            for column in 0..columns {
                let mut m = [0.0; 5];
                for (i, weight) in weights.iter().enumerate() {
                    let sums = along[(top + i) % WINDOW * columns + column];
                    for (m, sum) in m.iter_mut().zip(sums) {
                        *m += weight * sum;
                    }
                }
                let [x, y, xx, yy, xy] = m;
                let (vx, vy, vxy) = (xx - x * x, yy - y * y, xy - x * y);
                of_window_row +=
                    (2.0 * x * y + c1) * (2.0 * vxy + c2) / ((x * x + y * y + c1) * (vx + vy + c2));
            }
            sum += of_window_row;
        }
    }
    Ok(Some(sum / (CHANNELS * columns * rows) as f64))
}

/// A Gaussian whose weights sum to one.
fn gaussian() -> [f64; WINDOW] {
    let mut weights = [0.0; WINDOW];
    for (i, weight) in weights.iter_mut().enumerate() {
        let distance = i as f64 - RADIUS as f64;
        *weight = (-distance * distance / (2.0 * SIGMA * SIGMA)).exp();
    }
    let sum: f64 = weights.iter().sum();
    weights.map(|w| w / sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two pictures by a formula, which NumPy computed too.
    fn pair(width: usize, height: usize) -> (RgbImage8, RgbImage8) {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for y in 0..height {
            for x in 0..width {
                for c in 0..3 {
                    let v = (7 * x + 13 * y + 31 * c + x * y) % 256;
                    let other = (v + (5 * x + 3 * y + 7 * c) % 17).saturating_sub(8);
                    a.push(v as u8);
                    b.push(other.min(255) as u8);
                }
            }
        }
        let picture = |data| RgbImage8::new(width, height, data).unwrap();
        (picture(a), picture(b))
    }

    fn inverted(a: &RgbImage8) -> RgbImage8 {
        let data = a.data().iter().map(|v| 255 - v).collect();
        RgbImage8::new(a.width(), a.height(), data).unwrap()
    }

    #[test]
    fn they_are_scipy_s_numbers() {
        // scikit-image's formula with scipy's gaussian_filter, in float64.
        for (size, expected_psnr, expected_ssim, of_inverse) in [
            (
                (11, 11),
                34.410716688227765,
                0.9904828082802384,
                -0.8287136510714709,
            ),
            (
                (37, 24),
                34.38750436864802,
                0.9969964446733784,
                -0.9097126617884225,
            ),
            (
                (48, 64),
                34.40295371567291,
                0.9976199713554794,
                -0.9635496298301177,
            ),
        ] {
            let (a, b) = pair(size.0, size.1);
            let near = |found: f64, expected: f64| {
                assert!((found - expected).abs() < 1e-11, "{found} {expected}");
            };
            near(psnr(&a, &b).unwrap(), expected_psnr);
            near(ssim(&a, &b).unwrap().unwrap(), expected_ssim);
            near(ssim(&a, &inverted(&a)).unwrap().unwrap(), of_inverse);
        }
    }

    /// Every window by its definition: weighted means, and the variances around them.
    fn naive(a: &RgbImage8, b: &RgbImage8) -> f64 {
        let weights: Vec<f64> = (0..121)
            .map(|i| {
                let (y, x) = ((i / 11) as f64 - 5.0, (i % 11) as f64 - 5.0);
                (-(x * x + y * y) / (2.0 * 1.5 * 1.5)).exp()
            })
            .collect();
        let whole: f64 = weights.iter().sum();
        let (mut sum, mut count) = (0.0, 0.0);
        for c in 0..3 {
            for top in 0..a.height() - 10 {
                for left in 0..a.width() - 10 {
                    let at = |p: &RgbImage8, i: usize| {
                        f64::from(p.row(top + i / 11)[(left + i % 11) * 3 + c])
                    };
                    let mean = |f: &dyn Fn(usize) -> f64| {
                        (0..121).map(|i| weights[i] / whole * f(i)).sum::<f64>()
                    };
                    let (x, y) = (mean(&|i| at(a, i)), mean(&|i| at(b, i)));
                    let vx = mean(&|i| (at(a, i) - x).powi(2));
                    let vy = mean(&|i| (at(b, i) - y).powi(2));
                    let vxy = mean(&|i| (at(a, i) - x) * (at(b, i) - y));
                    let (c1, c2) = (2.55f64.powi(2), 7.65f64.powi(2));
                    sum += (2.0 * x * y + c1) * (2.0 * vxy + c2)
                        / ((x * x + y * y + c1) * (vx + vy + c2));
                    count += 1.0;
                }
            }
        }
        sum / count
    }

    #[test]
    fn it_is_the_definition() {
        let (a, b) = pair(19, 14);
        let found = ssim(&a, &b).unwrap().unwrap();
        assert!((found - naive(&a, &b)).abs() < 1e-10);
        assert!((ssim(&a, &a).unwrap().unwrap() - 1.0).abs() < 1e-12);
        let by_hand = {
            let squares = a.data().iter().zip(b.data());
            let sum: f64 = squares
                .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
                .sum();
            20.0 * 255f64.log10() - 10.0 * (sum / a.data().len() as f64).log10()
        };
        assert!((psnr(&a, &b).unwrap() - by_hand).abs() < 1e-12);
    }

    #[test]
    fn equal_small_and_unlike_pictures() {
        let (a, b) = pair(12, 12);
        let (c, d) = pair(10, 30);
        assert!(psnr(&a, &a).unwrap().is_infinite());
        assert_eq!(ssim(&c, &d).unwrap(), None);
        let error = psnr(&a, &c).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("12x12 and 10x30"), "{error}");
        assert!(ssim(&a, &c).is_err() && pixel_scores(&[(a.clone(), c.clone())]).is_err());

        let scores = pixel_scores(&[(a.clone(), b.clone()), (c.clone(), d.clone())]).unwrap();
        let mut means = PixelMeans::default();
        assert_eq!((means.psnr(), means.ssim()), (None, None));
        scores.iter().for_each(|&score| means.add(score));
        assert_eq!(means.ssim(), ssim(&a, &b).unwrap());
        let mean = (psnr(&a, &b).unwrap() + psnr(&c, &d).unwrap()) / 2.0;
        assert!((means.psnr().unwrap() - mean).abs() < 1e-12);
        means.add(pixel_scores(&[(a.clone(), a.clone())]).unwrap()[0]);
        assert!(means.psnr().unwrap().is_infinite());
        assert_eq!((means.count, means.equal, means.small), (3, 1, 1));
    }
}
