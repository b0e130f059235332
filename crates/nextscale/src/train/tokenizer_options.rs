//! The flags of `train-tokenizer` and what follows from them.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use serde::{Deserialize, Serialize};

use super::device::TokenizerPrecision;
use super::flags::{BadImages, DeviceChoice, check, parse_bool, parse_pn, path_as_text};
use super::plan::{Precision, check_counts, check_side, process_batch};
use super::schedule::{Curve, Schedule};
use crate::model::vqvae::limits;
use crate::{Error, Result};

/// The flags of `train-tokenizer`. Every field is the flag of the same name; those that `train` has too
/// mean the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Args)]
#[serde(default, deny_unknown_fields)]
#[command(rename_all = "snake_case")]
pub struct TokenizerOptions {
    /// Folder with train/CLASS/* and val/CLASS/*, or builtin:shapes for the images that come with the program
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    pub data_path: Option<String>,
    /// Output folder; a run continues from the checkpoint that it finds there
    #[arg(long, value_name = "DIR", default_value_os_t = Self::default().out, help_heading = "Output")]
    #[serde(serialize_with = "path_as_text")]
    pub out: PathBuf,
    /// auto, cpu, cuda or cuda:N; auto takes a GPU where there is one
    #[arg(long, default_value_t = Self::default().device, help_heading = "Machine")]
    pub device: DeviceChoice,
    /// TF32 in matrix products and convolutions on GPUs
    #[arg(long, value_name = "0|1", value_parser = parse_bool, action = ArgAction::Set, default_value_t = Self::default().tf32, help_heading = "Machine")]
    pub tf32: bool,
    /// Precision of products on a GPU; without it tf32 or fp32, as --tf32 says
    #[arg(long, value_enum, help_heading = "Machine")]
    pub precision: Option<TokenizerPrecision>,
    /// Threads that compute on the CPU; 0: one for each core
    #[arg(long, value_name = "N", default_value_t = Self::default().threads, help_heading = "Machine")]
    pub threads: usize,

    /// Base width of the encoder and the decoder, a multiple of 32
    #[arg(long, value_name = "N", default_value_t = Self::default().ch, help_heading = "Model")]
    pub ch: usize,
    /// Widths of the levels as multiples of ch, finest first; every level but the last halves the image
    #[arg(long, value_name = "LIST", default_value_t = Self::default().ch_mult, help_heading = "Model")]
    pub ch_mult: String,
    /// Residual blocks of each level of the encoder; the decoder has one more
    #[arg(long, value_name = "N", default_value_t = Self::default().num_res_blocks, help_heading = "Model")]
    pub num_res_blocks: usize,
    /// Codes in the codebook
    #[arg(long, value_name = "N", default_value_t = Self::default().vocab, help_heading = "Model")]
    pub vocab: usize,
    /// Width of a code
    #[arg(long, value_name = "N", default_value_t = Self::default().cvae, help_heading = "Model")]
    pub cvae: usize,
    /// Side lengths of the token maps: 256, 512, 1024 or a list such as 1_2_3_4
    #[arg(long, value_name = "LIST", default_value_t = Self::default().pn, help_heading = "Model")]
    pub pn: String,
    /// Convolutions after upsampling: 1 for all scales, 0 for one each, else so many
    #[arg(long, value_name = "N", default_value_t = Self::default().share_quant_resi, help_heading = "Model")]
    pub share_quant_resi: usize,
    /// Share of the convolution in what it gives; 0: none
    #[arg(long, value_name = "X", allow_negative_numbers = true, default_value_t = Self::default().quant_resi, help_heading = "Model")]
    pub quant_resi: f64,
    /// Search codes by angle and not by distance
    #[arg(long, value_name = "0|1", value_parser = parse_bool, action = ArgAction::Set, default_value_t = Self::default().znorm, help_heading = "Model")]
    pub znorm: bool,
    /// Dropout in the residual blocks
    #[arg(long, value_name = "X", default_value_t = Self::default().dropout, help_heading = "Model")]
    pub dropout: f64,

    /// Weight of the commitment to the codes in the quantizer's loss
    #[arg(long, value_name = "X", default_value_t = Self::default().beta, help_heading = "Optimization")]
    pub beta: f64,
    /// Weight of the mean absolute error of the image
    #[arg(long, value_name = "X", default_value_t = Self::default().l1, help_heading = "Optimization")]
    pub l1: f64,
    /// Weight of the mean squared error of the image
    #[arg(long, value_name = "X", default_value_t = Self::default().l2, help_heading = "Optimization")]
    pub l2: f64,
    /// Move codes that are hardly ever used to features of the current images every so many steps; 0: never
    #[arg(long, value_name = "STEPS", default_value_t = Self::default().revive, help_heading = "Optimization")]
    pub revive: u64,
    /// Peak learning rate; it is not scaled with the batch
    #[arg(long, value_name = "X", default_value_t = Self::default().lr, help_heading = "Optimization")]
    pub lr: f64,
    /// AdamW's two decay rates
    #[arg(long, value_name = "A_B", default_value_t = Self::default().betas, help_heading = "Optimization")]
    pub betas: String,
    /// Weight decay
    #[arg(long, value_name = "X", default_value_t = Self::default().wd, help_heading = "Optimization")]
    pub wd: f64,
    /// Largest global norm of the gradients; 0 or less: no limit
    #[arg(long, value_name = "X", allow_negative_numbers = true, default_value_t = Self::default().clip, help_heading = "Optimization")]
    pub clip: f64,
    /// Images in a step, over all processes
    #[arg(long, value_name = "N", default_value_t = Self::default().bs, help_heading = "Optimization")]
    pub bs: usize,
    /// Epochs
    #[arg(long, value_name = "N", default_value_t = Self::default().ep, help_heading = "Optimization")]
    pub ep: usize,
    /// Steps of the whole run, instead of --ep
    #[arg(long, value_name = "N", help_heading = "Optimization")]
    pub steps: Option<u64>,
    /// Epochs of warm-up; 0: a fiftieth of the run
    #[arg(long, value_name = "X", default_value_t = Self::default().wp, help_heading = "Optimization")]
    pub wp: f64,
    /// Learning rate at the first step as a share of its peak
    #[arg(long, value_name = "X", default_value_t = Self::default().wp0, help_heading = "Optimization")]
    pub wp0: f64,
    /// Learning rate at the last step as a share of its peak
    #[arg(long, value_name = "X", default_value_t = Self::default().wpe, help_heading = "Optimization")]
    pub wpe: f64,
    /// How the learning rate falls: cos, lin, lin0, lin00, linT (such as lin0.3) or exp
    #[arg(long, value_name = "NAME", default_value_t = Self::default().sche, help_heading = "Optimization")]
    pub sche: String,
    /// Seed of all random draws; without it one is drawn and logged
    #[arg(long, value_name = "N", help_heading = "Optimization")]
    pub seed: Option<u64>,

    /// Images are resized to this many times their final side before the crop
    #[arg(long, value_name = "X", default_value_t = Self::default().mid_reso, help_heading = "Data")]
    pub mid_reso: f64,
    /// Mirror half of the training images
    #[arg(long, value_name = "0|1", value_parser = parse_bool, action = ArgAction::Set, default_value_t = Self::default().hflip, help_heading = "Data")]
    pub hflip: bool,
    /// Threads that read images; 0 or less: chosen from the number of cores
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = Self::default().workers, help_heading = "Data")]
    pub workers: i64,
    /// What to do with an image that can't be read: name it and take another one (skip), or stop (fail)
    #[arg(long, value_enum, default_value_t = Self::default().bad_images, help_heading = "Data")]
    pub bad_images: BadImages,

    /// Save and stop after this many steps of the whole run; the same command continues it
    #[arg(long, value_name = "STEPS", help_heading = "Output")]
    pub stop_after: Option<u64>,
    /// Evaluate (and save) after every so many epochs; 0: only after the last
    #[arg(long, value_name = "EPOCHS", default_value_t = Self::default().eval_every, help_heading = "Output")]
    pub eval_every: u64,
    /// Save a checkpoint every so many steps; 0: only with evaluations and at the end
    #[arg(long, value_name = "STEPS", default_value_t = Self::default().save_every, help_heading = "Output")]
    pub save_every: u64,
    /// Checkpoints to go on from that are kept: the last one and those before it, NAME.1.safetensors and so on
    #[arg(long, value_name = "N", default_value_t = Self::default().keep, help_heading = "Output")]
    pub keep: usize,
    /// Write a line into steps.jsonl every so many steps; 0: none
    #[arg(long, value_name = "STEPS", default_value_t = Self::default().log_every, help_heading = "Output")]
    pub log_every: u64,
    /// No progress on the terminal
    #[arg(long, value_name = "0|1", value_parser = parse_bool, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "1", default_value_t = Self::default().quiet, help_heading = "Output")]
    pub quiet: bool,
}

impl Default for TokenizerOptions {
    fn default() -> Self {
        Self {
            data_path: None,
            out: PathBuf::from("local_output"),
            device: DeviceChoice::Auto,
            tf32: true,
            precision: None,
            threads: 0,
            ch: 160,
            ch_mult: "1_1_2_2_4".into(),
            num_res_blocks: 2,
            vocab: 4096,
            cvae: 32,
            pn: "256".to_owned(),
            share_quant_resi: 4,
            quant_resi: 0.5,
            znorm: false,
            dropout: 0.0,
            beta: 0.25,
            l1: 0.2,
            l2: 1.0,
            revive: 50,
            lr: 3e-4,
            betas: "0.9_0.95".to_owned(),
            wd: 0.005,
            clip: 2.0,
            bs: 64,
            ep: 20,
            steps: None,
            wp: 0.0,
            wp0: 0.005,
            wpe: 0.01,
            sche: "lin0".to_owned(),
            seed: None,
            mid_reso: 1.125,
            hflip: false,
            workers: 0,
            bad_images: BadImages::Fail,
            stop_after: None,
            eval_every: 10,
            save_every: 0,
            keep: 2,
            log_every: 10,
            quiet: false,
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
    /// Images in one step of one process.
    pub batch: usize,
    /// Images in one step of all processes.
    pub global_batch: usize,
    /// Widths of the levels as multiples of the base width.
    pub ch_mult: Vec<usize>,
    /// Arithmetic of products on a GPU.
    pub precision: TokenizerPrecision,
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

/// A tokenizer run in steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenizerHorizon {
    /// Steps of one epoch; the last batch is filled up.
    pub its_per_epoch: u64,
    /// Steps of the whole run.
    pub max_it: u64,
    /// Learning rate and weight decay.
    pub schedule: Schedule,
}

impl TokenizerOptions {
    /// Checks all flags and works out what depends on others, for `world` processes.
    ///
    /// # Errors
    /// [`Error::Input`], one line that names the flag.
    pub fn resolve(&self, world: usize) -> Result<TokenizerPlan> {
        let world = world.max(1);
        self.check()?;
        let patch_nums = parse_pn(&self.pn)?;
        let curve: Curve = self.sche.parse()?;
        if curve == Curve::Exp {
            check::that(
                self.wpe > 0.0,
                "wpe",
                self.wpe,
                "--sche=exp needs more than 0",
            )?;
        }
        let batch = process_batch(self.bs, 1, world)?;
        let ch_mult = parse_ch_mult(&self.ch_mult)?;
        // Every level but the last halves the image.
        let patch_size = 1 << (ch_mult.len() - 1);
        let image_size = patch_size * patch_nums.last().copied().unwrap_or(0);
        check_side(
            image_size,
            &format!("--pn={} --ch_mult={}", self.pn, self.ch_mult),
        )?;
        Ok(TokenizerPlan {
            image_size,
            patch_nums,
            batch,
            global_batch: batch * world,
            ch_mult,
            precision: Precision::Float32.tokenizer(self.precision, self.tf32),
            betas: parse_betas(&self.betas)?,
            clip: (self.clip > 0.0).then_some(self.clip),
            curve,
            workers: (self.workers.max(0) as usize).min(batch),
            options: self.clone(),
        })
    }

    fn check(&self) -> Result<()> {
        check::counts(&[
            ("cvae", self.cvae),
            ("bs", self.bs),
            ("ep", self.ep),
            ("num_res_blocks", self.num_res_blocks),
            ("keep", self.keep),
        ])?;
        check_counts(self.bs, self.ep)?;
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
        check::amounts(&[
            ("beta", self.beta),
            ("l1", self.l1),
            ("l2", self.l2),
            ("lr", self.lr),
            ("wd", self.wd),
            ("wp", self.wp),
            ("wp0", self.wp0),
            ("wpe", self.wpe),
        ])?;
        check::numbers(&[("clip", self.clip)])?;
        check::that(self.lr > 0.0, "lr", self.lr, "it must be more than 0")?;
        check::that(
            self.l1 + self.l2 > 0.0,
            "l2",
            self.l2,
            "with --l1=0 it must be more than 0: nothing would compare the images",
        )?;
        check::that(
            self.steps.is_some() || self.wp <= self.ep as f64,
            "wp",
            self.wp,
            &format!("so many epochs of warm-up don't fit into --ep={}", self.ep),
        )?;
        check::margin(self.mid_reso)?;
        check::that(self.steps != Some(0), "steps", 0, "it must be at least 1")?;
        check::that(
            self.stop_after != Some(0),
            "stop_after",
            0,
            "it must be at least 1 step",
        )
    }
}

/// Most levels of a tokenizer: with 7 a token stands for 64×64 pixels.
const MOST_LEVELS: usize = 7;

/// Reads `--ch_mult`: a number from 1 to 64 for each level, joined by `_`.
fn parse_ch_mult(text: &str) -> Result<Vec<usize>> {
    let widths: Option<Vec<usize>> = text
        .split('_')
        .map(|w| w.parse().ok().filter(|w| (1..=64).contains(w)))
        .collect();
    widths.filter(|w| (1..=MOST_LEVELS).contains(&w.len())).ok_or_else(|| {
        Error::input(format!(
            "--ch_mult={text}: expected 1 to {MOST_LEVELS} numbers from 1 to 64, such as 1_1_2_2_4"
        ))
    })
}

/// Reads `--betas`: two numbers in [0, 1) joined by `_`.
pub(super) fn parse_betas(text: &str) -> Result<(f64, f64)> {
    let refuse = || {
        Error::input(format!(
            "--betas={text}: expected two numbers from 0 to below 1, such as 0.9_0.95"
        ))
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
    /// The run in steps for `images` training images.
    ///
    /// # Errors
    /// [`Error::Input`] without images.
    pub fn horizon(&self, images: usize) -> Result<TokenizerHorizon> {
        if images == 0 {
            return Err(Error::input("--data_path: there are no training images"));
        }
        let options = &self.options;
        let its_per_epoch = images.div_ceil(self.global_batch) as u64;
        let max_it = options.steps.unwrap_or(its_per_epoch * options.ep as u64);
        let warmup_its = if options.wp == 0.0 {
            max_it as f64 / 50.0
        } else {
            options.wp * its_per_epoch as f64
        };
        Ok(TokenizerHorizon {
            its_per_epoch,
            max_it,
            schedule: Schedule {
                curve: self.curve,
                peak_lr: options.lr,
                wd: options.wd,
                wd_end: options.wd,
                warmup_its,
                wp0: options.wp0,
                wpe: options.wpe,
                max_it,
            },
        })
    }
}
