//! One training step of the tokenizer, and its evaluation.

use super::codebook_usage::HitAverages;
use super::gradients::GradientSum;
use super::loss_scale::scaler_of;
use super::optimizer::{BETAS, Optimizer, PendingNumbers};
use super::tokenizer_losses::{Loss, Losses};
use crate::model::ForwardPass;
use crate::model::perceptual::Perceptual;
use crate::model::vqvae::state_dict::is_decayed;
use crate::model::vqvae::{CODEBOOK, DropoutDraw, Vqvae};
use crate::world::{self, Number, Summed};
use crate::{Error, Result};
use nextscale_tensor::PendingTensor;
use nextscale_tensor::rng::{Purpose, Stream};
use nextscale_tensor::{Cx, Device, Tape, Tensor};
use std::sync::Arc;

/// The tokenizer with its optimizer's state.
pub struct TokenizerTrainer {
    /// The tokenizer.
    pub vqvae: Vqvae,
    /// Optimizer state.
    pub opt: Optimizer,
    /// Codebook usage.
    pub hits: HitAverages,
    /// How it is trained.
    pub settings: TokenizerSettings,
    /// By what images are compared beside their pixels.
    pub perceptual: Option<Arc<Perceptual>>,
    /// The processes that train together.
    pub sum: GradientSum,
}

/// How a tokenizer is trained, whatever the step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenizerSettings {
    /// AdamW's two decay rates.
    pub betas: (f64, f64),
    /// Weight of the mean absolute error.
    pub l1: f32,
    /// Weight of the mean squared error.
    pub l2: f32,
    /// Weight of the perceptual distance, where there is a network for it.
    pub lp: f32,
    /// Decay of the average of the weights, where one is kept.
    pub ema: Option<f64>,
    /// Seed of everything random in a step.
    pub seed: u64,
}

impl Default for TokenizerSettings {
    fn default() -> Self {
        Self {
            betas: BETAS,
            l1: 0.2,
            l2: 1.0,
            lp: 1.0,
            ema: None,
            seed: 0,
        }
    }
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
    /// Iterations whose gradients are summed for an update.
    pub accumulate: usize,
    /// Whether this is the last of them, which ends in the update.
    pub update: bool,
}

impl TokenizerStep {
    /// An iteration with usual settings, for what counts or times steps.
    pub fn usual(it: u64) -> Self {
        Self {
            it,
            lr: 1e-4,
            wd: 0.0,
            clip: Some(2.0),
            accumulate: 1,
            update: true,
        }
    }
}

/// What an iteration found.
#[derive(Clone, Debug)]
pub struct TokenizerReport {
    /// The loss that was minimised.
    pub loss: f64,
    /// Its parts, without their weights.
    pub losses: Vec<(Loss, f64)>,
    /// Gradient norm before clipping, where there was an update; not a finite number where the update was left out.
    pub grad_norm: Option<f64>,
    /// The loss scale after the iteration; 1 without one.
    pub scale: f64,
    /// Whether gradients were not finite and the update was left out.
    pub skipped: bool,
}

impl TokenizerReport {
    /// A part of the loss, where there is one of that kind.
    pub fn of(&self, loss: Loss) -> Option<f64> {
        let found = self.losses.iter().find(|(kind, _)| *kind == loss);
        found.map(|(_, value)| *value)
    }
}

/// [`TokenizerReport`] on its way, with how often each code was hit.
#[derive(Debug)]
pub struct PendingTokenizerReport {
    loss: PendingTensor,
    losses: Vec<(Loss, PendingTensor)>,
    hits: Vec<PendingTensor>,
    numbers: Option<PendingNumbers>,
}

/// What a process finds on its own samples: losses, and how often each code was hit, by scale.
struct Found {
    losses: Vec<f64>,
    hits: Vec<Vec<u32>>,
}

impl Summed for Found {
    fn numbers(&mut self) -> Vec<&mut dyn Number> {
        let losses = self.losses.iter_mut().map(|n| n as &mut dyn Number);
        let hits = self.hits.iter_mut().flatten().map(|n| n as &mut dyn Number);
        losses.chain(hits).collect()
    }
}

/// What [`TokenizerTrainer::revive`] moves, and where to.
pub struct DeadCodes {
    codes: Vec<usize>,
    /// \[n, Cvae\].
    vectors: Tensor,
}

impl TokenizerTrainer {
    /// A trainer with fresh optimizer state. Convolution and linear weights and the codebook are decayed, norms and
    /// biases are not.
    ///
    /// # Errors
    /// When the GPU's memory is full.
    pub fn new(vqvae: Vqvae, settings: TokenizerSettings) -> Result<Self> {
        let mut opt = Optimizer::new(
            &vqvae.params,
            settings.betas,
            |_, shape| is_decayed(shape.len()),
            scaler_of(vqvae.math),
        )?;
        opt.keep_average(&vqvae.params, settings.ema)?;
        let hits = HitAverages::new(vqvae.config.pyramid.count(), vqvae.config.vocab);
        Ok(Self {
            vqvae,
            opt,
            hits,
            settings,
            perceptual: None,
            sum: GradientSum::alone(),
        })
    }

    /// One iteration on images \[B, R, R, 3\] in \[−1, 1\].
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn step(
        &mut self,
        images: &Tensor,
        plan: &TokenizerStep,
    ) -> Result<PendingTokenizerReport> {
        let tape = Tape::new();
        let pass = ForwardPass::on(Cx::on(&tape).with(self.vqvae.math));
        let drop = DropoutDraw {
            seed: self.settings.seed,
            step: plan.it,
            first: (self.sum.world().rank() * images.dims()[0]) as u64,
        };
        let out = self.vqvae.train_forward(&pass, images, Some(drop))?;
        let TokenizerSettings { l1, l2, lp, .. } = self.settings;
        let terms = Losses::of(
            &pass.cx,
            (images, &out.image),
            out.vq_loss.clone(),
            (l2, l1),
            self.perceptual.as_deref().map(|network| (network, lp)),
        )?;
        let loss = terms.sum(&pass.cx)?;
        let on_the_way = loss.copy_to_host()?;
        let losses = terms.to_host()?;
        let hits = out
            .hits
            .iter()
            .map(Tensor::copy_to_host)
            .collect::<nextscale_tensor::Result<_>>()?;
        drop_all((out, terms));
        let model = (&self.vqvae.params, &mut self.opt);
        self.sum
            .backward(tape, &loss, model, (plan.accumulate, plan.update))?;
        let numbers = if plan.update {
            let params = &mut self.vqvae.params;
            let numbers = self.opt.step(params, plan.lr, plan.wd, plan.clip)?;
            Some(numbers.copy_to_host()?)
        } else {
            None
        };
        Ok(PendingTokenizerReport {
            loss: on_the_way,
            losses,
            hits,
            numbers,
        })
    }

    /// The report of a step; waits for it, and takes its hits into the averages. Steps are to be read in order.
    ///
    /// # Errors
    /// When the GPU failed.
    pub fn read(&mut self, pending: PendingTokenizerReport) -> Result<TokenizerReport> {
        let read = |f: PendingTensor| -> Result<f64> { Ok(f64::from(f.wait()?.scalar()?)) };
        let mut losses = vec![read(pending.loss)?];
        let mut kinds = Vec::new();
        for (kind, value) in pending.losses {
            kinds.push(kind);
            losses.push(read(value)?);
        }
        let numbers = pending.numbers.map(PendingNumbers::wait).transpose()?;
        let hits = pending.hits.into_iter().map(PendingTensor::wait);
        let found = Found {
            losses,
            hits: counts(hits)?,
        };
        let Found { losses, hits } = world::sum(self.sum.world(), found)?;
        let share = |sum: &f64| sum / self.sum.world().size() as f64;
        let losses: Vec<f64> = losses.iter().map(share).collect();
        self.hits.record(&hits);
        Ok(TokenizerReport {
            loss: losses[0],
            losses: kinds.into_iter().zip(losses[1..].iter().copied()).collect(),
            grad_norm: numbers.map(|n| n.norm),
            scale: numbers.map_or(1.0, |n| n.scale),
            skipped: numbers.is_some_and(|n| n.skipped),
        })
    }
}

/// How a dead code is told: fewer average hits a batch, over all scales, than this.
const DEAD_BELOW: f32 = 0.02;

impl TokenizerTrainer {
    /// Fills the codebook with vectors that the untrained encoder makes of `images`, the residuals of every scale in
    /// turn: codes then start where features are, and most are in use from the beginning.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn seed_codebook(&mut self, images: &Tensor) -> Result<()> {
        let vocab = self.vqvae.config.vocab;
        let scales = self.vqvae.config.pyramid.count();
        let pass = ForwardPass::plain(self.vqvae.math);
        let f = self.vqvae.features(&pass, images, None)?.to(Device::Cpu)?;
        let mut squares = [f.f32()?.iter().map(|v| f64::from(v * v)).sum::<f64>()];
        self.sum.world().sum(&mut squares)?;
        let mean_square = squares[0] / (f.numel().max(1) * self.sum.world().size()) as f64;
        let scale = (1.0 / mean_square.sqrt().max(1e-6)) as f32;
        // Features of unit size: what the decoder's first layer and the codebook's learning rate expect.
        for name in ["quant_conv.weight", "quant_conv.bias"] {
            let mut values = self.vqvae.params.export(name)?;
            values.iter_mut().for_each(|w| *w *= scale);
            self.vqvae.params.import(name, &values)?;
        }
        let f = self.vqvae.features(&pass, images, None)?;
        let mut filled = 0;
        for k in 0..scales {
            let z = self
                .vqvae
                .quantizer
                .residuals(&self.vqvae.params, &f, filled)?;
            let vectors = self.of_all(&z[k])?;
            let rows = vectors.dims()[0];
            // Coarse scales have few vectors; what they leave goes to the finer ones.
            let share = (vocab - filled) / (scales - k);
            let last = k + 1 == scales;
            let n = if last {
                vocab - filled
            } else {
                share.min(rows)
            };
            let codes: Vec<usize> = (filled..filled + n).collect();
            self.put_codes(&codes, &vectors, k as u64)?;
            filled += n;
        }
        Ok(())
    }

    /// Codes that are hardly ever hit, if there are any, and vectors of the current batch in their stead.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn dead_codes(&self, images: &Tensor) -> Result<Option<DeadCodes>> {
        let vocab = self.vqvae.config.vocab;
        let dead: Vec<usize> = (0..vocab)
            .filter(|&v| self.hits.ema.iter().map(|e| e[v]).sum::<f32>() < DEAD_BELOW)
            .collect();
        if dead.is_empty() {
            return Ok(None);
        }
        let pass = ForwardPass::plain(self.vqvae.math);
        let f = self.vqvae.features(&pass, images, None)?;
        let z = self
            .vqvae
            .quantizer
            .residuals(&self.vqvae.params, &f, vocab)?;
        // Spread over the scales by their number of vectors: residuals side by side.
        let rows: usize = z.iter().map(|z| z.dims()[0]).sum::<usize>() * self.sum.world().size();
        let c = self.vqvae.config.cvae;
        let mut all = Vec::with_capacity(rows * c);
        for z in &z {
            all.extend_from_slice(self.of_all(z)?.f32()?);
        }
        Ok(Some(DeadCodes {
            codes: dead,
            vectors: Tensor::from_vec([rows, c], all),
        }))
    }

    /// Moves dead codes to vectors of the current batch (random restart; Dhariwal et al. 2020, "Jukebox", section 3.2).
    ///
    /// # Errors
    /// When shapes do not fit; some codes may have moved then.
    pub fn revive(&mut self, dead: &DeadCodes, it: u64) -> Result<()> {
        self.put_codes(&dead.codes, &dead.vectors, 1000 + it)?;
        // A revived code counts as in use until the averages say otherwise.
        for &v in &dead.codes {
            self.hits
                .ema
                .iter_mut()
                .for_each(|e| e[v] = e[v].max(2.0 * DEAD_BELOW));
        }
        Ok(())
    }

    /// The rows of all processes \[n·processes, C\], in their order, on the CPU.
    fn of_all(&self, rows: &Tensor) -> Result<Tensor> {
        let rows = rows.to(Device::Cpu)?;
        if self.sum.world().size() == 1 {
            return Ok(rows);
        }
        let bytes: Vec<u8> = rows.f32()?.iter().flat_map(|v| v.to_le_bytes()).collect();
        let all = self.sum.world().gather(&bytes)?.concat();
        let (values, _) = all.as_chunks::<4>();
        let values: Vec<f32> = values.iter().map(|&v| f32::from_le_bytes(v)).collect();
        let c = rows.dims()[1];
        Ok(Tensor::from_vec([values.len() / c.max(1), c], values))
    }

    /// Sets codes to randomly chosen vectors \[n, Cvae\], a little off where one is used twice, and forgets their
    /// moments.
    fn put_codes(&mut self, codes: &[usize], vectors: &Tensor, draw: u64) -> Result<()> {
        let c = self.vqvae.config.cvae;
        let rows = vectors.dims()[0];
        let vectors = vectors.to(Device::Cpu)?;
        let values = vectors.f32()?;
        let mean_square =
            values.iter().map(|v| f64::from(v * v)).sum::<f64>() / values.len().max(1) as f64;
        let jitter = 0.05 * mean_square.sqrt() as f32;
        let mut s = Stream::new(self.settings.seed, Purpose::Init, draw, 2);
        let order = s.permutation(rows);
        let params = &mut self.vqvae.params;
        let Some(info) = params.info(CODEBOOK).cloned() else {
            return Err(Error::failed("a tokenizer has a codebook"));
        };
        let mut table = params.export(CODEBOOK)?;
        let mut moments = [&mut self.opt.exp_avg, &mut self.opt.exp_avg_sq];
        let mut kept = [moments[0].export(&info)?, moments[1].export(&info)?];
        for (i, &code) in codes.iter().enumerate() {
            let source = order[i % rows] as usize * c;
            let at = code * c;
            for (j, v) in table[at..at + c].iter_mut().enumerate() {
                let off = if i < rows { 0.0 } else { jitter * s.normal() };
                *v = values[source + j] + off;
            }
            kept.iter_mut().for_each(|m| m[at..at + c].fill(0.0));
        }
        params.import(CODEBOOK, &table)?;
        // Of a code that begins anew the average does too.
        if let Some(average) = self.opt.average.as_mut().filter(|a| a.has_begun()) {
            let mut averaged = average.weights.export(&info)?;
            for &code in codes {
                let row = code * c..(code + 1) * c;
                averaged[row.clone()].copy_from_slice(&table[row]);
            }
            average.weights.import(&info, &averaged)?;
        }
        for (moment, kept) in moments.iter_mut().zip(&kept) {
            moment.import(&info, kept)?;
        }
        Ok(())
    }
}

/// Hit counts on the CPU, by scale, as the averages take them.
///
/// # Errors
/// When one is an error or holds floats.
fn counts(hits: impl Iterator<Item = nextscale_tensor::Result<Tensor>>) -> Result<Vec<Vec<u32>>> {
    hits.map(|h| Ok(h?.i32()?.iter().map(|&n| n as u32).collect()))
        .collect()
}

/// Frees what the backward pass does not need before it starts.
fn drop_all<T>(_: T) {}
