//! What follows from the flags of `train`: checked, with every dependent default worked out.

use std::path::PathBuf;

use super::flags::{check, expand_pn, format_g, parse_pn};
use super::options::TrainOptions;
use super::progressive::StagePlan;
use super::schedule::{Curve, Schedule};
use crate::data::MAX_SIDE;
use crate::{Error, Result};

/// Arithmetic of the transformer's matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// `--fp16=0`: float32, or TF32 where `--tf32=1` and the device has it.
    Float32,
    /// `--fp16=1`: float16 with a loss scale.
    Float16,
    /// `--fp16=2`: bfloat16.
    BFloat16,
}

/// A training run with `world` processes, worked out from [`TrainOptions`].
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
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
    /// Epochs of warm-up.
    pub warmup_epochs: f64,
    /// Epochs of a new scale's ramp.
    pub ramp_epochs: f64,
    /// The learning rate's curve after warm-up.
    pub curve: Curve,
    /// Arithmetic of the transformer.
    pub precision: Precision,
    /// Threads that read images, at most one for each image of a batch; 0: chosen by the loader.
    pub workers: usize,
    /// Where the TensorBoard event files go.
    pub tb_dir: PathBuf,
    /// Epochs.
    pub epochs: usize,
    wp0: f64,
    wpe: f64,
    pg: f64,
    pg0: usize,
}

/// The run in iterations, once the number of training images is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Horizon {
    /// Iterations of one epoch; the last batch is filled up.
    pub its_per_epoch: u64,
    /// Iterations of the whole run.
    pub max_it: u64,
    /// Iterations of warm-up, not rounded.
    pub warmup_its: f64,
    /// Learning rate and weight decay.
    pub schedule: Schedule,
    /// Stages of progressive training, if there are any.
    pub stages: Option<StagePlan>,
}

impl TrainOptions {
    /// Checks all flags and works out what depends on others, for `world` processes.
    ///
    /// # Errors
    /// [`Error::Input`], one line that names the flag.
    pub fn resolve(&self, world: usize) -> Result<Plan> {
        let world = world.max(1);
        self.check()?;
        let patch_nums = parse_pn(&self.pn)?;
        let resolutions: Vec<usize> = patch_nums
            .iter()
            .map(|side| side * self.patch_size)
            .collect();
        let largest = patch_nums.last().copied().unwrap_or(0);
        check_side(
            largest * self.patch_size,
            &format!("--pn={} --patch_size={}", self.pn, self.patch_size),
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
        let curve: Curve = if self.pg > 0.0 {
            format!("lin{}", format_g(self.pg)).parse()?
        } else {
            self.sche.parse()?
        };
        if curve == Curve::Exp {
            check::that(
                self.wpe > 0.0,
                "wpe",
                self.wpe,
                "--sche=exp needs more than 0",
            )?;
        }
        let batch = process_batch(self.bs, self.ac, world)?;
        let global_batch = batch * world;
        let ep = self.ep as f64;
        let or = |value: f64, otherwise: f64| if value == 0.0 { otherwise } else { value };
        Ok(Plan {
            tokens: patch_nums.iter().map(|side| side * side).sum(),
            image_size: largest * self.patch_size,
            resolutions,
            batch,
            global_batch,
            lr: self.ac as f64 * self.tblr * global_batch as f64 / 256.0,
            wd: self.twd,
            wd_end: or(self.twde, self.twd),
            clip: (self.tclip > 0.0).then_some(self.tclip),
            warmup_epochs: or(self.wp, ep / 50.0),
            ramp_epochs: or(self.pgwp, ep / 300.0),
            curve,
            precision: Precision::of_flag(self.fp16)?,
            workers: (self.workers.max(0) as usize).min(batch),
            tb_dir: self.out.join(self.tb_name(global_batch)),
            patch_nums,
            epochs: self.ep,
            wp0: self.wp0,
            wpe: self.wpe,
            pg: self.pg,
            pg0: self.pg0,
        })
    }

    /// The TensorBoard folder's name.
    fn tb_name(&self, global_batch: usize) -> String {
        let opt: String = self.opt.chars().take(4).collect();
        let name = format!(
            "tb-VARd{}__pn{}__b{global_batch}ep{}{opt}lr{}wd{}",
            self.depth,
            expand_pn(&self.pn),
            self.ep,
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

    /// Checks what needs no other flag, and the few pairs.
    fn check(&self) -> Result<()> {
        check::counts(&[
            ("depth", self.depth),
            ("bs", self.bs),
            ("ac", self.ac),
            ("ep", self.ep),
            ("keep", self.keep),
        ])?;
        check_counts(self.bs, self.ep)?;
        // The reference's stochastic depth, 0.1·depth/24, must stay a probability.
        check::that(
            self.depth < 240,
            "depth",
            self.depth,
            "it must be less than 240",
        )?;
        check::numbers(&[
            ("ini", self.ini),
            ("hd", self.hd),
            ("aln", self.aln),
            ("alng", self.alng),
            ("tclip", self.tclip),
        ])?;
        // Weights are made of these in float32.
        for (flag, value) in [
            ("ini", self.ini),
            ("hd", self.hd),
            ("aln", self.aln),
            ("alng", self.alng),
        ] {
            let held = (value as f32).is_finite();
            check::that(held, flag, value, "it is more than float32 holds")?;
        }
        check::amounts(&[
            ("tblr", self.tblr),
            ("twd", self.twd),
            ("twde", self.twde),
            ("wp", self.wp),
            ("wp0", self.wp0),
            ("wpe", self.wpe),
            ("pgwp", self.pgwp),
        ])?;
        check::that(self.tblr > 0.0, "tblr", self.tblr, "it must be more than 0")?;
        check::that(
            self.wp <= self.ep as f64,
            "wp",
            self.wp,
            &format!("so many epochs of warm-up don't fit into --ep={}", self.ep),
        )?;
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
            self.fp16 <= 2,
            "fp16",
            self.fp16,
            "use 0 (float32), 1 (float16) or 2 (bfloat16)",
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
        )?;
        check::margin(self.mid_reso)?;
        check::that(
            self.stop_after != Some(0),
            "stop_after",
            0,
            "it must be at least 1 step",
        )
    }
}

/// Images in a step at most, over all processes and accumulated iterations: more than anybody trains with, and few enough to count
/// everything that follows from them.
pub(crate) const MOST_IMAGES: usize = 1 << 20;

/// Epochs at most, so that steps can be counted.
pub(crate) const MOST_EPOCHS: usize = 1 << 31;

/// Refuses more images a step or more epochs than can be counted.
pub(crate) fn check_counts(bs: usize, ep: usize) -> Result<()> {
    for (flag, value, most) in [("bs", bs, MOST_IMAGES), ("ep", ep, MOST_EPOCHS)] {
        let needed = format!("it must be at most {most}");
        check::that(value <= most, flag, value, &needed)?;
    }
    Ok(())
}

/// Refuses images that are larger than can be made; `flags` say how large they are.
pub(crate) fn check_side(side: usize, flags: &str) -> Result<()> {
    if side <= MAX_SIDE {
        return Ok(());
    }
    Err(Error::input(format!(
        "{flags}: images would have {side} pixels a side; at most {MAX_SIDE} can be made"
    )))
}

/// Images in one iteration of one process: `bs` over `ac` and `world`, rounded half to even.
pub(crate) fn process_batch(bs: usize, ac: usize, world: usize) -> Result<usize> {
    let batch = (bs as f64 / ac as f64 / world as f64).round_ties_even() as usize;
    if batch >= 1 {
        return Ok(batch);
    }
    let over = if ac > 1 {
        format!(" and --ac={ac} accumulated iterations")
    } else {
        String::new()
    };
    Err(Error::input(format!(
        "--bs={bs}: less than one image for each of {world} processes{over}; raise it to at least {}",
        ac * world
    )))
}

impl Plan {
    /// The run in iterations for `images` training images.
    ///
    /// # Errors
    /// [`Error::Input`] without images.
    pub fn horizon(&self, images: usize) -> Result<Horizon> {
        if images == 0 {
            return Err(Error::input("--data_path: there are no training images"));
        }
        let its_per_epoch = images.div_ceil(self.global_batch) as u64;
        let max_it = its_per_epoch * self.epochs as u64;
        let warmup_its = self.warmup_epochs * its_per_epoch as f64;
        Ok(Horizon {
            its_per_epoch,
            max_it,
            warmup_its,
            schedule: Schedule {
                curve: self.curve,
                peak_lr: self.lr,
                wd: self.wd,
                wd_end: self.wd_end,
                warmup_its,
                wp0: self.wp0,
                wpe: self.wpe,
                max_it,
            },
            stages: (self.pg > 0.0).then_some(StagePlan {
                pg: self.pg,
                first: self.pg0,
                scales: self.patch_nums.len(),
                warmup_its,
                max_it,
                ramp_its: self.ramp_epochs * its_per_epoch as f64,
            }),
        })
    }
}
