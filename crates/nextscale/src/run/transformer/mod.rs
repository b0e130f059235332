//! A run of the transformer, from start or from its checkpoint to the end: from options and files to a task.

mod epoch;
mod memory;
mod open;
mod source;
mod state;
mod tags;
mod task;

pub use state::{TransformerPaths, transformer_paths};

use super::checkpoints::Keeper;
use super::dataset::loader_config;
use super::driver::{Cadence, Driver, Start, begin};
use super::lock::RunLock;
use super::observers::{Display, EpochLog, Header, Observer, Observers, StepLog, TensorBoard};
use super::signal::StopSignal;
use super::task::{Context, Progress};
use super::val_check::ValCheck;
use super::{Outcome, choose_seed, make_folder};
use crate::checkpoint::{TrainerState, clean_stale};
use crate::model::Pyramid;
use crate::model::var::{InitScales, Var, VarConfig};
use crate::model::vqvae::codes::Tokenizer;
use crate::train::device::{TokenizerPrecision, resolve_device};
use crate::train::options::TrainOptions;
use crate::train::plan::{Horizon, Plan, Precision};
use crate::train::var_trainer::VarTrainer;
use crate::{Result, World};
use memory::Models;
use nextscale_tensor::Device;
use open::Given;
use source::Data;
use std::path::PathBuf;
use std::sync::Arc;
use task::{TransformerState, TransformerTask};

/// A training run of the transformer.
pub struct TransformerRun<'a> {
    /// The options.
    pub options: &'a TrainOptions,
    /// The command line, for the logs.
    pub cmd: String,
    /// Asks the run to save and stop.
    pub stop: StopSignal,
    /// Who is told of what happens, beside the display and the run's own logs.
    pub observers: Vec<Box<dyn Observer>>,
}

impl TransformerRun<'_> {
    /// Runs until the end, the step limit or a stop signal.
    ///
    /// # Errors
    /// Bad options or files, each one line; failures while running.
    pub fn run(self) -> Result<Outcome> {
        self.run_reading(None)
    }

    /// [`TransformerRun::run`] that reads each iteration's report after the next was asked for, or at once; by itself it does what is
    /// best for the device.
    pub(super) fn run_reading(self, late: Option<bool>) -> Result<Outcome> {
        let world = World::alone();
        let setup = Setup::plan(self.options, world)?;
        let (ac, note) = setup.accumulation(self.options)?;
        make_folder(&self.options.out)?;
        let lock = RunLock::acquire(&self.options.out)?;
        clean_stale(&self.options.out)?;
        let found = state::find(&self.options.out)?;
        let (ac, note) = match &found {
            Some((saved, _)) if self.options.fit => kept_accumulation(saved, self.options),
            _ => (ac, note),
        };
        let options = TrainOptions {
            ac,
            ..self.options.clone()
        };
        let restored = setup.restore(&options, found)?;
        let Setup { given, models, .. } = setup;
        let trainer = trainer(&models, given.tokenizer, &options, &restored)?;
        let mut observers = Observers::new(Display::new(options.quiet), self.observers);
        restored.add_logs(&options, &self.cmd, &mut observers)?;
        let text = serde_json::to_string_pretty(&options).unwrap_or_default();
        let (cadence, it) = (restored.cadence(&options), restored.progress.it);
        begin(
            &cadence,
            it,
            &format!("```json\n{text}\n```"),
            &mut observers,
        );
        if let Some(text) = lock.warning() {
            observers.warn(text);
        }
        note.iter().for_each(|line| observers.note(line));
        introduce(
            &given.data,
            &models,
            &options,
            &restored,
            &trainer,
            &mut observers,
        )?;
        let last = transformer_paths(&options.out).last;
        let resumed = restored.saved.filter(|(_, path)| *path == last);
        let held = resumed.map(|_| it);
        let bad_images = options.bad_images;
        let start = Start {
            cadence,
            keeper: Keeper::new(last, options.keep, "--tblr", options.ac, held),
            late: late.unwrap_or(models.device.is_async()),
            scaler: trainer.opt.scaler()?,
            val_check: given
                .data
                .val_images()
                .map(|val| ValCheck::start(Arc::clone(val), bad_images)),
            task: TransformerTask {
                loader: loader_config(
                    restored.plan.workers,
                    restored.progress.seed,
                    bad_images,
                    world,
                ),
                plan: restored.plan,
                horizon: restored.horizon,
                cmd: self.cmd,
                data: given.data,
                trainer,
                hits: given.hits,
                stage: restored.state.stage,
                state: restored.state,
                source: None,
                first: true,
                models,
                options,
            },
            progress: restored.progress,
            cx: Context::new(observers, self.stop),
        };
        let outcome = Driver::new(start)?.run()?;
        drop(lock);
        Ok(outcome)
    }
}

/// The accumulation that a run began with: one that goes on keeps it. With what to tell of it.
fn kept_accumulation(saved: &TrainerState, o: &TrainOptions) -> (usize, Option<String>) {
    let ac = state::accumulation(saved).unwrap_or(o.ac);
    (ac, Some(format!("--fit: --ac={ac}, as the run began")))
}

/// What options and files say before anything is written.
struct Setup {
    given: Given,
    models: Models,
    world: World,
}

/// What a run begins with, or goes on from.
struct Restored {
    plan: Plan,
    horizon: Horizon,
    progress: Progress,
    state: TransformerState,
    saved: Option<(TrainerState, PathBuf)>,
    /// What is another than before, a line each.
    told: Vec<String>,
}

impl Setup {
    fn plan(o: &TrainOptions, world: World) -> Result<Self> {
        let plan = o.resolve(world.size())?;
        let device = resolve_device(o.device)?;
        let pyramid = Pyramid::square(&plan.patch_nums)?;
        let given = open::open(o, &plan, &pyramid)?;
        let vqvae = given.tokenizer.config().clone();
        let tokenizer_precision = plan.precision.tokenizer(o.tokenizer_precision, o.tf32);
        let models = Models {
            var: VarConfig {
                vocab: vqvae.vocab,
                cvae: vqvae.cvae,
                shared_aln: o.saln,
                attn_l2_norm: o.anorm,
                ..VarConfig::of_depth(o.depth, given.data.classes(), pyramid)
            },
            vqvae,
            from_tokens: o.tokens.is_some(),
            math: [plan.precision.math(o.tf32), tokenizer_precision.math()],
            device,
            world,
        };
        Ok(Self {
            given,
            models,
            world,
        })
    }

    /// The accumulation of a run that begins, and what to tell of it. One that goes on with `--fit` keeps its own.
    fn accumulation(&self, o: &TrainOptions) -> Result<(usize, Option<String>)> {
        if o.fit && state::is_there(&o.out)? {
            return Ok((o.ac, None));
        }
        self.models.accumulation(o)
    }

    /// Holds a checkpoint, if there is one, against the options.
    fn restore(
        &self,
        o: &TrainOptions,
        saved: Option<(TrainerState, PathBuf)>,
    ) -> Result<Restored> {
        let (data, tokenizer) = (&self.given.data, &self.given.tokenizer);
        let plan = o.resolve(self.world.size())?;
        let horizon = plan.horizon(data.images())?;
        let record = data.record(o);
        let (mut saved_seed, mut told) = (None, Vec::new());
        let (progress, state) = match &saved {
            Some((found, path)) => {
                state::check_accumulation(found, path, o.ac)?;
                state::check_tokenizer(found, path, (tokenizer.whole(), data.fingerprint()), o)?;
                let (progress, state) = state::progress(found, &horizon, path)?;
                saved_seed = state::saved_seed(found, &progress);
                told = state::data_record(found, &progress, o).against(&record, path)?;
                (progress, state)
            }
            None => (Progress::default(), TransformerState::default()),
        };
        let seed = choose_seed(o.seed, saved_seed, &o.out)?;
        let progress = Progress {
            seed,
            its_per_epoch: horizon.its_per_epoch,
            data: record,
            ..progress
        };
        Ok(Restored {
            plan,
            horizon,
            progress,
            state,
            saved,
            told,
        })
    }
}

impl Restored {
    fn cadence(&self, o: &TrainOptions) -> Cadence {
        Cadence {
            its_per_epoch: self.horizon.its_per_epoch,
            max_it: self.horizon.max_it,
            epochs: self.plan.epochs as u64,
            accumulate: o.ac as u64,
            eval_every: o.eval_every,
            save_every: o.save_every,
            stop_after: o.stop_after,
        }
    }

    /// The logs that a run keeps.
    fn add_logs(&self, o: &TrainOptions, cmd: &str, observers: &mut Observers) -> Result<()> {
        let it = self.progress.it;
        // The line of an epoch that ended without its evaluation is written again.
        let open = self.progress.evaluation_due || self.state.epoch.is_open(&self.progress);
        let epochs_done = it / self.progress.its_per_epoch - u64::from(open);
        let header = Header::new(&o.exp_name, cmd, &self.plan.tb_dir);
        let resumed = self.saved.is_some().then_some(it);
        observers.add(TensorBoard::create(&self.plan.tb_dir, resumed, None)?);
        observers.add(StepLog::open(&o.out, it / o.ac as u64, o.log_every)?);
        observers.add(EpochLog::open(&o.out, &header, epochs_done)?);
        Ok(())
    }
}

/// Models and optimizer, from nothing or from a checkpoint.
fn trainer(
    models: &Models,
    mut tokenizer: Tokenizer,
    o: &TrainOptions,
    r: &Restored,
) -> Result<VarTrainer> {
    let seed = r.progress.seed;
    let mut var = Var::new(models.var.clone(), true)?;
    if r.saved.is_none() {
        let scales = InitScales {
            ini: o.ini as f32,
            hd: o.hd as f32,
            aln: o.aln as f32,
            alng: o.alng as f32,
        };
        var.init(scales, seed)?;
    }
    let move_over = || -> Result<VarTrainer> {
        tokenizer.to_device(models.device, models.math[1])?;
        var.to_device(models.device, models.math[0])?;
        VarTrainer::new(tokenizer, var, o.ls as f32, seed)
    };
    let mut trainer = move_over().map_err(|e| models.explain(e, o))?;
    trainer.rank = models.world.rank() as u64;
    if let Some((saved, path)) = &r.saved {
        state::restore(&mut trainer, saved, path)?;
    }
    Ok(trainer)
}

/// Tells what the run is.
fn introduce(
    data: &Data,
    models: &Models,
    o: &TrainOptions,
    r: &Restored,
    trainer: &VarTrainer,
    observers: &mut Observers,
) -> Result<()> {
    let (device, precision) = (models.device, r.plan.precision);
    if !device.is_async() && precision != Precision::Float32 {
        observers.warn(&format!(
            "--fp16={}: half precision is for GPUs; this run computes in float32",
            o.fp16
        ));
    }
    if device.is_async() {
        let tokenizer = precision.tokenizer(o.tokenizer_precision, o.tf32);
        observers.note(&describe(device, precision, o.tf32, tokenizer)?);
    }
    observers.note(&format!(
        "{} of {} classes, {} iterations an epoch; {:.2} M parameters; seed {}",
        data.describe(),
        data.classes(),
        r.progress.its_per_epoch,
        trainer.var.params.count() as f64 / 1e6,
        r.progress.seed,
    ));
    if trainer.tokenizer.whole().is_none() {
        observers.note("checkpoints will not hold the tokenizer: to draw images give `sample` its file with --tokenizer");
    }
    if let Some((_, path)) = &r.saved {
        observers.note(&format!(
            "resumed from {} after step {}",
            path.display(),
            r.progress.it / o.ac as u64
        ));
    }
    r.told.iter().for_each(|line| observers.warn(line));
    data.left_out().iter().for_each(|line| observers.note(line));
    Ok(())
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
