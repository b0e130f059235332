//! What the driver of a run has to know of the model that it trains.

use super::data_record::DataRecord;
use super::event::Metrics;
use super::observers::Observers;
use crate::data::BadImage;
use crate::{Error, Result, Team, world};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// Where a run stands; part of its checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Seed of everything random.
    pub(super) seed: u64,
    /// Iterations done.
    pub(super) it: u64,
    /// Iterations of an epoch.
    pub(super) its_per_epoch: u64,
    /// Iterations of the whole run, as it was planned last; 0 where that is not known.
    #[serde(default)]
    pub(super) max_it: u64,
    /// Whether an evaluation is still to be made after these iterations.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) evaluation_due: bool,
    /// What the run knows of its images.
    #[serde(default)]
    pub(super) data: DataRecord,
}

impl Progress {
    /// What to tell of a run that goes on with another length than it had, in steps of `ac` iterations; `flag` says it.
    pub(super) fn other_length(&self, now: u64, ac: usize, flag: &str) -> Option<String> {
        let [before, after] = [self.max_it, now].map(|its| its / ac.max(1) as u64);
        (self.max_it != 0 && before != after).then(|| {
            format!(
                "{flag}: the run was planned for {before} steps and goes on for {after}; the learning rate follows the new length from here on"
            )
        })
    }

    /// Iterations whose evaluation, if one was due, is done too.
    pub(super) fn evaluated(&self) -> u64 {
        self.it - u64::from(self.evaluation_due && self.it > 0)
    }
}

/// What a task may use of its run.
pub(super) struct Context {
    pub(super) observers: Observers,
    pub(super) team: Team,
    /// Whether all iterations are made.
    pub(super) at_end: bool,
    /// Time that the rest will take, once it is known.
    pub(super) remaining: Option<Duration>,
}

impl Context {
    pub(super) fn new(observers: Observers, team: Team) -> Self {
        Self {
            observers,
            team,
            at_end: false,
            remaining: None,
        }
    }

    /// Whether this process writes files and tells of what happens.
    pub(super) fn is_first(&self) -> bool {
        self.team.world.is_first()
    }

    /// Has the first process write a file that a run can do without, except for the one at its end, while the others go `along`:
    /// whether it is written, the same on all of them.
    ///
    /// # Errors
    /// At the run's end, and what is no fault of the disk. When another process is gone.
    pub(super) fn written(
        &mut self,
        write: impl FnOnce() -> Result<()>,
        along: impl FnOnce() -> Result<()>,
        without: &str,
    ) -> Result<bool> {
        let done = match self.is_first() {
            true => write(),
            false => along(),
        };
        let is_written = match done {
            Ok(()) => true,
            Err(e @ Error::Io { .. }) if !self.at_end => {
                self.observers
                    .warn(&format!("{e}; the run goes on without {without}"));
                false
            }
            Err(e) => return Err(e),
        };
        world::of_first(&self.team.world, is_written)
    }
}

/// What an iteration found.
pub(super) struct Report {
    /// The loss that was minimised.
    pub(super) loss: f64,
    /// Norm of the gradients before clipping, where there was an update.
    pub(super) grad_norm: Option<f64>,
    /// The loss scale after the iteration; 1 without one.
    pub(super) scale: f64,
    /// Whether gradients were not finite and the update was left out.
    pub(super) skipped: bool,
    /// Figures of a step.
    pub(super) metrics: Metrics,
    /// Figures of the iteration under their names in TensorBoard.
    pub(super) scalars: Metrics,
}

/// A model in training, with its data.
pub(super) trait Task {
    /// An iteration that was asked for and whose report is still to be read.
    type Pending;
    /// What an evaluation found.
    type Evaluation;
    /// What goes into a checkpoint beside the model, its optimizer and the [`Progress`].
    type State;

    /// What an iteration is called.
    const ITERATION: &'static str;

    /// Begins to load batches from those of iteration `it` on.
    fn open(&mut self, it: u64) -> Result<()>;

    /// Time spent waiting for batches so far.
    fn waited(&self) -> Duration;

    /// Images that could not be read so far.
    fn bad_images(&self) -> Vec<BadImage>;

    /// Whether iteration `it` depends on the reports of all before it.
    fn looks_back(&self, it: u64) -> bool;

    /// Asks for iteration `it` on the next batch, with an update at its end if `update`; with the number of images.
    fn launch(&mut self, it: u64, update: bool, cx: &mut Context) -> Result<(Self::Pending, u64)>;

    /// Waits for an iteration's report; `scale` is the loss scale that it was made with. Reports are read in order.
    fn read(&mut self, pending: Self::Pending, scale: Option<f64>) -> Result<Report>;

    /// Updates that the optimizer has made; waits for them.
    fn updates(&self) -> Result<u64>;

    /// Whether nothing was changed since the last iteration that was asked for.
    fn is_intact(&self) -> bool;

    /// The state after the last iteration whose report was read.
    fn state(&self) -> Self::State;

    /// Goes back to a state.
    fn set_state(&mut self, state: Self::State);

    /// Whether the iterations of an epoch are done, but not what comes at its end.
    fn epoch_is_open(&self, progress: &Progress) -> bool;

    /// Puts the average of the weights, where one is kept, in their place, or them back.
    fn exchange(&mut self) -> Result<()>;

    /// Evaluates, what is in the place of the weights.
    ///
    /// # Errors
    /// [`Error::Stopped`] where a stop was asked for.
    fn evaluate(&mut self, progress: &Progress, cx: &mut Context) -> Result<Self::Evaluation>;

    /// What comes at the end of an epoch, and after an evaluation.
    fn end_epoch(
        &mut self,
        progress: &Progress,
        evaluation: Option<Self::Evaluation>,
        cx: &mut Context,
    ) -> Result<()>;

    /// Has the first process hold the gradients that all have added up since the last update.
    fn gather_gradients(&mut self) -> Result<()>;

    /// Whether a save needs all processes, since each has its share of the state.
    fn is_shared(&self) -> bool;

    /// Writes the state to go on from.
    fn save(&self, progress: &Progress, path: &Path) -> Result<()>;

    /// Makes what the first process writes, where that needs all.
    fn save_along(&self, progress: &Progress) -> Result<()>;

    /// What comes after a save that worked.
    fn saved(&mut self, progress: &Progress, cx: &mut Context);

    /// Says more of an error.
    fn explain(&self, e: Error) -> Error;

    /// What to tell at the end of a run; `last` is its last checkpoint.
    fn done(&self, steps: u64, last: &Path) -> String;
}
