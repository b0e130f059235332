//! How long a step takes on this machine, data included: some steps of a model that is thrown away.

use crate::Result;
use crate::data::{Feed, LoaderConfig};
use crate::device::resolve_device;
use crate::memory::{Fit, Fitting, Workload, caught};
use crate::model::Pyramid;
use crate::model::var::Var;
use crate::model::vqvae::Vqvae;
use crate::options::{ScheduleOptions, TokenizerOptions, TransformerOptions, process_batch};
use crate::run::Dataset;
use crate::stop::StopSignal;
use crate::train::classifier_trainer::ClassifierTrainer;
use crate::train::schedule::LrWd;
use crate::train::tokenizer_trainer::{TokenizerStep, TokenizerTrainer};
use crate::train::var_trainer::{TransformerStep, VarTrainer};
use std::time::{Duration, Instant};

/// Steps before those that count: in them buffers are made, and on a GPU kernels compiled.
const BEFORE: usize = 3;
/// Steps that count, at least.
const FEWEST: usize = 3;

/// What was timed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepTime {
    /// Seconds of one step: of all its iterations, each as long as the middle one of those that were timed.
    pub seconds: f64,
    /// Iterations that were timed.
    pub timed: usize,
    /// Bytes that an iteration needs, where the machine says what there is.
    pub memory: Option<usize>,
    /// Iterations of a step: more than one where its images do not fit into the memory at once.
    pub ac: usize,
}

/// Times steps of a tokenizer for about as long as `budget`, with as many images at a time as fit into the memory.
///
/// # Errors
/// When options or images can't be used, not even one image fits, or a stop was asked for.
pub fn time_tokenizer(
    options: &TokenizerOptions,
    dataset: &Dataset,
    budget: Duration,
    stop: &StopSignal,
) -> Result<StepTime> {
    let plan = options.resolve(1)?;
    let device = resolve_device(options.machine.device)?;
    let config = plan.model()?;
    let workload = Workload::TrainTokenizer {
        vqvae: &config,
        math: plan.precision.math(),
        settings: plan.settings(),
        perceptual: None,
    };
    let fit = Fit::of_tokenizer(options.ch, device, workload);
    let (fitting, batch) = at_once(&fit, &options.schedule)?;
    let mut vqvae = Vqvae::new(config.clone(), true)?;
    vqvae.init(1)?;
    vqvae.to_device(device, plan.precision.math())?;
    let mut trainer = TokenizerTrainer::new(vqvae, plan.settings())?;
    let mut batches = dataset.train_loader(batch, (0, 0), LoaderConfig::patient())?;
    let mut feed = Feed::new(device)?;
    timed(budget, &fitting, stop, |it| {
        let batch = batches.next_batch()?;
        let (images, _) = feed.batch(&batch, dataset.side)?;
        drop(batch);
        let pending = trainer.step(&images, &TokenizerStep::usual(it))?;
        trainer.read(pending).map(drop)
    })
}

/// The same of a transformer over the tokens of `vqvae`.
///
/// # Errors
/// As [`time_tokenizer`].
pub fn time_transformer(
    options: &TransformerOptions,
    mut vqvae: Vqvae,
    dataset: &Dataset,
    budget: Duration,
    stop: &StopSignal,
) -> Result<StepTime> {
    let plan = options.resolve(1)?;
    let device = resolve_device(options.machine.device)?;
    let pyramid = Pyramid::square(&plan.patch_nums)?;
    let config = options.model(&vqvae.config, dataset.classes(), pyramid);
    let workload = Workload::Train {
        var: &config,
        vqvae: &vqvae.config,
        from_tokens: false,
        math: [plan.math, plan.tokenizer_precision.math()],
        ema: None,
        recompute: 0,
        shares: 1,
    };
    let fit = Fit::of_transformer(options.depth, device, workload);
    let (fitting, batch) = at_once(&fit, &options.schedule)?;
    let mut var = Var::new(config.clone(), true)?;
    var.init(options.init_scales(), 1)?;
    var.to_device(device, plan.math)?;
    vqvae.to_device(device, plan.tokenizer_precision.math())?;
    let mut trainer = VarTrainer::new(vqvae, var, 0.0, 1)?;
    let mut batches = dataset.train_loader(batch, (0, 0), LoaderConfig::patient())?;
    let mut feed = Feed::new(device)?;
    timed(budget, &fitting, stop, |it| {
        let batch = batches.next_batch()?;
        let (images, labels) = feed.batch(&batch, dataset.side)?;
        drop(batch);
        let pending = trainer.step(&images, &labels, &TransformerStep::whole(it))?;
        pending.read().map(drop)
    })
}

/// The same of a classifier in steps of so many images, all at once.
///
/// # Errors
/// As [`time_tokenizer`].
pub(crate) fn time_classifier(
    trainer: &mut ClassifierTrainer,
    dataset: &Dataset,
    batch: usize,
    budget: Duration,
    stop: &StopSignal,
) -> Result<StepTime> {
    let mut batches = dataset.train_loader(batch, (0, 0), LoaderConfig::patient())?;
    let mut feed = Feed::new(trainer.classifier.device())?;
    timed(budget, &Fitting::unknown(1), stop, |_| {
        let batch = batches.next_batch()?;
        let [images, classes] = feed.labelled(&batch, dataset.side)?;
        let at = LrWd { lr: 0.0, wd: 0.0 };
        let pending = trainer.step(&images, &classes, &batch.labels, at)?;
        pending.read().map(drop)
    })
}

/// As many iterations of a step as its memory needs, and images of one.
fn at_once(fit: &Fit<'_>, schedule: &ScheduleOptions) -> Result<(Fitting, usize)> {
    let schedule = ScheduleOptions {
        fit: true,
        ..schedule.clone()
    };
    let fitting = fit.accumulation(&schedule)?;
    let batch = process_batch(schedule.bs, fitting.ac, 1)?;
    Ok((fitting, batch))
}

fn timed(
    budget: Duration,
    fitting: &Fitting,
    stop: &StopSignal,
    mut step: impl FnMut(u64) -> Result<()>,
) -> Result<StepTime> {
    let (mut all, mut begun) = (Vec::new(), Instant::now());
    for it in 0.. {
        stop.check()?;
        let start = Instant::now();
        caught(|| step(it))?;
        if all.is_empty() && (it as usize) < BEFORE {
            begun = Instant::now();
            continue;
        }
        all.push(start.elapsed().as_secs_f64());
        if all.len() >= FEWEST && begun.elapsed() >= budget {
            break;
        }
    }
    // Batches that were made ahead are used up by then, so later steps wait as those of a run do.
    let mut late = all.split_off(all.len() / 2);
    late.sort_by(f64::total_cmp);
    Ok(StepTime {
        seconds: late[late.len() / 2] * fitting.ac as f64,
        timed: late.len(),
        memory: fitting.need,
        ac: fitting.ac,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::values::DeviceChoice;
    use crate::options::{MachineOptions, Recipe, Size};
    use crate::run::BUILTIN_SHAPES;

    #[test]
    fn both_trainers_are_timed() {
        let machine = MachineOptions {
            device: DeviceChoice::Cpu,
            ..MachineOptions::default()
        };
        let size = Size::of(32).unwrap();
        let mut o = TokenizerOptions {
            machine: machine.clone(),
            ..TokenizerOptions::default()
        };
        Recipe::Small32.apply_to_tokenizer(&mut o, |_| false);
        (o.vocab, o.schedule.bs) = (32, 2);
        let dataset = Dataset::open(BUILTIN_SHAPES, &o.folder, size.side, 1.0, false).unwrap();
        let (short, stop) = (Duration::from_millis(1), StopSignal::detached());
        let time = time_tokenizer(&o, &dataset, short, &stop).unwrap();
        assert!(time.seconds > 0.0 && time.timed >= 2, "{time:?}");

        let vqvae = Vqvae::new(o.resolve(1).unwrap().model().unwrap(), false).unwrap();
        let mut t = TransformerOptions {
            machine,
            depth: 1,
            ..TransformerOptions::default()
        };
        Recipe::Small32.apply(&mut t, |flag| flag == "depth");
        t.schedule.bs = 2;
        let time = time_transformer(&t, vqvae, &dataset, short, &stop).unwrap();
        assert!(time.seconds > 0.0, "{time:?}");

        stop.ask();
        let asked = time_tokenizer(&o, &dataset, short, &stop);
        assert!(matches!(asked, Err(crate::Error::Stopped)));
    }
}
