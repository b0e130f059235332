//! The options of `train`: names and defaults as the reference has them, and nextscale's own.

use super::plan::{Course, Horizon, check_side, process_batch};
use super::values::{beside_training, training_precision};
use super::values::{expand_pn, format_g, option_as_text, parse_pn, precision_by_name};
#[cfg(feature = "cli")]
use super::values::{parse_bool, precision_parser};
use super::{
    DataOptions, FolderOptions, MachineOptions, OutputOptions, Recipe, ScheduleOptions,
    ScoreOptions, check,
};
use crate::Result;
use crate::model::Pyramid;
use crate::model::var::{InitScales, VarConfig};
use crate::model::vqvae::VqvaeConfig;
use crate::train::progressive::StagePlan;
use crate::train::schedule::Curve;
#[cfg(feature = "cli")]
use clap::ArgAction;
use nextscale_tensor::{Math, Precision};
use std::path::PathBuf;

options! {
    /// The options of `train`. Every field is the flag of the same name.
    ///
    /// On a command line use `TransformerArgs`, which also applies `--recipe`.
    #[serde(deny_unknown_fields)]
    pub struct TransformerOptions {
        in "Data" {
            /// Learn from a file of `nextscale tokenize` instead of images; it brings the codebook, crops and mirroring
            #[serde(serialize_with = "option_as_text")]
            [value_name = "FILE"]
            tokens: Option<PathBuf>;
            /// Tokens of validation images; without it runs with --tokens do not evaluate
            #[serde(serialize_with = "option_as_text")]
            [value_name = "FILE"]
            val_tokens: Option<PathBuf>;
        }
        in "Output" {
            /// Name of the run in its logs
            [value_name = "NAME"]
            exp_name: String = "text".to_owned();
        }
        in "Model" {
            /// A set of flags, for those that are not given: of a published model (d16, d20, d24, d30, d36-s) or for small data
            /// (small-32, small-64, small-128, medium-256; auto: the one for this folder and machine)
            [value_enum, hide_possible_values = true]
            recipe: Option<Recipe>;
            /// Weights of the tokenizer (VQVAE): .safetensors or the published .pth; with --tokens it may be left out, and is needed again to sample
            #[serde(serialize_with = "option_as_text")]
            [value_name = "FILE"]
            tokenizer: Option<PathBuf>;
            /// Blocks of the transformer; its width is 64 for each
            [value_name = "N"]
            depth: usize = 16;
            /// Side lengths of the token maps: 256, 512, 1024 or a list such as 1_2_3_4; without it those of the file of --tokenizer or --tokens, where that says them
            [value_name = "LIST"]
            pn: String = "256".to_owned();
            /// Image pixels along a side of one token; without it as the tokenizer's file says
            [value_name = "N"]
            patch_size: usize = 16;
            /// One adaptive norm shared by all blocks
            [value_name = "0|1", value_parser = parse_bool, action = ArgAction::Set]
            saln: bool = false;
            /// Queries and keys of unit length in attention
            [value_name = "0|1", value_parser = parse_bool, action = ArgAction::Set]
            anorm: bool = true;
            /// Standard deviation of the initial weights; negative: from the width
            [value_name = "X", allow_negative_numbers = true]
            ini: f64 = -1.0;
            /// Factor on the head's initial weight
            [value_name = "X", allow_negative_numbers = true]
            hd: f64 = 0.02;
            /// Factor on the initial weights of the adaptive norms
            [value_name = "X", allow_negative_numbers = true]
            aln: f64 = 0.5;
            /// The same for the rows that gate the branches
            [value_name = "X", allow_negative_numbers = true]
            alng: f64 = 1e-5;
        }
        in "Machine" {
            /// Precision as the reference's flag says it: 0 float32 or TF32 (--tf32), 1 float16 with a loss scale, 2 bfloat16
            [value_name = "0|1|2"]
            fp16: u8 = 0;
            /// Precision of the tokenizer on a GPU; without it bf16 beside a transformer in half precision, else the transformer's
            #[serde(with = "precision_by_name")]
            [value_parser = precision_parser()]
            tokenizer_precision: Option<Precision>;
            /// 1: several processes share the optimizer's memory: each keeps and updates its part of master weights and moments (ZeRO, stage 1)
            [value_name = "0|1"]
            zero: u8 = 0;
            /// Save memory: of every Nth block, or of all, keep only what goes in, and run it again for its gradients; 0: none
            [value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "1"]
            recompute: usize = 0;
        }
        in "Optimization" {
            /// Learning rate for 256 images a step; it is scaled with the batch
            [value_name = "X"]
            tblr: f64 = 1e-4;
            /// Weight decay at the start
            [value_name = "X"]
            twd: f64 = 0.05;
            /// Weight decay at the end; 0: the same as at the start
            [value_name = "X"]
            twde: f64 = 0.0;
            /// Largest global norm of the gradients; 0 or less: no limit
            [value_name = "X", allow_negative_numbers = true]
            tclip: f64 = 2.0;
            /// Label smoothing
            [value_name = "X"]
            ls: f64 = 0.0;
            /// Optimizer: adamw (adam is the same)
            [value_name = "NAME"]
            opt: String = "adamw".to_owned();
            /// Progressive training: the share of the run at which all scales take part; 0: from the start
            [value_name = "X"]
            pg: f64 = 0.0;
            /// Progressive training: the highest scale at the start, counted from 0
            [value_name = "N"]
            pg0: usize = 4;
            /// Progressive training: epochs over which a new scale's loss weight rises; 0: a 300th of all
            [value_name = "X"]
            pgwp: f64 = 0.0;
        }
        in "Accepted for compatibility" {
            /// Compilation of the tokenizer in the reference; accepted, there is nothing to switch
            [value_name = "N"]
            vfast: u8 = 0;
            /// Compilation of the transformer in the reference; accepted, there is nothing to switch
            [value_name = "N"]
            tfast: u8 = 0;
            /// Fused AdamW; accepted, it always is
            [value_name = "0|1", value_parser = parse_bool, action = ArgAction::Set]
            afuse: bool = true;
            /// Fused operators; accepted, they always are
            [value_name = "0|1", value_parser = parse_bool, action = ArgAction::Set]
            fuse: bool = true;
        }
        with {
            /// Images and how they are read.
            data: DataOptions;
            /// What the images of the folder are.
            folder: FolderOptions;
            /// Steps, their images, and how the learning rate goes.
            schedule: ScheduleOptions;
            /// Files of the run.
            output: OutputOptions;
            /// Whether samples are judged.
            score: ScoreOptions;
            /// What the run computes on.
            machine: MachineOptions;
        }
    }
}

/// A training run with `world` processes, worked out from [`TransformerOptions`].
#[derive(Debug, Clone, PartialEq)]
pub struct TransformerPlan {
    /// Side lengths of the token maps, strictly increasing.
    pub patch_nums: Vec<usize>,
    /// Image side that each scale stands for: `patch_nums` times `patch_size`.
    pub resolutions: Vec<usize>,
    /// Tokens of one image, over all scales.
    pub tokens: usize,
    /// Image side R.
    pub image_size: usize,
    /// Images in one iteration of one process.
    pub batch: usize,
    /// Images in one iteration of all processes.
    pub global_batch: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Weight decay at the start.
    pub wd: f64,
    /// Weight decay at the end.
    pub wd_end: f64,
    /// Largest global gradient norm.
    pub clip: Option<f64>,
    /// Epochs of a new scale's ramp, where they are given.
    ramp_epochs: Option<f64>,
    /// The learning rate's curve after warm-up.
    pub curve: Curve,
    /// Precision of the transformer's products.
    pub precision: Precision,
    /// The same with what stays in float32.
    pub math: Math,
    /// Precision of the tokenizer's products.
    pub tokenizer_precision: Precision,
    /// Threads that read images, at most one for each image of a batch; 0: chosen by the loader.
    pub workers: usize,
    /// Where the TensorBoard event files go.
    pub tb_dir: PathBuf,
    schedule: ScheduleOptions,
    pg: f64,
    pg0: usize,
}

impl TransformerOptions {
    /// Checks all options and works out what depends on others, for `world` processes.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input), one line that names the flag.
    pub fn resolve(&self, world: usize) -> Result<TransformerPlan> {
        let world = world.max(1);
        self.check()?;
        let schedule = &self.schedule;
        let patch_nums = parse_pn(&self.pn)?;
        let resolutions: Vec<usize> = patch_nums
            .iter()
            .map(|side| side * self.patch_size)
            .collect();
        let largest = patch_nums.last().copied().unwrap_or(0);
        check_side(
            largest * self.patch_size,
            &format!("`pn`={} `patch_size`={}", self.pn, self.patch_size),
        )?;
        if self.pg > 0.0 {
            check::that(
                self.pg0 < patch_nums.len(),
                "pg0",
                self.pg0,
                &format!(
                    "there are only {} scales; the last one is {}",
                    patch_nums.len(),
                    patch_nums.len() - 1
                ),
            )?;
        }
        // The flag's short form decides the bend, so the same text means the same curve.
        let bend = (self.pg > 0.0).then(|| format!("lin{}", format_g(self.pg)));
        let curve = schedule.curve(bend)?;
        let batch = process_batch(schedule.bs, schedule.ac, world)?;
        let global_batch = batch * world;
        let or = |value: f64, otherwise: f64| if value == 0.0 { otherwise } else { value };
        let tf32 = self.machine.tf32;
        let precision = training_precision(self.fp16, tf32)?;
        Ok(TransformerPlan {
            tokens: patch_nums.iter().map(|side| side * side).sum(),
            image_size: largest * self.patch_size,
            resolutions,
            batch,
            global_batch,
            lr: schedule.ac as f64 * self.tblr * global_batch as f64 / 256.0,
            wd: self.twd,
            wd_end: or(self.twde, self.twd),
            clip: (self.tclip > 0.0).then_some(self.tclip),
            ramp_epochs: (self.pgwp != 0.0).then_some(self.pgwp),
            curve,
            precision,
            math: precision.beside(tf32),
            tokenizer_precision: self
                .tokenizer_precision
                .unwrap_or(beside_training(precision)),
            workers: self.data.workers_for(batch),
            tb_dir: self.output.out.join(self.tb_name(global_batch)),
            patch_nums,
            schedule: schedule.clone(),
            pg: self.pg,
            pg0: self.pg0,
        })
    }

    /// The model of so many classes, over the tokens of `vqvae` on these scales.
    pub fn model(&self, vqvae: &VqvaeConfig, classes: usize, pyramid: Pyramid) -> VarConfig {
        VarConfig {
            vocab: vqvae.vocab,
            cvae: vqvae.cvae,
            shared_aln: self.saln,
            attn_l2_norm: self.anorm,
            ..VarConfig::of_depth(self.depth, classes, pyramid)
        }
    }

    /// What initial weights are scaled by.
    pub fn init_scales(&self) -> InitScales {
        InitScales {
            ini: self.ini as f32,
            hd: self.hd as f32,
            aln: self.aln as f32,
            alng: self.alng as f32,
        }
    }

    /// The TensorBoard folder's name.
    fn tb_name(&self, global_batch: usize) -> String {
        let opt: String = self.opt.chars().take(4).collect();
        let name = format!(
            "tb-VARd{}__pn{}__b{global_batch}ep{}{opt}lr{}wd{}",
            self.depth,
            expand_pn(&self.pn),
            self.schedule.ep,
            format_g(self.tblr),
            format_g(self.twd),
        );
        name.chars()
            .map(|c| match c {
                '-' | '_' | '+' | ',' | '.' => c,
                _ if c.is_alphanumeric() => c,
                _ => '_',
            })
            .collect()
    }

    /// Checks what needs no other option, and the few pairs.
    fn check(&self) -> Result<()> {
        check::counts(&[("depth", self.depth)])?;
        let known = "it must be 0, or 1 to share master weights and moments";
        check::that(self.zero <= 1, "zero", self.zero, known)?;
        if let Some(recipe) = self.recipe {
            recipe.check(false)?;
        }
        self.schedule.check()?;
        self.data.check()?;
        self.folder.check()?;
        self.output.check()?;
        // The reference's stochastic depth, 0.1·depth/24, must stay a probability.
        check::that(
            self.depth < 240,
            "depth",
            self.depth,
            "it must be less than 240",
        )?;
        let factors = [
            ("ini", self.ini),
            ("hd", self.hd),
            ("aln", self.aln),
            ("alng", self.alng),
        ];
        check::numbers(&factors)?;
        check::numbers(&[("tclip", self.tclip)])?;
        // Weights are made of these in float32.
        for (flag, value) in factors {
            let held = (value as f32).is_finite();
            check::that(held, flag, value, "it is more than float32 holds")?;
        }
        check::amounts(&[
            ("tblr", self.tblr),
            ("twd", self.twd),
            ("twde", self.twde),
            ("pgwp", self.pgwp),
        ])?;
        check::that(self.tblr > 0.0, "tblr", self.tblr, "it must be more than 0")?;
        check::that(
            (0.0..1.0).contains(&self.ls),
            "ls",
            self.ls,
            "it must be at least 0 and less than 1",
        )?;
        check::that(
            (0.0..=1.0).contains(&self.pg),
            "pg",
            self.pg,
            "it must be from 0 to 1",
        )?;
        check::that(
            matches!(self.opt.trim().to_lowercase().as_str(), "adamw" | "adam"),
            "opt",
            &self.opt,
            "no such optimizer; use adamw",
        )?;
        check::that(
            self.patch_size.is_power_of_two() && self.patch_size <= 64,
            "patch_size",
            self.patch_size,
            "use the tokenizer's: a power of two up to 64, 16 for the published one",
        )
    }
}

impl TransformerPlan {
    /// The run in iterations for `images` training images.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) without images.
    pub fn horizon(&self, images: usize) -> Result<Horizon> {
        let course = Course {
            global_batch: self.global_batch,
            curve: self.curve,
            peak_lr: self.lr,
            wd: (self.wd, self.wd_end),
        };
        course.horizon(images, &self.schedule, |its, max_it| {
            self.run_epochs(its, max_it) / 50.0 * its as f64
        })
    }

    /// Epochs of the run, a part of the last one counted as such.
    fn run_epochs(&self, its_per_epoch: u64, max_it: u64) -> f64 {
        match self.schedule.steps {
            Some(_) => max_it as f64 / its_per_epoch as f64,
            None => self.schedule.ep as f64,
        }
    }

    /// Epochs of warm-up.
    pub(crate) fn warmup_epochs(&self, horizon: &Horizon) -> f64 {
        match self.schedule.wp {
            0.0 => self.run_epochs(horizon.its_per_epoch, horizon.max_it) / 50.0,
            epochs => epochs,
        }
    }

    /// Epochs of a new scale's ramp.
    pub(crate) fn ramp_epochs(&self, horizon: &Horizon) -> f64 {
        let run = self.run_epochs(horizon.its_per_epoch, horizon.max_it);
        self.ramp_epochs.unwrap_or(run / 300.0)
    }

    /// Stages of progressive training, if there are any.
    pub fn stages(&self, horizon: &Horizon) -> Option<StagePlan> {
        (self.pg > 0.0).then_some(StagePlan {
            pg: self.pg,
            first: self.pg0,
            scales: self.patch_nums.len(),
            warmup_its: horizon.warmup_its,
            max_it: horizon.max_it,
            ramp_its: self.ramp_epochs(horizon) * horizon.its_per_epoch as f64,
        })
    }
}
