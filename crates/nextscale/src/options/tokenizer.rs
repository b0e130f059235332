//! The options of `train-tokenizer` and what follows from them.

use super::plan::{Course, Horizon, check_side, process_batch};
use super::values::{option_as_text, training_precision};
#[cfg(feature = "cli")]
use super::values::{parse_bool, precision_parser};
use super::values::{parse_pn, precision_by_name};
use super::{
    DataOptions, FolderOptions, MachineOptions, OutputOptions, Recipe, ScheduleOptions, check,
};
use crate::model::Pyramid;
use crate::model::vqvae::{VqvaeConfig, limits};
use crate::train::schedule::Curve;
use crate::train::tokenizer_trainer::TokenizerSettings;
use crate::{Error, Result};
#[cfg(feature = "cli")]
use clap::ArgAction;
use nextscale_tensor::Precision;
use std::path::PathBuf;

options! {
    /// The options of `train-tokenizer`. Every field is the flag of the same name.
    ///
    /// On a command line use `TokenizerArgs`, which knows this trainer's defaults of shared flags.
    #[serde(deny_unknown_fields)]
    pub struct TokenizerOptions {
        in "Machine" {
            /// Precision of products on a GPU, fp16 with a loss scale; without it tf32 or fp32, as --tf32 says
            #[serde(with = "precision_by_name")]
            [value_parser = precision_parser()]
            precision: Option<Precision>;
        }
        in "Model" {
            /// A set of flags for small data, for those that are not given: small-32, small-64, small-128 or medium-256; auto: the one
            /// for this folder and machine
            [value_enum, hide_possible_values = true]
            recipe: Option<Recipe>;
            /// Base width of the encoder and the decoder, a multiple of 32
            [value_name = "N"]
            ch: usize = 160;
            /// Widths of the levels as multiples of ch, finest first; every level but the last halves the image
            [value_name = "LIST"]
            ch_mult: String = "1_1_2_2_4".to_owned();
            /// Residual blocks of each level of the encoder; the decoder has one more
            [value_name = "N"]
            num_res_blocks: usize = 2;
            /// Codes in the codebook
            [value_name = "N"]
            vocab: usize = 4096;
            /// Width of a code
            [value_name = "N"]
            cvae: usize = 32;
            /// Side lengths of the token maps: 256, 512, 1024 or a list such as 1_2_3_4
            [value_name = "LIST"]
            pn: String = "256".to_owned();
            /// Convolutions after upsampling: 1 for all scales, 0 for one each, else so many
            [value_name = "N"]
            share_quant_resi: usize = 4;
            /// Share of the convolution in what it gives; 0: none
            [value_name = "X", allow_negative_numbers = true]
            quant_resi: f64 = 0.5;
            /// Search codes by angle and not by distance
            [value_name = "0|1", value_parser = parse_bool, action = ArgAction::Set]
            znorm: bool = false;
            /// Dropout in the residual blocks
            [value_name = "X"]
            dropout: f64 = 0.0;
        }
        in "Optimization" {
            /// Weight of the commitment to the codes in the quantizer's loss
            [value_name = "X"]
            beta: f64 = 0.25;
            /// Weight of the mean absolute error of the image
            [value_name = "X"]
            l1: f64 = 0.2;
            /// Weight of the mean squared error of the image
            [value_name = "X"]
            l2: f64 = 1.0;
            /// A network by which images are compared beside their pixels, for pictures that are less soft: a file of train-features, or
            /// VGG-16 (vgg16-397923af.pth) with --lpips; without it there is none
            #[serde(serialize_with = "option_as_text")]
            [value_name = "FILE"]
            perceptual: Option<PathBuf>;
            /// With VGG-16: the heads of LPIPS (vgg.pth of the package lpips, version 0.1)
            #[serde(serialize_with = "option_as_text")]
            [value_name = "FILE"]
            lpips: Option<PathBuf>;
            /// With --perceptual: its weight
            [value_name = "X"]
            lp: f64 = 1.0;
            /// Move codes that are hardly ever used to features of the current images every so many steps; 0: never
            [value_name = "STEPS"]
            revive: u64 = 50;
            /// Peak learning rate; it is not scaled with the batch
            [value_name = "X"]
            lr: f64 = 3e-4;
            /// AdamW's two decay rates
            [value_name = "A_B"]
            betas: String = "0.9_0.95".to_owned();
            /// Weight decay
            [value_name = "X"]
            wd: f64 = 0.005;
            /// Largest global norm of the gradients; 0 or less: no limit
            [value_name = "X", allow_negative_numbers = true]
            clip: f64 = 2.0;
        }
        with {
            /// Images and how they are read.
            data: DataOptions;
            /// What the images of the folder are.
            folder: FolderOptions;
            /// Steps, their images, and how the learning rate goes.
            schedule: ScheduleOptions = ScheduleOptions {
                bs: 64,
                ep: 20,
                ..ScheduleOptions::default()
            };
            /// Files of the run.
            output: OutputOptions;
            /// What the run computes on.
            machine: MachineOptions;
        }
    }
}

/// A tokenizer run with `world` processes, worked out from [`TokenizerOptions`].
#[derive(Debug, Clone, PartialEq)]
pub struct TokenizerPlan {
    /// Side lengths of the token maps, strictly increasing.
    pub patch_nums: Vec<usize>,
    /// Image side.
    pub image_size: usize,
    /// Images in one iteration of one process.
    pub batch: usize,
    /// Images in one iteration of all processes.
    pub global_batch: usize,
    /// Widths of the levels as multiples of the base width.
    pub ch_mult: Vec<usize>,
    /// Precision of products on a GPU.
    pub precision: Precision,
    /// AdamW's two decay rates.
    pub betas: (f64, f64),
    /// Largest global gradient norm.
    pub clip: Option<f64>,
    /// The learning rate's curve after warm-up.
    pub curve: Curve,
    /// Threads that read images, at most one for each image of a batch; 0: chosen by the loader.
    pub workers: usize,
    options: TokenizerOptions,
}

impl TokenizerOptions {
    /// Checks all options and works out what depends on others, for `world` processes.
    ///
    /// # Errors
    /// [`Error::Input`], one line that names the flag.
    pub fn resolve(&self, world: usize) -> Result<TokenizerPlan> {
        let world = world.max(1);
        self.check()?;
        let patch_nums = parse_pn(&self.pn)?;
        let curve = self.schedule.curve(None)?;
        let batch = process_batch(self.schedule.bs, self.schedule.ac, world)?;
        let ch_mult = parse_ch_mult(&self.ch_mult)?;
        // Every level but the last halves the image.
        let patch_size = 1 << (ch_mult.len() - 1);
        let image_size = patch_size * patch_nums.last().copied().unwrap_or(0);
        check_side(
            image_size,
            &format!("`pn`={} `ch_mult`={}", self.pn, self.ch_mult),
        )?;
        let usual = training_precision(0, self.machine.tf32)?;
        Ok(TokenizerPlan {
            image_size,
            patch_nums,
            batch,
            global_batch: batch * world,
            ch_mult,
            precision: self.precision.unwrap_or(usual),
            betas: parse_betas(&self.betas)?,
            clip: (self.clip > 0.0).then_some(self.clip),
            curve,
            workers: self.data.workers_for(batch),
            options: self.clone(),
        })
    }

    fn check(&self) -> Result<()> {
        check::counts(&[("cvae", self.cvae), ("num_res_blocks", self.num_res_blocks)])?;
        if let Some(recipe) = self.recipe {
            recipe.check(true)?;
        }
        self.schedule.check()?;
        self.data.check()?;
        self.folder.check()?;
        self.output.check()?;
        for (flag, value, most) in [
            ("vocab", self.vocab, limits::VOCAB),
            ("cvae", self.cvae, limits::CVAE),
            ("ch", self.ch, limits::CH),
            ("num_res_blocks", self.num_res_blocks, limits::RES_BLOCKS),
            ("share_quant_resi", self.share_quant_resi, limits::PHIS),
        ] {
            let needed = format!("it must be at most {most}");
            check::that(value <= most, flag, value, &needed)?;
        }
        check::that(
            self.ch >= 32 && self.ch.is_multiple_of(32),
            "ch",
            self.ch,
            "it must be a multiple of 32 (its norms have 32 groups)",
        )?;
        check::that(
            self.vocab >= 2,
            "vocab",
            self.vocab,
            "it must be at least 2",
        )?;
        check::that(
            self.quant_resi.is_finite() && self.quant_resi.abs() <= 1.0,
            "quant_resi",
            self.quant_resi,
            "it must be from -1 to 1",
        )?;
        check::that(
            (0.0..1.0).contains(&self.dropout),
            "dropout",
            self.dropout,
            "it must be at least 0 and less than 1",
        )?;
        if let (Some(heads), None) = (&self.lpips, &self.perceptual) {
            let why = "these are heads of VGG-16's maps; give its file too, with `perceptual`";
            return Err(Error::field("lpips", heads.display(), why));
        }
        check::amounts(&[
            ("beta", self.beta),
            ("l1", self.l1),
            ("lp", self.lp),
            ("l2", self.l2),
            ("lr", self.lr),
            ("wd", self.wd),
        ])?;
        check::numbers(&[("clip", self.clip)])?;
        check::that(self.lr > 0.0, "lr", self.lr, "it must be more than 0")?;
        check::that(
            self.l1 + self.l2 > 0.0,
            "l2",
            self.l2,
            "with `l1`=0 it must be more than 0: nothing would compare the images",
        )?;
        Ok(())
    }
}

/// Most levels of a tokenizer: with 7 a token stands for 64×64 pixels.
const MOST_LEVELS: usize = 7;

/// Reads `--ch_mult`: a number from 1 to 64 for each level, joined by `_`.
pub(super) fn parse_ch_mult(text: &str) -> Result<Vec<usize>> {
    let widths: Option<Vec<usize>> = text
        .split('_')
        .map(|w| w.parse().ok().filter(|w| (1..=64).contains(w)))
        .collect();
    widths
        .filter(|w| (1..=MOST_LEVELS).contains(&w.len()))
        .ok_or_else(|| {
            Error::field(
                "ch_mult",
                text,
                format!("expected 1 to {MOST_LEVELS} numbers from 1 to 64, such as 1_1_2_2_4"),
            )
        })
}

/// Reads `--betas`: two numbers in [0, 1) joined by `_`.
pub(super) fn parse_betas(text: &str) -> Result<(f64, f64)> {
    let refuse = || {
        Error::field(
            "betas",
            text,
            "expected two numbers from 0 to below 1, such as 0.9_0.95",
        )
    };
    let (first, second) = text.split_once('_').ok_or_else(refuse)?;
    let read = |word: &str| {
        word.parse::<f64>()
            .ok()
            .filter(|beta| (0.0..1.0).contains(beta))
            .ok_or_else(refuse)
    };
    Ok((read(first)?, read(second)?))
}

impl TokenizerPlan {
    /// The model.
    ///
    /// # Errors
    /// When the scales make no pyramid.
    pub fn model(&self) -> Result<VqvaeConfig> {
        let o = &self.options;
        Ok(VqvaeConfig {
            vocab: o.vocab,
            cvae: o.cvae,
            ch: o.ch,
            ch_mult: self.ch_mult.clone(),
            num_res_blocks: o.num_res_blocks,
            dropout: o.dropout as f32,
            beta: o.beta as f32,
            using_znorm: o.znorm,
            quant_resi: o.quant_resi as f32,
            share_quant_resi: o.share_quant_resi,
            ..VqvaeConfig::published(Pyramid::square(&self.patch_nums)?)
        })
    }

    /// How it is trained; the seed is the run's own.
    pub fn settings(&self) -> TokenizerSettings {
        TokenizerSettings {
            betas: self.betas,
            l1: self.options.l1 as f32,
            l2: self.options.l2 as f32,
            lp: self.options.lp as f32,
            ema: self.options.schedule.ema,
            ..TokenizerSettings::default()
        }
    }

    /// The run in iterations for `images` training images.
    ///
    /// # Errors
    /// [`Error::Input`] without images.
    pub fn horizon(&self, images: usize) -> Result<Horizon> {
        let TokenizerOptions {
            lr, wd, schedule, ..
        } = &self.options;
        let course = Course {
            global_batch: self.global_batch,
            curve: self.curve,
            peak_lr: *lr,
            wd: (*wd, *wd),
        };
        course.horizon(images, schedule, |_, max_it| max_it as f64 / 50.0)
    }
}
