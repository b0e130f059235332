//! What a training run learns from, batch by batch, on the device that computes: images, whose tokens are made on the way,
//! or tokens that were made before.

use crate::data::tokens::{TokenFile, TokenLoader};
use crate::data::{BadImage, Feed, ImageSource, LoaderConfig, TrainLoader};
use crate::eval::Measures;
use crate::eval::{TeacherForcing, evaluate_losses, evaluate_token_losses};
use crate::options::{FolderOptions, TransformerOptions};
use crate::run::Dataset;
use crate::run::data_record::DataRecord;
use crate::run::opening::describe;
use crate::text::counted;
use crate::train::report::PendingReport;
use crate::train::var_trainer::{TransformerStep, VarTrainer};
use crate::{Error, Result, Team};
use nextscale_tensor::Tensor;
use std::sync::Arc;
use std::time::Duration;

/// The data of a run.
pub(super) enum Data {
    /// Images.
    Images(Dataset),
    /// Token files.
    Tokens(Box<TokenData>),
}

/// Token files.
pub(super) struct TokenData {
    pub(super) train: TokenFile,
    pub(super) val: Option<TokenFile>,
}

impl Data {
    /// The validation images, where they are images.
    pub(super) fn val_images(&self) -> Option<&Arc<dyn ImageSource>> {
        match self {
            Self::Images(d) => Some(&d.val),
            Self::Tokens(_) => None,
        }
    }

    /// Number of validation images.
    pub(super) fn val_count(&self) -> usize {
        match self {
            Self::Images(d) => d.val.len(),
            Self::Tokens(t) => t.val.as_ref().map_or(0, TokenFile::len),
        }
    }

    /// Number of training images.
    pub(super) fn images(&self) -> usize {
        match self {
            Self::Images(d) => d.train.len(),
            Self::Tokens(t) => t.train.len(),
        }
    }

    /// Number of classes.
    pub(super) fn classes(&self) -> usize {
        match self {
            Self::Images(d) => d.classes(),
            Self::Tokens(t) => t.train.classes().len(),
        }
    }

    /// The classes' names.
    pub(super) fn class_names(&self) -> &[String] {
        match self {
            Self::Images(d) => d.train.class_names(),
            Self::Tokens(t) => t.train.classes(),
        }
    }

    /// The first images of a class, as they validate: `count` of them or fewer; none where there are tokens alone.
    pub(super) fn real(&self, class: u32, count: usize) -> Vec<u8> {
        match self {
            Self::Images(d) => d.first_of(class, count),
            Self::Tokens(_) => Vec::new(),
        }
    }

    /// What a run remembers of it.
    pub(super) fn record(&self, o: &TransformerOptions) -> DataRecord {
        match self {
            Self::Images(d) => DataRecord::of_images(d, &o.data, &o.folder),
            Self::Tokens(t) => DataRecord {
                classes: Arc::new(t.train.classes().to_vec()),
                images: Some(t.train.len() as u64),
                hflip: t.train.info().map(|i| i.hflip),
                mid_reso: t.train.info().map(|i| i.mid_reso),
                background: t.train.info().and_then(|i| Some(i.canvas?.background)),
                aspect: t.train.info().and_then(|i| Some(i.canvas?.aspect)),
            },
        }
    }

    /// The fingerprint of the tokenizer that made the tokens, where a file says so.
    pub(super) fn fingerprint(&self) -> Option<&str> {
        match self {
            Self::Images(_) => None,
            Self::Tokens(t) => t.train.info().map(|info| info.tokenizer.as_str()),
        }
    }

    /// What was left out of the folder, how it was cut and what its images are like, in words.
    pub(super) fn remarks(&self, folder: &FolderOptions) -> Vec<String> {
        match self {
            Self::Images(d) => {
                let glance = d.glance(folder);
                d.remarks.iter().cloned().chain(glance).collect()
            }
            Self::Tokens(_) => Vec::new(),
        }
    }

    /// What tells it from other data.
    pub(super) fn identity(&self) -> String {
        match self {
            Self::Images(d) => describe(&*d.train),
            Self::Tokens(t) => format!(
                "{} images in {} classes as tokens of the tokenizer {}",
                t.train.len(),
                t.train.classes().len(),
                self.fingerprint().unwrap_or("that is not named"),
            ),
        }
    }

    /// In words, for the run's first lines.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Images(d) => format!(
                "{} training and {}",
                d.train.len(),
                counted(d.val.len(), "validation image", "validation images")
            ),
            Self::Tokens(t) => format!(
                "tokens of {}, {}, and {}",
                counted(t.train.len(), "training image", "training images"),
                match t.train.crops() {
                    1 => "one crop of each".into(),
                    n => format!("{n} crops of each, epoch by epoch in turn"),
                },
                match &t.val {
                    Some(v) => counted(v.len(), "validation image", "validation images"),
                    None => "no validation images (`val_tokens`)".into(),
                }
            ),
        }
    }

    /// Losses over the validation images, where there are any, and images that could not be read by this
    /// process.
    pub(super) fn evaluate(
        &self,
        model: TeacherForcing<'_>,
        batch: usize,
        config: LoaderConfig,
        team: &Team,
        seen: &mut dyn FnMut(usize),
    ) -> Result<(Option<Measures>, Vec<BadImage>)> {
        match self {
            Self::Images(d) => {
                let mut val = d.val_loader(batch, config)?;
                let measures = evaluate_losses(model, &mut val, d.side, team, seen)?;
                Ok((Some(measures), val.bad_images()))
            }
            Self::Tokens(t) => {
                let Some(v) = &t.val else {
                    return Ok((None, Vec::new()));
                };
                let size = (batch, model.var.config.vocab);
                let mut val = TokenLoader::val(v, size, config)?;
                let measures = evaluate_token_losses(model, &mut val, team, seen)?;
                Ok((Some(measures), Vec::new()))
            }
        }
    }
}

/// One iteration's inputs.
pub(super) struct Inputs {
    given: Given,
    /// Classes.
    pub(super) labels: Vec<i32>,
}

enum Given {
    /// \[B, R, R, 3\] in \[−1, 1\].
    Images(Tensor),
    /// \[B, L\], all scales.
    Tokens(Tensor),
}

impl Inputs {
    /// The images, where they are what is learned from.
    pub(super) fn images(&self) -> Option<&Tensor> {
        match &self.given {
            Given::Images(x) => Some(x),
            Given::Tokens(_) => None,
        }
    }

    /// An iteration with them.
    pub(super) fn step(
        &self,
        trainer: &mut VarTrainer,
        plan: &TransformerStep,
    ) -> Result<PendingReport> {
        match &self.given {
            Given::Images(x) => trainer.step(x, &self.labels, plan),
            Given::Tokens(x) => trainer.step_rows(x, &self.labels, plan),
        }
    }
}

/// Training batches in the order of the run.
pub(super) struct Source {
    loader: Loader,
    feed: Feed,
}

enum Loader {
    /// With the images' side.
    Images(TrainLoader, usize),
    /// With the tokens of an image.
    Tokens(TokenLoader, usize),
}

impl Source {
    /// From (epoch, iteration) `start` on, for this trainer.
    pub(super) fn open(
        data: &Data,
        batch: usize,
        start: (u64, usize),
        config: LoaderConfig,
        trainer: &VarTrainer,
    ) -> Result<Self> {
        let loader = match data {
            Data::Images(d) => Loader::Images(d.train_loader(batch, start, config)?, d.side),
            Data::Tokens(t) => {
                let size = (batch, trainer.var.config.vocab);
                let loader = TokenLoader::train(&t.train, size, start, config)?;
                Loader::Tokens(loader, t.train.pyramid().total())
            }
        };
        Ok(Self {
            loader,
            feed: Feed::new(trainer.var.device())?,
        })
    }

    /// The next iteration's inputs.
    pub(super) fn next(&mut self) -> Result<Inputs> {
        match &mut self.loader {
            Loader::Images(loader, side) => {
                let batch = loader.next_batch()?;
                let (images, labels) = self.feed.batch(&batch, *side)?;
                Ok(Inputs {
                    given: Given::Images(images),
                    labels,
                })
            }
            Loader::Tokens(loader, row) => {
                let batch = loader
                    .next_batch()?
                    .ok_or_else(|| Error::failed("training batches do not end"))?;
                let shape = [batch.labels.len(), *row];
                Ok(Inputs {
                    given: Given::Tokens(self.feed.integers(shape, &batch.tokens)?),
                    labels: batch.labels,
                })
            }
        }
    }

    /// Time spent waiting for batches so far.
    pub(super) fn waited(&self) -> Duration {
        match &self.loader {
            Loader::Images(loader, _) => loader.waited(),
            Loader::Tokens(loader, _) => loader.waited(),
        }
    }

    /// Images that could not be read so far.
    pub(super) fn bad_images(&self) -> Vec<BadImage> {
        match &self.loader {
            Loader::Images(loader, _) => loader.bad_images(),
            Loader::Tokens(..) => Vec::new(),
        }
    }
}
