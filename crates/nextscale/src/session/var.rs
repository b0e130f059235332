//! Training the transformer from start, or from its checkpoint, to the end: from flags and files to a session.

use super::checkpoints::Keeper;
use super::dataset::loader_config;
use super::log_faults::LogFaults;
use super::progress::StepClock;
use super::saving::to_the_end;
use super::val_check::ValCheck;
use super::var_epoch::Progress;
use super::var_loop::Session;
use super::var_memory::Models;
use super::var_open::{self, Given};
use super::var_state;
use super::{Outcome, choose_seed, make_folder};
use crate::Result;
use crate::checkpoint::clean_stale;
use crate::log::display::Display;
use crate::log::epoch_log::{EpochLog, Header};
use crate::log::steps::StepLog;
use crate::log::tensorboard::EventWriter;
use crate::model::Pyramid;
use crate::model::var::{InitScales, Var, VarConfig};
use crate::train::device::TokenizerPrecision;
use crate::train::device::resolve_device;
use crate::train::options::TrainOptions;
use crate::train::plan::Precision;
use crate::train::progressive::StageState;
use crate::train::run_lock::RunLock;
use crate::train::signal::StopSignal;
use crate::train::var_trainer::VarTrainer;
use nextscale_tensor::Device;
use std::sync::Arc;
use std::time::Duration;

pub use super::var_state::var_paths;

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
        self.run_reading(None)
    }

    /// [`VarRun::run`] that reads each iteration's report after the next was asked for, or at once; by itself it does what is
    /// best for the device.
    pub(super) fn run_reading(&self, late: Option<bool>) -> Result<Outcome> {
        let o = self.options;
        let mut plan = o.resolve(1)?;
        let device = resolve_device(o.device)?;
        let pyramid = Pyramid::square(&plan.patch_nums)?;
        let Given {
            data,
            mut tokenizer,
            vae_state,
        } = var_open::open(o, &plan, &pyramid)?;
        let config = VarConfig {
            vocab: tokenizer.config().vocab,
            cvae: tokenizer.config().cvae,
            shared_aln: o.saln,
            attn_l2_norm: o.anorm,
            ..VarConfig::of_depth(o.depth, data.classes(), pyramid)
        };
        let tokenizer_precision = plan.precision.tokenizer(o.tokenizer_precision, o.tf32);
        let vqvae_config = tokenizer.config().clone();
        let models = Models {
            var: &config,
            vqvae: &vqvae_config,
            from_tokens: o.tokens.is_some(),
            math: [plan.precision.math(o.tf32), tokenizer_precision.math()],
            device,
        };
        // A run that goes on keeps the accumulation that it began with.
        let (mut ac, mut fitted) = (o.ac, None);
        if !(o.fit && var_state::is_there(&o.out)?) {
            (ac, fitted) = models.accumulation(o)?;
        }
        make_folder(&o.out)?;
        let lock = RunLock::acquire(&o.out)?;
        clean_stale(&o.out)?;
        let found = var_state::find(&o.out)?;
        if let (true, Some((state, _))) = (o.fit, &found) {
            ac = var_state::accumulation(state).unwrap_or(o.ac);
            fitted = Some(format!("--fit: --ac={ac}, as the run began"));
        }
        let options = TrainOptions { ac, ..o.clone() };
        if ac != o.ac {
            plan = options.resolve(1)?;
        }
        let (run, o) = (
            &VarRun {
                options: &options,
                cmd: self.cmd.clone(),
                stop: self.stop.clone(),
            },
            &options,
        );
        let horizon = plan.horizon(data.images())?;
        let progress = match &found {
            Some((state, path)) => {
                let now = (&vae_state, data.fingerprint());
                var_state::check_accumulation(state, path, o.ac)?;
                var_state::check_tokenizer(state, path, now, o)?;
                var_state::progress(state, &horizon, path)?
            }
            None => Progress {
                its_per_epoch: horizon.its_per_epoch,
                ..Progress::default()
            },
        };
        let record = data.record(o);
        let (mut saved_seed, mut told) = (None, Vec::new());
        if let Some((state, path)) = &found {
            saved_seed = var_state::saved_seed(state, &progress);
            told = var_state::data_record(state, &progress, o).against(&record, path)?;
        }
        let seed = choose_seed(o.seed, saved_seed, &o.out)?;
        let mut var = Var::new(config.clone(), true)?;
        if found.is_none() {
            let scales = InitScales {
                ini: o.ini as f32,
                hd: o.hd as f32,
                aln: o.aln as f32,
                alng: o.alng as f32,
            };
            var.init(scales, seed)?;
        }
        let explain = |e| models.explain(e, o);
        let mut move_over = || -> Result<()> {
            tokenizer.to_device(device, models.math[1])?;
            var.to_device(device, models.math[0])
        };
        move_over().map_err(explain)?;
        let mut trainer = VarTrainer::new(tokenizer, var, o.ls as f32, seed).map_err(explain)?;
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
        if !device.is_async() && plan.precision != Precision::Float32 {
            display.warn(&format!(
                "--fp16={}: half precision is for GPUs; this run computes in float32",
                o.fp16
            ));
        }
        if let Some(text) = &fitted {
            display.note(text);
        }
        if device.is_async() {
            display.note(&describe(
                device,
                plan.precision,
                o.tf32,
                tokenizer_precision,
            )?);
        }
        display.note(&format!(
            "{} of {} classes, {} iterations an epoch; {:.2} M parameters; seed {seed}",
            data.describe(),
            data.classes(),
            horizon.its_per_epoch,
            trainer.var.params.count() as f64 / 1e6,
        ));
        if trainer.tokenizer.whole().is_none() {
            display.note("checkpoints will not hold the tokenizer: to draw images give `sample` its file with --tokenizer");
        }
        if let Some(path) = &resumed_from {
            display.note(&format!(
                "resumed from {} after step {done}",
                path.display()
            ));
        }
        told.iter().for_each(|line| display.warn(line));
        // The line of an epoch that ended without its evaluation is written again.
        let open = u64::from(progress.epoch_is_open(horizon.its_per_epoch));
        let epochs_done = progress.it / horizon.its_per_epoch - open;
        let header = Header::new(&o.exp_name, &self.cmd, &plan.tb_dir);
        let last = var_paths(&o.out).last;
        let held = resumed_from.as_ref().filter(|path| **path == last);
        let held = held.map(|_| progress.it);
        let keeper = Keeper::new(last, o.keep, "--tblr", o.ac, held);
        let mut tb = EventWriter::create(&plan.tb_dir, resumed_from.map(|_| progress.it as i64))?;
        let args = serde_json::to_string_pretty(o).unwrap_or_default();
        tb.text(progress.it as i64, "args", &format!("```json\n{args}\n```"))?;
        let loader = loader_config(plan.workers, seed, o.bad_images);
        for line in data.left_out() {
            display.note(line);
        }
        let val_check = data
            .val_images()
            .map(|val| ValCheck::start(Arc::clone(val), o.bad_images, display.speaker()));
        let mut session = Session {
            run,
            plan: &plan,
            horizon: &horizon,
            data,
            vae_state,
            stage,
            progress: Progress {
                seed,
                data: record,
                ..progress
            },
            scaler: trainer.opt.scaler()?,
            updates_made: trainer.opt.updates()?,
            trainer,
            late: late.unwrap_or(device.is_async()),
            launched: None,
            whole: None,
            keeper,
            log_faults: LogFaults::default(),
            first: true,
            images: 0,
            clock: StepClock::new(Duration::ZERO),
            display,
            tb,
            steps: StepLog::open(&o.out, done)?,
            epochs: EpochLog::open(&o.out, &header, epochs_done)?,
            loader,
            val_check,
        };
        let outcome = to_the_end(&mut session, |_, e| explain(e))?;
        session.display.finish();
        drop(lock);
        Ok(outcome)
    }
}

/// What a run computes on, in words.
fn describe(
    device: Device,
    precision: Precision,
    tf32: bool,
    tokenizer: TokenizerPrecision,
) -> Result<String> {
    let name = device.gpu()?.map_or("", |gpu| gpu.info().name.as_str());
    let transformer = match (precision, tf32) {
        (Precision::Float16, _) => "float16",
        (Precision::BFloat16, _) => "bfloat16",
        (Precision::Float32, true) => "TF32",
        (Precision::Float32, false) => "float32",
    };
    let tokenizer = match tokenizer {
        TokenizerPrecision::Fp32 => "float32",
        TokenizerPrecision::Tf32 => "TF32",
        TokenizerPrecision::Bf16 => "bfloat16",
    };
    Ok(format!(
        "{device} ({name}): transformer in {transformer}, tokenizer in {tokenizer}"
    ))
}
