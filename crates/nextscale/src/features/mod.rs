//! Features of a folder's own: a classifier that is trained on its classes, for scores where no network of others fits.
//!
//! Features of a network that was trained on photographs say little of icons or maps. A classifier of the folder's own classes knows
//! what differs there, takes minutes, and also says whether samples can be told apart as real images can.

mod length;
mod rounds;
#[cfg(test)]
mod tests;

pub use length::Length;
pub use rounds::Round;

use crate::advice::{Facts, recipe, time_classifier};
use crate::checkpoint::classifier::{ClassifierRecord, TrainedClassifier};
use crate::data::LoaderConfig;
use crate::memory::{self, Workload, advise};
use crate::model::classifier::{Classifier, ClassifierConfig};
use crate::options::FolderOptions;
use crate::options::check;
use crate::options::values::{BadImages, DeviceChoice};
use crate::run::{Dataset, StopSignal, loader_config};
use crate::text::counted;
use crate::train::classifier_trainer::ClassifierTrainer;
use crate::train::schedule::{Curve, Schedule};
use crate::{Error, Result, World, eval};
use length::Images;
use nextscale_tensor::{Device, Precision};
use std::time::Duration;

/// Share of the steps in which the learning rate rises, and the most of them.
const WARMUP: f64 = 0.05;
const WARMUP_MOST: f64 = 500.0;
/// Learning rate of the first step, and of the last, as a share of its peak.
const FIRST: f64 = 0.02;
const LAST: f64 = 0.01;
/// Seconds for which steps are timed.
const TIMED: Duration = Duration::from_secs(2);
/// Images that can't be read which are named; the others are counted.
const NAMED: usize = 5;
/// Images of a step at most, so that they can be counted.
const MOST_IMAGES: usize = 1 << 16;

/// What a classifier is trained on and how.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureOptions {
    /// The folder, or `builtin:shapes`.
    pub data_path: String,
    /// What its images are.
    pub folder: FolderOptions,
    /// Side of the images in pixels; without it what goes with the images and the device: 32, 64, 128 or 256.
    pub size: Option<usize>,
    /// Images are resized to this many times their final side before the crop.
    pub mid_reso: f64,
    /// Mirror half of the training images.
    pub hflip: bool,
    /// For how long.
    pub length: Length,
    /// Images in a step.
    pub batch: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Weight decay.
    pub wd: f64,
    /// Seed of all random draws.
    pub seed: u64,
    /// Threads that read images; 0: one for each core.
    pub workers: usize,
    /// What to do with an image that can't be read.
    pub bad_images: BadImages,
}

impl Default for FeatureOptions {
    fn default() -> Self {
        Self {
            data_path: String::new(),
            folder: FolderOptions::default(),
            size: None,
            mid_reso: 1.125,
            hflip: false,
            length: Length::default(),
            batch: 64,
            lr: 2e-3,
            wd: 0.05,
            seed: 1,
            workers: 0,
            bad_images: BadImages::Fail,
        }
    }
}

impl FeatureOptions {
    fn check(&self) -> Result<()> {
        check::margin(self.mid_reso)?;
        check::that(
            (1..=MOST_IMAGES).contains(&self.batch),
            "batch",
            self.batch,
            &format!("it must be from 1 to {MOST_IMAGES}"),
        )?;
        check::amounts(&[("lr", self.lr), ("wd", self.wd)])?;
        check::that(self.lr > 0.0, "lr", self.lr, "it must be more than 0")?;
        self.length.check()
    }
}

/// What is told while a classifier is trained.
#[derive(Clone, Debug, PartialEq)]
pub enum Told<'a> {
    /// Something to know, in words.
    Line(&'a str),
    /// A round is over.
    Round(Round),
}

/// A training of a classifier.
pub struct FeatureRun<'a> {
    /// What it is trained on and how.
    pub options: &'a FeatureOptions,
    /// What it computes on.
    pub device: Device,
    /// Precision of products on a GPU.
    pub precision: Precision,
    /// Asks for an end before its time, where nothing is kept.
    pub stop: StopSignal,
}

impl FeatureRun<'_> {
    /// Trains to the end; `tell` is told of what happens.
    ///
    /// # Errors
    /// Options or images that can't be used, each one line; a failure of the device; [`Error::Stopped`].
    pub fn run(&self, tell: &mut dyn FnMut(&Told<'_>)) -> Result<TrainedClassifier> {
        let o = self.options;
        o.check()?;
        let (dataset, config) = self.open(tell)?;
        let precision = match self.device.is_async() {
            true => self.precision,
            false => Precision::Fp32,
        };
        let math = precision.math();
        let workload = || Workload::TrainClassifier {
            classifier: &config,
            math,
        };
        memory::check(self.device, "batch", o.batch, workload())?;
        self.train(&dataset, &config, precision, tell)
            .map_err(|e| advise(e, self.device, "batch", o.batch, workload()))
    }

    /// The images, and the network that goes with them.
    fn open(&self, tell: &mut dyn FnMut(&Told<'_>)) -> Result<(Dataset, ClassifierConfig)> {
        let o = self.options;
        // A size that can't be is refused before the folder is read.
        if let Some(side) = o.size {
            ClassifierConfig::for_side(side, 2)?;
        }
        let open = |side| Dataset::open(&o.data_path, &o.folder, side, o.mid_reso, o.hflip);
        let mut dataset = open(o.size.unwrap_or(64))?;
        let classes = dataset.classes();
        if classes < 2 {
            let name = dataset.train.class_names().first();
            let name = name.map_or_else(String::new, |name| format!(", {name:?}"));
            return Err(Error::field(
                "data_path",
                &o.data_path,
                format!(
                    "all images are of one class{name}, and features are learnt by telling classes apart: give a folder with two or more (CLASS/*)"
                ),
            ));
        }
        dataset
            .remarks
            .iter()
            .for_each(|line| tell(&Told::Line(line)));
        if o.size.is_none() {
            let choice = match self.device {
                Device::Cuda(number) => DeviceChoice::Cuda(Some(number)),
                _ => DeviceChoice::Cpu,
            };
            let facts = Facts::of(&*dataset.train, choice)?;
            let side = recipe(&facts).side().unwrap_or(64);
            if side != dataset.side {
                dataset = open(side)?;
            }
        }
        for line in dataset.glance(&o.folder) {
            tell(&Told::Line(&line));
        }
        let config = ClassifierConfig::for_side(dataset.side, classes)?;
        Ok((dataset, config))
    }

    fn train(
        &self,
        dataset: &Dataset,
        config: &ClassifierConfig,
        precision: Precision,
        tell: &mut dyn FnMut(&Told<'_>),
    ) -> Result<TrainedClassifier> {
        let o = self.options;
        let math = precision.math();
        let trainer = || -> Result<ClassifierTrainer> {
            let mut classifier = Classifier::new(config.clone(), true)?;
            classifier.init(o.seed)?;
            classifier.to_device(self.device, math)?;
            ClassifierTrainer::new(classifier)
        };
        let images = Images {
            batch: o.batch,
            train: dataset.train.len(),
            val: dataset.val.len(),
        };
        let plan = o.length.steps(images, || {
            let time = time_classifier(&mut trainer()?, dataset, o.batch, TIMED, &self.stop)?;
            Ok(time.seconds)
        })?;
        tell(&Told::Line(&format!(
            "{} of {} and {} to validate, {side}x{side} pixels; {} weights; {}",
            counted(images.train, "image", "images"),
            counted(config.classes, "class", "classes"),
            images.val,
            config.parameters(),
            plan.words(images),
            side = config.side,
        )));
        let schedule = Schedule {
            curve: Curve::Cos,
            peak_lr: o.lr,
            wd: o.wd,
            wd_end: o.wd,
            warmup_its: (WARMUP * plan.steps as f64).min(WARMUP_MOST),
            wp0: FIRST,
            wpe: LAST,
            max_it: plan.steps,
        };
        let config_of = loader_for(o, plan.epochs(images));
        let mut trainer = trainer()?;
        let mut bad = rounds::train(
            &mut trainer,
            dataset,
            rounds::How {
                schedule,
                batch: o.batch,
                every: plan.every(images),
                loader: config_of,
                stop: &self.stop,
            },
            &mut |round| tell(&Told::Round(round)),
        )?;
        trainer.opt.exchange(&mut trainer.classifier.params)?;
        let mut loader = dataset.val_loader(o.batch, config_of)?;
        let found = eval::evaluate_classification(
            &trainer.classifier,
            &mut loader,
            &self.stop,
            &mut |_| {},
        )?;
        bad.extend(loader.bad_images());
        for image in bad.iter().take(NAMED) {
            tell(&Told::Line(&format!("left out: {}", image.reason)));
        }
        if !bad.is_empty() {
            let count = counted(bad.len(), "image", "images");
            tell(&Told::Line(&format!("{count} left out that can't be read")));
        }
        let mut classifier = trainer.classifier;
        classifier.to_device(Device::Cpu, nextscale_tensor::Math::FULL)?;
        Ok(TrainedClassifier {
            classifier,
            class_names: dataset.train.class_names().to_vec(),
            canvas: o.folder.canvas.chosen(),
            record: ClassifierRecord {
                mid_reso: o.mid_reso,
                hflip: o.hflip,
                images: images.train,
                steps: plan.steps,
                batch: o.batch,
                lr: o.lr,
                wd: o.wd,
                seed: o.seed,
                precision: precision.to_string(),
                held_out: found.count(),
                accuracy: found.accuracy(),
                chance: found.chance(),
            },
        })
    }
}

/// How images are read in a training of so many epochs.
fn loader_for(o: &FeatureOptions, epochs: u64) -> LoaderConfig {
    loader_config(
        o.workers.min(o.batch),
        o.seed,
        o.bad_images,
        &World::alone(),
        (epochs, None),
    )
}
