//! The optimizer: gradient norm, loss scale, clipping and AdamW, each one pass over flat buffers.
//!
//! AdamW (Loshchilov and Hutter 2019) with decoupled decay first, as PyTorch orders it: p ← p·(1 − lr·wd);
//! m ← β1·m + (1 − β1)·g; v ← β2·v + (1 − β2)·g²; p ← p − lr/(1 − β1ᵗ)·m/(√v/√(1 − β2ᵗ) + ε).
//!
//! A step ([`Steps::step`]): the norm of all gradients over the loss scale; with a loss scale, a norm that is not finite makes
//! the step an overflow, which updates nothing; otherwise gradients are divided by the loss scale, multiplied by
//! min(1, clip/(norm + 1e-6)) and given to AdamW. Then the loss scale moves ([`Scaling::update`]) and the gradients are zeroed.
//! On a GPU the decision is made there too, so that nothing waits for it.

mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use crate::PendingTensor;
use crate::params::{Number, Sharding};
use crate::{Device, Error, GradBuffer, Params, Result, Tensor};
use std::ops::Range;

/// AdamW's numbers for one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Weight decay, times each range's own factor.
    pub weight_decay: f64,
    /// Largest norm of the gradients.
    pub clip: Option<f64>,
}

/// A dynamic loss scale: the factor on the loss that keeps float16 gradients from vanishing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// The scale in force.
    pub scale: f64,
    /// The factor on the scale after `growth_interval` finite steps.
    pub growth_factor: f64,
    /// The factor on the scale after an overflow.
    pub backoff_factor: f64,
    /// Finite steps between two growths.
    pub growth_interval: u64,
    /// Finite steps since the last change.
    pub growth_tracker: u64,
}

impl Default for Scaling {
    /// As the reference begins: 2¹¹, doubled after 1000 finite steps, halved by an overflow.
    fn default() -> Self {
        Self {
            scale: 2048.0,
            growth_factor: 2.0,
            backoff_factor: 0.5,
            growth_interval: 1000,
            growth_tracker: 0,
        }
    }
}

impl Scaling {
    /// A scale above this is put back to it after one step: products with float16 would overflow.
    pub const CAP: f64 = 32768.0;

    /// Ends a step and sets the next scale. `overflow`: some gradient was not finite, so the step was skipped.
    ///
    /// A scale above 2¹⁵ becomes 2¹⁵ and nothing else happens: an overflow on that step causes no backoff, and the count of
    /// finite steps stays.
    pub fn update(&mut self, overflow: bool) {
        if self.scale > Self::CAP {
            self.scale = Self::CAP;
        } else if overflow {
            self.scale *= self.backoff_factor;
            self.growth_tracker = 0;
        } else {
            self.growth_tracker += 1;
            if self.growth_tracker >= self.growth_interval {
                self.scale *= self.growth_factor;
                self.growth_tracker = 0;
            }
        }
    }
}

/// A range of the flat buffer and its factor on the weight decay.
pub type Decay = (Range<usize>, f32);

/// What a run of steps carries from one to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepsProgress {
    /// Updates made.
    pub updates: u64,
    /// The loss scale, where there is one.
    pub scaling: Option<Scaling>,
}

/// What a step found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepValues {
    /// The gradients' norm, without the loss scale, before clipping.
    pub norm: f64,
    /// The loss scale after the step; 1 without one.
    pub scale: f64,
    /// Whether gradients were not finite and the step was left out.
    pub skipped: bool,
    /// Updates made, this one included.
    pub updates: u64,
}

/// A step's numbers where they were made.
#[derive(Clone, Debug)]
pub struct StepNumbers(Numbers);

#[derive(Clone, Debug)]
enum Numbers {
    Here(StepValues),
    /// Four doubles on a GPU.
    There(Tensor),
}

impl StepNumbers {
    /// The numbers; waits for the step where it runs on a GPU.
    ///
    /// # Errors
    /// When the GPU failed.
    pub fn read(&self) -> Result<StepValues> {
        match &self.0 {
            Numbers::Here(values) => Ok(*values),
            Numbers::There(numbers) => cuda::read(numbers),
        }
    }
}

impl StepNumbers {
    /// Starts to bring the numbers to the CPU, without waiting.
    ///
    /// # Errors
    /// When the GPU refuses.
    pub fn copy_to_host(&self) -> Result<PendingNumbers> {
        Ok(PendingNumbers(match &self.0 {
            Numbers::Here(values) => Pending::Here(*values),
            Numbers::There(numbers) => Pending::Coming(numbers.copy_to_host()?),
        }))
    }
}

/// [`StepNumbers`] on their way.
#[derive(Debug)]
pub struct PendingNumbers(Pending);

#[derive(Debug)]
enum Pending {
    Here(StepValues),
    Coming(PendingTensor),
}

impl PendingNumbers {
    /// The numbers; waits for their step, not for what was asked for after it.
    ///
    /// # Errors
    /// When the GPU failed.
    pub fn wait(self) -> Result<StepValues> {
        match self.0 {
            Pending::Here(values) => Ok(values),
            Pending::Coming(numbers) => cuda::read(&numbers.wait()?),
        }
    }
}

/// The buffers of one step.
#[derive(Debug)]
pub struct Moments<'a> {
    /// Sum of the gradients; zero afterwards.
    pub grads: &'a mut GradBuffer,
    /// First moment.
    pub exp_avg: &'a mut GradBuffer,
    /// Second moment.
    pub exp_avg_sq: &'a mut GradBuffer,
}

/// A run of optimizer steps on one model.
#[derive(Debug)]
pub struct Steps {
    ranges: Vec<Decay>,
    len: usize,
    backend: Backend,
}

#[derive(Debug)]
enum Backend {
    Cpu(StepsProgress),
    Cuda(cuda::DeviceSteps),
}

impl Steps {
    /// For the parameters `params`, on their device; of those that processes have shares of, this one's are updated. `ranges` are the parameters' places, ascending, with each one's factor on
    /// the weight decay; what lies between them is left alone (on a GPU, where ranges begin at multiples of 16, what fills up
    /// the last 16 of a range must be zeros).
    ///
    /// # Errors
    /// When ranges overlap or leave the buffer, or the GPU's memory is full.
    pub fn new(params: &Params, ranges: Vec<Decay>, progress: StepsProgress) -> Result<Self> {
        let len = params.flat_len();
        let ordered = ranges.windows(2).all(|w| w[0].0.end <= w[1].0.start);
        if !ordered || ranges.last().is_some_and(|r| r.0.end > len) {
            return Err(Error::Params("ranges overlap or leave the buffer".into()));
        }
        let sharding = params.sharding();
        let ranges = match sharding {
            None => ranges,
            Some(sharding) => within(&ranges, &sharding.updated()),
        };
        let counted = sharding.map(|s| s.counted());
        let counts = |range: &Range<usize>| {
            let Some(counted) = &counted else { return true };
            is_within(range, counted)
        };
        let backend = match params.device().gpu()? {
            None => Backend::Cpu(progress),
            Some(gpu) => {
                let steps = cuda::DeviceSteps::new(gpu, len, &ranges, counts, progress)?;
                Backend::Cuda(steps)
            }
        };
        Ok(Self {
            ranges,
            len,
            backend,
        })
    }

    /// Where the run is; waits for it where it is on a GPU.
    ///
    /// # Errors
    /// When the GPU failed.
    pub fn progress(&self) -> Result<StepsProgress> {
        match &self.backend {
            Backend::Cpu(progress) => Ok(*progress),
            Backend::Cuda(steps) => steps.progress(),
        }
    }

    /// Goes on from another place.
    ///
    /// # Errors
    /// When the GPU refuses.
    pub fn set_progress(&mut self, to: StepsProgress) -> Result<()> {
        match &mut self.backend {
            Backend::Cpu(progress) => {
                *progress = to;
                Ok(())
            }
            Backend::Cuda(steps) => steps.set(to),
        }
    }

    /// The gradient to begin a backward pass with, \[1\] float32 on the device: the loss scale over the number of passes whose
    /// gradients are summed.
    ///
    /// # Errors
    /// When the GPU's memory is full.
    pub fn seed(&self, accumulate: usize) -> Result<Tensor> {
        match &self.backend {
            Backend::Cuda(steps) => steps.seed(accumulate),
            Backend::Cpu(progress) => {
                let scale = progress.scaling.map_or(1.0, |s| s.scale);
                Ok(Tensor::from_vec(
                    [1],
                    vec![(scale / accumulate as f64) as f32],
                ))
            }
        }
    }

    /// One step; see the module for what happens. Nothing waits for a GPU.
    ///
    /// # Errors
    /// When buffers differ in length, or while a tape or tensor holds a parameter.
    pub fn step(
        &mut self,
        params: &mut Params,
        buffers: &mut Moments<'_>,
        hyper: &AdamW,
    ) -> Result<StepNumbers> {
        if params.flat_len() != self.len {
            return Err(Error::Params("ranges of another model".into()));
        }
        let numbers = match &mut self.backend {
            Backend::Cuda(steps) => {
                let numbers = steps.step(params, buffers, hyper)?;
                StepNumbers(Numbers::There(numbers))
            }
            Backend::Cpu(progress) => {
                let scale = progress.scaling.map_or(1.0, |s| s.scale);
                let norm = match params.sharding() {
                    None => cpu::grad_norm(buffers.grads)?,
                    Some(sharding) => norm_of_all(buffers.grads, sharding)?,
                };
                let norm = norm / scale;
                let flat = params.flat_mut()?;
                let skipped = progress.scaling.is_some() && !norm.is_finite();
                if !skipped {
                    // A norm that is not a number must reach the weights' log, not be hidden by the clip.
                    let factor = match hyper.clip {
                        Some(c) => (c / (norm + 1e-6)).min(1.0),
                        None => 1.0,
                    };
                    progress.updates += 1;
                    let Moments {
                        grads,
                        exp_avg,
                        exp_avg_sq,
                    } = buffers;
                    let step = (progress.updates, (factor / scale) as f32);
                    cpu::adamw(flat, grads, exp_avg, exp_avg_sq, hyper, step, &self.ranges)?;
                }
                if let Some(s) = &mut progress.scaling {
                    s.update(skipped);
                }
                buffers.grads.zero()?;
                params.publish()?;
                StepNumbers(Numbers::Here(StepValues {
                    norm,
                    scale: progress.scaling.map_or(1.0, |s| s.scale),
                    skipped,
                    updates: progress.updates,
                }))
            }
        };
        Ok(numbers)
    }
}

/// What `ranges` and those of `own` have in common; both ascend.
fn within(ranges: &[Decay], own: &[Range<usize>]) -> Vec<Decay> {
    let mut out = Vec::new();
    for part in own {
        let first = ranges.partition_point(|r| r.0.end <= part.start);
        let touched = ranges[first..].iter();
        for (range, factor) in touched.take_while(|r| r.0.start < part.end) {
            let both = part.start.max(range.start)..part.end.min(range.end);
            out.push((both, *factor));
        }
    }
    out
}

/// Whether one of `all`, which ascend and do not overlap, holds all of `range`.
pub(crate) fn is_within(range: &Range<usize>, all: &[Range<usize>]) -> bool {
    let after = all.partition_point(|one| one.start <= range.start);
    after > 0 && range.end <= all[after - 1].end
}

/// The norm of the gradients of which each process counts its share.
fn norm_of_all(grads: &GradBuffer, sharding: &Sharding) -> Result<f64> {
    let grads = grads.cpu()?;
    let own = sharding.counted().into_iter();
    let mut sum = own.map(|range| cpu::squares(&grads[range])).sum();
    sharding.exchange().sum(Number::Cpu(&mut sum))?;
    Ok(sum.sqrt())
}

/// The Euclidean norm of all gradients, summed in a fixed order; waits for it where they are on a GPU.
///
/// # Errors
/// When the GPU failed.
pub fn grad_norm(grads: &GradBuffer) -> Result<f64> {
    match grads.device() {
        Device::Cpu => cpu::grad_norm(grads),
        Device::Cuda(_) => cuda::grad_norm(grads),
    }
}
