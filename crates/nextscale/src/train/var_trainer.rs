//! One training step of the transformer, and its evaluation.

use super::gradients::GradientSum;
use super::loss_scale::scaler_of;
use super::optimizer::{BETAS, Optimizer};
use super::progressive::Stage;
use super::report::PendingReport;
use crate::Result;
use crate::data::Feed;
use crate::eval::{Inputs, TeacherForcing};
use crate::model::ForwardPass;
use crate::model::var::state_dict::is_decayed;
use crate::model::var::{DropPath, Var};
use crate::model::vqvae::codes::Tokenizer;
use nextscale_tensor::ops;
use nextscale_tensor::rng::{Purpose, Stream};
use nextscale_tensor::{Cx, Device, Math, Shape, Tape, Tensor, Values};

/// The transformer, the frozen tokenizer and the optimizer's state.
pub struct VarTrainer {
    /// The tokenizer; for training on tokens its codebook is enough.
    pub tokenizer: Tokenizer,
    /// The transformer.
    pub var: Var,
    /// Optimizer state.
    pub opt: Optimizer,
    /// Label smoothing.
    pub smoothing: f32,
    /// Seed of everything random in a step.
    pub seed: u64,
    /// The processes that train together.
    pub sum: GradientSum,
    /// What is drawn for a step, on its way to the device.
    feed: Feed,
}

/// What was drawn at random for an iteration, on the transformer's device.
pub struct Draws {
    /// Labels \[B\] after class dropout.
    pub labels: Tensor,
    /// Factors of stochastic depth; `None` keeps everything.
    pub drop_path: Option<DropPath>,
}

/// What one iteration is to do.
#[derive(Clone, Copy, Debug)]
pub struct TransformerStep {
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

impl TransformerStep {
    /// An iteration that is an update by itself, over all scales, with settings as large runs have them; for what counts or
    /// times steps, and to start from.
    pub fn whole(it: u64) -> Self {
        Self {
            it,
            lr: 1e-4,
            wd: 0.05,
            clip: Some(2.0),
            accumulate: 1,
            update: true,
            stage: Stage::ALL,
        }
    }
}

impl VarTrainer {
    /// A trainer with fresh optimizer state, on the device of the transformer's parameters; with a loss scale where the
    /// transformer's products are in float16.
    ///
    /// # Errors
    /// When the GPU's memory is full.
    pub fn new(
        tokenizer: impl Into<Tokenizer>,
        var: Var,
        smoothing: f32,
        seed: u64,
    ) -> Result<Self> {
        let decayed = |name: &str, shape: &[usize]| is_decayed(name, shape.len());
        let scaler = scaler_of(var.math);
        let opt = Optimizer::new(&var.params, BETAS, decayed, scaler)?;
        let feed = Feed::new(var.device())?;
        Ok(Self {
            tokenizer: tokenizer.into(),
            var,
            opt,
            smoothing,
            seed,
            sum: GradientSum::alone(),
            feed,
        })
    }

    /// One iteration on images \[B, R, R, 3\] in \[−1, 1\], on the models' device.
    ///
    /// # Errors
    /// When shapes do not fit, a label is out of range, or only the tokenizer's codebook is at hand.
    pub fn step(
        &mut self,
        images: &Tensor,
        labels: &[i32],
        plan: &TransformerStep,
    ) -> Result<PendingReport> {
        let draws = self.draws(labels, plan.it)?;
        let inputs = self.model().of_images(images, self.active(plan.stage))?;
        self.iterate(&inputs, &draws, plan)
    }

    /// One iteration on token maps \[B, l\] (at least those of the active scales).
    ///
    /// # Errors
    /// When shapes do not fit or a label is out of range.
    pub fn step_tokens(
        &mut self,
        tokens: &[Tensor],
        labels: &[i32],
        plan: &TransformerStep,
    ) -> Result<PendingReport> {
        let draws = self.draws(labels, plan.it)?;
        self.step_with(tokens, &draws, plan)
    }

    /// One iteration on rows of tokens \[B, L\], all scales coarse to fine, on the models' device: images that were tokenized
    /// before.
    ///
    /// # Errors
    /// When shapes do not fit, a label is out of range or, on the CPU, a token is.
    pub fn step_rows(
        &mut self,
        tokens: &Tensor,
        labels: &[i32],
        plan: &TransformerStep,
    ) -> Result<PendingReport> {
        let draws = self.draws(labels, plan.it)?;
        let inputs = self.model().of_rows(tokens, self.active(plan.stage))?;
        self.iterate(&inputs, &draws, plan)
    }

    /// [`VarTrainer::step_tokens`] with the random draws given.
    ///
    /// # Errors
    /// When shapes do not fit or, on a CPU, a label is out of range.
    pub fn step_with(
        &mut self,
        tokens: &[Tensor],
        draws: &Draws,
        plan: &TransformerStep,
    ) -> Result<PendingReport> {
        let inputs = self.model().of_maps(tokens, self.active(plan.stage))?;
        self.iterate(&inputs, draws, plan)
    }

    /// One iteration. Nothing waits for a GPU: what was found is read from the report later.
    fn iterate(
        &mut self,
        inputs: &Inputs,
        draws: &Draws,
        plan: &TransformerStep,
    ) -> Result<PendingReport> {
        let tape = Tape::new();
        let pass = ForwardPass::on(Cx::on(&tape).with(self.var.math));
        let weights = self.weights(plan.stage);
        let smoothing = self.smoothing;
        let Draws { labels, drop_path } = draws;
        let out = self.model().forward(
            &pass,
            inputs,
            labels,
            drop_path.as_ref(),
            &weights,
            smoothing,
        )?;
        let model = (&self.var.params, &mut self.opt);
        self.sum
            .backward(tape, &out.loss, model, (plan.accumulate, plan.update))?;
        let numbers = if plan.update {
            let params = &mut self.var.params;
            let numbers = self.opt.step(params, plan.lr, plan.wd, plan.clip)?;
            Some(numbers.copy_to_host()?)
        } else {
            None
        };
        Ok(PendingReport {
            loss: out.loss.copy_to_host()?,
            measures: out.measures,
            predicted: ops::histogram(&out.predicted, self.var.config.vocab)?.copy_to_host()?,
            numbers,
        })
    }

    /// Both models, to measure them as they are.
    pub fn model(&self) -> TeacherForcing<'_> {
        TeacherForcing {
            tokenizer: &self.tokenizer,
            var: &self.var,
        }
    }

    /// Scales that take part.
    fn active(&self, stage: Stage) -> usize {
        let all = self.var.config.pyramid.count();
        stage.highest.map_or(all, |k| k + 1)
    }

    /// Weights of the tokens in the loss.
    fn weights(&self, stage: Stage) -> Vec<f32> {
        let pyramid = &self.var.config.pyramid;
        let tokens = pyramid.range(self.active(stage) - 1).end;
        // They stay 1/L of the whole sequence when it is cut.
        let mut weights = vec![1.0 / pyramid.total() as f32; tokens];
        if let Some(k) = stage.highest {
            weights[pyramid.range(k)]
                .iter_mut()
                .for_each(|w| *w *= stage.newest_weight as f32);
        }
        weights
    }

    /// Share of the tokens of `images` that the tokenizer's arithmetic changes against float32, 0 to 1.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn tokens_changed(&self, images: &Tensor) -> Result<f64> {
        let pyramid = &self.var.config.pyramid;
        let vqvae = self.tokenizer.for_images()?;
        let used = vqvae.tokenize(images, pyramid)?;
        let exact = vqvae.tokenize_in(Math::FULL, images, pyramid)?;
        let (mut changed, mut all) = (0, 0);
        for (a, b) in used.iter().zip(&exact) {
            let (a, b) = (a.to(Device::Cpu)?, b.to(Device::Cpu)?);
            changed += a
                .i32()?
                .iter()
                .zip(b.i32()?)
                .filter(|(a, b)| a != b)
                .count();
            all += a.numel();
        }
        Ok(changed as f64 / all.max(1) as f64)
    }

    /// The random draws of iteration `it` for checked labels, sent in one copy that nobody waits for.
    fn draws(&mut self, labels: &[i32], it: u64) -> Result<Draws> {
        self.var.check_labels(labels)?;
        let (config, b) = (&self.var.config, labels.len());
        let factors = DropPath::draw(config, b, self.seed, it, self.first(b));
        let dropped = self.drop_labels(labels, it);
        let labels = (Shape::from([b]), Values::Integers(&dropped));
        let Some(factors) = factors else {
            let [labels] = self.feed.together([labels])?;
            return Ok(Draws {
                labels,
                drop_path: None,
            });
        };
        let rows = Shape::from([2 * config.depth, b]);
        let factors = (rows, Values::Floats(&factors));
        let [labels, factors] = self.feed.together([labels, factors])?;
        Ok(Draws {
            labels,
            drop_path: Some(DropPath::new(config, factors)?),
        })
    }

    /// Number of this process's first sample in the batch of all, each of which has `b`.
    fn first(&self, b: usize) -> u64 {
        (self.sum.world().rank() * b) as u64
    }

    /// Labels after class dropout at iteration `it`.
    fn drop_labels(&self, labels: &[i32], it: u64) -> Vec<i32> {
        let s = Stream::new(self.seed, Purpose::ClassDrop, it, 0);
        let first = self.first(labels.len());
        let rate = self.var.config.class_drop;
        labels
            .iter()
            .zip(first..)
            .map(|(&l, sample)| {
                if f64::from(s.uniform_at(sample)) < rate {
                    self.var.no_class()
                } else {
                    l
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
