//! How well a tokenizer gives images back, and how much of its codebook it uses.

use crate::data::{Feed, ValLoader};
use crate::model::Pyramid;
use crate::model::vqvae::Vqvae;
use crate::world::{self, Number, Summed};
use crate::{Result, Team};
use nextscale_tensor::{Device, Tensor};

/// Figures over a set of images.
#[derive(Clone, Debug, PartialEq)]
pub struct Reconstruction {
    /// Images seen.
    pub images: usize,
    /// Images whose reconstruction holds what is no number; the figures are none then.
    pub not_numbers: usize,
    /// Mean over images of the peak signal-to-noise ratio in dB, of values in \[0, 1\].
    pub psnr_db: f64,
    /// Mean absolute error, of values in \[−1, 1\].
    pub l1: f64,
    /// Mean squared error, of values in \[−1, 1\].
    pub l2: f64,
    /// Share of the codes that occurred at any scale, 0 to 1.
    pub codebook_usage: f64,
    /// The same for every scale.
    pub usage_by_scale: Vec<f64>,
}

/// The peak signal-to-noise ratio in dB of values in \[−1, 1\] whose mean squared error is `l2`. A perfect copy would have no finite
/// one; 100 dB is far beyond 8-bit pictures. An error that is no number must not come out as a perfect copy.
pub fn psnr_db(l2: f64) -> f64 {
    if l2.is_nan() {
        return f64::NAN;
    }
    (10.0 * (4.0 / l2.max(1e-12)).log10()).min(100.0)
}

/// A tally in the making.
pub(crate) struct Tally {
    images: usize,
    not_numbers: usize,
    psnr: f64,
    l1: f64,
    l2: f64,
    /// How many processes have seen a code, by scale.
    seen: Vec<Vec<u32>>,
}

impl Summed for Tally {
    fn numbers(&mut self) -> Vec<&mut dyn Number> {
        let mut all: Vec<&mut dyn Number> = vec![&mut self.images, &mut self.not_numbers];
        all.extend([&mut self.psnr, &mut self.l1, &mut self.l2].map(|n| n as &mut dyn Number));
        all.extend(self.seen.iter_mut().flatten().map(|n| n as &mut dyn Number));
        all
    }
}

impl Tally {
    pub(crate) fn new(scales: usize, vocab: usize) -> Self {
        Self {
            images: 0,
            not_numbers: 0,
            psnr: 0.0,
            l1: 0.0,
            l2: 0.0,
            seen: vec![vec![0; vocab]; scales],
        }
    }

    /// Adds a batch: originals and reconstructions \[B, R, R, 3\] in \[−1, 1\], and the token maps between.
    pub(crate) fn add(&mut self, image: &Tensor, back: &Tensor, tokens: &[Tensor]) -> Result<()> {
        let n = image.dims()[0];
        let (image, back) = (image.to(Device::Cpu)?, back.to(Device::Cpu)?);
        let (a, b) = (image.f32()?, back.f32()?);
        let each = a.len() / n.max(1);
        for (a, b) in a.chunks_exact(each.max(1)).zip(b.chunks_exact(each.max(1))) {
            let (mut l1, mut l2) = (0.0f64, 0.0f64);
            for (a, b) in a.iter().zip(b) {
                let d = f64::from(*a) - f64::from(*b);
                l1 += d.abs();
                l2 += d * d;
            }
            let (l1, l2) = (l1 / each as f64, l2 / each as f64);
            self.psnr += psnr_db(l2);
            self.l1 += l1;
            self.l2 += l2;
            self.images += 1;
            self.not_numbers += usize::from(!l2.is_finite());
        }
        for (seen, t) in self.seen.iter_mut().zip(tokens) {
            t.to(Device::Cpu)?
                .i32()?
                .iter()
                .filter_map(|&i| usize::try_from(i).ok())
                .for_each(|i| seen[i] = 1);
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Reconstruction {
        let n = self.images.max(1) as f64;
        let vocab = self.seen.first().map_or(1, Vec::len).max(1);
        let share = |used: usize| used as f64 / vocab as f64;
        let anywhere = (0..vocab)
            .filter(|&v| self.seen.iter().any(|s| s.get(v).is_some_and(|&n| n > 0)))
            .count();
        Reconstruction {
            images: self.images,
            not_numbers: self.not_numbers,
            psnr_db: self.psnr / n,
            l1: self.l1 / n,
            l2: self.l2 / n,
            codebook_usage: share(anywhere),
            usage_by_scale: self
                .seen
                .iter()
                .map(|s| share(s.iter().filter(|&&n| n > 0).count()))
                .collect(),
        }
    }
}

/// Reconstructs all images of the loaders of a team. `seen` is told at first and after every batch how many images this process has seen.
///
/// # Errors
/// When an image can't be loaded or shapes do not fit; [`Stopped`](crate::Error::Stopped) where a stop was asked for.
pub fn evaluate_reconstruction(
    vqvae: &Vqvae,
    pyramid: &Pyramid,
    loader: &mut ValLoader,
    side: usize,
    team: &Team,
    seen: &mut dyn FnMut(usize),
) -> Result<Reconstruction> {
    let mut done = 0;
    seen(done);
    let mut own = || -> Result<Tally> {
        let mut tally = Tally::new(pyramid.count(), vqvae.config.vocab);
        let mut feed = Feed::new(vqvae.device())?;
        while let Some(batch) = loader.next_batch()? {
            let (images, _) = feed.batch(&batch, side)?;
            let (back, tokens) = vqvae.reconstruct(&images, pyramid)?;
            tally.add(&images, &back, &tokens)?;
            done += batch.len();
            seen(done);
            team.stop.check()?;
        }
        Ok(tally)
    };
    let own = own();
    let tally = world::sum(&team.world, team.agree(own)?)?;
    super::some_images(tally.images, loader)?;
    Ok(tally.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_figures() {
        let mut t = Tally::new(2, 4);
        let a = Tensor::from_vec([1, 1, 2, 3], vec![0.0; 6]);
        let b = Tensor::from_vec([1, 1, 2, 3], vec![0.2; 6]);
        let tokens = [
            Tensor::from_i32([1, 1], vec![3]),
            Tensor::from_i32([1, 2], vec![3, 1]),
        ];
        t.add(&a, &b, &tokens).unwrap();
        let r = t.finish();
        // An error of 0.2 in [−1, 1] is 0.1 in [0, 1]: 20 dB.
        assert!((r.psnr_db - 20.0).abs() < 1e-5);
        assert!((r.l1 - 0.2).abs() < 1e-7 && (r.l2 - 0.04).abs() < 1e-7);
        assert_eq!((r.codebook_usage, r.usage_by_scale), (0.5, vec![0.25, 0.5]));
        let mut t = Tally::new(1, 4);
        let b = Tensor::from_vec([1, 1, 2, 3], vec![f32::NAN; 6]);
        t.add(&a, &b, &[]).unwrap();
        let r = t.finish();
        assert!(r.psnr_db.is_nan() && r.not_numbers == 1);
    }
}
