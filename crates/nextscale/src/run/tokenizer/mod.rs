//! A run of the tokenizer, from start or from its checkpoint to the end: from options and files to a task.

mod evaluation;
mod state;
mod task;

pub use state::TOKENIZER_STATE_KEY;

use super::checkpoints::Keeper;
use super::data_record::DataRecord;
use super::dataset::{Dataset, loader_config};
use super::driver::{Cadence, Driver, Start, begin};
use super::lock::RunLock;
use super::observers::{Display, Observer, Observers, StepLog, TensorBoard};
use super::signal::StopSignal;
use super::task::{Context, Progress};
use super::val_check::ValCheck;
use super::{Outcome, check_length, choose_seed, make_folder};
use crate::checkpoint::clean_stale;
use crate::data::Feed;
use crate::memory::{self, Pass};
use crate::model::Pyramid;
use crate::model::vqvae::{Vqvae, VqvaeConfig};
use crate::train::device::{TokenizerPrecision, resolve_device};
use crate::train::tokenizer_options::{TokenizerHorizon, TokenizerOptions, TokenizerPlan};
use crate::train::tokenizer_trainer::TokenizerTrainer;
use crate::{Error, Result, World};
use nextscale_tensor::Device;
use state::Found;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use task::{TokenizerState, TokenizerTask};

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
    /// Asks the run to save and stop.
    pub stop: StopSignal,
    /// Who is told of what happens, beside the display and the run's own logs.
    pub observers: Vec<Box<dyn Observer>>,
}

impl TokenizerRun<'_> {
    /// Runs until the end, the step limit or a stop signal.
    ///
    /// # Errors
    /// Bad options or files, each one line; failures while running.
    pub fn run(self) -> Result<Outcome> {
        self.run_reading(None)
    }

    /// [`TokenizerRun::run`] that reads each step's report after the next was asked for, or at once; by itself it does what is
    /// best for the device.
    pub(super) fn run_reading(self, late: Option<bool>) -> Result<Outcome> {
        let (o, world) = (self.options, World::alone());
        let setup = Setup::plan(o, world)?;
        make_folder(&o.out)?;
        let lock = RunLock::acquire(&o.out)?;
        clean_stale(&o.out)?;
        let restored = setup.restore(o)?;
        let trainer = setup.trainer(o, &restored)?;
        let paths = tokenizer_paths(&o.out);
        let it = restored.progress.it;
        let mut observers = Observers::new(Display::new(o.quiet), self.observers);
        let resumed = restored.resumed.then_some(it);
        let tb = o.out.join("tb-tokenizer");
        let every = Some(o.log_every.max(1));
        observers.add(TensorBoard::create(&tb, resumed, every)?);
        observers.add(StepLog::open(&o.out, it, o.log_every)?);
        let cadence = setup.cadence(o);
        let text = serde_json::to_string_pretty(o).unwrap_or_default();
        let text = format!("{}\n\n```json\n{text}\n```", self.cmd);
        begin(&cadence, it, &text, &mut observers);
        if let Some(text) = lock.warning() {
            observers.warn(text);
        }
        setup.introduce(&restored, &trainer, &paths, &mut observers);
        let Setup {
            dataset, device, ..
        } = setup;
        let start = Start {
            cadence,
            keeper: Keeper::new(paths.state.clone(), o.keep, "--lr", 1, resumed),
            late: late.unwrap_or(device.is_async()),
            scaler: trainer.opt.scaler()?,
            val_check: Some(ValCheck::start(Arc::clone(&dataset.val), o.bad_images)),
            task: TokenizerTask {
                loader: loader_config(
                    setup.plan.workers,
                    restored.progress.seed,
                    o.bad_images,
                    world,
                ),
                revive: o.revive,
                plan: setup.plan,
                horizon: setup.horizon,
                paths,
                dataset,
                trainer,
                state: restored.state,
                batches: None,
                feed: Feed::new(device)?,
                changed: false,
                told_of_weights: false,
            },
            progress: restored.progress,
            cx: Context::new(observers, self.stop),
        };
        let outcome = Driver::new(start)?.run()?;
        drop(lock);
        Ok(outcome)
    }
}

/// What options and files say before anything is written.
struct Setup {
    plan: TokenizerPlan,
    horizon: TokenizerHorizon,
    dataset: Dataset,
    config: VqvaeConfig,
    device: Device,
}

/// What a run begins with, or goes on from.
struct Restored {
    progress: Progress,
    state: TokenizerState,
    resumed: bool,
    /// What is another than before, a line each.
    told: Vec<String>,
}

impl Setup {
    fn plan(o: &TokenizerOptions, world: World) -> Result<Self> {
        let plan = o.resolve(world.size())?;
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
        let pass = Pass::TrainTokenizer {
            vqvae: &config,
            math: plan.precision.math(),
        };
        memory::check(device, "bs", plan.batch, pass)?;
        Ok(Self {
            plan,
            horizon,
            dataset,
            config,
            device,
        })
    }

    fn cadence(&self, o: &TokenizerOptions) -> Cadence {
        Cadence {
            its_per_epoch: self.horizon.its_per_epoch,
            max_it: self.horizon.max_it,
            epochs: self.horizon.max_it.div_ceil(self.horizon.its_per_epoch),
            accumulate: 1,
            eval_every: o.eval_every,
            save_every: o.save_every,
            stop_after: o.stop_after,
        }
    }

    /// Holds a checkpoint, if there is one, against the options.
    fn restore(&self, o: &TokenizerOptions) -> Result<Restored> {
        let its = self.horizon.its_per_epoch;
        let path = tokenizer_paths(&o.out).state;
        let found = state::find(&path, &self.config)?;
        let record = DataRecord::of_images(&self.dataset, o.hflip, o.mid_reso);
        let mut told = Vec::new();
        if let Some(Found { progress: p, .. }) = &found {
            if p.its_per_epoch != its {
                return Err(Error::input(format!(
                    "{}: the run had {} steps an epoch, with these flags and images it would have {its}: give --bs and --data_path as before, or choose another --out",
                    path.display(),
                    p.its_per_epoch,
                )));
            }
            let flag = o.steps.map_or("--ep", |_| "--steps");
            check_length(p.it, self.horizon.max_it, flag, &path)?;
            told = p.data.against(&record, &path)?;
        }
        let seed = choose_seed(o.seed, found.as_ref().map(|f| f.progress.seed), &o.out)?;
        let resumed = found.is_some();
        let Found { progress, state } = found.unwrap_or_default();
        Ok(Restored {
            progress: Progress {
                seed,
                its_per_epoch: its,
                data: record,
                ..progress
            },
            state,
            resumed,
            told,
        })
    }

    /// Model and optimizer, from nothing or from a checkpoint.
    fn trainer(&self, o: &TokenizerOptions, r: &Restored) -> Result<TokenizerTrainer> {
        let seed = r.progress.seed;
        let mut vqvae = Vqvae::new(self.config.clone(), true)?;
        if !r.resumed {
            vqvae.init(seed)?;
        }
        vqvae.to_device(self.device, self.plan.precision.math())?;
        let losses = (o.l1 as f32, o.l2 as f32);
        let mut trainer = TokenizerTrainer::new(vqvae, self.plan.betas, losses, seed)?;
        if r.resumed {
            let path = tokenizer_paths(&o.out).state;
            state::restore(&mut trainer, &r.progress, &r.state, &path)?;
        }
        Ok(trainer)
    }

    /// Tells what the run is.
    fn introduce(
        &self,
        r: &Restored,
        trainer: &TokenizerTrainer,
        paths: &TokenizerPaths,
        observers: &mut Observers,
    ) {
        if !self.device.is_async() && self.plan.precision == TokenizerPrecision::Bf16 {
            observers
                .warn("--precision=bf16: half precision is for GPUs; this run computes in float32");
        }
        observers.note(&format!(
            "{} training and {} validation images, {} steps an epoch; {:.2} M parameters; seed {}",
            self.dataset.train.len(),
            self.dataset.val.len(),
            self.horizon.its_per_epoch,
            trainer.vqvae.params.count() as f64 / 1e6,
            r.progress.seed,
        ));
        if r.resumed {
            observers.note(&format!(
                "resumed from {} after step {}",
                paths.state.display(),
                r.progress.it
            ));
        }
        r.told.iter().for_each(|line| observers.warn(line));
        self.dataset
            .left_out
            .iter()
            .for_each(|line| observers.note(line));
    }
}
