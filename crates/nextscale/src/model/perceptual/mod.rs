//! How unlike two pictures look, as a loss of training: LPIPS where its files are at hand, else the maps of a classifier that has learnt a
//! folder's own classes.
//!
//! By a classifier the distance is made as LPIPS is (Zhang et al. 2018): the maps of every level with channels scaled to length one pixel
//! by pixel, squared differences summed over channels, averaged over the map and over the levels. Nothing is weighted by learnt heads.

#[cfg(test)]
mod tests;

use super::ForwardPass;
use super::classifier::Classifier;
use super::lpips::Lpips;
use super::vgg::SMALLEST;
use crate::{Error, Result};
use nextscale_tensor::{Cx, Device, Math, Precision, Tensor, ops};

/// The precision in which training compares pictures on a GPU.
pub const COMPARING: Precision = Precision::Tf32;

/// A frozen network by which pictures are compared.
pub enum Perceptual {
    /// LPIPS on VGG-16.
    Lpips(Box<Lpips>),
    /// The maps of a classifier.
    Features(Box<FeatureDistance>),
}

/// A classifier with the weight of each of its maps' channels.
pub struct FeatureDistance {
    classifier: Classifier,
    /// \[C\] of every level.
    weights: Vec<Tensor>,
}

impl FeatureDistance {
    /// By this classifier, wherever it is.
    ///
    /// # Errors
    /// When the GPU's memory is full.
    pub fn new(classifier: Classifier) -> Result<Self> {
        let levels = classifier.config.widths.len();
        let of_level = |width: &usize| {
            let equal = vec![1.0 / levels as f32; *width];
            Ok(Tensor::from_vec([*width], equal).to(classifier.device())?)
        };
        let weights = classifier.config.widths.iter().map(of_level);
        Ok(Self {
            weights: weights.collect::<Result<_>>()?,
            classifier,
        })
    }

    /// The distance of every pair, \[B\].
    fn forward(&self, pass: &ForwardPass<'_>, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let side = self.classifier.config.side;
        let maps = |x: &Tensor| -> Result<Vec<Tensor>> {
            let x = resized(&pass.exact().cx, x, side)?;
            Ok(self.classifier.forward(pass, &x)?.maps)
        };
        let mut sum: Option<Tensor> = None;
        for ((a, b), weights) in maps(a)?.iter().zip(&maps(b)?).zip(&self.weights) {
            let of_level = ops::unit_distance(&pass.cx, a, b, weights)?;
            sum = Some(match sum {
                Some(sum) => ops::add(&pass.cx, &sum, &of_level)?,
                None => of_level,
            });
        }
        sum.ok_or_else(|| Error::failed("a classifier has levels"))
    }
}

/// Images at another side: averaged where they are larger, interpolated where they are smaller.
fn resized(cx: &Cx<'_>, x: &Tensor, side: usize) -> Result<Tensor> {
    let to = (side, side);
    Ok(match x.dims()[1] {
        own if own == side => x.clone(),
        own if own > side => ops::area(cx, x, to)?,
        _ => ops::bilinear(cx, x, to)?,
    })
}

impl Perceptual {
    /// What it is, in words.
    pub fn words(&self) -> String {
        match self {
            Self::Lpips(_) => "LPIPS on VGG-16".to_owned(),
            Self::Features(own) => {
                let config = &own.classifier.config;
                format!(
                    "the features of a classifier of {} classes at {} px",
                    config.classes, config.side
                )
            }
        }
    }

    /// The least side of images that it compares.
    pub fn smallest(&self) -> usize {
        match self {
            Self::Lpips(_) => SMALLEST,
            Self::Features(_) => 1,
        }
    }

    /// Moves it to where it computes, in `math`.
    ///
    /// # Errors
    /// When the GPU can't be used or its memory is full.
    pub fn to_device(self, device: Device, math: Math) -> Result<Self> {
        Ok(match self {
            Self::Lpips(mut lpips) => {
                lpips.to_device(device, math)?;
                Self::Lpips(lpips)
            }
            Self::Features(own) => {
                let mut classifier = own.classifier;
                classifier.to_device(device, math)?;
                Self::Features(Box::new(FeatureDistance::new(classifier)?))
            }
        })
    }

    /// One of the same shape with weights of no meaning, for what counts memory or time.
    ///
    /// # Errors
    /// When the GPU's memory is full.
    pub fn like(&self, device: Device, math: Math) -> Result<Self> {
        let blank = match self {
            Self::Lpips(_) => Self::Lpips(Box::new(Lpips::new()?)),
            Self::Features(own) => {
                let config = own.classifier.config.clone();
                let classifier = Classifier::on(config, false, device, math)?;
                return Ok(Self::Features(Box::new(FeatureDistance::new(classifier)?)));
            }
        };
        blank.to_device(device, math)
    }

    /// The mean distance of pairs of images \[B, H, W, 3\] in \[−1, 1\]: a scalar. On a tape images get gradients.
    ///
    /// # Errors
    /// When shapes differ, or images are smaller than [`Self::smallest`].
    pub fn mean(&self, cx: &Cx<'_>, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let distance_b = match self {
            Self::Lpips(lpips) => lpips.forward(&ForwardPass::on(cx.with(lpips.math)), a, b)?,
            Self::Features(own) => {
                own.forward(&ForwardPass::on(cx.with(own.classifier.math)), a, b)?
            }
        };
        let batch = distance_b.numel();
        let row = distance_b.reshape([1, batch, 1, 1])?;
        Ok(ops::area(&cx.with(Math::FULL), &row, (1, 1))?.reshape([])?)
    }
}
