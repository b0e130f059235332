//! The transformer as a task of a run: its iterations, reports and checkpoints.

use super::Models;
use super::epoch::EpochSums;
use super::scoring::Scoring;
use super::source::{Data, Source};
use super::state::{self, Saving};
use super::{tags, transformer_paths};
use crate::data::{BadImage, LoaderConfig};
use crate::eval::{Measures, Trend};
use crate::memory::evaluation_batch;
use crate::options::TransformerOptions;
use crate::options::{Horizon, TransformerPlan};
use crate::run::event::{Event, Metrics};
use crate::run::task::{Context, Progress, Report, Task};
use crate::text::counted;
use crate::train::progressive::{StagePlan, StageState};
use crate::train::report::{PendingReport, StepReport};
use crate::train::var_trainer::{TransformerStep, VarTrainer};
use crate::{Error, Result};
use nextscale_tensor::cpu::pool::release_free;
use nextscale_tensor::{Math, Tensor};
use std::path::Path;
use std::time::Duration;

/// Images whose tokens are compared with those of a tokenizer in float32.
const COMPARED: usize = 8;

/// What goes into a checkpoint of the transformer's own beside its weights and moments.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct TransformerState {
    /// Lowest validation loss of the last scale.
    pub(super) best_tail: Option<f64>,
    /// Losses of the epoch so far.
    pub(super) epoch: EpochSums,
    /// Stage of progressive training.
    pub(super) stage: StageState,
    /// Validation losses.
    pub(super) trend: Trend,
}

/// The transformer in training.
pub(super) struct TransformerTask {
    pub(super) options: TransformerOptions,
    pub(super) plan: TransformerPlan,
    pub(super) horizon: Horizon,
    pub(super) cmd: String,
    pub(super) data: Data,
    pub(super) trainer: VarTrainer,
    /// The tokenizer's hit averages \[scales\]\[V\].
    pub(super) hits: Vec<Vec<f32>>,
    /// After the last report that was read.
    pub(super) state: TransformerState,
    /// Stages of progressive training, if there are any.
    pub(super) stages: Option<StagePlan>,
    /// Stage of progressive training after the last iteration that was asked for.
    pub(super) stage: StageState,
    /// Batches, once the run has begun.
    pub(super) source: Option<Source>,
    /// What judges samples, where that was asked for.
    pub(super) scoring: Option<Scoring>,
    /// What came of judging them in the evaluation that was made last.
    pub(super) scored: Vec<(String, f64)>,
    pub(super) loader: LoaderConfig,
    /// Whether no iteration was made yet.
    pub(super) first: bool,
    /// To say what would fit of a run that does not.
    pub(super) models: Models,
}

/// An iteration that was asked for.
pub(super) struct Pending {
    report: PendingReport,
    step: TransformerStep,
    /// The stage of progressive training after it.
    stage: StageState,
}

impl TransformerTask {
    fn source(&mut self) -> Result<&mut Source> {
        let none = || Error::failed("a run loads batches once it has begun");
        self.source.as_mut().ok_or_else(none)
    }

    /// Says what share of tokens the tokenizer's arithmetic changes.
    fn report_tokens(&self, images: &Tensor, cx: &mut Context) -> Result<()> {
        let exact = self.trainer.tokenizer.for_images()?.math == Math::FULL;
        if !self.trainer.var.device().is_async() || exact {
            return Ok(());
        }
        let some = images.narrow(0, COMPARED.min(images.dims()[0]))?;
        let share = self.trainer.tokens_changed(&some)?;
        cx.observers.note(&format!(
            "the tokenizer's precision changes {:.2} % of the tokens of {} images against float32",
            100.0 * share,
            some.dims()[0]
        ));
        Ok(())
    }

    fn saving<'a>(&'a self, progress: &'a Progress) -> Saving<'a> {
        Saving {
            options: &self.options,
            plan: &self.plan,
            horizon: &self.horizon,
            progress,
            state: &self.state,
            fingerprint: self.data.fingerprint(),
            cmd: &self.cmd,
            hits: &self.hits,
        }
    }

    /// Writes the state as the best.
    pub(super) fn save_best(&self, progress: &Progress) -> Result<()> {
        let path = transformer_paths(&self.options.output.out).best;
        self.save(progress, &path)
    }

    /// An iteration's figures for TensorBoard; `scale` is the loss scale that it was made with.
    fn scalars(&self, report: &StepReport, step: &TransformerStep, scale: Option<f64>) -> Metrics {
        let vocab = report.predicted.len().max(1) as f64;
        let total: u32 = report.predicted.iter().sum();
        let used = report
            .predicted
            .iter()
            .filter(|&&n| f64::from(n) / f64::from(total.max(1)) > 0.001 / vocab)
            .count();
        let mut values = Metrics::new()
            .with(tags::LR_MIN, step.lr)
            .with(tags::LR_MAX, step.lr)
            .with(tags::WD_MAX, step.wd)
            .with(tags::WD_MIN, step.wd)
            .with(tags::VOCABULARY_USAGE, 100.0 * used as f64 / vocab)
            .with(tags::GRAD_NORM, report.grad_norm)
            .with(
                tags::SCALE_LOG2,
                scale.filter(|_| step.update).map(f64::log2),
            )
            .with(tags::GRAD_CLIP, step.clip);
        for (k, &reso) in self.plan.resolutions.iter().enumerate() {
            values.push(tags::loss_at(reso), report.measures.loss_of(k));
            values.push(tags::accuracy_at(reso), report.measures.acc_of(k));
        }
        if self.stages.is_some() {
            let highest = step.stage.highest;
            let k = highest.unwrap_or(self.plan.resolutions.len() - 1);
            values.push(tags::STAGE_RESOLUTION, self.plan.resolutions[k] as f64);
            values.push(tags::STAGE, highest.map_or(-1.0, |k| k as f64));
            values.push(tags::STAGE_RAMP, step.stage.ramp);
        }
        values
    }
}

impl Task for TransformerTask {
    type Pending = Pending;
    type Evaluation = Option<Measures>;
    type State = TransformerState;

    const ITERATION: &'static str = "iteration";

    fn open(&mut self, it: u64) -> Result<()> {
        let its = self.horizon.its_per_epoch;
        let start = (it / its, (it % its) as usize);
        self.source = Some(Source::open(
            &self.data,
            self.plan.batch,
            start,
            self.loader,
            &self.trainer,
        )?);
        Ok(())
    }

    fn waited(&self) -> Duration {
        self.source.as_ref().map_or(Duration::ZERO, Source::waited)
    }

    fn bad_images(&self) -> Vec<BadImage> {
        self.source.as_ref().map_or(Vec::new(), Source::bad_images)
    }

    fn looks_back(&self, _: u64) -> bool {
        false
    }

    fn launch(&mut self, it: u64, update: bool, cx: &mut Context) -> Result<(Pending, u64)> {
        let inputs = self.source()?.next()?;
        let now = self.horizon.schedule.at(it);
        let stage = self.stage.advance(self.stages.as_ref(), it);
        let step = TransformerStep {
            it,
            lr: now.lr,
            wd: now.wd,
            clip: self.plan.clip,
            accumulate: self.options.schedule.ac,
            update,
            stage,
        };
        if std::mem::take(&mut self.first)
            && let Some(images) = inputs.images()
        {
            self.report_tokens(images, cx)?;
        }
        let pending = Pending {
            report: inputs.step(&mut self.trainer, &step)?,
            step,
            stage: self.stage,
        };
        Ok((pending, inputs.labels.len() as u64))
    }

    fn read(&mut self, pending: Pending, scale: Option<f64>) -> Result<Report> {
        let step = pending.step;
        let report = pending.report.read()?.of_all(self.trainer.sum.world())?;
        let last = self.plan.patch_nums.len() - 1;
        if report.loss.is_finite() {
            self.state.epoch.add(&report, last);
        }
        self.state.stage = pending.stage;
        Ok(Report {
            loss: report.loss,
            grad_norm: report.grad_norm,
            scale: report.scale,
            skipped: report.skipped,
            metrics: Metrics::new()
                .with("loss", report.measures.loss_mean())
                .with("accuracy", report.measures.acc_mean())
                .with("grad_norm", report.grad_norm)
                .with("lr", step.lr)
                .with("wd", step.wd)
                .with("loss_scale", scale),
            scalars: self.scalars(&report, &step, scale),
        })
    }

    fn updates(&self) -> Result<u64> {
        self.trainer.opt.updates()
    }

    fn is_intact(&self) -> bool {
        self.trainer.opt.has_weights()
    }

    fn state(&self) -> TransformerState {
        self.state.clone()
    }

    fn set_state(&mut self, state: TransformerState) {
        self.stage = state.stage;
        self.state = state;
    }

    fn epoch_is_open(&self, progress: &Progress) -> bool {
        self.state.epoch.is_open(progress, &self.horizon)
    }

    fn exchange(&mut self) -> Result<()> {
        self.trainer.opt.exchange(&mut self.trainer.var.params)
    }

    /// Validation losses, where there are validation images, and drawn images, where there is a decoder.
    fn evaluate(&mut self, progress: &Progress, cx: &mut Context) -> Result<Option<Measures>> {
        let batch = evaluation_batch(self.plan.batch);
        let of = self.data.val_count().div_ceil(cx.team.world.size());
        let (team, observers) = (&cx.team, &mut cx.observers);
        let mut seen = |done| observers.tell(Event::Evaluating { done, of });
        let model = self.trainer.model();
        let (measures, bad) = self
            .data
            .evaluate(model, batch, self.loader, team, &mut seen)?;
        for bad in bad {
            cx.observers.warn(&bad.reason);
        }
        release_free();
        let shown = match cx.is_first() {
            true => self.show(progress, cx),
            false => Ok(()),
        };
        let shown = shown.and_then(|()| self.score(progress, cx));
        let stop = cx.team.stop.clone();
        cx.team.agree(shown.and_then(|()| stop.check()))?;
        Ok(measures)
    }

    fn end_epoch(
        &mut self,
        progress: &Progress,
        evaluation: Option<Option<Measures>>,
        cx: &mut Context,
    ) -> Result<()> {
        self.tell_epoch(progress, evaluation.flatten(), cx)
    }

    fn gather_gradients(&mut self) -> Result<()> {
        self.trainer.sum.hand_to_first(&mut self.trainer.opt.grads)
    }

    fn is_shared(&self) -> bool {
        self.trainer.var.params.sharding().is_some()
    }

    fn save(&self, progress: &Progress, path: &Path) -> Result<()> {
        state::save(&self.trainer, &self.saving(progress), path)
    }

    fn save_along(&self, progress: &Progress) -> Result<()> {
        state::make_along(&self.trainer, &self.saving(progress))
    }

    fn saved(&mut self, _: &Progress, _: &mut Context) {}

    fn explain(&self, e: Error) -> Error {
        self.models.fit().explain(e, &self.options.schedule)
    }

    fn done(&self, steps: u64, last: &Path) -> String {
        let done = format!(
            "done after {}: {}",
            counted(steps, "step", "steps"),
            last.display()
        );
        match self.state.trend.of_losses(self.chance(), steps) {
            Some(verdict) => format!("{done}\n{verdict}"),
            None => done,
        }
    }
}
