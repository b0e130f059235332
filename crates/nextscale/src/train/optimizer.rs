//! The optimizer of a run: gradients, AdamW's moments, the loss scale and the number of updates, on the model's device.

use super::average::Average;
use crate::Result;
use nextscale_tensor::ops::{AdamW, Decay, Moments, Scaling, Steps, StepsProgress};
pub use nextscale_tensor::ops::{PendingNumbers, StepNumbers};
use nextscale_tensor::{GradBuffer, Params, Tensor};

/// AdamW's constants in the reference.
pub const BETAS: (f64, f64) = (0.9, 0.95);
/// Added to the root of AdamW's second moment.
pub const ADAM_EPS: f64 = 1e-8;

/// Gradients, AdamW's moments, and what a run of steps carries along.
#[derive(Debug)]
pub struct Optimizer {
    /// Sum of the gradients since the last update, times the loss scale.
    pub grads: GradBuffer,
    /// First moment.
    pub exp_avg: GradBuffer,
    /// Second moment.
    pub exp_avg_sq: GradBuffer,
    /// Average of the weights over the steps, where one is kept.
    pub average: Option<Average>,
    steps: Steps,
    betas: (f64, f64),
}

impl Optimizer {
    /// Fresh state for a model's parameters, on their device; `decayed` says which of them are decayed, by name and
    /// shape. With a `scaler` losses are scaled and steps whose gradients are not finite are left out.
    ///
    /// # Errors
    /// When the GPU's memory is full.
    pub fn new(
        params: &Params,
        betas: (f64, f64),
        decayed: impl Fn(&str, &[usize]) -> bool,
        scaler: Option<Scaling>,
    ) -> Result<Self> {
        let mut ranges: Vec<Decay> = params
            .infos()
            .iter()
            .map(|i| {
                let on = decayed(&i.name, i.shape.dims());
                (i.range(), if on { 1.0 } else { 0.0 })
            })
            .collect();
        ranges.sort_by_key(|(range, _)| range.start);
        let start = StepsProgress {
            updates: 0,
            scaling: scaler,
        };
        Ok(Self {
            grads: params.buffer()?,
            exp_avg: params.update_buffer()?,
            exp_avg_sq: params.update_buffer()?,
            average: None,
            steps: Steps::new(params, ranges, start)?,
            betas,
        })
    }

    /// The gradient to begin a backward pass with, \[1\] float32 on the device: the loss scale (1 without one) over the
    /// number of passes whose gradients are summed for one update.
    ///
    /// # Errors
    /// When the GPU's memory is full.
    pub fn seed(&self, accumulate: usize) -> Result<Tensor> {
        Ok(self.steps.seed(accumulate)?)
    }

    /// Takes the loss scale out, clips, updates the parameters and zeroes the gradients. Nothing waits for a GPU.
    ///
    /// # Errors
    /// While a tensor still holds the parameters.
    pub fn step(
        &mut self,
        params: &mut Params,
        lr: f64,
        wd: f64,
        clip: Option<f64>,
    ) -> Result<StepNumbers> {
        let hyper = AdamW {
            lr,
            beta1: self.betas.0,
            beta2: self.betas.1,
            eps: ADAM_EPS,
            weight_decay: wd,
            clip,
        };
        let mut buffers = Moments {
            grads: &mut self.grads,
            exp_avg: &mut self.exp_avg,
            exp_avg_sq: &mut self.exp_avg_sq,
        };
        let numbers = self.steps.step(params, &mut buffers, &hyper)?;
        if let Some(average) = &mut self.average {
            average.step(params)?;
        }
        Ok(numbers)
    }

    /// Keeps an average of the weights with this decay from now on, where one is asked for.
    ///
    /// # Errors
    /// When the GPU's memory is full.
    pub fn keep_average(&mut self, params: &Params, decay: Option<f64>) -> Result<()> {
        self.average = decay.map(|d| Average::new(params, d)).transpose()?;
        Ok(())
    }

    /// The averaged weights, where an average is kept and has seen a step.
    pub fn averaged(&self) -> Option<&GradBuffer> {
        let begun = self.average.as_ref().filter(|a| a.has_begun());
        begun.map(|a| &a.weights)
    }

    /// Puts the average, where one is kept, in place of the weights, or the weights back.
    ///
    /// # Errors
    /// As [`Average::exchange`].
    pub fn exchange(&mut self, params: &mut Params) -> Result<()> {
        match &mut self.average {
            Some(average) => average.exchange(params),
            None => Ok(()),
        }
    }

    /// Whether the weights are where they belong, and not their average.
    pub fn has_weights(&self) -> bool {
        !self.average.as_ref().is_some_and(Average::is_exchanged)
    }

    /// Updates made; waits for them where they are made on a GPU.
    ///
    /// # Errors
    /// When the GPU failed.
    pub fn updates(&self) -> Result<u64> {
        Ok(self.steps.progress()?.updates)
    }

    /// The loss scale, where there is one; waits as [`Optimizer::updates`].
    ///
    /// # Errors
    /// When the GPU failed.
    pub fn scaler(&self) -> Result<Option<Scaling>> {
        Ok(self.steps.progress()?.scaling)
    }

    /// Goes on after so many updates, with this loss scale: from a checkpoint.
    ///
    /// # Errors
    /// When the GPU refuses.
    pub fn resume(&mut self, updates: u64, scaler: Option<Scaling>) -> Result<()> {
        Ok(self.steps.set_progress(StepsProgress {
            updates,
            scaling: scaler,
        })?)
    }
}
