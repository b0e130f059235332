//! A compact residual network that names the class of an image, for scores by features of a folder's own classes and for perceptual
//! distances.
//!
//! Levels of residual blocks (He et al. 2016, "Identity mappings in deep residual networks"), each at half the side of the one before,
//! with group norms (Wu and He 2018) and SiLU: nothing depends on a batch, so what an image gives is the same in any company. The last
//! map, normalised and averaged, are the features; a linear layer makes logits of them.

mod block;
pub mod config;
mod init;
#[cfg(test)]
mod tests;

use super::layers::{Conv2d, GroupNorm, Linear};
use super::{ForwardPass, half_copy, to_device};
use crate::{Error, Result};
use block::Block;
pub use config::ClassifierConfig;
use nextscale_tensor::ops::{self, Conv};
use nextscale_tensor::{Device, Math, Params, ParamsBuilder, Tensor};

/// Added to variances in group normalisation.
const EPS: f32 = 1e-5;

/// What the network says of a batch of images.
pub struct Classified {
    /// The map after each level, \[B, h, w, C\], finest first: what a perceptual distance compares.
    pub maps: Vec<Tensor>,
    /// The last map normalised and averaged over its pixels, \[B, F\] in float32.
    pub features: Tensor,
    /// One number a class, \[B, classes\] in float32: their softmax are probabilities.
    pub logits: Tensor,
}

/// The network with its weights.
pub struct Classifier {
    /// What it was built from.
    pub config: ClassifierConfig,
    /// All weights.
    pub params: Params,
    /// Arithmetic of its products where no context is given.
    pub math: Math,
    stem: Conv2d,
    levels: Vec<Vec<Block>>,
    norm: GroupNorm,
    head: Linear,
}

impl Classifier {
    /// A network with all weights zero: load them or call [`Classifier::init`]. `trainable` decides whether gradients of the weights
    /// are wanted; those of the images come either way.
    ///
    /// # Errors
    /// When the configuration can't be built.
    pub fn new(config: ClassifierConfig, trainable: bool) -> Result<Self> {
        Self::on(config, trainable, Device::Cpu, Math::FULL)
    }

    /// The same on a device at once, where products are computed in `math`.
    ///
    /// # Errors
    /// When the configuration can't be built, the GPU can't be used, or its memory is full.
    pub fn on(
        config: ClassifierConfig,
        trainable: bool,
        device: Device,
        math: Math,
    ) -> Result<Self> {
        config.check("classifier")?;
        let mut b = ParamsBuilder::new();
        let stem = Conv2d::new(&mut b, "stem", (3, config.widths[0]), 3, Conv::halve());
        let mut levels = Vec::new();
        let mut from = config.widths[0];
        for (i, &width) in config.widths.iter().enumerate() {
            let mut blocks = Vec::new();
            for j in 0..config.blocks {
                // The stem has halved the first level already.
                let halves = i > 0 && j == 0;
                let name = format!("levels.{i}.{j}");
                blocks.push(Block::new(&mut b, &name, (from, width), halves));
                from = width;
            }
            levels.push(blocks);
        }
        let norm = norm(&mut b, "norm", from);
        let head = Linear::new(&mut b, "head", from, config.classes);
        Ok(Self {
            params: b.build_on(trainable, device, half_copy(math))?,
            config,
            math,
            stem,
            levels,
            norm,
            head,
        })
    }

    /// Draws initial weights.
    ///
    /// # Errors
    /// While a tensor still holds the weights, or when they are on a GPU.
    pub fn init(&mut self, seed: u64) -> Result<()> {
        init::init(&mut self.params, seed)
    }

    /// Moves the weights to `device`, where products are computed in `math` from then on.
    ///
    /// # Errors
    /// When the GPU can't be used or its memory is full.
    pub fn to_device(&mut self, device: Device, math: Math) -> Result<()> {
        to_device(&mut self.params, device, half_copy(math))?;
        self.math = math;
        Ok(())
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.params.device()
    }

    /// What it says of images \[B, side, side, 3\] in \[−1, 1\].
    ///
    /// # Errors
    /// When the images have another size.
    pub fn forward(&self, pass: &ForwardPass<'_>, images: &Tensor) -> Result<Classified> {
        let side = self.config.side;
        if images.dims().get(1..) != Some(&[side, side, 3]) {
            return Err(Error::failed(format!(
                "the classifier takes images [B, {side}, {side}, 3], not {}",
                images.shape()
            )));
        }
        let p = &self.params;
        let mut x = self.stem.forward(pass, p, images)?;
        let mut maps = Vec::with_capacity(self.levels.len());
        for (i, blocks) in self.levels.iter().enumerate() {
            for block in blocks {
                x = block.forward(pass, p, &x)?;
            }
            pass.see(|| format!("levels.{i}"), &x);
            maps.push(x.clone());
        }
        let x = self.norm.forward(pass, p, &x, true)?;
        let (batch, width) = (x.dims()[0], self.config.features());
        let features = ops::area(&pass.cx, &x, (1, 1))?.reshape([batch, width])?;
        // Few numbers, from which losses and scores are made.
        let logits = self.head.forward(&pass.full().cx, p, &features)?;
        Ok(Classified {
            maps,
            features,
            logits,
        })
    }
}

/// A group normalisation of the classifier's, over groups of [`config::GROUP`] channels.
fn norm(b: &mut ParamsBuilder, name: &str, channels: usize) -> GroupNorm {
    GroupNorm::new(b, name, channels, channels / config::GROUP, EPS)
}
