//! Which setting to take: the fastest of those that fit.

use super::memory::{CONTEXT, Numbers, parts};
use super::step::step_time;
use super::{Cluster, Kind, MemoryParts, Model, StepTime};
use crate::memory::{Estimate, TrainParts};
use crate::{Error, Result};
use nextscale_tensor::cuda::gib;
use serde::Serialize;

/// A setting with more to it has to take less than this share of the time of a plainer one.
const WORTH: f64 = 0.99;

/// What is tried of running blocks again: none, every fourth, every second, all.
const RECOMPUTED: [usize; 4] = [0, 4, 2, 1];

/// Cores for each GPU that read images, where nothing else is said.
pub const CORES: usize = 12;

/// What a plan chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Iterations of a step.
    pub ac: usize,
    /// Whether weights and moments are shared out.
    pub zero: bool,
    /// Of so many blocks one is run again for its gradients; 0: none.
    pub recompute: usize,
    /// Images of one GPU at a time.
    pub batch: usize,
}

/// What is not to be chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wishes {
    /// Iterations of a step.
    pub ac: Option<usize>,
    /// Whether weights and moments are shared out.
    pub zero: Option<bool>,
    /// Of so many blocks one is run again for its gradients.
    pub recompute: Option<usize>,
    /// Cores for each GPU that read images.
    pub cores: Option<usize>,
}

/// A training with the setting that was chosen for it.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// What is trained.
    pub model: &'a Model,
    /// On what.
    pub kind: &'a Kind,
    /// How many of them.
    pub cluster: Cluster,
    /// Images of a step.
    pub bs: usize,
    /// How.
    pub setting: Setting,
    /// What a GPU's memory has to hold.
    pub memory: MemoryParts,
    /// What a step takes.
    pub time: StepTime,
    /// Numbers in the transformer's weights.
    pub parameters: usize,
    /// Cores for each GPU that read images.
    pub cores: usize,
}

impl Plan<'_> {
    /// Images a second of all GPUs.
    pub fn images_per_s(&self) -> f64 {
        1e3 * self.bs as f64 / self.time.total()
    }

    /// Speed beside that of as many GPUs that have nothing to do with each other, 0 to 1.
    pub fn scaling(&self) -> f64 {
        self.time.alone / self.time.total()
    }

    /// Steps of the whole training.
    pub fn steps(&self) -> u64 {
        self.model.steps(self.bs)
    }

    /// Days that the whole training takes, evaluations and checkpoints not counted.
    pub fn days(&self) -> f64 {
        self.steps() as f64 * self.time.total() / 1e3 / 86_400.0
    }

    /// Hours of all GPUs together.
    pub fn gpu_hours(&self) -> f64 {
        24.0 * self.days() * self.cluster.gpus as f64
    }
}

/// The setting in which a step is fastest, of those that fit into the GPUs' memory.
///
/// # Errors
/// [`Error::Input`] where the images of a step can't be shared, or nothing fits: then it says what would.
pub fn plan<'a>(
    model: &'a Model,
    kind: &'a Kind,
    cluster: Cluster,
    wishes: Wishes,
) -> Result<Plan<'a>> {
    let cores = wishes.cores.unwrap_or(CORES);
    if cores == 0 {
        return Err(Error::field("cores", cores, "it must be at least 1"));
    }
    let bs = model.batch_for(cluster.gpus)?;
    let batches = batches(bs, cluster.gpus, wishes.ac)?;
    let mut best: Option<Plan<'a>> = None;
    let zeros: &[bool] = match wishes.zero {
        Some(true) if cluster.gpus == 1 => {
            let why = "one GPU has nobody to share weights and moments with; leave it out";
            return Err(Error::field("zero", 1, why));
        }
        Some(true) => &[true],
        None if cluster.gpus > 1 => &[false, true],
        Some(false) | None => &[false],
    };
    let recomputed = match wishes.recompute {
        Some(every) => vec![every],
        None => RECOMPUTED.to_vec(),
    };
    let ways = recomputed
        .iter()
        .flat_map(|&r| zeros.iter().map(move |&z| (r, z)));
    let mut least = usize::MAX;
    for (recompute, zero) in ways {
        let shares = if zero { cluster.gpus } else { 1 };
        let estimate = model.estimate(&kind.info, recompute, shares)?;
        let mut found = None;
        for &(ac, batch) in &batches {
            let Some(dry) = train_parts(&estimate, batch)? else {
                continue;
            };
            let memory = parts(&dry);
            least = least.min(memory.needed());
            let room = kind.info.memory;
            if memory.fits_well(room) {
                found = Some((ac, batch, dry, memory));
                break;
            }
            if memory.fits(room) && found.is_none() {
                found = Some((ac, batch, dry, memory));
            }
        }
        let Some((ac, batch, dry, memory)) = found else {
            continue;
        };
        let setting = Setting {
            ac,
            zero,
            recompute,
            batch,
        };
        let work = estimate.train_work(batch)?;
        let numbers = Numbers::of(&dry);
        let time = step_time(
            model,
            (kind, &cluster),
            (setting, cores as f64),
            (&work, numbers),
        );
        // What shares out more has to be worth it.
        let faster = |b: &Plan<'_>| time.total() < WORTH * b.time.total();
        if best.as_ref().is_none_or(faster) {
            best = Some(Plan {
                model,
                kind,
                cluster,
                // One GPU's share may be rounded.
                bs: ac * batch * cluster.gpus,
                setting,
                memory,
                time,
                parameters: numbers.all(),
                cores,
            });
        }
    }
    best.ok_or_else(|| nothing_fits(model, kind, batches.last().map_or(1, |b| b.1), least))
}

/// Accumulations that share the images of a step evenly, the fewest first, with what each GPU has at a time.
fn batches(bs: usize, gpus: usize, ac: Option<usize>) -> Result<Vec<(usize, usize)>> {
    let each = bs / gpus;
    let Some(ac) = ac else {
        let even = (1..=each).filter(|ac| bs.is_multiple_of(ac * gpus));
        return Ok(even.map(|ac| (ac, each / ac)).collect());
    };
    if ac == 0 {
        return Err(Error::field("ac", ac, "it must be at least 1"));
    }
    Ok(vec![(ac, crate::options::process_batch(bs, ac, gpus)?)])
}

/// The dry run's parts; `None` where kernels do not take so many images.
fn train_parts(estimate: &Estimate<'_>, batch: usize) -> Result<Option<TrainParts>> {
    match estimate.train_parts(batch) {
        Ok(parts) => Ok(Some(parts)),
        Err(e) if e.is_memory() => Ok(None),
        Err(e) => Err(e),
    }
}

/// The line for a training that fits in no way.
fn nothing_fits(model: &Model, kind: &Kind, batch: usize, least: usize) -> Error {
    let images = if batch == 1 { "1 image" } else { "images" };
    let number = if batch == 1 {
        String::new()
    } else {
        format!("{batch} ")
    };
    let large = Kind::all().into_iter().filter(|k| least <= k.info.memory);
    let names: Vec<String> = large.map(|k| k.name).collect();
    let would = match names.is_empty() {
        true => "no kind of GPU has as much; use a smaller model or half precision (`fp16`)".into(),
        false => format!("it would fit on {}", names.join(", ")),
    };
    Error::input(format!(
        "{} with {number}{images} at a time needs {} ({} of them for the driver's context and libraries), and {} has {}; {would}",
        model.name(),
        gib(least),
        gib(CONTEXT + crate::memory::RESERVE),
        kind.name,
        gib(kind.info.memory),
    ))
}
