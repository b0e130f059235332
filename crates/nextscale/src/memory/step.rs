//! What a training step of a transformer consists of: its memory by part, and its work by operator.

use super::estimate::share_out;
use super::{Estimate, Need, Workload};
use crate::model::var::Var;
use crate::model::vqvae::Vqvae;
use crate::train::var_trainer::VarTrainer;
use crate::{Error, Result};
use nextscale_tensor::cuda::Profile;

/// The memory of a transformer's training by part, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainParts {
    /// The frozen tokenizer.
    pub tokenizer: usize,
    /// Float32 weights of the transformer.
    pub weights: usize,
    /// Their copies in half precision.
    pub half: usize,
    /// Gradients.
    pub gradients: usize,
    /// Both moments of AdamW.
    pub moments: usize,
    /// The average of the weights.
    pub average: usize,
    /// The most that there is beside all of these while a step is made: what the backward pass needs, and images.
    pub activations: usize,
    /// What the whole takes, evaluations between the steps included.
    pub need: Need,
    /// Every parameter of the transformer: its name and how many numbers it has.
    pub tensors: Vec<(String, usize)>,
}

impl TrainParts {
    /// What is there between two steps.
    pub fn standing(&self) -> usize {
        let parts = [
            self.tokenizer,
            self.weights,
            self.half,
            self.gradients,
            self.moments,
            self.average,
        ];
        parts.iter().sum()
    }
}

impl Estimate<'_> {
    /// The parts of a transformer's training with `batch` images at a time.
    ///
    /// # Errors
    /// When the models can't be built, or the workload is another one.
    pub fn train_parts(&self, batch: usize) -> Result<TrainParts> {
        let Workload::Train {
            var,
            vqvae,
            from_tokens,
            math,
            ema,
            recompute,
            shares,
        } = self.workload
        else {
            return Err(not_training());
        };
        let need = self.need(batch)?;
        self.afresh()?;
        let used = || self.gpu.usage().used;
        let nothing = used();
        let tokenizer = Vqvae::on(vqvae.clone(), false, self.device, math[1])?;
        let with_tokenizer = used();
        let mut var = Var::on(var.clone(), true, self.device, math[0])?;
        let with_whole_weights = used();
        let buffer = |var: &Var| -> Result<usize> {
            let before = used();
            let buffer = var.params.buffer()?;
            let bytes = used() - before;
            drop(buffer);
            Ok(bytes)
        };
        let half = with_whole_weights - with_tokenizer - buffer(&var)?;
        share_out(&mut var, shares)?;
        let with_weights = used();
        let one = buffer(&var)?;
        let mut trainer = VarTrainer::new(tokenizer, var, 0.0, 0)?;
        trainer.var.recompute = recompute;
        let with_optimizer = used();
        trainer.opt.keep_average(&trainer.var.params, ema)?;
        let standing = used();
        let labels = vec![0; batch];
        // The first step tries algorithms.
        for it in 0..3 {
            if it == 1 {
                self.afresh()?;
            }
            self.train_step(&mut trainer, (vqvae, from_tokens), &labels, it)?;
        }
        let tensors = trainer.var.params.infos().iter();
        Ok(TrainParts {
            tokenizer: with_tokenizer - nothing,
            weights: with_weights - with_tokenizer - half,
            half,
            gradients: one,
            moments: with_optimizer - with_weights - one,
            average: standing - with_optimizer,
            activations: self.taken() - standing,
            need,
            tensors: tensors.map(|i| (i.name.clone(), i.shape.numel())).collect(),
        })
    }

    /// What a step of a transformer's training with `batch` images has to do, by operator: a profile without times. The update is that
    /// of one process that shares nothing.
    ///
    /// # Errors
    /// As [`Estimate::train_parts`].
    pub fn train_work(&self, batch: usize) -> Result<Profile> {
        let Workload::Train {
            var,
            vqvae,
            from_tokens,
            math,
            ema,
            recompute,
            ..
        } = self.workload
        else {
            return Err(not_training());
        };
        let mut trainer = self.trainer((var, vqvae), math, (ema, recompute, 1))?;
        let labels = vec![0; batch];
        let mut step = |it| self.train_step(&mut trainer, (vqvae, from_tokens), &labels, it);
        // The first of a shape tries algorithms, which is not the step's own work.
        step(0)?;
        let (profile, ()) = self.gpu.profile(|| step(1))?;
        Ok(profile)
    }
}

fn not_training() -> Error {
    Error::failed("only a transformer's training has these parts")
}
