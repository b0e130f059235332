//! What an epoch of a transformer's training adds up to: sums, figures for TensorBoard, evaluation, the epoch's line.

use super::checkpoints::is_better;
use super::data_record::DataRecord;
use super::log_faults::LogFaults;
use super::saving::{Run, Then};
use super::var_loop::Session;
use crate::generate::{Noise, SampleOptions, Sampler};
use crate::log::clock::{format_duration, format_utc};
use crate::log::epoch_log::{Done, EpochRecord};
use crate::log::tags;
use crate::memory::{drawn, evaluation_batch};
use crate::pictures::grid;
use crate::train::measures::{Measures, StepReport};
use crate::train::var_trainer::StepPlan;
use crate::{Error, Result};
use nextscale_tensor::cpu::pool::release_free;
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

/// Where a run stands; part of its checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Seed of everything random.
    pub(super) seed: u64,
    /// Iterations done.
    pub(super) it: u64,
    /// Iterations of an epoch.
    pub(super) its_per_epoch: u64,
    /// Lowest validation loss of the last scale.
    pub(super) best_tail: Option<f64>,
    /// Losses of the epoch so far.
    pub(super) epoch: EpochSums,
    /// What the run knows of its images.
    #[serde(default)]
    pub(super) data: DataRecord,
}

impl Progress {
    /// Whether the iterations of an epoch are done, but not what comes at its end: the evaluation and the epoch's line.
    pub(super) fn epoch_is_open(&self, its: u64) -> bool {
        self.it > 0 && self.it.is_multiple_of(its) && self.epoch.iterations > 0
    }
}

/// Sums over the iterations of an epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct EpochSums {
    iterations: u64,
    loss_mean: f64,
    acc_mean: f64,
    tails: u64,
    loss_tail: f64,
    acc_tail: f64,
    updates: u64,
    grad_norm: f64,
}

impl EpochSums {
    pub(super) fn add(&mut self, report: &StepReport, last: usize) {
        self.iterations += 1;
        self.loss_mean += report.measures.loss_mean();
        self.acc_mean += report.measures.acc_mean();
        if let (Some(l), Some(a)) = (report.measures.loss_of(last), report.measures.acc_of(last)) {
            self.tails += 1;
            self.loss_tail += l;
            self.acc_tail += a;
        }
        if let (Some(norm), false) = (report.grad_norm, report.skipped) {
            self.updates += 1;
            self.grad_norm += norm;
        }
    }
}

/// Stands in the epoch's line for times that are not known, as the reference has it.
const UNKNOWN: &str = "-";

fn mean(sum: f64, n: u64) -> Option<f64> {
    (n > 0).then(|| sum / n as f64)
}

impl Session<'_> {
    /// Writes an iteration's figures for TensorBoard; `scale` is the loss scale that it was made with.
    pub(super) fn write_scalars(
        &mut self,
        report: &StepReport,
        step: &StepPlan,
        scale: Option<f64>,
    ) -> Result<()> {
        let it = step.it;
        if !tags::is_due(it) {
            return Ok(());
        }
        let vocab = report.predicted.len().max(1) as f64;
        let total: u32 = report.predicted.iter().sum();
        let used = report
            .predicted
            .iter()
            .filter(|&&n| f64::from(n) / f64::from(total.max(1)) > 0.001 / vocab)
            .count();
        let mut values: Vec<(String, f64)> = vec![
            (tags::LR_MIN.into(), step.lr),
            (tags::LR_MAX.into(), step.lr),
            (tags::WD_MAX.into(), step.wd),
            (tags::WD_MIN.into(), step.wd),
            (tags::VOCABULARY_USAGE.into(), 100.0 * used as f64 / vocab),
        ];
        if let Some(norm) = report.grad_norm {
            values.push((tags::GRAD_NORM.into(), norm));
        }
        if let (Some(scale), true) = (scale, step.update) {
            values.push((tags::SCALE_LOG2.into(), scale.log2()));
        }
        if let Some(clip) = step.clip {
            values.push((tags::GRAD_CLIP.into(), clip));
        }
        for (k, &reso) in self.plan.resolutions.iter().enumerate() {
            if let (Some(l), Some(a)) = (report.measures.loss_of(k), report.measures.acc_of(k)) {
                values.push((tags::loss_at(reso), l));
                values.push((tags::accuracy_at(reso), a));
            }
        }
        if self.horizon.stages.is_some() {
            let highest = step.stage.highest;
            let k = highest.unwrap_or(self.plan.resolutions.len() - 1);
            values.push((
                tags::STAGE_RESOLUTION.into(),
                self.plan.resolutions[k] as f64,
            ));
            values.push((tags::STAGE.into(), highest.map_or(-1.0, |k| k as f64)));
            values.push((tags::STAGE_RAMP.into(), step.stage.ramp));
        }
        let named = values.iter().map(|(k, v)| (k.as_str(), *v));
        self.tb.scalars(it as i64, named)
    }

    /// Whether the end of the `epoch`-th epoch (from 1) brings an evaluation and a checkpoint.
    pub(super) fn evaluates(&self, epoch: u64) -> bool {
        epoch.is_multiple_of(self.run.options.eval_every) || epoch == self.plan.epochs as u64
    }

    /// What comes at an epoch's end. An evaluation begins with a save that holds the epoch's sums: a run that ends before the next
    /// save makes the evaluation again.
    ///
    /// # Errors
    /// [`Error::Stopped`] where a stop was asked for before or during the evaluation.
    pub(super) fn end_epoch(&mut self) -> Result<()> {
        let epoch = self.progress.it / self.horizon.its_per_epoch;
        let now = self.horizon.schedule.at(self.progress.it - 1);
        let due = self.evaluates(epoch);
        let val = if due {
            if self.keeper.unsaved {
                self.save(Then::GoesOn)?;
            }
            self.run.stop.check()?;
            self.evaluate(epoch)?
        } else {
            None
        };
        let sums = std::mem::take(&mut self.progress.epoch);
        self.keeper.unsaved = true;
        let last = self.plan.patch_nums.len() - 1;
        let val_loss_tail = val.as_ref().and_then(|m| m.loss_of(last));
        let remaining = self.display.remaining(self.updates());
        let record = EpochRecord {
            it: Done {
                done: self.horizon.its_per_epoch,
                all: self.horizon.its_per_epoch,
            },
            ep: Done {
                done: epoch,
                all: self.plan.epochs as u64,
            },
            lr: now.lr,
            wd: now.wd,
            grad_norm: mean(sums.grad_norm, sums.updates),
            loss_mean: mean(sums.loss_mean, sums.iterations),
            loss_tail: mean(sums.loss_tail, sums.tails),
            acc_mean: mean(sums.acc_mean, sums.iterations),
            acc_tail: mean(sums.acc_tail, sums.tails),
            val_loss_mean: val.as_ref().map(Measures::loss_mean),
            val_loss_tail,
            val_acc_mean: val.as_ref().map(Measures::acc_mean),
            val_acc_tail: val.as_ref().and_then(|m| m.acc_of(last)),
            remain_time: remaining.map_or(UNKNOWN.into(), format_duration),
            finish_time: remaining.map_or(UNKNOWN.into(), |t| format_utc(SystemTime::now() + t)),
        };
        let scalars = [
            (tags::EPOCH_LOSS_MEAN, record.loss_mean),
            (tags::EPOCH_LOSS_TAIL, record.loss_tail),
            (tags::EPOCH_ACC_MEAN, record.acc_mean),
            (tags::EPOCH_ACC_TAIL, record.acc_tail),
            (tags::VAL_LOSS_MEAN, record.val_loss_mean),
            (tags::VAL_LOSS_TAIL, record.val_loss_tail),
            (tags::VAL_ACC_MEAN, record.val_acc_mean),
            (tags::VAL_ACC_TAIL, record.val_acc_tail),
            (
                tags::REST_HOURS,
                remaining.map(|t| t.as_secs_f64() / 3600.0),
            ),
        ];
        let known = scalars.iter().filter_map(|(k, v)| v.map(|v| (*k, v)));
        let written = [
            self.tb.scalars(epoch as i64, known),
            self.tb.flush(),
            self.epochs.append(&record),
        ];
        for written in written {
            self.log_faults.pass(written, &mut self.display);
        }
        if let Some(m) = &val {
            self.display.note(&format!(
                "epoch {epoch}: validation loss {:.4} (last scale {:.4}), accuracy {:.2} % ({:.2} %)",
                m.loss_mean(),
                val_loss_tail.unwrap_or(f64::NAN),
                m.acc_mean(),
                record.val_acc_tail.unwrap_or(f64::NAN),
            ));
        }
        if let Some(tail) = val_loss_tail {
            self.keep_best(tail)?;
        }
        if due {
            self.save(Then::GoesOn)?;
        }
        Ok(())
    }

    /// Writes the best checkpoint if the validation loss is lower than before. It comes before the last one: a run that is killed
    /// between them makes the evaluation again, and the best with it.
    fn keep_best(&mut self, tail: f64) -> Result<()> {
        let before = self.progress.best_tail;
        if !is_better(tail, before, |a, b| a < b) {
            return Ok(());
        }
        self.progress.best_tail = Some(tail);
        match self.save_best() {
            // At its end a run makes the evaluation again, rather than be done without its best.
            Err(e @ Error::Io { .. }) if self.progress.it < self.horizon.max_it => {
                self.progress.best_tail = before;
                self.display.warn(&format!(
                    "{e}; the run goes on without this best checkpoint"
                ));
                Ok(())
            }
            other => other,
        }
    }

    /// Validation losses, where there are validation images, and drawn images, where there is a decoder.
    fn evaluate(&mut self, epoch: u64) -> Result<Option<Measures>> {
        release_free();
        let batch = evaluation_batch(self.plan.batch);
        let stop = &self.run.stop;
        if let Some(check) = self.val_check.take() {
            check.wait(stop)?;
        }
        let each = |_| stop.check();
        let (measures, bad) = self
            .data
            .evaluate(&self.trainer, batch, self.loader, each)?;
        for bad in bad {
            self.display.warn(&bad.reason);
        }
        release_free();
        self.show(epoch)?;
        self.run.stop.check()?;
        Ok(measures)
    }

    /// A picture of drawn images for TensorBoard.
    fn show(&mut self, epoch: u64) -> Result<()> {
        let Some(pixels) = LogFaults::picture(self.draw(), &mut self.display)?.flatten() else {
            return Ok(());
        };
        let picture = grid(&pixels, self.plan.image_size, 4);
        let written = self.tb.image(
            epoch as i64,
            "samples",
            picture.width as u32,
            picture.height as u32,
            &picture.rgb,
        );
        self.log_faults.pass(written, &mut self.display);
        Ok(())
    }

    /// Drawn images, where there is a decoder.
    ///
    /// # Errors
    /// [`Error::Stopped`] after the scale during which a stop was asked for.
    fn draw(&self) -> Result<Option<Vec<u8>>> {
        let Some(vqvae) = self.trainer.tokenizer.whole() else {
            return Ok(None);
        };
        // The same images every time, one class after the other, so that progress is seen.
        let classes = self.trainer.var.config.classes;
        let labels: Vec<i32> = (0..drawn(classes)).map(|i| (i % classes) as i32).collect();
        let sampler = Sampler {
            var: &self.trainer.var,
            vqvae,
        };
        let options = SampleOptions {
            noise: Noise::Seed(self.progress.seed),
            ..SampleOptions::default()
        };
        let each = &mut || self.run.stop.check();
        let drawn = sampler.draw_while(&labels, 0, &options, each)?;
        Ok(Some(drawn.pixels()?))
    }
}
