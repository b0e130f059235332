//! A run of the tokenizer, from start or from its checkpoint to the end: from options and files to a task.

mod evaluation;
mod perceptual;
mod state;
mod task;

use super::checkpoints::{Keeper, last_is_there, or_earlier};
use super::data_record::DataRecord;
use super::dataset::{Dataset, loader_config};
use super::driver::{Cadence, Driver, Start, begin};
use super::lock::RunLock;
use super::observers::{EvaluationLog, Observer, Observers, StepLog, TensorBoard};
use super::opening::{self, describe};
use super::task::{Context, Progress};
use super::val_check::ValCheck;
use super::{Outcome, agree_on, average_ends, check_accumulation, check_length, choose_seed};
use crate::data::Feed;
use crate::device::device_of;
use crate::memory::{Fit, Fitting, Workload};
use crate::model::perceptual::Perceptual;
use crate::model::vqvae::{Vqvae, VqvaeConfig};
use crate::options::{Horizon, TokenizerOptions, TokenizerPlan};
use crate::text::counted;
use crate::train::gradients::GradientSum;
use crate::train::tokenizer_trainer::{TokenizerSettings, TokenizerTrainer};
use crate::{Error, Result, Team, World, world};
use nextscale_tensor::{Device, Math};
use state::Found;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use task::TokenizerTask;

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
    /// The options.
    pub options: &'a TokenizerOptions,
    /// The command line, for the logs.
    pub cmd: String,
    /// The processes that make the run, and who asks it to save and stop.
    pub team: Team,
    /// Who is told of what happens beside the run's own logs: with the feature `cli` a display, say.
    pub observers: Vec<Box<dyn Observer>>,
}

impl TokenizerRun<'_> {
    /// Runs until the end, the step limit or a stop signal.
    ///
    /// # Errors
    /// Bad options or files, each one line; failures while running.
    pub fn run(self) -> Result<Outcome> {
        self.run_with(None)
    }

    /// [`TokenizerRun::run`] that reads each step's report after the next was asked for, or at once; by itself it does what is
    /// best for the device.
    pub(super) fn run_with(self, pipelined: Option<bool>) -> Result<Outcome> {
        let world = self.team.world.clone();
        // Several processes end together, whatever they have to save.
        self.team.stop.set_unsaved(world.size() > 1);
        opening::leaving(&world, self.make(pipelined))
    }

    fn make(self, pipelined: Option<bool>) -> Result<Outcome> {
        let world = &self.team.world;
        let out = &self.options.output.out;
        let setup = Setup::plan(self.options, world)?;
        world::compare(world, setup.facts(self.options)?)?;
        let fitting = setup.accumulation(self.options)?;
        let lock = opening::take_folder(out, world)?;
        let paths = tokenizer_paths(out);
        let found = state::find(&paths.state, &setup.model.vqvae)
            .map_err(|e| or_earlier(e, &paths.state))?;
        let schedule = &self.options.schedule;
        let fitting = match &found {
            Some(found) if schedule.fit => setup.model.fit().kept(schedule, found.ac)?,
            _ => fitting,
        };
        let ac = opening::largest(world, fitting.ac)?;
        let mut options = self.options.clone();
        options.schedule.ac = ac;
        let mut restored = setup.restore(&options, found)?;
        // Weights that are gone come from the checkpoint again, with its evaluation.
        let is_done = restored.progress.it >= restored.horizon.max_it;
        if is_done && world.is_first() && !paths.weights.exists() {
            restored.progress.evaluation_due = true;
        }
        restored.progress.evaluation_due =
            world::of_first(world, restored.progress.evaluation_due)?;
        let Setup {
            dataset,
            model,
            told,
        } = setup;
        let mut trainer = trainer(&model, &options, &restored)?;
        trainer.perceptual = model.perceptual.clone();
        let it = restored.progress.it;
        let resumed = restored.found.as_ref().map(|_| it);
        let mut observers = Observers::default();
        if world.is_first() {
            observers = Observers::new(self.observers);
            restored.add_logs(&options, &mut observers)?;
        }
        let cadence = restored.cadence(&options);
        let text = serde_json::to_string_pretty(&options).unwrap_or_default();
        let text = format!("{}\n\n```json\n{text}\n```", self.cmd);
        begin(&cadence, it, &text, &mut observers);
        if let Some(text) = lock.as_ref().and_then(RunLock::warning) {
            observers.warn(text);
        }
        let processes = opening::introduction(world, restored.plan.batch);
        processes.iter().for_each(|line| observers.note(line));
        fitting.note.iter().for_each(|line| observers.remark(line));
        let shown = (&trainer, fitting.memory);
        introduce(&dataset, &options, &restored, shown, &mut observers);
        told.iter().for_each(|line| observers.remark(line));
        let bad_images = options.data.bad_images;
        // A GPU's training needs its own memory.
        let host_need = fitting.need.filter(|_| model.device == Device::Cpu);
        let last = paths.state.clone();
        let keeper = Keeper::new(last, options.output.keep, "`lr`", ac, resumed);
        if lock.is_some() {
            keeper.tidy();
        }
        let start = Start {
            cadence,
            keeper,
            pipelined: pipelined.unwrap_or(model.device.is_async()),
            scaler: trainer.opt.scaler()?,
            // Only of the process that writes.
            val_check: lock
                .as_ref()
                .map(|_| ValCheck::start(Arc::clone(&dataset.val), bad_images)),
            task: TokenizerTask {
                loader: loader_config(
                    restored.plan.workers,
                    restored.progress.seed,
                    bad_images,
                    world,
                    (restored.horizon.epochs, host_need),
                ),
                plan: restored.plan,
                horizon: restored.horizon,
                paths,
                dataset,
                trainer,
                state: restored.found.map(|f| f.state).unwrap_or_default(),
                batches: None,
                feed: Feed::new(model.device)?,
                changed: false,
                told_of_weights: false,
                model,
                options,
            },
            progress: restored.progress,
            cx: Context::new(observers, self.team),
        };
        let outcome = Driver::new(start)?.run()?;
        drop(lock);
        Ok(outcome)
    }
}

/// What a run trains, and where.
pub(super) struct Model {
    vqvae: VqvaeConfig,
    math: Math,
    device: Device,
    world: World,
    /// But for the seed.
    settings: TokenizerSettings,
    /// By what images are compared beside their pixels.
    perceptual: Option<Arc<Perceptual>>,
    /// As given.
    ch: usize,
}

impl Model {
    /// For questions of memory.
    pub(super) fn fit(&self) -> Fit<'_> {
        let workload = Workload::TrainTokenizer {
            vqvae: &self.vqvae,
            math: self.math,
            settings: self.settings,
            perceptual: self.perceptual.as_deref(),
        };
        Fit::of_tokenizer(self.ch, self.device, workload).shared(&self.world)
    }
}

/// What options and files say before anything is written.
struct Setup {
    dataset: Dataset,
    model: Model,
    /// What there is to say of it.
    told: Vec<String>,
}

/// What a run begins with, or goes on from.
struct Restored {
    plan: TokenizerPlan,
    horizon: Horizon,
    progress: Progress,
    found: Option<Found>,
    /// What is another than before, a line each.
    told: Vec<String>,
}

impl Setup {
    fn plan(o: &TokenizerOptions, world: &World) -> Result<Self> {
        let plan = o.resolve(world.size())?;
        let device = device_of(o.machine.device, world)?;
        let Some(data_path) = &o.data.data_path else {
            return Err(Error::input(
                "`data_path` is missing: give a folder of images (CLASS/*, or train/CLASS/* and val/CLASS/*) or shards, or builtin:shapes",
            ));
        };
        let dataset = Dataset::open(
            data_path,
            &o.folder,
            plan.image_size,
            o.data.mid_reso,
            o.data.hflip,
        )?;
        // Without images there is nothing to plan.
        plan.horizon(dataset.train.len())?;
        let found = perceptual::open(o, (plan.image_size, device))?;
        let (perceptual, told) =
            found.map_or((None, Vec::new()), |(p, told)| (Some(Arc::new(p)), told));
        let model = Model {
            perceptual,
            vqvae: plan.model()?,
            math: plan.precision.math(),
            device,
            world: world.clone(),
            settings: plan.settings(),
            ch: o.ch,
        };
        Ok(Self {
            dataset,
            model,
            told,
        })
    }

    /// What the processes of the run have in common.
    fn facts(&self, o: &TokenizerOptions) -> Result<BTreeMap<String, String>> {
        opening::facts(&self.model.world, o, || describe(&*self.dataset.train))
    }

    /// The accumulation of a run that begins, and what to tell of it. One that goes on with `--fit` keeps its own.
    fn accumulation(&self, o: &TokenizerOptions) -> Result<Fitting> {
        if o.schedule.fit && last_is_there(&tokenizer_paths(&o.output.out).state)? {
            return Ok(Fitting::unknown(o.schedule.ac));
        }
        self.model.fit().accumulation(&o.schedule)
    }

    /// Holds a checkpoint, if there is one, against the options.
    fn restore(&self, o: &TokenizerOptions, found: Option<Found>) -> Result<Restored> {
        let plan = o.resolve(self.model.world.size())?;
        let horizon = plan.horizon(self.dataset.train.len())?;
        let its = horizon.its_per_epoch;
        let path = tokenizer_paths(&o.output.out).state;
        let record = DataRecord::of_images(&self.dataset, &o.data, &o.folder);
        let mut told = Vec::new();
        if let Some(found) = &found {
            let p = &found.progress;
            check_accumulation(o.schedule.ac, found.ac, &path)?;
            if p.its_per_epoch != its {
                return Err(Error::input(format!(
                    "{}: the run had {} iterations an epoch, with these flags and images it would have {its}: give `bs`, `ac` and `data_path` as before, or choose another `out`",
                    path.display(),
                    p.its_per_epoch,
                )));
            }
            check_length(p.it, horizon.max_it, o.schedule.length_flag(), &path)?;
            told = p.data.against(&record, &path)?;
            told.extend(p.other_length(horizon.max_it, o.schedule.ac, o.schedule.length_flag()));
            if o.schedule.ema.is_none() && found.ema {
                told.push(average_ends(&path));
            }
        }
        let saved_seed = found.as_ref().map(|f| f.progress.seed);
        let seed = choose_seed(o.schedule.seed, saved_seed, &o.output.out)?;
        let done = found.as_ref().map_or(0, |f| f.progress.it);
        let seed = agree_on(&self.model.world, seed, done)?;
        let before = found.as_ref().map(|f| f.progress.clone());
        Ok(Restored {
            plan,
            horizon,
            progress: Progress {
                seed,
                its_per_epoch: its,
                max_it: horizon.max_it,
                data: record,
                ..before.unwrap_or_default()
            },
            found,
            told,
        })
    }
}

impl Restored {
    fn cadence(&self, o: &TokenizerOptions) -> Cadence {
        Cadence {
            its_per_epoch: self.horizon.its_per_epoch,
            max_it: self.horizon.max_it,
            epochs: self.horizon.epochs,
            accumulate: o.schedule.ac as u64,
            eval_every: o.output.eval_every,
            save_every: o.output.save_every,
            stop_after: o.output.stop_after,
        }
    }

    /// The logs that a run keeps.
    fn add_logs(&self, o: &TokenizerOptions, observers: &mut Observers) -> Result<()> {
        let (it, out) = (self.progress.it, &o.output.out);
        let resumed = self.found.as_ref().map(|_| it);
        let every = Some(o.output.log_every.max(1));
        let folder = out.join("tb-tokenizer");
        observers.add(TensorBoard::create(&folder, resumed, every)?);
        let steps = it / o.schedule.ac as u64;
        observers.add(StepLog::open(out, steps, o.output.log_every)?);
        observers.add(EvaluationLog::open(out, self.progress.evaluated())?);
        Ok(())
    }
}

/// Model and optimizer, from nothing or from a checkpoint.
fn trainer(model: &Model, o: &TokenizerOptions, r: &Restored) -> Result<TokenizerTrainer> {
    let seed = r.progress.seed;
    let mut vqvae = Vqvae::new(model.vqvae.clone(), true)?;
    if r.found.is_none() {
        vqvae.init(seed)?;
    }
    let settings = TokenizerSettings {
        seed,
        ..model.settings
    };
    let move_over = || -> Result<TokenizerTrainer> {
        vqvae.to_device(model.device, model.math)?;
        TokenizerTrainer::new(vqvae, settings)
    };
    let mut trainer = move_over().map_err(|e| model.fit().explain(e, &o.schedule))?;
    trainer.sum = GradientSum::new(&model.world, model.device)?;
    if let Some(found) = &r.found {
        let path = tokenizer_paths(&o.output.out).state;
        state::restore(&mut trainer, found, &path)?;
    }
    Ok(trainer)
}

/// Tells what the run is.
fn introduce(
    dataset: &Dataset,
    o: &TokenizerOptions,
    r: &Restored,
    (trainer, memory): (&TokenizerTrainer, Option<String>),
    observers: &mut Observers,
) {
    let precision = r.plan.precision;
    if !trainer.vqvae.device().is_async() && precision.is_half() {
        observers.warn(&format!(
            "`precision`={precision}: half precision is for GPUs; this run computes in float32"
        ));
    }
    let side = r.plan.image_size;
    let tokens: usize = r.plan.patch_nums.iter().map(|side| side * side).sum();
    observers.note(&format!(
        "{} training and {}; {side}x{side} pixels, {tokens} tokens an image; {} an epoch, {} in all; {:.2} M parameters; {}seed {}",
        dataset.train.len(),
        counted(dataset.val.len(), "validation image", "validation images"),
        counted(r.horizon.its_per_epoch, "iteration", "iterations"),
        r.horizon.max_it,
        trainer.vqvae.params.count() as f64 / 1e6,
        memory.map_or_else(String::new, |memory| format!("{memory}; ")),
        r.progress.seed,
    ));
    let warnings = opening::schedule_warnings(&o.schedule, &r.horizon, dataset.train.len());
    // Advice, which a quiet run does without.
    warnings
        .iter()
        .for_each(|line| observers.remark(&format!("warning: {line}")));
    if r.found.is_some() {
        observers.note(&format!(
            "resumed from {} after step {}",
            tokenizer_paths(&o.output.out).state.display(),
            r.progress.it / o.schedule.ac as u64
        ));
    }
    r.told.iter().for_each(|line| observers.warn(line));
    let glance = dataset.glance(&o.folder);
    let remarks = dataset.remarks.iter().chain(&glance);
    remarks.for_each(|line| observers.remark(line));
}
