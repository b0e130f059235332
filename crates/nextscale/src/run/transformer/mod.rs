//! A run of the transformer, from start or from its checkpoint to the end: from options and files to a task.

mod epoch;
mod open;
mod scoring;
mod source;
mod state;
mod tags;
mod task;

pub use state::{TransformerPaths, transformer_paths};

use super::checkpoints::{Keeper, or_earlier};
use super::dataset::loader_config;
use super::driver::{Cadence, Driver, Start, begin};
use super::lock::RunLock;
use super::observers::{
    EpochLog, EvaluationLog, Header, Observer, Observers, StepLog, TensorBoard,
};
use super::task::{Context, Progress};
use super::val_check::ValCheck;
use super::{Outcome, agree_on, average_ends, choose_seed, opening};
use crate::checkpoint::TrainerState;
use crate::device::device_of;
use crate::memory::{Fit, Fitting, Workload, evaluation_batch};
use crate::model::Pyramid;
use crate::model::var::{Var, VarConfig};
use crate::model::vqvae::VqvaeConfig;
use crate::model::vqvae::codes::Tokenizer;
use crate::options::TransformerOptions;
use crate::options::{Horizon, TransformerPlan};
use crate::text::counted;
use crate::train::gradients::GradientSum;
use crate::train::var_trainer::VarTrainer;
use crate::{Result, Team, World, world};
use nextscale_tensor::{Device, Math};
use open::Given;
use scoring::Scoring;
use source::Data;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use task::{TransformerState, TransformerTask};

/// A training run of the transformer.
pub struct TransformerRun<'a> {
    /// The options.
    pub options: &'a TransformerOptions,
    /// The command line, for the logs.
    pub cmd: String,
    /// The processes that make the run, and who asks it to save and stop.
    pub team: Team,
    /// Who is told of what happens beside the run's own logs: with the feature `cli` a display, say.
    pub observers: Vec<Box<dyn Observer>>,
}

impl TransformerRun<'_> {
    /// Runs until the end, the step limit or a stop signal.
    ///
    /// # Errors
    /// Bad options or files, each one line; failures while running.
    pub fn run(self) -> Result<Outcome> {
        self.run_with(None)
    }

    /// [`TransformerRun::run`] that reads each iteration's report after the next was asked for, or at once; by itself it does what is
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
        let last = transformer_paths(out).last;
        let found = state::find(out).map_err(|e| or_earlier(e, &last))?;
        let schedule = &self.options.schedule;
        let fitting = match &found {
            Some((saved, _)) if schedule.fit => match state::own_accumulation(saved) {
                Some(ac) => setup.models.fit().kept(schedule, ac)?,
                None => setup.models.fit().accumulation(schedule)?,
            },
            _ => fitting,
        };
        let mut options = self.options.clone();
        options.schedule.ac = opening::largest(world, fitting.ac)?;
        let restored = setup.restore(&options, found)?;
        let Setup { given, models, .. } = setup;
        // The first process alone judges.
        let scoring = match world.is_first() {
            true => Scoring::open(
                &options,
                &given.data,
                (models.device, evaluation_batch(restored.plan.batch)),
            )?,
            false => None,
        };
        let trainer = trainer(&models, given.tokenizer, &options, &restored)?;
        let mut observers = Observers::default();
        if world.is_first() {
            observers = Observers::new(self.observers);
            restored.add_logs(&options, &self.cmd, &mut observers)?;
        }
        let text = serde_json::to_string_pretty(&options).unwrap_or_default();
        let (cadence, it) = (restored.cadence(&options), restored.progress.it);
        begin(
            &cadence,
            it,
            &format!("```json\n{text}\n```"),
            &mut observers,
        );
        if let Some(text) = lock.as_ref().and_then(RunLock::warning) {
            observers.warn(text);
        }
        let processes = opening::introduction(world, restored.plan.batch);
        processes.iter().for_each(|line| observers.note(line));
        fitting.note.iter().for_each(|line| observers.remark(line));
        let notes = scoring.iter().flat_map(|s| &s.notes);
        notes.for_each(|line| observers.remark(line));
        introduce(
            (&given.data, &models),
            &options,
            &restored,
            (&trainer, fitting.memory),
            &mut observers,
        )?;
        let last = transformer_paths(&options.output.out).last;
        let resumed = restored.saved.filter(|(_, path)| *path == last);
        let held = resumed.map(|_| it);
        let bad_images = options.data.bad_images;
        // A GPU's training needs its own memory.
        let host_need = fitting.need.filter(|_| models.device == Device::Cpu);
        let keep = options.output.keep;
        let keeper = Keeper::new(last, keep, "`tblr`", options.schedule.ac, held);
        // Only of the process that writes.
        let looked_at = lock.as_ref().map(|_| given.data.val_images());
        if lock.is_some() {
            keeper.tidy();
        }
        let start = Start {
            cadence,
            keeper,
            pipelined: pipelined.unwrap_or(models.device.is_async()),
            scaler: trainer.opt.scaler()?,
            val_check: looked_at
                .flatten()
                .map(|val| ValCheck::start(Arc::clone(val), bad_images)),
            task: TransformerTask {
                loader: loader_config(
                    restored.plan.workers,
                    restored.progress.seed,
                    bad_images,
                    world,
                    (restored.horizon.epochs, host_need),
                ),
                cmd: self.cmd,
                data: given.data,
                trainer,
                hits: given.hits,
                stages: restored.plan.stages(&restored.horizon),
                plan: restored.plan,
                horizon: restored.horizon,
                stage: restored.state.stage,
                state: restored.state,
                source: None,
                scoring,
                scored: Vec::new(),
                first: true,
                models,
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
pub(super) struct Models {
    var: VarConfig,
    vqvae: VqvaeConfig,
    /// Whether tokens are at hand, so that no image is encoded.
    from_tokens: bool,
    /// Arithmetic of both.
    math: [Math; 2],
    device: Device,
    world: World,
    /// Decay of the average of the weights, where one is kept.
    ema: Option<f64>,
    /// Whether processes share master weights and moments.
    zero: bool,
    /// Of so many blocks one is run again for its gradients.
    recompute: usize,
    /// As given.
    depth: usize,
}

impl Models {
    /// For questions of memory.
    pub(super) fn fit(&self) -> Fit<'_> {
        let workload = Workload::Train {
            var: &self.var,
            vqvae: &self.vqvae,
            from_tokens: self.from_tokens,
            math: self.math,
            ema: self.ema,
            recompute: self.recompute,
            shares: if self.zero { self.world.size() } else { 1 },
        };
        Fit::of_transformer(self.depth, self.device, workload).shared(&self.world)
    }
}

/// What options and files say before anything is written.
struct Setup {
    given: Given,
    models: Models,
}

/// What a run begins with, or goes on from.
struct Restored {
    plan: TransformerPlan,
    horizon: Horizon,
    progress: Progress,
    state: TransformerState,
    saved: Option<(TrainerState, PathBuf)>,
    /// What is another than before, a line each.
    told: Vec<String>,
}

impl Setup {
    fn plan(o: &TransformerOptions, world: &World) -> Result<Self> {
        let plan = o.resolve(world.size())?;
        let device = device_of(o.machine.device, world)?;
        let pyramid = Pyramid::square(&plan.patch_nums)?;
        let given = open::open(o, &plan, &pyramid)?;
        let vqvae = given.tokenizer.config().clone();
        let models = Models {
            var: o.model(&vqvae, given.data.classes(), pyramid),
            vqvae,
            from_tokens: o.tokens.is_some(),
            math: [plan.math, plan.tokenizer_precision.math()],
            ema: o.schedule.ema,
            zero: o.zero == 1,
            recompute: o.recompute,
            depth: o.depth,
            device,
            world: world.clone(),
        };
        Ok(Self { given, models })
    }

    /// What the processes of the run have in common.
    fn facts(&self, o: &TransformerOptions) -> Result<BTreeMap<String, String>> {
        opening::facts(&self.models.world, o, || self.given.data.identity())
    }

    /// The accumulation of a run that begins, and what to tell of it. One that goes on with `--fit` keeps its own.
    fn accumulation(&self, o: &TransformerOptions) -> Result<Fitting> {
        if o.schedule.fit && state::is_there(&o.output.out)? {
            return Ok(Fitting::unknown(o.schedule.ac));
        }
        self.models.fit().accumulation(&o.schedule)
    }

    /// Holds a checkpoint, if there is one, against the options.
    fn restore(
        &self,
        o: &TransformerOptions,
        saved: Option<(TrainerState, PathBuf)>,
    ) -> Result<Restored> {
        let (data, tokenizer) = (&self.given.data, &self.given.tokenizer);
        let plan = o.resolve(self.models.world.size())?;
        let horizon = plan.horizon(data.images())?;
        let record = data.record(o);
        let (mut saved_seed, mut told) = (None, Vec::new());
        let (progress, state) = match &saved {
            Some((found, path)) => {
                state::check_accumulation(found, path, o.schedule.ac)?;
                state::check_tokenizer(found, path, (tokenizer.whole(), data.fingerprint()), o)?;
                let (progress, state) =
                    state::progress(found, &horizon, o.schedule.length_flag(), path)?;
                saved_seed = state::saved_seed(found, &progress);
                told = state::data_record(found, &progress, o).against(&record, path)?;
                let flag = o.schedule.length_flag();
                told.extend(progress.other_length(horizon.max_it, o.schedule.ac, flag));
                if o.schedule.ema.is_none() && state::averaged(found).is_some() {
                    told.push(average_ends(path));
                }
                (progress, state)
            }
            None => (Progress::default(), TransformerState::default()),
        };
        let seed = choose_seed(o.schedule.seed, saved_seed, &o.output.out)?;
        let seed = agree_on(&self.models.world, seed, progress.it)?;
        let progress = Progress {
            seed,
            its_per_epoch: horizon.its_per_epoch,
            max_it: horizon.max_it,
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
    fn cadence(&self, o: &TransformerOptions) -> Cadence {
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
    fn add_logs(&self, o: &TransformerOptions, cmd: &str, observers: &mut Observers) -> Result<()> {
        let it = self.progress.it;
        // The line of an epoch that ended without its evaluation is written again.
        let open =
            self.progress.evaluation_due || self.state.epoch.is_open(&self.progress, &self.horizon);
        let epochs_done = self.horizon.epochs_done(it) - u64::from(open);
        let header = Header::new(&o.exp_name, cmd, &self.plan.tb_dir);
        let resumed = self.saved.is_some().then_some(it);
        observers.add(TensorBoard::create(&self.plan.tb_dir, resumed, None)?);
        observers.add(StepLog::open(
            &o.output.out,
            it / o.schedule.ac as u64,
            o.output.log_every,
        )?);
        observers.add(EpochLog::open(&o.output.out, &header, epochs_done)?);
        let evaluated = self.progress.evaluated();
        observers.add(EvaluationLog::open(&o.output.out, evaluated)?);
        Ok(())
    }
}

/// Models and optimizer, from nothing or from a checkpoint.
fn trainer(
    models: &Models,
    mut tokenizer: Tokenizer,
    o: &TransformerOptions,
    r: &Restored,
) -> Result<VarTrainer> {
    let seed = r.progress.seed;
    let mut var = Var::new(models.var.clone(), true)?;
    if r.saved.is_none() {
        var.init(o.init_scales(), seed)?;
    }
    var.recompute = models.recompute;
    let sum = GradientSum::new(&models.world, models.device)?;
    let move_over = || -> Result<VarTrainer> {
        tokenizer.to_device(models.device, models.math[1])?;
        var.to_device(models.device, models.math[0])?;
        if models.zero && models.world.size() > 1 {
            var.params.share_out(Arc::new(sum.clone()))?;
        }
        let mut trainer = VarTrainer::new(tokenizer, var, o.ls as f32, seed)?;
        let params = &trainer.var.params;
        trainer.opt.keep_average(params, models.ema)?;
        Ok(trainer)
    };
    let mut trainer = move_over().map_err(|e| models.fit().explain(e, &o.schedule))?;
    trainer.sum = sum;
    if let Some((saved, path)) = &r.saved {
        state::restore(
            &mut trainer,
            saved,
            r.progress.it / o.schedule.ac as u64,
            path,
        )?;
    }
    Ok(trainer)
}

/// Tells what the run is.
fn introduce(
    (data, models): (&Data, &Models),
    o: &TransformerOptions,
    r: &Restored,
    (trainer, memory): (&VarTrainer, Option<String>),
    observers: &mut Observers,
) -> Result<()> {
    let device = models.device;
    if !device.is_async() && r.plan.precision.is_half() {
        observers.warn(&format!(
            "`precision`={} (`fp16`={}): half precision is for GPUs; this run computes in float32",
            r.plan.precision, o.fp16
        ));
    }
    let side = r.plan.image_size;
    if device.is_async() {
        let name = device.gpu()?.map_or("", |gpu| gpu.info().name.as_str());
        observers.note(&format!(
            "{device} ({name}): transformer in {}, tokenizer in {}",
            r.plan.precision.in_words(),
            r.plan.tokenizer_precision.in_words()
        ));
    }
    observers.note(&format!(
        "{} of {}; {side}x{side} pixels, {} tokens an image; {} an epoch, {} in all; {:.2} M parameters; {}seed {}",
        data.describe(),
        counted(data.classes(), "class", "classes"),
        r.plan.tokens,
        counted(r.progress.its_per_epoch, "iteration", "iterations"),
        r.horizon.max_it,
        trainer.var.params.count() as f64 / 1e6,
        memory.map_or_else(String::new, |memory| format!("{memory}; ")),
        r.progress.seed,
    ));
    let horizon = &r.horizon;
    let warnings = opening::schedule_warnings(&o.schedule, horizon, data.images());
    // Advice, which a quiet run does without.
    warnings
        .iter()
        .for_each(|line| observers.remark(&format!("warning: {line}")));
    if models.zero && models.world.size() > 1 && o.output.save_every == 0 {
        observers.warn(
            "`zero`=1: whatever ends the run before its end, it goes on from the last save, which comes with evaluations; `save_every`=STEPS saves more often",
        );
    }
    if trainer.tokenizer.whole().is_none() {
        observers.note("checkpoints will not hold the tokenizer: to draw images with them its file is needed again (`tokenizer`)");
    }
    if let Some((_, path)) = &r.saved {
        observers.note(&format!(
            "resumed from {} after step {}",
            path.display(),
            r.progress.it / o.schedule.ac as u64
        ));
    }
    r.told.iter().for_each(|line| observers.warn(line));
    let remarks = data.remarks(&o.folder);
    remarks.iter().for_each(|line| observers.remark(line));
    Ok(())
}
