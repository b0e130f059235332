//! Training the transformer from start, or from its checkpoint, to the end.

use super::dataset::{Dataset, loader_config};
use super::progress::StepClock;
use super::var_state::{self, Saving};
use super::{Outcome, choose_seed, make_folder, resolve_device};
use crate::checkpoint::{StateDict, clean_stale};
use crate::data::{LoaderConfig, TrainLoader};
use crate::eval::evaluate_losses;
use crate::generate::{Noise, SampleOptions, Sampler};
use crate::log::clock::{format_duration, format_utc};
use crate::log::display::{Display, Sample};
use crate::log::epoch_log::{Done, EpochLog, EpochRecord, Header};
use crate::log::steps::{StepLog, StepRecord};
use crate::log::tags;
use crate::log::tensorboard::EventWriter;
use crate::model::Pyramid;
use crate::model::open::open_tokenizer;
use crate::model::state::vqvae_state;
use crate::model::var::{InitScales, Var, VarConfig};
use crate::pictures::grid;
use crate::train::options::TrainOptions;
use crate::train::plan::{Horizon, Plan, Precision};
use crate::train::progressive::StageState;
use crate::train::run_lock::RunLock;
use crate::train::signal::StopSignal;
use crate::train::var_trainer::{Measures, StepPlan, StepReport, VarTrainer};
use crate::{Error, Result};
use nextscale_tensor::ops;
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

pub use super::var_state::var_paths;

/// Images in TensorBoard's sample grid.
const SHOWN: usize = 16;

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
    fn add(&mut self, report: &StepReport, last: usize) {
        self.iterations += 1;
        self.loss_mean += report.measures.loss_mean();
        self.acc_mean += report.measures.acc_mean();
        if let (Some(l), Some(a)) = (report.measures.loss_of(last), report.measures.acc_of(last)) {
            self.tails += 1;
            self.loss_tail += l;
            self.acc_tail += a;
        }
        if let Some(norm) = report.grad_norm {
            self.updates += 1;
            self.grad_norm += norm;
        }
    }
}

fn mean(sum: f64, n: u64) -> Option<f64> {
    (n > 0).then(|| sum / n as f64)
}

/// A training run of the transformer.
pub struct VarRun<'a> {
    /// The flags.
    pub options: &'a TrainOptions,
    /// The command line, for the logs.
    pub cmd: String,
    /// Asks the run to save and stop.
    pub stop: StopSignal,
}

impl VarRun<'_> {
    /// Runs until the end, the step limit or a stop signal.
    ///
    /// # Errors
    /// Bad flags or files, each one line; failures while running.
    pub fn run(&self) -> Result<Outcome> {
        let o = self.options;
        let plan = o.resolve(1)?;
        resolve_device(o.device)?;
        let Some(data_path) = &o.data_path else {
            return Err(Error::input(
                "--data_path is missing: give a folder with train/CLASS/* and val/CLASS/*, or builtin:shapes",
            ));
        };
        let Some(tokenizer) = &o.tokenizer else {
            return Err(Error::input(
                "--tokenizer is missing: give the tokenizer's file (train one with: nextscale train-tokenizer)",
            ));
        };
        let pyramid = Pyramid::square(&plan.patch_nums)?;
        let dataset = Dataset::open(data_path, plan.image_size, o.mid_reso, o.hflip)?;
        let horizon = plan.horizon(dataset.train.len())?;
        let tok = open_tokenizer(tokenizer, Some(&pyramid), false)?;
        let patch_size = tok.vqvae.config.downsample();
        if patch_size != o.patch_size {
            return Err(Error::input(format!(
                "--patch_size={}: a token of {} stands for {patch_size}x{patch_size} pixels; use --patch_size={patch_size}",
                o.patch_size,
                tokenizer.display()
            )));
        }
        make_folder(&o.out)?;
        let lock = RunLock::acquire(&o.out)?;
        clean_stale(&o.out)?;
        let found = var_state::find(&o.out)?;
        let progress = match &found {
            Some((state, path)) => var_state::progress(state, &horizon, path)?,
            None => Progress {
                its_per_epoch: horizon.its_per_epoch,
                ..Progress::default()
            },
        };
        let saved_seed = found.as_ref().map(|_| progress.seed);
        let seed = choose_seed(o.seed, saved_seed, &o.out)?;
        let config = VarConfig {
            vocab: tok.vqvae.config.vocab,
            cvae: tok.vqvae.config.cvae,
            shared_aln: o.saln,
            attn_l2_norm: o.anorm,
            ..VarConfig::of_depth(o.depth, dataset.classes(), pyramid)
        };
        let mut var = Var::new(config, true)?;
        if found.is_none() {
            let scales = InitScales {
                ini: o.ini as f32,
                hd: o.hd as f32,
                aln: o.aln as f32,
                alng: o.alng as f32,
            };
            var.init(scales, seed)?;
        }
        let vae_state = vqvae_state(&tok.vqvae, &tok.hits)?;
        let mut trainer = VarTrainer::new(tok.vqvae, var, o.ls as f32, seed)?;
        let mut stage = StageState::default();
        if let Some((state, path)) = &found {
            var_state::restore(&mut trainer, state, path)?;
            stage = var_state::stage(state);
        }
        let resumed_from = found.map(|(_, path)| path);
        let updates_total = horizon.max_it / o.ac as u64;
        let done = progress.it / o.ac as u64;
        let mut display = Display::new(o.quiet, updates_total, plan.epochs as u64, done);
        if let Some(text) = lock.warning() {
            display.warn(text);
        }
        if plan.precision != Precision::Float32 {
            display.warn(&format!(
                "--fp16={}: half precision is for GPUs; this run computes in float32",
                o.fp16
            ));
        }
        display.note(&format!(
            "{} training and {} validation images of {} classes, {} iterations an epoch; {:.2} M parameters; seed {seed}",
            dataset.train.len(),
            dataset.val.len(),
            dataset.classes(),
            horizon.its_per_epoch,
            trainer.var.params.count() as f64 / 1e6,
        ));
        if let Some(path) = &resumed_from {
            display.note(&format!(
                "resumed from {} after step {done}",
                path.display()
            ));
        }
        let epochs_done = progress.it / horizon.its_per_epoch;
        let header = Header::new(&o.exp_name, &self.cmd, &plan.tb_dir);
        let mut tb = EventWriter::create(&plan.tb_dir, resumed_from.map(|_| progress.it as i64))?;
        let args = serde_json::to_string_pretty(o).unwrap_or_default();
        tb.text(progress.it as i64, "args", &format!("```json\n{args}\n```"))?;
        let loader = loader_config(plan.workers, seed, o.bad_images);
        let mut session = Session {
            run: self,
            plan: &plan,
            horizon: &horizon,
            dataset,
            trainer,
            vae_state,
            stage,
            progress: Progress { seed, ..progress },
            display,
            tb,
            steps: StepLog::open(&o.out, done)?,
            epochs: EpochLog::open(&o.out, &header, epochs_done)?,
            loader,
        };
        let outcome = session.all_epochs()?;
        session.display.finish();
        drop(lock);
        Ok(outcome)
    }
}

/// Everything a run holds while it goes on.
struct Session<'a> {
    run: &'a VarRun<'a>,
    plan: &'a Plan,
    horizon: &'a Horizon,
    dataset: Dataset,
    trainer: VarTrainer,
    vae_state: StateDict,
    stage: StageState,
    progress: Progress,
    display: Display,
    tb: EventWriter,
    steps: StepLog,
    epochs: EpochLog,
    loader: LoaderConfig,
}

impl Session<'_> {
    fn updates(&self) -> u64 {
        self.progress.it / self.run.options.ac as u64
    }

    fn all_epochs(&mut self) -> Result<Outcome> {
        let its = self.horizon.its_per_epoch;
        let start = (self.progress.it / its, (self.progress.it % its) as usize);
        let mut loader = self
            .dataset
            .train_loader(self.plan.batch, start, self.loader)?;
        let limit = self.run.options.stop_after.unwrap_or(u64::MAX);
        let mut clock = StepClock::new(loader.waited());
        if self.updates() >= limit {
            return self.outcome(false);
        }
        while self.progress.it < self.horizon.max_it {
            let stop = self.iteration(&mut loader, &mut clock, limit)?;
            let epoch_ended = self.progress.it.is_multiple_of(its);
            if epoch_ended {
                self.end_epoch()?;
                clock.restart(loader.waited());
            }
            if stop {
                if !epoch_ended || !self.evaluates(self.progress.it / its) {
                    self.save()?;
                }
                self.report_bad(&loader);
                return self.outcome(self.progress.it >= self.horizon.max_it);
            }
        }
        self.report_bad(&loader);
        self.outcome(true)
    }

    /// One iteration; whether the run is to stop after it.
    fn iteration(
        &mut self,
        loader: &mut TrainLoader,
        clock: &mut StepClock,
        limit: u64,
    ) -> Result<bool> {
        let o = self.run.options;
        let it = self.progress.it;
        let batch = loader.next_batch()?;
        let (images, labels) = crate::eval::tensors(&batch, self.dataset.side)?;
        clock.add_images(batch.len());
        drop(batch);
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
        let report = self.trainer.step(&images, &labels, &step)?;
        if !report.loss.is_finite() {
            return Err(Error::failed(format!(
                "the loss is {} at iteration {it}: the run has diverged; start again from {} with a lower --tblr",
                report.loss,
                var_paths(&o.out).last.display()
            )));
        }
        self.progress.it += 1;
        let last = self.plan.patch_nums.len() - 1;
        self.progress.epoch.add(&report, last);
        self.write_scalars(it, &report, &step)?;
        if !update {
            return Ok(false);
        }
        let time = clock.lap(loader.waited());
        let done = self.updates();
        let epoch = it / self.horizon.its_per_epoch + 1;
        if done.is_multiple_of(o.log_every.max(1)) {
            self.steps.append(&StepRecord {
                step: done,
                epoch,
                loss: report.measures.loss_mean(),
                accuracy: report.measures.acc_mean(),
                grad_norm: report.grad_norm.unwrap_or(f64::NAN),
                lr: now.lr,
                wd: now.wd,
                loss_scale: None,
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
        let stop = done >= limit || self.run.stop.is_asked();
        let due = o.save_every > 0 && done.is_multiple_of(o.save_every);
        let epoch_ends = self.progress.it.is_multiple_of(self.horizon.its_per_epoch);
        if due && !stop && !epoch_ends {
            self.save()?;
            clock.restart(loader.waited());
        }
        Ok(stop)
    }

    fn write_scalars(&mut self, it: u64, report: &StepReport, step: &StepPlan) -> Result<()> {
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
    fn evaluates(&self, epoch: u64) -> bool {
        epoch.is_multiple_of(self.run.options.eval_every) || epoch == self.plan.epochs as u64
    }

    fn end_epoch(&mut self) -> Result<()> {
        let epoch = self.progress.it / self.horizon.its_per_epoch;
        let sums = std::mem::take(&mut self.progress.epoch);
        let now = self.horizon.schedule.at(self.progress.it - 1);
        let val = if self.evaluates(epoch) {
            Some(self.evaluate(epoch)?)
        } else {
            None
        };
        let last = self.plan.patch_nums.len() - 1;
        let val_loss_tail = val.as_ref().and_then(|m| m.loss_of(last));
        let remaining = self.display.remaining(self.updates()).unwrap_or_default();
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
            remain_time: format_duration(remaining),
            finish_time: format_utc(SystemTime::now() + remaining),
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
            (tags::REST_HOURS, Some(remaining.as_secs_f64() / 3600.0)),
        ];
        let known = scalars.iter().filter_map(|(k, v)| v.map(|v| (*k, v)));
        self.tb.scalars(epoch as i64, known)?;
        self.tb.flush()?;
        self.epochs.append(&record)?;
        if let Some(m) = &val {
            self.display.note(&format!(
                "epoch {epoch}: validation loss {:.4} (last scale {:.4}), accuracy {:.2} % ({:.2} %)",
                m.loss_mean(),
                val_loss_tail.unwrap_or(f64::NAN),
                m.acc_mean(),
                record.val_acc_tail.unwrap_or(f64::NAN),
            ));
            let better = match (val_loss_tail, self.progress.best_tail) {
                (Some(now), Some(best)) => now < best,
                (Some(_), None) => true,
                _ => false,
            };
            if better {
                self.progress.best_tail = val_loss_tail;
            }
            self.save()?;
            if better {
                let paths = var_paths(&self.run.options.out);
                copy_whole(&paths.last, &paths.best)?;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, epoch: u64) -> Result<Measures> {
        let batch = (self.plan.batch as f64 * 1.5).round_ties_even() as usize;
        let mut val = self.dataset.val_loader(batch.max(1), self.loader)?;
        let measures = evaluate_losses(&self.trainer, &mut val, self.dataset.side, |_| Ok(()))?;
        for bad in val.bad_images() {
            self.display.warn(&bad.reason);
        }
        // The same images every time, one class after the other, so that progress is seen.
        let classes = self.trainer.var.config.classes;
        let labels: Vec<i32> = (0..SHOWN.min(classes.max(4)))
            .map(|i| (i % classes) as i32)
            .collect();
        let sampler = Sampler {
            var: &self.trainer.var,
            vqvae: &self.trainer.vqvae,
        };
        let options = SampleOptions {
            noise: Noise::Seed(self.progress.seed),
            ..SampleOptions::default()
        };
        let drawn = sampler.draw(&labels, 0, &options, None, None)?;
        let pixels = ops::to_pixels(&drawn.images)?;
        let picture = grid(&pixels, self.dataset.side, 4);
        self.tb.image(
            epoch as i64,
            "samples",
            picture.width as u32,
            picture.height as u32,
            &picture.rgb,
        )?;
        Ok(measures)
    }

    fn save(&mut self) -> Result<()> {
        // A checkpoint counts on the lines before it.
        self.steps.sync()?;
        self.tb.flush()?;
        let saving = Saving {
            options: self.run.options,
            plan: self.plan,
            horizon: self.horizon,
            progress: &self.progress,
            stage: self.stage,
            cmd: &self.run.cmd,
        };
        let path = var_paths(&self.run.options.out).last;
        var_state::save(&self.trainer, &mut self.vae_state, &saving, &path)
    }

    fn report_bad(&mut self, loader: &TrainLoader) {
        let bad = loader.bad_images();
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

/// Copies a file so that the target is whole at any instant.
pub(super) fn copy_whole(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    let mut source = std::fs::File::open(from).map_err(Error::io(from))?;
    crate::checkpoint::write_atomic(to, |w| std::io::copy(&mut source, w).map(|_| ()))
}
