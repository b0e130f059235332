//! The loop of a transformer's training: iterations, their reports, checkpoints.

use super::checkpoints::Keeper;
use super::log_faults::LogFaults;
use super::progress::StepClock;
use super::saving::{Run, Then, report_bad};
use super::source::{Data, Source};
use super::val_check::ValCheck;
use super::var::{VarRun, var_paths};
use super::var_epoch::Progress;
use super::var_state::{self, Saving};
use super::{Outcome, not_a_number, stopped};
use crate::Result;
use crate::checkpoint::StateDict;
use crate::data::LoaderConfig;
use crate::log::display::{Display, Sample};
use crate::log::epoch_log::EpochLog;
use crate::log::steps::{StepLog, StepMeasures, StepRecord};
use crate::log::tensorboard::EventWriter;
use crate::train::loss_scale;
use crate::train::measures::LateReport;
use crate::train::plan::{Horizon, Plan};
use crate::train::progressive::StageState;
use crate::train::var_trainer::{StepPlan, VarTrainer};
use nextscale_tensor::ops::Scaling;
use nextscale_tensor::{Math, Tensor};
use std::time::Duration;

/// Images whose tokens are compared with those of a tokenizer in float32.
const COMPARED: usize = 8;

/// What a checkpoint is made of, borrowed from a session whose other fields stay free.
macro_rules! state_of {
    ($session:ident) => {{
        let saving = Saving {
            options: $session.run.options,
            plan: $session.plan,
            horizon: $session.horizon,
            progress: &$session.progress,
            stage: $session.stage,
            fingerprint: $session.data.fingerprint(),
            cmd: &$session.run.cmd,
        };
        (&$session.trainer, &mut $session.vae_state, saving)
    }};
}

/// Everything a run holds while it goes on.
pub(super) struct Session<'a> {
    pub(super) run: &'a VarRun<'a>,
    pub(super) plan: &'a Plan,
    pub(super) horizon: &'a Horizon,
    pub(super) data: Data,
    pub(super) trainer: VarTrainer,
    pub(super) vae_state: StateDict,
    pub(super) stage: StageState,
    pub(super) progress: Progress,
    /// The loss scale before the next iteration that is looked at.
    pub(super) scaler: Option<Scaling>,
    /// Whether reports are looked at after the next iteration was asked for.
    pub(super) late: bool,
    /// The iteration whose report was not looked at yet.
    pub(super) launched: Option<Launched>,
    /// Where the last whole step left the run, once its report was looked at.
    pub(super) whole: Option<Whole>,
    /// Updates that the optimizer has made by the reports looked at.
    pub(super) updates_made: u64,
    pub(super) keeper: Keeper,
    pub(super) log_faults: LogFaults,
    /// Whether no iteration was made yet.
    pub(super) first: bool,
    /// Images since the last update.
    pub(super) images: u64,
    pub(super) clock: StepClock,
    pub(super) display: Display,
    pub(super) tb: EventWriter,
    pub(super) steps: StepLog,
    pub(super) epochs: EpochLog,
    pub(super) loader: LoaderConfig,
    /// Until the first evaluation.
    pub(super) val_check: Option<ValCheck>,
}

/// An iteration that was asked for. On a GPU its report is looked at after the next one was asked for, so that the GPU
/// never waits for the processor.
pub(super) struct Launched {
    report: LateReport,
    step: StepPlan,
    /// The stage of progressive training after it.
    stage: StageState,
    /// Images of the update that the iteration ends.
    images: u64,
}

/// Where a whole step, with nothing of the next one, has left a run.
pub(super) struct Whole {
    progress: Progress,
    stage: StageState,
}

impl Session<'_> {
    pub(super) fn updates(&self) -> u64 {
        self.progress.it / self.run.options.ac as u64
    }

    /// Whether the run is to end here before its end: after a whole step only.
    fn is_to_stop(&self) -> bool {
        let limit = self.run.options.stop_after.unwrap_or(u64::MAX);
        self.progress.it.is_multiple_of(self.run.options.ac as u64)
            && (self.updates() >= limit || self.run.stop.is_asked())
    }

    fn iteration(&mut self, source: &mut Source) -> Result<()> {
        let o = self.run.options;
        let it = self.progress.it;
        let inputs = source.next()?;
        self.images += inputs.labels.len() as u64;
        let now = self.horizon.schedule.at(it);
        let stage = self.stage.advance(self.horizon.stages.as_ref(), it);
        let update = (it + 1).is_multiple_of(o.ac as u64);
        let step = StepPlan {
            it,
            lr: now.lr,
            wd: now.wd,
            clip: self.plan.clip,
            accumulate: o.ac,
            update,
            stage,
        };
        if std::mem::take(&mut self.first)
            && let Some(images) = inputs.images()
        {
            self.report_tokens(images)?;
        }
        let report = inputs.step(&mut self.trainer, &step)?;
        drop(inputs);
        self.progress.it += 1;
        self.keeper.unsaved = true;
        let images = if update {
            std::mem::take(&mut self.images)
        } else {
            0
        };
        let launched = Launched {
            report,
            step,
            stage: self.stage,
            images,
        };
        if let Some(previous) = self.launched.replace(launched) {
            self.look_at(previous, source.waited())?;
        }
        if !self.late {
            self.settle(source.waited())?;
        }
        Ok(())
    }

    /// Whether --save_every asks for a checkpoint after the iterations so far.
    fn save_is_due(&self) -> bool {
        let o = self.run.options;
        o.save_every > 0
            && self.progress.it.is_multiple_of(o.ac as u64)
            && self.updates().is_multiple_of(o.save_every)
    }

    /// Looks at the report that is still out, so that sums, logs and checkpoints know of every iteration.
    fn settle(&mut self, waited: Duration) -> Result<()> {
        match self.launched.take() {
            Some(launched) => self.look_at(launched, waited),
            None => Ok(()),
        }
    }

    /// Takes an iteration's report into sums, logs and display; `waited` is what the loader has waited so far.
    fn look_at(&mut self, launched: Launched, waited: Duration) -> Result<()> {
        let o = self.run.options;
        let step = launched.step;
        let report = launched.report.read()?;
        let norm = report.grad_norm.filter(|_| !report.skipped);
        let at = format_args!("iteration {}", step.it);
        if let Some(what) = not_a_number(report.loss, norm, at) {
            return Err(self.keeper.diverged(&what));
        }
        let scale = self.scaler.map(|s| s.scale);
        let last = self.plan.patch_nums.len() - 1;
        self.progress.epoch.add(&report, last);
        let written = self.write_scalars(&report, &step, scale);
        self.log_faults.pass(written, &mut self.display);
        if !step.update {
            return Ok(());
        }
        self.updates_made += u64::from(!report.skipped);
        self.whole = Some(Whole {
            progress: Progress {
                it: step.it + 1,
                ..self.progress.clone()
            },
            stage: launched.stage,
        });
        if let Some(s) = &mut self.scaler {
            s.scale = report.scale;
            loss_scale::check(s)?;
        }
        let time = self.clock.lap(waited, launched.images);
        let done = (step.it + 1) / o.ac as u64;
        let epoch = step.it / self.horizon.its_per_epoch + 1;
        if done.is_multiple_of(o.log_every.max(1)) {
            let written = self.steps.append(&StepRecord {
                step: done,
                epoch,
                loss: report.measures.loss_mean(),
                measures: StepMeasures::Transformer {
                    accuracy: report.measures.acc_mean(),
                },
                grad_norm: report.grad_norm.unwrap_or(f64::NAN),
                lr: step.lr,
                wd: step.wd,
                loss_scale: scale,
                images_per_s: time.images_per_s(),
                data_wait: time.data_wait(),
            });
            self.log_faults.pass(written, &mut self.display);
        }
        self.display.step(&Sample {
            step: done,
            epoch,
            loss: Some(report.measures.loss_mean()),
            accuracy: Some(report.measures.acc_mean()),
            usage: None,
            images: time.images,
            seconds: time.seconds,
            data_seconds: time.data_seconds,
        });
        Ok(())
    }

    /// Says what share of tokens the tokenizer's arithmetic changes.
    fn report_tokens(&mut self, images: &Tensor) -> Result<()> {
        let exact = self.trainer.tokenizer.for_images()?.math == Math::FULL;
        if !self.trainer.var.device().is_async() || exact {
            return Ok(());
        }
        let some = images.narrow(0, COMPARED.min(images.dims()[0]))?;
        let share = self.trainer.tokens_changed(&some)?;
        self.display.note(&format!(
            "the tokenizer's precision changes {:.2} % of the tokens of {} images against float32",
            100.0 * share,
            some.dims()[0]
        ));
        Ok(())
    }

    /// Writes the state as the best.
    pub(super) fn save_best(&mut self) -> Result<()> {
        let path = var_paths(&self.run.options.out).best;
        let (trainer, vae, saving) = state_of!(self);
        var_state::save(trainer, vae, &saving, &path)
    }
}

impl Run for Session<'_> {
    fn train(&mut self) -> Result<()> {
        let its = self.horizon.its_per_epoch;
        let start = (self.progress.it / its, (self.progress.it % its) as usize);
        let mut source = Source::open(
            &self.data,
            self.plan.batch,
            start,
            self.loader,
            &self.trainer,
        )?;
        if self.progress.epoch_is_open(its) {
            self.end_epoch()?;
        }
        self.clock = StepClock::new(source.waited());
        while self.progress.it < self.horizon.max_it && !self.is_to_stop() {
            self.iteration(&mut source)?;
            let epoch_ended = self.progress.it.is_multiple_of(its);
            if epoch_ended {
                self.settle(source.waited())?;
                self.end_epoch()?;
            }
            // An evaluation saves anyway, and so does a stop.
            let evaluated = epoch_ended && self.evaluates(self.progress.it / its);
            let due = self.save_is_due() && !self.is_to_stop() && !evaluated;
            if due && self.keeper.unsaved {
                self.settle(source.waited())?;
                self.save(Then::GoesOn)?;
            }
            if epoch_ended || due {
                self.clock.restart(source.waited());
            }
        }
        self.settle(source.waited())?;
        report_bad(&source.bad_images(), &mut self.display);
        Ok(())
    }

    fn settle_last(&mut self) -> Result<()> {
        self.settle(Duration::ZERO)
    }

    fn whole(&self) -> Option<u64> {
        let intact = self.trainer.opt.updates().ok() == Some(self.updates_made);
        let whole = self.whole.as_ref().filter(|_| intact);
        whole.map(|whole| whole.progress.it)
    }

    fn go_back(&mut self) {
        if let Some(whole) = self.whole.take() {
            (self.progress, self.stage) = (whole.progress, whole.stage);
        }
    }

    fn save(&mut self, then: Then) -> Result<()> {
        // A checkpoint counts on the lines before it.
        for written in [self.steps.sync(), self.tb.flush()] {
            self.log_faults.pass(written, &mut self.display);
        }
        let (trainer, vae, saving) = state_of!(self);
        self.keeper
            .save_then(then, self.progress.it, &mut self.display, |path| {
                var_state::save(trainer, vae, &saving, path)
            })
    }

    fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    fn iterations(&self) -> u64 {
        self.progress.it
    }

    fn outcome(&self) -> Outcome {
        let steps = self.updates();
        let checkpoint = self.keeper.last().to_path_buf();
        let open = self.progress.epoch_is_open(self.horizon.its_per_epoch);
        let complete = self.progress.it >= self.horizon.max_it && !open;
        let (exit_code, message) = if complete {
            let text = format!("done after {steps} steps: {}", checkpoint.display());
            (0, text)
        } else {
            let saved = self.keeper.holds(0).then_some(checkpoint.as_path());
            let o = self.run.options;
            stopped(steps, &self.run.stop, o.stop_after, saved)
        };
        Outcome {
            steps,
            complete,
            exit_code,
            checkpoint,
            message,
        }
    }
}
