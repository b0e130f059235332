//! The tokenizer as a task of a run: its steps, reports and checkpoints.

use super::{Model, TokenizerPaths, state};
use crate::data::{BadImage, Feed, LoaderConfig, TrainLoader};
use crate::eval::{Reconstruction, Trend, psnr_db};
use crate::options::{Horizon, TokenizerOptions, TokenizerPlan};
use crate::run::Dataset;
use crate::run::event::Metrics;
use crate::run::task::{Context, Progress, Report, Task};
use crate::text::counted;
use crate::train::tokenizer_losses::Loss;
use crate::train::tokenizer_trainer::{PendingTokenizerReport, TokenizerStep, TokenizerTrainer};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// What goes into a checkpoint of the tokenizer's own beside its weights and moments.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct TokenizerState {
    /// Records of codebook usage.
    pub(super) records: u64,
    /// Its averages after the last whole step, which stand in a part of their own.
    #[serde(skip)]
    pub(super) hits: Vec<Vec<f32>>,
    /// Highest validation PSNR in dB.
    pub(super) best_psnr: Option<f64>,
    /// The last evaluation's PSNR in dB.
    pub(super) last_psnr: Option<f64>,
    /// The PSNR of all evaluations in dB.
    #[serde(default, skip_serializing_if = "Trend::is_empty")]
    pub(super) trend: Trend,
}

/// The tokenizer in training.
pub(super) struct TokenizerTask {
    pub(super) options: TokenizerOptions,
    pub(super) plan: TokenizerPlan,
    pub(super) horizon: Horizon,
    pub(super) paths: TokenizerPaths,
    pub(super) dataset: Dataset,
    pub(super) trainer: TokenizerTrainer,
    /// After the last report that was read.
    pub(super) state: TokenizerState,
    /// Batches, once the run has begun.
    pub(super) batches: Option<TrainLoader>,
    pub(super) feed: Feed,
    pub(super) loader: LoaderConfig,
    /// Whether weights were changed for a step that was not made.
    pub(super) changed: bool,
    /// Whether it was told that there are no weights to use.
    pub(super) told_of_weights: bool,
    /// To say what would fit of a run that does not.
    pub(super) model: Model,
}

/// A step that was asked for.
pub(super) struct Pending {
    report: PendingTokenizerReport,
    step: TokenizerStep,
}

impl TokenizerTask {
    /// Feature vectors of one image.
    fn positions(&self) -> usize {
        let (h, w) = self.trainer.vqvae.config.pyramid.finest();
        h * w
    }
}

impl Task for TokenizerTask {
    type Pending = Pending;
    type Evaluation = Reconstruction;
    type State = TokenizerState;

    const ITERATION: &'static str = "iteration";

    fn open(&mut self, it: u64) -> Result<()> {
        let its = self.horizon.its_per_epoch;
        let start = (it / its, (it % its) as usize);
        let batches = self
            .dataset
            .train_loader(self.plan.batch, start, self.loader)?;
        self.batches = Some(batches);
        Ok(())
    }

    fn waited(&self) -> Duration {
        self.batches
            .as_ref()
            .map_or(Duration::ZERO, TrainLoader::waited)
    }

    fn bad_images(&self) -> Vec<BadImage> {
        self.batches
            .as_ref()
            .map_or(Vec::new(), TrainLoader::bad_images)
    }

    /// Which codes are dead shows in the hits of every step before.
    fn looks_back(&self, it: u64) -> bool {
        let every = self.options.revive * self.options.schedule.ac as u64;
        it > 0 && every > 0 && it.is_multiple_of(every)
    }

    fn launch(&mut self, it: u64, update: bool, _: &mut Context) -> Result<(Pending, u64)> {
        let none = || Error::failed("a run loads batches once it has begun");
        let batch = self.batches.as_mut().ok_or_else(none)?.next_batch()?;
        let (images, labels) = self.feed.batch(&batch, self.dataset.side)?;
        drop(batch);
        let now = self.horizon.schedule.at(it);
        let step = TokenizerStep {
            it,
            lr: now.lr,
            wd: now.wd,
            clip: self.plan.clip,
            accumulate: self.options.schedule.ac,
            update,
        };
        if it == 0 {
            self.trainer.seed_codebook(&images)?;
        } else if self.looks_back(it)
            && let Some(dead) = self.trainer.dead_codes(&images)?
        {
            self.changed = true;
            self.trainer.revive(&dead, it)?;
        }
        let report = self.trainer.step(&images, &step)?;
        // Until the update they belong to a step that may never be.
        self.changed &= !update;
        Ok((Pending { report, step }, labels.len() as u64))
    }

    fn read(&mut self, pending: Pending, scale: Option<f64>) -> Result<Report> {
        let TokenizerStep { lr, wd, .. } = pending.step;
        let report = self.trainer.read(pending.report)?;
        self.state.records = self.trainer.hits.records;
        let usage = self
            .trainer
            .hits
            .usage(self.plan.global_batch * self.positions());
        let used = usage.iter().sum::<f64>() / usage.len().max(1) as f64;
        let mut metrics = Metrics::new().with("loss", report.loss);
        let mut scalars = Metrics::new().with("tokenizer/loss", report.loss);
        for loss in [Loss::L1, Loss::L2, Loss::Quantizer, Loss::Perceptual] {
            if let Some(value) = report.of(loss) {
                metrics.push(loss.name(), value);
                scalars.push(format!("tokenizer/{}", loss.name()), value);
            }
        }
        let metrics = metrics
            .with("psnr_db", report.of(Loss::L2).map(psnr_db))
            .with("usage", used)
            .with("grad_norm", report.grad_norm)
            .with("lr", lr)
            .with("wd", wd)
            .with("loss_scale", scale);
        let mut scalars = scalars
            .with("tokenizer/grad_norm", report.grad_norm)
            .with("tokenizer/lr", lr);
        for (k, u) in usage.iter().enumerate() {
            scalars.push(format!("tokenizer_usage/scale_{k}"), *u);
        }
        Ok(Report {
            loss: report.loss,
            grad_norm: report.grad_norm,
            scale: report.scale,
            skipped: report.skipped,
            metrics,
            scalars,
        })
    }

    fn updates(&self) -> Result<u64> {
        self.trainer.opt.updates()
    }

    fn is_intact(&self) -> bool {
        !self.changed && self.trainer.opt.has_weights()
    }

    fn state(&self) -> TokenizerState {
        TokenizerState {
            hits: self.trainer.hits.ema.clone(),
            ..self.state.clone()
        }
    }

    fn set_state(&mut self, state: TokenizerState) {
        // Iterations of a step that was not finished have counted hits too.
        self.trainer.hits.ema = state.hits.clone();
        self.trainer.hits.records = state.records;
        self.state = state;
    }

    fn epoch_is_open(&self, _: &Progress) -> bool {
        false
    }

    fn exchange(&mut self) -> Result<()> {
        self.trainer.opt.exchange(&mut self.trainer.vqvae.params)
    }

    fn evaluate(&mut self, progress: &Progress, cx: &mut Context) -> Result<Reconstruction> {
        self.measure(progress, cx)
    }

    fn end_epoch(
        &mut self,
        progress: &Progress,
        evaluation: Option<Reconstruction>,
        cx: &mut Context,
    ) -> Result<()> {
        match evaluation {
            Some(r) => self.keep(progress, &r, cx),
            None => Ok(()),
        }
    }

    fn gather_gradients(&mut self) -> Result<()> {
        self.trainer.sum.hand_to_first(&mut self.trainer.opt.grads)
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn save_along(&self, _: &Progress) -> Result<()> {
        Ok(())
    }

    fn save(&self, progress: &Progress, path: &Path) -> Result<()> {
        let ac = self.options.schedule.ac;
        state::save(&self.trainer, progress, &self.state, ac, path)
    }

    fn saved(&mut self, progress: &Progress, cx: &mut Context) {
        self.first_weights(progress, cx);
    }

    fn explain(&self, e: Error) -> Error {
        self.model.fit().explain(e, &self.options.schedule)
    }

    fn done(&self, steps: u64, _: &Path) -> String {
        let psnr = self.state.last_psnr;
        let words = self.state.trend.of_psnr();
        let words = words.map_or_else(String::new, |w| format!(", {w}"));
        let psnr = psnr.map(|p| format!(" ({p:.2} dB on validation images{words})"));
        let weights = self.paths.weights.display();
        format!(
            "done after {}: {weights}{}",
            counted(steps, "step", "steps"),
            psnr.unwrap_or_default()
        )
    }
}
