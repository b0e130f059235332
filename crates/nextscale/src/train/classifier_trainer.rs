//! One training step of the classifier whose features images are compared by.

use super::loss_scale::scaler_of;
use super::optimizer::{Optimizer, PendingNumbers};
use crate::Result;
use crate::model::ForwardPass;
use crate::model::classifier::Classifier;
use crate::train::schedule::LrWd;
use nextscale_tensor::{Cx, PendingTensor, Tape, Tensor, ops};

/// AdamW's two decay rates.
const BETAS: (f64, f64) = (0.9, 0.99);
/// Largest gradient norm.
const CLIP: f64 = 1.0;
/// Label smoothing (Szegedy et al. 2016), of which features spread more evenly.
const SMOOTHING: f32 = 0.1;
/// Decay of the average of the weights, which is what is kept.
const EMA: f64 = 0.998;

/// The classifier with its optimizer's state.
pub struct ClassifierTrainer {
    /// The classifier.
    pub classifier: Classifier,
    /// Optimizer state.
    pub opt: Optimizer,
}

/// What a step found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassifierReport {
    /// The loss that was minimised.
    pub loss: f64,
    /// Images that were named rightly.
    pub right: usize,
    /// Images.
    pub images: usize,
    /// Gradient norm before clipping; not a finite number where the update was left out.
    pub grad_norm: f64,
    /// Whether gradients were not finite in float16 and the update was left out.
    pub skipped: bool,
}

/// [`ClassifierReport`] on its way.
#[derive(Debug)]
pub struct PendingClassifierReport {
    loss: PendingTensor,
    predicted: PendingTensor,
    labels: Vec<u32>,
    numbers: PendingNumbers,
}

impl ClassifierTrainer {
    /// A trainer with fresh optimizer state. Weights of convolutions and of the head are decayed, norms and biases are not.
    ///
    /// # Errors
    /// When the GPU's memory is full.
    pub fn new(classifier: Classifier) -> Result<Self> {
        let scaler = scaler_of(classifier.math);
        let decayed = |_: &str, shape: &[usize]| shape.len() > 1;
        let mut opt = Optimizer::new(&classifier.params, BETAS, decayed, scaler)?;
        opt.keep_average(&classifier.params, Some(EMA))?;
        Ok(Self { classifier, opt })
    }

    /// One step on images \[B, side, side, 3\] in \[−1, 1\] and their classes \[B\] on the classifier's device, which `labels` are on
    /// the host. Nothing waits for a GPU.
    ///
    /// # Errors
    /// When shapes do not fit or, on a CPU, a label is out of range.
    pub fn step(
        &mut self,
        images: &Tensor,
        classes: &Tensor,
        labels: &[u32],
        at: LrWd,
    ) -> Result<PendingClassifierReport> {
        let tape = Tape::new();
        let pass = ForwardPass::on(Cx::on(&tape).with(self.classifier.math));
        let batch = labels.len();
        let shape = [batch, 1, self.classifier.config.classes];
        // No second handle on them is kept, as its cost's gradient is written over them.
        let logits = self
            .classifier
            .forward(&pass, images)?
            .logits
            .reshape(shape)?;
        let targets = classes.reshape([batch, 1])?;
        let costs = ops::cross_entropy(&pass.cx, logits, &targets, &[1.0], SMOOTHING)?;
        let seed = self.opt.seed(1)?;
        let weights = (&self.classifier.params, &mut self.opt.grads);
        tape.backward_from(&costs.loss, seed, Some(weights), &[])?;
        let params = &mut self.classifier.params;
        let numbers = self.opt.step(params, at.lr, at.wd, Some(CLIP))?;
        Ok(PendingClassifierReport {
            loss: costs.loss.copy_to_host()?,
            predicted: costs.predicted.copy_to_host()?,
            labels: labels.to_vec(),
            numbers: numbers.copy_to_host()?,
        })
    }
}

impl PendingClassifierReport {
    /// What was found; waits for it.
    ///
    /// # Errors
    /// When the GPU failed.
    pub fn read(self) -> Result<ClassifierReport> {
        let numbers = self.numbers.wait()?;
        let predicted = self.predicted.wait()?;
        let named = predicted.i32()?.iter().zip(&self.labels);
        Ok(ClassifierReport {
            loss: f64::from(self.loss.wait()?.scalar()?),
            right: named.filter(|(p, l)| **p == **l as i32).count(),
            images: self.labels.len(),
            grad_norm: numbers.norm,
            skipped: numbers.skipped,
        })
    }
}
