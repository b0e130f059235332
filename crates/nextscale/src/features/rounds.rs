//! The loop of a classifier's training: rounds of whole epochs, each with an evaluation of the averaged weights.

use super::length::Images;
use crate::data::{BadImage, Feed, LoaderConfig};
use crate::eval::evaluate_classification;
use crate::run::{Dataset, StopSignal};
use crate::train::classifier_trainer::{
    ClassifierReport, ClassifierTrainer, PendingClassifierReport,
};
use crate::train::schedule::Schedule;
use crate::{Error, Result};
use std::time::{Duration, Instant};

/// What came of a round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Round {
    /// Epochs since the start, whole ones but for the last round.
    pub epochs: f64,
    /// Epochs of the training.
    pub of: f64,
    /// Mean loss of the round's steps, with label smoothing.
    pub loss: f64,
    /// Share of the round's training images that were named rightly, 0 to 1.
    pub train: f64,
    /// Share of held-out images that averaged weights name rightly, 0 to 1; of a large set some are taken.
    pub held_out: f64,
    /// Time since the start.
    pub spent: Duration,
    /// Time until the end, about.
    pub left: Duration,
}

/// How a classifier is trained.
pub(super) struct How<'a> {
    pub(super) schedule: Schedule,
    pub(super) batch: usize,
    /// Steps of a round.
    pub(super) every: u64,
    pub(super) loader: LoaderConfig,
    pub(super) stop: &'a StopSignal,
}

/// The steps of a round so far.
#[derive(Default)]
struct Tally {
    loss: f64,
    steps: u64,
    right: usize,
    images: usize,
}

impl Tally {
    fn add(&mut self, step: u64, report: ClassifierReport, lr: f64) -> Result<()> {
        // With a loss scale steps are left out until it fits; the loss itself is a number all the same.
        if !report.loss.is_finite() || !(report.grad_norm.is_finite() || report.skipped) {
            return Err(Error::Diverged(format!(
                "the loss is {} and the norm of its gradients {} at step {}; a smaller learning rate may help: `lr`={}",
                report.loss,
                report.grad_norm,
                step + 1,
                lr / 4.0
            )));
        }
        self.loss += report.loss;
        self.steps += 1;
        self.right += report.right;
        self.images += report.images;
        Ok(())
    }
}

/// Trains to the end of the schedule; `tell` is told of every round. Gives the training images that were left out.
///
/// # Errors
/// Images that can't be read, a failure of the device, numbers that are none any more; [`Error::Stopped`].
pub(super) fn train(
    trainer: &mut ClassifierTrainer,
    dataset: &Dataset,
    how: How<'_>,
    tell: &mut dyn FnMut(Round),
) -> Result<Vec<BadImage>> {
    let images = Images {
        batch: how.batch,
        train: dataset.train.len(),
        val: dataset.val.len(),
    };
    let judged = dataset.with_fewer_to_validate(images.judged());
    let (steps, its) = (how.schedule.max_it, images.its() as f64);
    let mut loader = dataset.train_loader(how.batch, (0, 0), how.loader)?;
    let mut feed = Feed::new(trainer.classifier.device())?;
    let begun = Instant::now();
    let mut tally = Tally::default();
    // On a GPU a step's report is read while the next one is made.
    let mut coming: Option<(u64, PendingClassifierReport)> = None;
    for step in 0..steps {
        how.stop.check()?;
        let batch = loader.next_batch()?;
        let [pixels, classes] = feed.labelled(&batch, dataset.side)?;
        let at = how.schedule.at(step);
        let launched = trainer.step(&pixels, &classes, &batch.labels, at)?;
        drop(batch);
        if let Some((step, report)) = coming.replace((step, launched)) {
            tally.add(step, report.read()?, how.schedule.peak_lr)?;
        }
        let done = step + 1;
        if done % how.every != 0 && done != steps {
            continue;
        }
        if let Some((step, report)) = coming.take() {
            tally.add(step, report.read()?, how.schedule.peak_lr)?;
        }
        let mut held_out = judged.val_loader(how.batch, how.loader)?;
        trainer.opt.exchange(&mut trainer.classifier.params)?;
        let found =
            evaluate_classification(&trainer.classifier, &mut held_out, how.stop, &mut |_| {});
        trainer.opt.exchange(&mut trainer.classifier.params)?;
        let spent = begun.elapsed();
        let Tally {
            loss,
            steps: of_round,
            right,
            images,
        } = std::mem::take(&mut tally);
        tell(Round {
            epochs: done as f64 / its,
            of: steps as f64 / its,
            loss: loss / of_round.max(1) as f64,
            train: right as f64 / images.max(1) as f64,
            held_out: found?.accuracy(),
            spent,
            left: spent.mul_f64((steps - done) as f64 / done as f64),
        });
    }
    Ok(loader.bad_images())
}
