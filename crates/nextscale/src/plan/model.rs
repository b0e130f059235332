//! What is to be trained.

use crate::memory::{Estimate, Workload};
use crate::model::Pyramid;
use crate::model::var::VarConfig;
use crate::model::vqvae::VqvaeConfig;
use crate::options::{TransformerOptions, process_batch};
use crate::{Error, Result};
use nextscale_tensor::Math;
use nextscale_tensor::cuda::GpuInfo;

/// What a step starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Tokens {
    /// Images: the tokenizer is part of the step
    Images,
    /// Tokens: the transformer's input is made of them
    Tokens,
}

impl Tokens {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Tokens => "tokens",
        }
    }
}

/// A training of the transformer, as its options say.
#[derive(Clone, Debug)]
pub struct Model {
    /// The options.
    pub options: TransformerOptions,
    /// Whether the images of a step were asked for, and are not the recipe's.
    pub bs_is_given: bool,
    /// The transformer.
    pub var: VarConfig,
    /// The tokenizer.
    pub vqvae: VqvaeConfig,
    /// What a step starts from.
    pub from: Tokens,
    /// Arithmetic of both.
    pub math: [Math; 2],
    /// Images of the training set.
    pub images: usize,
}

impl Model {
    /// Of options for a data set of `images` images in `classes` classes, and of a tokenizer as wide as `ch` with `vocab` codes.
    ///
    /// # Errors
    /// [`Error::Input`] where options are wrong.
    pub fn new(
        options: &TransformerOptions,
        (images, classes): (usize, usize),
        [ch, vocab]: [usize; 2],
        from: Tokens,
    ) -> Result<Self> {
        let counts = [
            ("images", images),
            ("classes", classes),
            ("ch", ch),
            ("vocab", vocab),
        ];
        for (flag, n) in counts {
            if n == 0 || n > i32::MAX as usize {
                let why = format!("it must be from 1 to {}", i32::MAX);
                return Err(Error::field(flag, n, why));
            }
        }
        let mut options = options.clone();
        options.schedule.ac = 1;
        let plan = options.resolve(1)?;
        let pyramid = Pyramid::square(&plan.patch_nums)?;
        let vqvae = VqvaeConfig {
            ch,
            vocab,
            ..VqvaeConfig::published(pyramid.clone())
        };
        if options.patch_size != vqvae.downsample() {
            let why = "plans are made for the published tokenizer's 16 pixels a token";
            return Err(Error::field("patch_size", options.patch_size, why));
        }
        let var = VarConfig {
            vocab,
            cvae: vqvae.cvae,
            shared_aln: options.saln,
            attn_l2_norm: options.anorm,
            ..VarConfig::of_depth(options.depth, classes, pyramid)
        };
        var.check()?;
        Ok(Self {
            math: [plan.math, plan.tokenizer_precision.math()],
            bs_is_given: false,
            var,
            vqvae,
            from,
            images,
            options,
        })
    }

    /// The dry run of it on GPUs like this one, in which of so many blocks one is run again (0: none), and of which so many share the
    /// optimizer.
    ///
    /// # Errors
    /// As [`Estimate::new`].
    pub(super) fn estimate(
        &self,
        info: &GpuInfo,
        recompute: usize,
        shares: usize,
    ) -> Result<Estimate<'_>> {
        Estimate::new(
            info,
            Workload::Train {
                var: &self.var,
                vqvae: &self.vqvae,
                from_tokens: self.from == Tokens::Tokens,
                math: self.math,
                ema: self.options.schedule.ema,
                recompute,
                shares,
            },
        )
    }

    /// Images of a step that `gpus` GPUs can share: those asked for, or from the recipe's on the next number that they can.
    ///
    /// # Errors
    /// [`Error::Input`] where those asked for can't be shared.
    pub(super) fn batch_for(&self, gpus: usize) -> Result<usize> {
        let bs = self.options.schedule.bs;
        if self.bs_is_given || gpus == 1 {
            process_batch(bs, 1, gpus)?;
            return Ok(bs);
        }
        Ok(bs.next_multiple_of(gpus))
    }

    /// Optimizer steps of the whole training with `bs` images each.
    pub fn steps(&self, bs: usize) -> u64 {
        (self.options.schedule.ep * self.images.div_ceil(bs)) as u64
    }

    /// What it is called in tables: the recipe, or the depth.
    pub fn name(&self) -> String {
        match self.options.recipe {
            Some(recipe) => recipe.name().to_owned(),
            None => format!("depth {}", self.options.depth),
        }
    }
}
