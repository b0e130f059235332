//! The loop of a transformer's training: iterations, their reports, checkpoints.

use super::progress::StepClock;
use super::source::{Data, Source};
use super::var::{VarRun, var_paths};
use super::var_epoch::Progress;
use super::var_state::{self, Saving};
use super::{Outcome, must_be_finite};
use crate::Result;
use crate::checkpoint::StateDict;
use crate::data::LoaderConfig;
use crate::log::display::{Display, Sample};
use crate::log::epoch_log::EpochLog;
use crate::log::steps::{StepLog, StepRecord};
use crate::log::tensorboard::EventWriter;
use crate::train::loss_scale;
use crate::train::measures::LateReport;
use crate::train::plan::{Horizon, Plan};
use crate::train::progressive::StageState;
use crate::train::var_trainer::{StepPlan, VarTrainer};
use nextscale_tensor::ops::Scaling;
use nextscale_tensor::{Math, Tensor};

/// Images whose tokens are compared with those of a tokenizer in float32.
const COMPARED: usize = 8;

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
}

/// An iteration that was asked for. On a GPU its report is looked at after the next one was asked for, so that the GPU
/// never waits for the processor.
pub(super) struct Launched {
    report: LateReport,
    step: StepPlan,
    /// Images of the update that the iteration ends.
    images: u64,
}

impl Session<'_> {
    pub(super) fn updates(&self) -> u64 {
        self.progress.it / self.run.options.ac as u64
    }

    pub(super) fn all_epochs(&mut self) -> Result<Outcome> {
        let its = self.horizon.its_per_epoch;
        let start = (self.progress.it / its, (self.progress.it % its) as usize);
        let mut source = Source::open(
            &self.data,
            self.plan.batch,
            start,
            self.loader,
            &self.trainer,
        )?;
        let limit = self.run.options.stop_after.unwrap_or(u64::MAX);
        self.clock = StepClock::new(source.waited());
        if self.updates() >= limit {
            return self.outcome(self.progress.it >= self.horizon.max_it);
        }
        while self.progress.it < self.horizon.max_it {
            let stop = self.iteration(&mut source, limit)?;
            let epoch_ended = self.progress.it.is_multiple_of(its);
            if epoch_ended {
                self.settle(&source)?;
                self.end_epoch()?;
                // An evaluation saves anyway, and so does a stop.
                if self.save_is_due() && !stop && !self.evaluates(self.progress.it / its) {
                    self.save()?;
                }
                self.clock.restart(source.waited());
            }
            if stop {
                self.settle(&source)?;
                if !epoch_ended || !self.evaluates(self.progress.it / its) {
                    self.save()?;
                }
                self.report_bad(&source);
                return self.outcome(self.progress.it >= self.horizon.max_it);
            }
        }
        self.report_bad(&source);
        self.outcome(true)
    }

    /// One iteration; whether the run is to stop after it.
    fn iteration(&mut self, source: &mut Source, limit: u64) -> Result<bool> {
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
        let images = if update {
            std::mem::take(&mut self.images)
        } else {
            0
        };
        let launched = Launched {
            report,
            step,
            images,
        };
        if let Some(previous) = self.launched.replace(launched) {
            self.look_at(previous, source)?;
        }
        if !self.late {
            self.settle(source)?;
        }
        if !update {
            return Ok(false);
        }
        let done = self.updates();
        let stop = done >= limit || self.run.stop.is_asked();
        let epoch_ends = self.progress.it.is_multiple_of(self.horizon.its_per_epoch);
        if self.save_is_due() && !stop && !epoch_ends {
            self.settle(source)?;
            self.save()?;
            self.clock.restart(source.waited());
        }
        Ok(stop)
    }

    /// Whether --save_every asks for a checkpoint after the iterations so far.
    fn save_is_due(&self) -> bool {
        let o = self.run.options;
        o.save_every > 0
            && self.progress.it.is_multiple_of(o.ac as u64)
            && self.updates().is_multiple_of(o.save_every)
    }

    /// Looks at the report that is still out, so that sums, logs and checkpoints know of every iteration.
    fn settle(&mut self, source: &Source) -> Result<()> {
        match self.launched.take() {
            Some(launched) => self.look_at(launched, source),
            None => Ok(()),
        }
    }

    /// Takes an iteration's report into sums, logs and display.
    fn look_at(&mut self, launched: Launched, source: &Source) -> Result<()> {
        let o = self.run.options;
        let step = launched.step;
        let report = launched.report.read()?;
        let norm = report.grad_norm.filter(|_| !report.skipped);
        let (at, last) = (step.it, || var_paths(&o.out).last);
        must_be_finite(
            report.loss,
            norm,
            format_args!("iteration {at}"),
            last,
            "--tblr",
        )?;
        let scale = self.scaler.map(|s| s.scale);
        let last = self.plan.patch_nums.len() - 1;
        self.progress.epoch.add(&report, last);
        self.write_scalars(&report, &step, scale)?;
        if !step.update {
            return Ok(());
        }
        if let Some(s) = &mut self.scaler {
            s.scale = report.scale;
            loss_scale::check(s)?;
        }
        let time = self.clock.lap(source.waited(), launched.images);
        let done = (step.it + 1) / o.ac as u64;
        let epoch = step.it / self.horizon.its_per_epoch + 1;
        if done.is_multiple_of(o.log_every.max(1)) {
            self.steps.append(&StepRecord {
                step: done,
                epoch,
                loss: report.measures.loss_mean(),
                accuracy: report.measures.acc_mean(),
                grad_norm: report.grad_norm.unwrap_or(f64::NAN),
                lr: step.lr,
                wd: step.wd,
                loss_scale: scale,
                images_per_s: time.images_per_s(),
                data_wait: time.data_wait(),
            })?;
        }
        self.display.step(&Sample {
            step: done,
            epoch,
            loss: Some(report.measures.loss_mean()),
            accuracy: Some(report.measures.acc_mean()),
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

    pub(super) fn save(&mut self) -> Result<()> {
        // A checkpoint counts on the lines before it.
        self.steps.sync()?;
        self.tb.flush()?;
        let saving = Saving {
            options: self.run.options,
            plan: self.plan,
            horizon: self.horizon,
            progress: &self.progress,
            stage: self.stage,
            fingerprint: self.data.fingerprint(),
            cmd: &self.run.cmd,
        };
        let path = var_paths(&self.run.options.out).last;
        var_state::save(&self.trainer, &mut self.vae_state, &saving, &path)
    }

    fn report_bad(&mut self, source: &Source) {
        let bad = source.bad_images();
        if !bad.is_empty() {
            self.display.warn(&format!(
                "{} images could not be read and were replaced:",
                bad.len()
            ));
            for b in bad {
                self.display.warn(&b.reason);
            }
        }
    }

    fn outcome(&self, complete: bool) -> Result<Outcome> {
        let steps = self.updates();
        let checkpoint = var_paths(&self.run.options.out).last;
        let message = if complete {
            format!("done after {steps} steps: {}", checkpoint.display())
        } else {
            format!(
                "stopped after step {steps}; saved to {}. Run the same command again to go on{}",
                checkpoint.display(),
                match self.run.options.stop_after {
                    Some(n) if steps >= n =>
                        format!(" (without --stop_after={n}, or with a larger one)"),
                    _ => String::new(),
                }
            )
        };
        Ok(Outcome {
            steps,
            complete,
            checkpoint,
            message,
        })
    }
}
