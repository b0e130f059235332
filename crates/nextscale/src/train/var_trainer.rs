//! One training step of the transformer, and its evaluation.

use super::progressive::Stage;
use crate::Result;
use crate::checkpoint::param_groups::is_decayed;
use crate::model::Run;
use crate::model::var::{Keep, Var};
use crate::model::vqvae::Vqvae;
use nextscale_tensor::ops::{self, AdamW};
use nextscale_tensor::rng::{Purpose, Stream};
use nextscale_tensor::{Cx, Device, GradBuffer, Tape, Tensor};

/// AdamW's constants in the reference.
pub const BETAS: (f64, f64) = (0.9, 0.95);
/// Added to the root of AdamW's second moment.
pub const ADAM_EPS: f64 = 1e-8;

/// The transformer, the frozen tokenizer and the optimizer's state.
pub struct VarTrainer {
    /// The tokenizer.
    pub vqvae: Vqvae,
    /// The transformer.
    pub var: Var,
    /// Optimizer state.
    pub opt: Optimizer,
    /// Label smoothing.
    pub smoothing: f32,
    /// Seed of everything random in a step.
    pub seed: u64,
    /// This process's number.
    pub rank: u64,
}

/// Gradients, AdamW's moments and the number of updates made.
pub struct Optimizer {
    /// Sum of the gradients since the last update.
    pub grads: GradBuffer,
    /// First moment.
    pub exp_avg: GradBuffer,
    /// Second moment.
    pub exp_avg_sq: GradBuffer,
    /// Updates made.
    pub updates: u64,
    betas: (f64, f64),
    /// Ranges of the flat buffer with (1) and without (0) weight decay.
    decay: Vec<(std::ops::Range<usize>, f32)>,
}

impl Optimizer {
    /// Fresh state for a model's parameters, on their device; `decayed` says which of them are decayed, by name and
    /// shape.
    ///
    /// # Errors
    /// When the GPU's memory is full.
    pub fn new(
        params: &nextscale_tensor::Params,
        betas: (f64, f64),
        decayed: impl Fn(&str, &[usize]) -> bool,
    ) -> Result<Self> {
        let decay = params
            .infos()
            .iter()
            .map(|i| {
                let on = decayed(&i.name, i.shape.dims());
                (i.range(), if on { 1.0 } else { 0.0 })
            })
            .collect();
        Ok(Self {
            grads: params.buffer()?,
            exp_avg: params.buffer()?,
            exp_avg_sq: params.buffer()?,
            updates: 0,
            betas,
            decay,
        })
    }

    /// Clips, updates the parameters and zeroes the gradients. Returns the gradient's norm before clipping.
    ///
    /// # Errors
    /// While a tensor still holds the parameters.
    pub fn step(
        &mut self,
        params: &mut nextscale_tensor::Params,
        lr: f64,
        wd: f64,
        clip: Option<f64>,
    ) -> Result<f64> {
        let norm = ops::grad_norm(&self.grads)?;
        // A norm that is not a number must reach the weights' log, not be hidden by the clip.
        let factor = match clip {
            Some(c) => (c / (norm + 1e-6)).min(1.0),
            None => 1.0,
        };
        self.updates += 1;
        let hyper = AdamW {
            lr,
            beta1: self.betas.0,
            beta2: self.betas.1,
            eps: ADAM_EPS,
            weight_decay: wd,
            step: self.updates,
            grad_scale: factor as f32,
        };
        ops::adamw_step(
            params.flat_mut()?,
            &self.grads,
            &mut self.exp_avg,
            &mut self.exp_avg_sq,
            &hyper,
            &self.decay,
        )?;
        self.grads.zero()?;
        Ok(norm)
    }
}

/// What one iteration is to do.
#[derive(Clone, Copy, Debug)]
pub struct StepPlan {
    /// Number of the iteration, from 0: keys the random draws.
    pub it: u64,
    /// Learning rate.
    pub lr: f64,
    /// Weight decay.
    pub wd: f64,
    /// Largest gradient norm.
    pub clip: Option<f64>,
    /// Iterations whose gradients are summed for one update.
    pub accumulate: usize,
    /// Whether this iteration ends with an update.
    pub update: bool,
    /// Scales that take part.
    pub stage: Stage,
}

/// Cross entropy and accuracy by scale and over all tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measures {
    /// Sum of the cross entropies (without smoothing) by scale.
    pub loss: Vec<f64>,
    /// Right predictions by scale.
    pub correct: Vec<u64>,
    /// Tokens by scale.
    pub tokens: Vec<u64>,
}

impl Measures {
    /// Adds another batch.
    pub fn add(&mut self, other: &Self) {
        for (k, n) in other.tokens.iter().enumerate() {
            if self.tokens.len() <= k {
                self.loss.push(0.0);
                self.correct.push(0);
                self.tokens.push(0);
            }
            self.loss[k] += other.loss[k];
            self.correct[k] += other.correct[k];
            self.tokens[k] += n;
        }
    }

    /// Mean loss over all tokens (Lm).
    pub fn loss_mean(&self) -> f64 {
        self.loss.iter().sum::<f64>() / self.tokens.iter().sum::<u64>().max(1) as f64
    }

    /// Accuracy over all tokens in percent (Accm).
    pub fn acc_mean(&self) -> f64 {
        let all = self.tokens.iter().sum::<u64>().max(1);
        100.0 * self.correct.iter().sum::<u64>() as f64 / all as f64
    }

    /// Mean loss of scale `k`; `None` when it took no part.
    pub fn loss_of(&self, k: usize) -> Option<f64> {
        let n = *self.tokens.get(k)?;
        (n > 0).then(|| self.loss[k] / n as f64)
    }

    /// Accuracy of scale `k` in percent; `None` when it took no part.
    pub fn acc_of(&self, k: usize) -> Option<f64> {
        let n = *self.tokens.get(k)?;
        (n > 0).then(|| 100.0 * self.correct[k] as f64 / n as f64)
    }
}

/// What an iteration found.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// The loss that was minimised, before division by the accumulation.
    pub loss: f64,
    /// Losses and accuracies.
    pub measures: Measures,
    /// Gradient norm before clipping, where there was an update.
    pub grad_norm: Option<f64>,
    /// How often each code was predicted.
    pub predicted: Vec<u32>,
}

impl VarTrainer {
    /// A trainer with fresh optimizer state, on the device of the transformer's parameters.
    ///
    /// # Errors
    /// When the GPU's memory is full.
    pub fn new(vqvae: Vqvae, var: Var, smoothing: f32, seed: u64) -> Result<Self> {
        let opt = Optimizer::new(&var.params, BETAS, |name, shape| {
            is_decayed(name, shape.len())
        })?;
        Ok(Self {
            vqvae,
            var,
            opt,
            smoothing,
            seed,
            rank: 0,
        })
    }

    /// One iteration on images \[B, R, R, 3\] in \[−1, 1\].
    ///
    /// # Errors
    /// When shapes do not fit or a label is out of range.
    pub fn step(&mut self, images: &Tensor, labels: &[i32], plan: &StepPlan) -> Result<StepReport> {
        let tokens = self.vqvae.tokenize(images, &self.var.config.pyramid)?;
        self.step_tokens(&tokens, labels, plan)
    }

    /// One iteration on token maps \[B, l\] (at least those of the active scales).
    ///
    /// # Errors
    /// When shapes do not fit or a label is out of range.
    pub fn step_tokens(
        &mut self,
        tokens: &[Tensor],
        labels: &[i32],
        plan: &StepPlan,
    ) -> Result<StepReport> {
        let labels = self.drop_labels(labels, plan.it);
        let keep = Keep::draw(
            &self.var.config,
            labels.len(),
            self.seed,
            plan.it,
            self.rank,
        );
        self.step_with(tokens, &labels, keep.as_ref(), plan)
    }

    /// [`VarTrainer::step_tokens`] with the random draws given: labels after class dropout, and the factors of
    /// stochastic depth.
    ///
    /// # Errors
    /// When shapes do not fit or a label is out of range.
    pub fn step_with(
        &mut self,
        tokens: &[Tensor],
        labels: &[i32],
        keep: Option<&Keep>,
        plan: &StepPlan,
    ) -> Result<StepReport> {
        let tape = Tape::new();
        let run = Run::on(Cx::on(&tape));
        let pass = self.pass(&run, tokens, labels, keep, plan.stage)?;
        let seed = 1.0 / plan.accumulate as f32;
        let Pass {
            loss,
            measures,
            predicted,
        } = pass;
        tape.backward(
            &loss,
            seed,
            Some((&self.var.params, &mut self.opt.grads)),
            &[],
        )?;
        let value = f64::from(loss.scalar()?);
        let grad_norm = if plan.update {
            Some(
                self.opt
                    .step(&mut self.var.params, plan.lr, plan.wd, plan.clip)?,
            )
        } else {
            None
        };
        Ok(StepReport {
            loss: value,
            measures,
            grad_norm,
            predicted,
        })
    }

    /// Loss and accuracy of a batch without learning. Labels are used as they are (the reference drops some of them
    /// here too, which only blurs the figure).
    ///
    /// # Errors
    /// When shapes do not fit or a label is out of range.
    pub fn evaluate(&self, images: &Tensor, labels: &[i32]) -> Result<Measures> {
        let tokens = self.vqvae.tokenize(images, &self.var.config.pyramid)?;
        self.evaluate_tokens(&tokens, labels)
    }

    /// [`VarTrainer::evaluate`] on token maps.
    ///
    /// # Errors
    /// When shapes do not fit or a label is out of range.
    pub fn evaluate_tokens(&self, tokens: &[Tensor], labels: &[i32]) -> Result<Measures> {
        let all = Stage {
            highest: None,
            newest_weight: 1.0,
            ramp: 1.0,
        };
        Ok(self.pass(&Run::off(), tokens, labels, None, all)?.measures)
    }

    /// Labels after class dropout at iteration `it`.
    fn drop_labels(&self, labels: &[i32], it: u64) -> Vec<i32> {
        let s = Stream::new(self.seed, Purpose::ClassDrop, it, self.rank);
        let rate = self.var.config.class_drop;
        labels
            .iter()
            .enumerate()
            .map(|(b, &l)| {
                if f64::from(s.uniform_at(b as u64)) < rate {
                    self.var.no_class()
                } else {
                    l
                }
            })
            .collect()
    }

    /// Forward pass and loss.
    fn pass(
        &self,
        run: &Run<'_>,
        tokens: &[Tensor],
        labels: &[i32],
        keep: Option<&Keep>,
        stage: Stage,
    ) -> Result<Pass> {
        let pyramid = &self.var.config.pyramid;
        let active = stage.highest.map_or(pyramid.count(), |k| k + 1);
        let words = self
            .vqvae
            .quantizer
            .var_input(&self.vqvae.params, tokens, pyramid, active)?;
        let targets: Vec<&Tensor> = tokens[..active].iter().collect();
        let targets = ops::concat_tokens(&targets)?;
        let logits = self
            .var
            .forward(run, labels, words.as_ref(), active, keep)?;
        // Weights stay 1/L of the whole sequence when it is cut.
        let total = pyramid.total();
        let mut weights = vec![1.0 / total as f32; targets.shape().last()];
        if let Some(k) = stage.highest {
            weights[pyramid.range(k)]
                .iter_mut()
                .for_each(|w| *w *= stage.newest_weight as f32);
        }
        let ce = ops::cross_entropy(&run.cx, logits, &targets, &weights, self.smoothing)?;
        let ranges: Vec<_> = (0..active).map(|k| pyramid.range(k)).collect();
        let sums = ops::token_measures(&ce.plain, &ce.predicted, &targets, &ranges)?;
        let mut measures = Measures::default();
        for (pair, range) in sums.to(Device::Cpu)?.f32()?.chunks_exact(2).zip(&ranges) {
            measures.loss.push(f64::from(pair[0]));
            measures.correct.push(pair[1] as u64);
            measures.tokens.push((labels.len() * range.len()) as u64);
        }
        let mut predicted = vec![0; self.var.config.vocab];
        for &i in ce.predicted.to(Device::Cpu)?.i32()? {
            predicted[i as usize] += 1;
        }
        Ok(Pass {
            loss: ce.loss,
            measures,
            predicted,
        })
    }
}

/// A forward pass with its loss.
struct Pass {
    loss: Tensor,
    measures: Measures,
    predicted: Vec<u32>,
}
