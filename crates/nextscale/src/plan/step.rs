//! How long a step takes.

use super::efficiency::{is_backward, is_of_update, row_ms};
use super::memory::Numbers;
use super::{Cluster, Kind, Model, Setting, Tokens};
use nextscale_tensor::cuda::Profile;
use serde::Serialize;

/// What an iteration takes beside its operators: gaps between kernels, small copies.
const GAPS_MS: f64 = 1.0;

/// What sums beside the backward pass cost it, as a share of their own time: they take multiprocessors and bandwidth from it.
/// Two H100 of one host took 4.6 ms longer than one for a step of depth 16 (docs/benchmarks.md, both turns): 1.1 ms for the slower GPU
/// of two, 0.3 ms for the last sums, and the rest this.
pub(super) const CONTENTION: f64 = 0.85;

/// The same while sums wait for the network: not measured; they hold about a sixth of the multiprocessors.
pub(super) const HELD: f64 = 0.17;

/// How much GPUs of a kind differ in speed, as a standard deviation: all wait for the slowest.
pub(super) const SPREAD: f64 = 0.01;

/// JPEG images of 500×375 a second that one core reads (docs/benchmarks.md).
pub(super) const IMAGES_A_CORE: f64 = 418.0;

/// Predicted milliseconds of a step, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct StepTime {
    /// The iterations' operators, tokenizer included.
    pub compute: f64,
    /// The update of the weights.
    pub optimizer: f64,
    /// Sums and exchanges that nothing is computed beside.
    pub communication: f64,
    /// What the sums beside the backward pass cost it.
    pub contention: f64,
    /// Waiting for the slowest GPU.
    pub waiting: f64,
    /// Waiting for images.
    pub data: f64,
    /// What one GPU by itself would take for as many images as each has.
    pub alone: f64,
}

impl StepTime {
    /// All of it.
    pub fn total(&self) -> f64 {
        self.compute
            + self.optimizer
            + self.data
            + self.communication
            + self.contention
            + self.waiting
    }
}

/// The expected largest of `n` normal numbers, in standard deviations; within 10 % up to thousands.
fn largest_of(n: usize) -> f64 {
    0.564 * (n as f64).log2().powf(0.75)
}

/// The time of a step of a setting whose iteration has this work.
pub(super) fn step_time(
    model: &Model,
    (kind, cluster): (&Kind, &Cluster),
    (setting, cores): (Setting, f64),
    (work, numbers): (&Profile, Numbers),
) -> StepTime {
    let ms = |of: &dyn Fn(&str) -> bool| -> f64 {
        let rows = work.rows.iter().filter(|r| of(r.name));
        rows.map(|r| row_ms(kind, r)).sum()
    };
    let iteration = ms(&|name| !is_of_update(name)) + GAPS_MS;
    let backward = ms(&is_backward);
    let ac = setting.ac as f64;
    let whole_update = ms(&is_of_update);
    let own = match setting.zero {
        true => share_of_update(numbers, cluster.gpus),
        false => 1.0,
    };
    let read = match model.from {
        Tokens::Images => 1e3 * setting.batch as f64 / (cores * IMAGES_A_CORE),
        Tokens::Tokens => 0.0,
    };
    let mut time = StepTime {
        compute: ac * iteration,
        optimizer: own * whole_update,
        data: ac * (read - iteration).max(0.0),
        ..StepTime::default()
    };
    time.alone = time.compute + whole_update + time.data;
    if cluster.gpus == 1 {
        return time;
    }
    // A sum for each block, and one before and after them.
    let pieces = model.var.depth + 2;
    let gradients = 4.0 * numbers.all() as f64;
    let last = 4.0 * numbers.last as f64;
    let summed = |bytes: f64| match setting.zero {
        true => cluster.half_sum(bytes),
        false => cluster.sum(bytes),
    };
    let at_the_end = summed(last).all() + cluster.starts_ms(1);
    let early = summed(gradients - last);
    let beside = early.all() + cluster.starts_ms(pieces - 1);
    let weights = match setting.zero {
        true => {
            let half = if model.math[0].operands.is_half() {
                2.0
            } else {
                4.0
            };
            let bytes = half * numbers.matrices as f64 + 4.0 * numbers.large as f64;
            cluster.half_sum(bytes).all() + cluster.starts_ms(pieces)
        }
        false => 0.0,
    };
    let hidden = beside.min(backward);
    time.communication = at_the_end + (beside - hidden) + weights;
    let cost = CONTENTION * early.within + HELD * early.between;
    time.contention = cost * hidden / beside;
    time.waiting = SPREAD * largest_of(cluster.gpus) * (time.compute + time.optimizer);
    time
}

/// The share of an update that each of several GPUs makes with `zero`.
fn share_of_update(n: Numbers, gpus: usize) -> f64 {
    let shared = (n.matrices + n.large) as f64 / n.all().max(1) as f64;
    1.0 - shared + shared / gpus as f64
}
