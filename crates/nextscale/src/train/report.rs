//! What a training step finds. On a GPU the figures are made there and read later, so that nobody waits.

use super::optimizer::PendingNumbers;
use crate::Result;
use crate::eval::{Measures, PendingMeasures};
use crate::world::{self, Number, Summed, World};
use nextscale_tensor::PendingTensor;

/// What an iteration found.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// The loss that was minimised, before division by the accumulation.
    pub loss: f64,
    /// Losses and accuracies.
    pub measures: Measures,
    /// Gradient norm before clipping, where there was an update; not a finite number where the update was left out.
    pub grad_norm: Option<f64>,
    /// The loss scale after the step; 1 without one.
    pub scale: f64,
    /// Whether gradients were not finite and the update was left out.
    pub skipped: bool,
    /// How often each code was predicted.
    pub predicted: Vec<u32>,
}

impl Summed for StepReport {
    /// What is the same everywhere, because it comes of summed gradients, is left out.
    fn numbers(&mut self) -> Vec<&mut dyn Number> {
        let mut all: Vec<&mut dyn Number> = vec![&mut self.loss];
        all.extend(self.measures.numbers());
        all.extend(self.predicted.iter_mut().map(|n| n as &mut dyn Number));
        all
    }
}

impl StepReport {
    /// The report of all processes' samples from that of one's own.
    ///
    /// # Errors
    /// When another process is gone.
    pub fn of_all(self, world: &World) -> Result<Self> {
        let mut sum = world::sum(world, self)?;
        sum.loss /= world.size() as f64;
        Ok(sum)
    }
}

/// [`StepReport`] on its way.
#[derive(Debug)]
pub struct PendingReport {
    pub(super) loss: PendingTensor,
    pub(super) measures: PendingMeasures,
    pub(super) predicted: PendingTensor,
    pub(super) numbers: Option<PendingNumbers>,
}

impl PendingReport {
    /// The report; waits for the step, not for what was asked for after it.
    ///
    /// # Errors
    /// When the GPU failed.
    pub fn read(self) -> Result<StepReport> {
        let numbers = self.numbers.map(PendingNumbers::wait).transpose()?;
        let predicted = self.predicted.wait()?;
        Ok(StepReport {
            loss: f64::from(self.loss.wait()?.scalar()?),
            measures: self.measures.read()?,
            grad_norm: numbers.map(|n| n.norm),
            scale: numbers.map_or(1.0, |n| n.scale),
            skipped: numbers.is_some_and(|n| n.skipped),
            predicted: predicted.i32()?.iter().map(|&n| n as u32).collect(),
        })
    }
}
