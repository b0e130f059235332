//! One training step of the tokenizer, and its evaluation.

use super::codebook_usage::HitAverages;
use super::var_trainer::Optimizer;
use crate::Result;
use crate::model::Run;
use crate::model::vqvae::{DropoutDraw, Vqvae};
use nextscale_tensor::ops;
use nextscale_tensor::{Cx, Tape, Tensor};

/// The tokenizer with its optimizer's state.
pub struct TokenizerTrainer {
    /// The tokenizer.
    pub vqvae: Vqvae,
    /// Optimizer state.
    pub opt: Optimizer,
    /// Codebook usage.
    pub hits: HitAverages,
    /// Weight of the mean absolute error.
    pub l1: f32,
    /// Weight of the mean squared error.
    pub l2: f32,
    /// Seed of everything random in a step.
    pub seed: u64,
}

/// What one iteration is to do.
#[derive(Clone, Copy, Debug)]
pub struct TokenizerStep {
    /// Number of the iteration, from 0.
    pub it: u64,
    /// Learning rate.
    pub lr: f64,
    /// Weight decay.
    pub wd: f64,
    /// Largest gradient norm.
    pub clip: Option<f64>,
}

/// What an iteration found.
#[derive(Clone, Debug)]
pub struct TokenizerReport {
    /// The loss that was minimised.
    pub loss: f64,
    /// Mean absolute error of the reconstruction.
    pub l1: f64,
    /// Mean squared error.
    pub l2: f64,
    /// The quantizer's loss.
    pub vq: f64,
    /// Gradient norm before clipping.
    pub grad_norm: f64,
}

impl TokenizerTrainer {
    /// A trainer with fresh optimizer state. Convolution and linear weights and the codebook are decayed, norms and
    /// biases are not.
    pub fn new(vqvae: Vqvae, betas: (f64, f64), (l1, l2): (f32, f32), seed: u64) -> Self {
        let opt = Optimizer::new(&vqvae.params, betas, |_, shape| shape.len() > 1);
        let hits = HitAverages::new(vqvae.config.pyramid.count(), vqvae.config.vocab);
        Self {
            vqvae,
            opt,
            hits,
            l1,
            l2,
            seed,
        }
    }

    /// One iteration on images \[B, R, R, 3\] in \[−1, 1\].
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn step(&mut self, images: &Tensor, plan: &TokenizerStep) -> Result<TokenizerReport> {
        let tape = Tape::new();
        let run = Run::on(Cx::on(&tape));
        let drop = DropoutDraw {
            seed: self.seed,
            step: plan.it,
        };
        let out = self.vqvae.train_forward(&run, images, Some(drop))?;
        let l2 = ops::mse(&run.cx, &out.image, images)?;
        let l1 = ops::l1(&run.cx, &out.image, images)?;
        let terms = [
            (out.vq_loss.clone(), 1.0),
            (l2.clone(), self.l2),
            (l1.clone(), self.l1),
        ];
        let loss = ops::weighted_sum(&run.cx, &terms)?;
        let mut report = TokenizerReport {
            loss: f64::from(loss.scalar()?),
            l1: f64::from(l1.scalar()?),
            l2: f64::from(l2.scalar()?),
            vq: f64::from(out.vq_loss.scalar()?),
            grad_norm: 0.0,
        };
        self.hits.record(&out.hits);
        drop_all((out, terms, l1, l2));
        tape.backward(
            &loss,
            1.0,
            Some((&self.vqvae.params, &mut self.opt.grads)),
            &[],
        )?;
        report.grad_norm = self
            .opt
            .step(&mut self.vqvae.params, plan.lr, plan.wd, plan.clip)?;
        Ok(report)
    }
}

/// Frees what the backward pass does not need before it starts.
fn drop_all<T>(_: T) {}
