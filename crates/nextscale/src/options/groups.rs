//! The options that both trainers have.

use super::check;
#[cfg(feature = "cli")]
use super::values::parse_bool;
use super::values::{BadImages, DeviceChoice, option_as_text, path_as_text};
use crate::Result;
use crate::data::{Aspect, Background, Canvas, Cut};
use crate::score::Protocol;
use crate::train::schedule::Curve;
#[cfg(feature = "cli")]
use clap::ArgAction;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

options! {
    /// What images are laid on before they are resized.
    pub struct CanvasOptions {
        in "Data" {
            /// What is seen through transparent parts: white, black, a colour as RRGGBB, or drop, which leaves transparency away as the reference does; without it what the model's or tokenizer's file says, else white, and drop with the recipe of a published model
            [value_name = "COLOR"]
            background: Option<Background>;
            /// How an image that is no square becomes one; without it what the model's or tokenizer's file says, else crop
            [value_enum]
            aspect: Option<Aspect>;
        }
    }
}

impl CanvasOptions {
    /// What was chosen, or the usual.
    pub fn chosen(&self) -> Canvas {
        let usual = Canvas::default();
        Canvas {
            background: self.background.unwrap_or(usual.background),
            aspect: self.aspect.unwrap_or(usual.aspect),
        }
    }

    /// The same with what was not given taken from what a model was trained with.
    #[must_use]
    pub fn or_as(&self, trained: Option<Canvas>) -> Self {
        Self {
            background: self.background.or(trained.map(|c| c.background)),
            aspect: self.aspect.or(trained.map(|c| c.aspect)),
        }
    }
}

options! {
    /// Whether samples are drawn and judged during a run.
    pub struct ScoreOptions {
        in "Scores" {
            /// Draw samples and judge them in evaluations after every N epochs, and at the end; 0: never
            [value_name = "EPOCHS"]
            score_every: u64 = 0;
            /// Samples that are drawn for it
            [value_name = "N"]
            score_samples: usize = 1000;
            /// The network that judges them: a file of train-features, or of the Inception network as FID uses it
            #[serde(serialize_with = "option_as_text")]
            [value_name = "FILE"]
            score_features: Option<PathBuf>;
            /// With the Inception network: how numbers are computed
            [value_enum]
            score_protocol: Protocol = Protocol::Adm;
        }
    }
}

options! {
    /// What the images of a folder are, and how they become squares.
    #[serde(from = "FolderNames", into = "FolderNames")]
    pub struct FolderOptions {
        in "Data" {
            /// Folder of the validation images, where it is not val/ in the data folder
            #[serde(serialize_with = "option_as_text")]
            [value_name = "DIR"]
            val_path: Option<PathBuf>;
            /// Share of the images that is taken to validate where there are no validation images, by a hash of their names; without it 0.05
            [value_name = "X"]
            val_share: Option<f64>;
        }
        with {
            /// What images are laid on.
            canvas: CanvasOptions;
        }
    }
}

/// [`FolderOptions`] as files keep them, all at one level: serde knows no group within a group where names that it does not know are
/// refused.
#[derive(Serialize, Deserialize)]
#[serde(default)]
struct FolderNames {
    #[serde(serialize_with = "option_as_text")]
    val_path: Option<PathBuf>,
    val_share: Option<f64>,
    background: Option<Background>,
    aspect: Option<Aspect>,
}

impl Default for FolderNames {
    fn default() -> Self {
        FolderOptions::default().into()
    }
}

impl From<FolderOptions> for FolderNames {
    fn from(options: FolderOptions) -> Self {
        let FolderOptions {
            val_path,
            val_share,
            canvas: CanvasOptions { background, aspect },
        } = options;
        Self {
            val_path,
            val_share,
            background,
            aspect,
        }
    }
}

impl From<FolderNames> for FolderOptions {
    fn from(names: FolderNames) -> Self {
        Self {
            val_path: names.val_path,
            val_share: names.val_share,
            canvas: CanvasOptions {
                background: names.background,
                aspect: names.aspect,
            },
        }
    }
}

impl FolderOptions {
    pub(super) fn check(&self) -> Result<()> {
        let share = self.val_share.unwrap_or(0.5);
        let needed = "it must be more than 0 and less than 1, such as 0.05";
        check::that(share > 0.0 && share < 1.0, "val_share", share, needed)?;
        check::that(
            self.val_path.is_none() || self.val_share.is_none(),
            "val_share",
            share,
            "with `val_path` there is nothing to take a share of; leave one of them out",
        )
    }

    /// Which images validate.
    ///
    /// # Errors
    /// One line for a share that is none, or that does not go with a folder.
    pub(crate) fn cut(&self) -> Result<Cut> {
        self.check()?;
        Ok(Cut {
            val_path: self.val_path.clone(),
            val_share: self.val_share,
        })
    }

    /// The same with what was not given of the canvas taken from what a model was trained with.
    #[must_use]
    pub fn or_as(&self, trained: Option<Canvas>) -> Self {
        Self {
            canvas: self.canvas.or_as(trained),
            ..self.clone()
        }
    }
}

options! {
    /// Images and how they are read.
    pub struct DataOptions {
        in "Data" {
            /// Folder of images: CLASS/*, or train/CLASS/* and val/CLASS/*, or images of one class, or tar or Parquet shards; or builtin:shapes for the images that come with the program
            [value_name = "DIR"]
            data_path: Option<String>;
            /// Images are resized to this many times their final side before the crop
            [value_name = "X"]
            mid_reso: f64 = 1.125;
            /// Mirror half of the training images
            [value_name = "0|1", value_parser = parse_bool, action = ArgAction::Set]
            hflip: bool = false;
            /// Threads that read images; 0 or less: chosen from the number of cores
            [value_name = "N", allow_negative_numbers = true]
            workers: i64 = 0;
            /// What to do with an image that can't be read: name it and take another one (skip), or stop (fail)
            [value_enum]
            bad_images: BadImages = BadImages::Fail;
        }
    }
}

impl DataOptions {
    pub(super) fn check(&self) -> Result<()> {
        check::margin(self.mid_reso)
    }

    /// Threads that read images, at most one for each image of a batch; 0: chosen by the loader.
    pub(super) fn workers_for(&self, batch: usize) -> usize {
        (self.workers.max(0) as usize).min(batch)
    }
}

options! {
    /// Steps, their images, and how the learning rate goes.
    pub struct ScheduleOptions {
        in "Optimization" {
            /// Images in a step, over all processes and accumulated iterations
            [value_name = "N"]
            bs: usize = 768;
            /// Iterations whose gradients are accumulated into one step
            [value_name = "N"]
            ac: usize = 1;
            /// Where memory is too small for --bs: raise --ac until the images of an iteration fit, and keep --bs
            [value_name = "0|1", value_parser = parse_bool, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "1"]
            fit: bool = false;
            /// Epochs
            [value_name = "N"]
            ep: usize = 250;
            /// Steps of the whole run, instead of --ep
            [value_name = "N"]
            steps: Option<u64>;
            /// Epochs of warm-up; 0: a fiftieth of the run
            [value_name = "X"]
            wp: f64 = 0.0;
            /// Learning rate at the first iteration as a share of its peak
            [value_name = "X"]
            wp0: f64 = 0.005;
            /// Learning rate at the last iteration as a share of its peak
            [value_name = "X"]
            wpe: f64 = 0.01;
            /// How the learning rate falls: cos, lin, lin0, lin00, linT (such as lin0.3) or exp
            [value_name = "NAME"]
            sche: String = "lin0".to_owned();
            /// Keep a moving average of the weights with this decay, such as 0.9999: it is evaluated and drawn from, and saved beside the weights
            [value_name = "X"]
            ema: Option<f64>;
            /// Seed of all random draws; without it one is drawn and logged
            [value_name = "N"]
            seed: Option<u64>;
        }
    }
}

/// Images in a step at most, over all processes and accumulated iterations: more than anybody trains with, and few enough to count
/// everything that follows from them.
const MOST_IMAGES: usize = 1 << 20;

/// Epochs at most, so that steps can be counted.
const MOST_EPOCHS: usize = 1 << 31;

/// Steps at most, so that their iterations can be counted.
const MOST_STEPS: u64 = 1 << 40;

impl ScheduleOptions {
    pub(super) fn check(&self) -> Result<()> {
        check::counts(&[("bs", self.bs), ("ac", self.ac), ("ep", self.ep)])?;
        for (flag, value, most) in [("bs", self.bs, MOST_IMAGES), ("ep", self.ep, MOST_EPOCHS)] {
            let needed = format!("it must be at most {most}");
            check::that(value <= most, flag, value, &needed)?;
        }
        check::amounts(&[("wp", self.wp), ("wp0", self.wp0), ("wpe", self.wpe)])?;
        if let Some(decay) = self.ema {
            let needed = "it must be at least 0 and less than 1, such as 0.9999";
            check::that((0.0..1.0).contains(&decay), "ema", decay, needed)?;
        }
        check::that(
            self.steps.is_some() || self.wp <= self.ep as f64,
            "wp",
            self.wp,
            &format!("so many epochs of warm-up don't fit into `ep`={}", self.ep),
        )?;
        let steps = self.steps.unwrap_or(1);
        let needed = format!("it must be from 1 to {MOST_STEPS}");
        check::that((1..=MOST_STEPS).contains(&steps), "steps", steps, &needed)
    }

    /// The flag that a run's length follows from.
    pub(crate) fn length_flag(&self) -> &'static str {
        match self.steps {
            Some(_) => "`steps`",
            None => "`ep`",
        }
    }

    /// The learning rate's curve; `bend` takes the place of the one that is asked for.
    pub(super) fn curve(&self, bend: Option<String>) -> Result<Curve> {
        let curve: Curve = bend.as_deref().unwrap_or(&self.sche).parse()?;
        if curve == Curve::Exp {
            let needed = "`sche`=exp needs more than 0";
            check::that(self.wpe > 0.0, "wpe", self.wpe, needed)?;
        }
        Ok(curve)
    }
}

options! {
    /// Files of a run, and when they are written.
    pub struct OutputOptions {
        in "Output" {
            /// Output folder; a run continues from the checkpoint that it finds there
            #[serde(serialize_with = "path_as_text")]
            [value_name = "DIR", alias = "local_out_dir_path", default_value_os_t = PathBuf::from("local_output")]
            out: PathBuf, or PathBuf::from("local_output");
            /// Save and stop after this many steps of the whole run; the same command continues it
            [value_name = "STEPS"]
            stop_after: Option<u64>;
            /// Evaluate (and save) after every so many epochs; 0: only after the last
            [value_name = "EPOCHS"]
            eval_every: u64 = 10;
            /// Save a checkpoint every so many steps; 0: only with evaluations and at the end
            [value_name = "STEPS"]
            save_every: u64 = 0;
            /// Checkpoints to go on from that are kept: the last one and those before it, NAME.1.safetensors and so on
            [value_name = "N"]
            keep: usize = 2;
            /// Write a line into steps.jsonl every so many steps; 0: none
            [value_name = "STEPS"]
            log_every: u64 = 10;
        }
    }
}

impl OutputOptions {
    pub(super) fn check(&self) -> Result<()> {
        check::counts(&[("keep", self.keep)])?;
        let needed = "it must be at least 1 step";
        check::that(self.stop_after != Some(0), "stop_after", 0, needed)
    }
}

options! {
    /// What a run computes on.
    pub struct MachineOptions {
        in "Machine" {
            /// auto, cpu, cuda or cuda:N; auto takes a GPU where there is one
            device: DeviceChoice = DeviceChoice::Auto;
            /// Threads that compute on the CPU; 0: one for each core
            [value_name = "N"]
            threads: usize = 0;
            /// TF32 in float32 matrix products and convolutions on GPUs
            [value_name = "0|1", value_parser = parse_bool, action = ArgAction::Set]
            tf32: bool = true;
        }
    }
}
