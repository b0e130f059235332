//! The transformer on known images: it predicts every token from the true ones before it (teacher forcing). Training steps and
//! evaluations are made of this.

use super::measures::PendingMeasures;
use crate::model::ForwardPass;
use crate::model::var::{DropPath, Var};
use crate::model::vqvae::codes::Tokenizer;
use crate::{Error, Result};
use nextscale_tensor::ops::CrossEntropy;
use nextscale_tensor::{Tensor, ops};

/// A transformer and the tokenizer whose tokens it predicts.
///
/// Needs their weights and nothing else: no gradients and no optimizer.
#[derive(Clone, Copy)]
pub struct TeacherForcing<'a> {
    /// The tokenizer; for known tokens its codebook is enough.
    pub tokenizer: &'a Tokenizer,
    /// The transformer.
    pub var: &'a Var,
}

/// What a batch gives the transformer to learn from.
pub(crate) struct Inputs {
    /// The tokens \[B, Σl\] of the scales that take part.
    pub(super) targets: Tensor,
    /// The transformer's input that they make; `None` where only the first scale takes part.
    pub(super) input: Option<Tensor>,
    /// Scales that take part.
    scales: usize,
}

/// A forward pass with its loss.
pub(crate) struct ForwardOutput {
    pub(crate) loss: Tensor,
    pub(crate) measures: PendingMeasures,
    /// The likeliest code of every token.
    pub(crate) predicted: Tensor,
}

/// The maps of the first `scales` scales side by side.
fn joined(maps: &[Tensor], scales: usize) -> Result<Tensor> {
    let first = maps
        .get(..scales)
        .ok_or_else(|| Error::failed(format!("{} token maps for {scales} scales", maps.len())))?;
    Ok(ops::concat_tokens(&first.iter().collect::<Vec<_>>())?)
}

impl TeacherForcing<'_> {
    /// Losses and accuracies of images \[B, R, R, 3\] in \[−1, 1\] with labels \[B\], on the models' device. Labels are used as they are
    /// (the reference drops some of them here too, which only blurs the figure); they are the caller's to check ([`Var::labels`]).
    ///
    /// # Errors
    /// When shapes do not fit, only the tokenizer's codebook is at hand or, on a CPU, a label is out of range.
    pub fn measure(&self, images: &Tensor, labels: &Tensor) -> Result<PendingMeasures> {
        self.measured(&self.of_images(images, self.all())?, labels)
    }

    /// The same of token maps \[B, l\] of all scales.
    ///
    /// # Errors
    /// When shapes do not fit or, on a CPU, a label is out of range.
    pub fn measure_maps(&self, tokens: &[Tensor], labels: &Tensor) -> Result<PendingMeasures> {
        self.measured(&self.of_maps(tokens, self.all())?, labels)
    }

    /// The same of rows of tokens \[B, L\], all scales coarse to fine.
    ///
    /// # Errors
    /// As [`TeacherForcing::measure_maps`], and on a CPU when a token is out of range.
    pub fn measure_rows(&self, tokens: &Tensor, labels: &Tensor) -> Result<PendingMeasures> {
        self.measured(&self.of_rows(tokens, self.all())?, labels)
    }

    fn measured(&self, inputs: &Inputs, labels: &Tensor) -> Result<PendingMeasures> {
        let pass = ForwardPass::plain(self.var.math);
        let total = self.var.config.pyramid.total();
        let weights = vec![1.0 / total as f32; total];
        Ok(self
            .forward(&pass, inputs, labels, None, &weights, 0.0)?
            .measures)
    }

    fn all(&self) -> usize {
        self.var.config.pyramid.count()
    }

    /// Tokens of the first `scales` scales of images, and what they make of the transformer's input, in one pass over the scales.
    pub(crate) fn of_images(&self, images: &Tensor, scales: usize) -> Result<Inputs> {
        let (vqvae, pyramid) = (self.tokenizer.for_images()?, &self.var.config.pyramid);
        let pass = ForwardPass::plain(vqvae.math);
        let f = vqvae.features(&pass, images, None)?;
        let code = vqvae
            .quantizer
            .encode_with_input(&pass, &vqvae.params, &f, pyramid, scales)?;
        Ok(Inputs {
            targets: joined(&code.indices, scales)?,
            input: code.var_input,
            scales,
        })
    }

    /// The same of known tokens.
    pub(crate) fn of_maps(&self, tokens: &[Tensor], scales: usize) -> Result<Inputs> {
        Ok(Inputs {
            targets: joined(tokens, scales)?,
            input: self.input(tokens, scales)?,
            scales,
        })
    }

    /// The same of rows with the tokens of all scales.
    pub(crate) fn of_rows(&self, tokens: &Tensor, scales: usize) -> Result<Inputs> {
        let pyramid = &self.var.config.pyramid;
        let lengths = (0..pyramid.count()).map(|k| pyramid.range(k).len());
        let maps = ops::split_tokens(tokens, &lengths.collect::<Vec<_>>())?;
        let targets = if scales == maps.len() {
            tokens.detach()
        } else {
            joined(&maps, scales)?
        };
        Ok(Inputs {
            targets,
            input: self.input(&maps, scales)?,
            scales,
        })
    }

    /// The transformer's input that token maps make.
    fn input(&self, tokens: &[Tensor], scales: usize) -> Result<Option<Tensor>> {
        let (quantizer, params) = self.tokenizer.quantizer();
        let pyramid = &self.var.config.pyramid;
        quantizer.var_input(params, tokens, pyramid, scales)
    }

    /// Forward pass and loss; `weights` of the tokens that take part, in the loss.
    pub(crate) fn forward(
        &self,
        pass: &ForwardPass<'_>,
        inputs: &Inputs,
        labels: &Tensor,
        drop_path: Option<&DropPath>,
        weights: &[f32],
        smoothing: f32,
    ) -> Result<ForwardOutput> {
        let pyramid = &self.var.config.pyramid;
        let Inputs {
            targets, scales, ..
        } = inputs;
        let ce = self.cross_entropy(pass, inputs, labels, drop_path, weights, smoothing)?;
        let ranges: Vec<_> = (0..*scales).map(|k| pyramid.range(k)).collect();
        let sums = ops::token_measures(&ce.plain, &ce.predicted, targets, &ranges)?;
        let tokens = ranges.iter().map(|r| (labels.numel() * r.len()) as u64);
        Ok(ForwardOutput {
            loss: ce.loss,
            measures: PendingMeasures {
                sums: sums.copy_to_host()?,
                tokens: tokens.collect(),
            },
            predicted: ce.predicted,
        })
    }

    /// What every token costs under labels \[B\], without smoothing: \[B, L\] in nats, on the models' device.
    pub(crate) fn token_costs(&self, inputs: &Inputs, labels: &Tensor) -> Result<Tensor> {
        let pass = ForwardPass::plain(self.var.math);
        let weights = vec![1.0; inputs.targets.shape().last()];
        let ce = self.cross_entropy(&pass, inputs, labels, None, &weights, 0.0)?;
        Ok(ce.plain)
    }

    fn cross_entropy(
        &self,
        pass: &ForwardPass<'_>,
        inputs: &Inputs,
        labels: &Tensor,
        drop_path: Option<&DropPath>,
        weights: &[f32],
        smoothing: f32,
    ) -> Result<CrossEntropy> {
        let Inputs {
            targets,
            input,
            scales,
        } = inputs;
        let logits = self
            .var
            .forward(pass, labels, input.as_ref(), *scales, drop_path)?;
        Ok(ops::cross_entropy(
            &pass.cx, logits, targets, weights, smoothing,
        )?)
    }
}
