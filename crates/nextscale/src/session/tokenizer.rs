//! Training the tokenizer from start, or from its checkpoint, to the end.

mod evaluation;

use super::checkpoints::Keeper;
use super::data_record::DataRecord;
use super::dataset::{Dataset, loader_config};
use super::log_faults::LogFaults;
use super::progress::StepClock;
use super::saving::{Run, Then, report_bad, to_the_end};
use super::tokenizer_state;
use super::val_check::ValCheck;
use super::{Outcome, check_length, choose_seed, make_folder, not_a_number, stopped};
use crate::checkpoint::clean_stale;
use crate::data::{Feed, LoaderConfig, TrainLoader};
use crate::eval::psnr_db;
use crate::log::display::{Display, Sample};
use crate::log::steps::{StepLog, StepMeasures, StepRecord};
use crate::log::tags;
use crate::log::tensorboard::EventWriter;
use crate::memory::{self, Pass, advise};
use crate::model::Pyramid;
use crate::model::vqvae::{Vqvae, VqvaeConfig};
use crate::train::device::{TokenizerPrecision, resolve_device};
use crate::train::run_lock::RunLock;
use crate::train::signal::StopSignal;
use crate::train::tokenizer_options::{TokenizerHorizon, TokenizerOptions, TokenizerPlan};
use crate::train::tokenizer_trainer::{
    LateTokenizerReport, TokenizerReport, TokenizerStep, TokenizerTrainer,
};
use crate::{Error, Result};
use nextscale_tensor::cpu::pool::release_free;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Where a run stands; part of its checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct TokenizerProgress {
    /// Seed of everything random.
    pub(super) seed: u64,
    /// Steps done.
    pub(super) it: u64,
    /// Steps of an epoch.
    pub(super) its_per_epoch: u64,
    /// Records of codebook usage.
    pub(super) records: u64,
    /// Highest validation PSNR in dB.
    pub(super) best_psnr: Option<f64>,
    /// The last evaluation's PSNR in dB.
    pub(super) last_psnr: Option<f64>,
    /// Whether the evaluation after the last step is still to be made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) evaluation_due: bool,
    /// What the run knows of its images.
    #[serde(default)]
    pub(super) data: DataRecord,
}

/// The files of a tokenizer's run.
#[derive(Clone, Debug)]
pub struct TokenizerPaths {
    /// The checkpoint to resume from.
    pub state: PathBuf,
    /// The latest weights, to use.
    pub weights: PathBuf,
    /// The weights with the highest validation PSNR.
    pub best: PathBuf,
}

/// The files of a tokenizer's run in the folder `out`.
pub fn tokenizer_paths(out: &Path) -> TokenizerPaths {
    TokenizerPaths {
        state: out.join("tokenizer-ckpt-last.safetensors"),
        weights: out.join("tokenizer.safetensors"),
        best: out.join("tokenizer-best.safetensors"),
    }
}

/// A training run of the tokenizer.
pub struct TokenizerRun<'a> {
    /// The flags.
    pub options: &'a TokenizerOptions,
    /// The command line, for the logs.
    pub cmd: String,
    /// Asks the run to save and stop.
    pub stop: StopSignal,
}

impl TokenizerRun<'_> {
    /// Runs until the end, the step limit or a stop signal.
    ///
    /// # Errors
    /// Bad flags or files, each one line; failures while running.
    pub fn run(&self) -> Result<Outcome> {
        self.run_reading(None)
    }

    /// [`TokenizerRun::run`] that reads each step's report after the next was asked for, or at once; by itself it does what is
    /// best for the device.
    pub(super) fn run_reading(&self, late: Option<bool>) -> Result<Outcome> {
        let o = self.options;
        let plan = o.resolve(1)?;
        let device = resolve_device(o.device)?;
        let Some(data_path) = &o.data_path else {
            return Err(Error::input(
                "--data_path is missing: give a folder with train/CLASS/* and val/CLASS/*, or builtin:shapes",
            ));
        };
        let pyramid = Pyramid::square(&plan.patch_nums)?;
        let dataset = Dataset::open(data_path, plan.image_size, o.mid_reso, o.hflip)?;
        let horizon = plan.horizon(dataset.train.len())?;
        let config = VqvaeConfig {
            vocab: o.vocab,
            cvae: o.cvae,
            ch: o.ch,
            ch_mult: plan.ch_mult.clone(),
            num_res_blocks: o.num_res_blocks,
            dropout: o.dropout as f32,
            beta: o.beta as f32,
            using_znorm: o.znorm,
            quant_resi: o.quant_resi as f32,
            share_quant_resi: o.share_quant_resi,
            ..VqvaeConfig::published(pyramid)
        };
        let math = plan.precision.math();
        let pass = Pass::TrainTokenizer {
            vqvae: &config,
            math,
        };
        memory::check(device, "bs", plan.batch, pass)?;
        make_folder(&o.out)?;
        let lock = RunLock::acquire(&o.out)?;
        clean_stale(&o.out)?;
        let paths = tokenizer_paths(&o.out);
        let found = tokenizer_state::find(&paths.state, &config)?;
        if let Some(p) = &found
            && p.its_per_epoch != horizon.its_per_epoch
        {
            return Err(Error::input(format!(
                "{}: the run had {} steps an epoch, with these flags and images it would have {}: give --bs and --data_path as before, or choose another --out",
                paths.state.display(),
                p.its_per_epoch,
                horizon.its_per_epoch
            )));
        }
        if let Some(p) = &found {
            let flag = o.steps.map_or("--ep", |_| "--steps");
            check_length(p.it, horizon.max_it, flag, &paths.state)?;
        }
        let record = DataRecord::of_images(&dataset, o.hflip, o.mid_reso);
        let told = match &found {
            Some(p) => p.data.against(&record, &paths.state)?,
            None => Vec::new(),
        };
        let seed = choose_seed(o.seed, found.as_ref().map(|p| p.seed), &o.out)?;
        let mut vqvae = Vqvae::new(config, true)?;
        if found.is_none() {
            vqvae.init(seed)?;
        }
        vqvae.to_device(device, math)?;
        let losses = (o.l1 as f32, o.l2 as f32);
        let mut trainer = TokenizerTrainer::new(vqvae, plan.betas, losses, seed)?;
        if let Some(p) = &found {
            tokenizer_state::restore(&mut trainer, p, &paths.state)?;
        }
        let resumed = found.is_some();
        let progress = TokenizerProgress {
            seed,
            its_per_epoch: horizon.its_per_epoch,
            data: record,
            ..found.unwrap_or_default()
        };
        let epochs = horizon.max_it.div_ceil(horizon.its_per_epoch);
        let mut display = Display::new(o.quiet, horizon.max_it, epochs, progress.it);
        if let Some(text) = lock.warning() {
            display.warn(text);
        }
        if !device.is_async() && plan.precision == TokenizerPrecision::Bf16 {
            display
                .warn("--precision=bf16: half precision is for GPUs; this run computes in float32");
        }
        display.note(&format!(
            "{} training and {} validation images, {} steps an epoch; {:.2} M parameters; seed {seed}",
            dataset.train.len(),
            dataset.val.len(),
            horizon.its_per_epoch,
            trainer.vqvae.params.count() as f64 / 1e6,
        ));
        if resumed {
            display.note(&format!(
                "resumed from {} after step {}",
                paths.state.display(),
                progress.it
            ));
        }
        told.iter().for_each(|line| display.warn(line));
        let mut tb = EventWriter::create(
            &o.out.join("tb-tokenizer"),
            resumed.then_some(progress.it as i64),
        )?;
        let args = serde_json::to_string_pretty(o).unwrap_or_default();
        let text = format!("{}\n\n```json\n{args}\n```", self.cmd);
        tb.text(progress.it as i64, "args", &text)?;
        let loader = loader_config(plan.workers, seed, o.bad_images);
        let held = resumed.then_some(progress.it);
        for line in &dataset.left_out {
            display.note(line);
        }
        let val = Arc::clone(&dataset.val);
        let val_check = Some(ValCheck::start(val, o.bad_images, display.speaker()));
        let mut session = Session {
            run: self,
            plan: &plan,
            horizon: &horizon,
            dataset,
            trainer,
            steps: StepLog::open(&o.out, progress.it)?,
            progress,
            late: late.unwrap_or(device.is_async()),
            launched: None,
            looked_at: None,
            changed: false,
            keeper: Keeper::new(paths.state.clone(), o.keep, "--lr", 1, held),
            log_faults: LogFaults::default(),
            told_of_weights: false,
            feed: Feed::new(device)?,
            clock: StepClock::new(Duration::ZERO),
            display,
            tb,
            loader,
            paths,
            val_check,
        };
        let outcome = to_the_end(&mut session, Session::explain)?;
        session.display.finish();
        drop(lock);
        Ok(outcome)
    }
}

/// A step that was asked for. On a GPU its report is looked at after the next one was asked for.
struct Launched {
    report: LateTokenizerReport,
    step: TokenizerStep,
    images: u64,
}

/// Everything a run holds while it goes on.
struct Session<'a> {
    run: &'a TokenizerRun<'a>,
    plan: &'a TokenizerPlan,
    horizon: &'a TokenizerHorizon,
    paths: TokenizerPaths,
    dataset: Dataset,
    trainer: TokenizerTrainer,
    progress: TokenizerProgress,
    /// Whether reports are looked at after the next step was asked for.
    late: bool,
    /// The step whose report was not looked at yet.
    launched: Option<Launched>,
    /// The last step whose report was looked at.
    looked_at: Option<u64>,
    /// Whether weights were changed for a step that was not made.
    changed: bool,
    keeper: Keeper,
    log_faults: LogFaults,
    /// Whether it was told that there are no weights to use.
    told_of_weights: bool,
    feed: Feed,
    clock: StepClock,
    display: Display,
    tb: EventWriter,
    steps: StepLog,
    loader: LoaderConfig,
    /// Until the first evaluation.
    val_check: Option<ValCheck>,
}

impl Session<'_> {
    /// Says what fits, of an error that too many images at a time made.
    fn explain(&self, e: Error) -> Error {
        let vqvae = &self.trainer.vqvae;
        let pass = Pass::TrainTokenizer {
            vqvae: &vqvae.config,
            math: vqvae.math,
        };
        advise(e, vqvae.device(), "bs", self.plan.batch, pass)
    }

    /// Whether the run is to end here before its end.
    fn is_to_stop(&self) -> bool {
        let limit = self.run.options.stop_after.unwrap_or(u64::MAX);
        self.progress.it >= limit || self.run.stop.is_asked()
    }

    fn step(&mut self, loader: &mut TrainLoader) -> Result<()> {
        let o = self.run.options;
        let it = self.progress.it;
        let batch = loader.next_batch()?;
        let (images, labels) = self.feed.batch(&batch, self.dataset.side)?;
        drop(batch);
        let now = self.horizon.schedule.at(it);
        let plan = TokenizerStep {
            it,
            lr: now.lr,
            wd: now.wd,
            clip: self.plan.clip,
        };
        if it == 0 {
            self.trainer.seed_codebook(&images)?;
        } else if o.revive > 0 && it.is_multiple_of(o.revive) {
            // Which codes are dead shows in the hits of every step before.
            self.settle(loader.waited())?;
            if let Some(dead) = self.trainer.dead_codes(&images)? {
                self.changed = true;
                self.trainer.revive(&dead, it)?;
            }
        }
        let launched = Launched {
            report: self.trainer.step(&images, &plan)?,
            step: plan,
            images: labels.len() as u64,
        };
        self.progress.it += 1;
        (self.changed, self.keeper.unsaved) = (false, true);
        if let Some(previous) = self.launched.replace(launched) {
            self.look_at(previous, loader.waited())?;
        }
        if !self.late {
            self.settle(loader.waited())?;
        }
        Ok(())
    }

    /// Looks at the report that is still out.
    fn settle(&mut self, waited: Duration) -> Result<()> {
        match self.launched.take() {
            Some(launched) => self.look_at(launched, waited),
            None => Ok(()),
        }
    }

    /// Takes a step's report into averages, logs and display; `waited` is what the loader has waited so far.
    fn look_at(&mut self, launched: Launched, waited: Duration) -> Result<()> {
        let o = self.run.options;
        let TokenizerStep { it, lr, wd, .. } = launched.step;
        let report = self.trainer.read(launched.report)?;
        let at = format_args!("step {it}");
        if let Some(what) = not_a_number(report.loss, Some(report.grad_norm), at) {
            return Err(self.keeper.diverged(&what));
        }
        self.progress.records = self.trainer.hits.records;
        self.looked_at = Some(it + 1);
        let time = self.clock.lap(waited, launched.images);
        let done = it + 1;
        let epoch = it / self.horizon.its_per_epoch + 1;
        let positions = self.plan.batch * self.positions();
        let usage = self.trainer.hits.usage(positions);
        let used = usage.iter().sum::<f64>() / usage.len().max(1) as f64;
        if done.is_multiple_of(o.log_every.max(1)) {
            let written = self.steps.append(&StepRecord {
                step: done,
                epoch,
                loss: report.loss,
                measures: StepMeasures::Tokenizer {
                    l1: report.l1,
                    l2: report.l2,
                    vq_loss: report.vq,
                    psnr_db: psnr_db(report.l2),
                    usage: used,
                },
                grad_norm: report.grad_norm,
                lr,
                wd,
                loss_scale: None,
                images_per_s: time.images_per_s(),
                data_wait: time.data_wait(),
            });
            self.log_faults.pass(written, &mut self.display);
        }
        if tags::is_due(it) || done.is_multiple_of(o.log_every.max(1)) {
            let written = self.write_scalars(it, &report, lr, &usage);
            self.log_faults.pass(written, &mut self.display);
        }
        self.display.step(&Sample {
            step: done,
            epoch,
            loss: Some(report.loss),
            accuracy: None,
            usage: Some(used),
            images: time.images,
            seconds: time.seconds,
            data_seconds: time.data_seconds,
        });
        Ok(())
    }

    /// Feature vectors of one image.
    fn positions(&self) -> usize {
        let (h, w) = self.trainer.vqvae.config.pyramid.finest();
        h * w
    }

    fn write_scalars(
        &mut self,
        it: u64,
        report: &TokenizerReport,
        lr: f64,
        usage: &[f64],
    ) -> Result<()> {
        let mut values = vec![
            ("tokenizer/loss".to_owned(), report.loss),
            ("tokenizer/l1".to_owned(), report.l1),
            ("tokenizer/l2".to_owned(), report.l2),
            ("tokenizer/vq_loss".to_owned(), report.vq),
            ("tokenizer/grad_norm".to_owned(), report.grad_norm),
            ("tokenizer/lr".to_owned(), lr),
        ];
        for (k, u) in usage.iter().enumerate() {
            values.push((format!("tokenizer_usage/scale_{k}"), *u));
        }
        let named = values.iter().map(|(k, v)| (k.as_str(), *v));
        self.tb.scalars(it as i64, named)
    }
}

impl Run for Session<'_> {
    fn train(&mut self) -> Result<()> {
        let its = self.horizon.its_per_epoch;
        let start = (self.progress.it / its, (self.progress.it % its) as usize);
        let mut loader = self
            .dataset
            .train_loader(self.plan.batch, start, self.loader)?;
        let o = self.run.options;
        if self.progress.evaluation_due {
            self.evaluate()?;
        }
        self.clock = StepClock::new(loader.waited());
        while self.progress.it < self.horizon.max_it && !self.is_to_stop() {
            self.step(&mut loader)?;
            let done = self.progress.it;
            let evaluates = done == self.horizon.max_it
                || done.is_multiple_of(its) && (done / its).is_multiple_of(o.eval_every);
            let due = o.save_every > 0 && done.is_multiple_of(o.save_every);
            if !evaluates && (!due || self.is_to_stop()) {
                continue;
            }
            self.settle(loader.waited())?;
            if evaluates {
                self.progress.evaluation_due = true;
            }
            self.save(Then::GoesOn)?;
            if evaluates {
                self.evaluate()?;
            }
            self.clock.restart(loader.waited());
        }
        self.settle(loader.waited())?;
        report_bad(&loader.bad_images(), &mut self.display);
        Ok(())
    }

    fn settle_last(&mut self) -> Result<()> {
        self.settle(Duration::ZERO)
    }

    fn whole(&self) -> Option<u64> {
        let updates = self.trainer.opt.updates().ok();
        let intact = |it: &u64| updates == Some(*it) && !self.changed;
        self.looked_at.filter(intact)
    }

    fn go_back(&mut self) {
        if let Some(it) = self.looked_at {
            self.progress.it = it;
        }
    }

    fn save(&mut self, then: Then) -> Result<()> {
        release_free();
        for written in [self.steps.sync(), self.tb.flush()] {
            self.log_faults.pass(written, &mut self.display);
        }
        let (trainer, progress) = (&self.trainer, &self.progress);
        self.keeper
            .save_then(then, progress.it, &mut self.display, |path| {
                tokenizer_state::save(trainer, progress, path)
            })?;
        if !self.keeper.unsaved {
            self.first_weights();
        }
        Ok(())
    }

    fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    fn iterations(&self) -> u64 {
        self.progress.it
    }

    fn outcome(&self) -> Outcome {
        let steps = self.progress.it;
        let checkpoint = self.keeper.last().to_path_buf();
        let complete = steps >= self.horizon.max_it && !self.progress.evaluation_due;
        let (exit_code, message) = if complete {
            let psnr = self.progress.last_psnr;
            let psnr = psnr.map(|p| format!(" ({p:.2} dB on validation images)"));
            let weights = self.paths.weights.display();
            let text = format!(
                "done after {steps} steps: {weights}{}",
                psnr.unwrap_or_default()
            );
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
