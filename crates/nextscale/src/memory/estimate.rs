//! What a workload takes, by running it dry.

use super::{Need, OWN, RESERVE, Room, Workload, drawn, evaluation_batch};
use crate::eval::TeacherForcing;
use crate::generate::{BatchSampler, SampleOptions, Sampler};
use crate::model::ForwardPass;
use crate::model::classifier::{Classifier, ClassifierConfig};
use crate::model::inception::{self, Inception};
use crate::model::perceptual::{COMPARING, Perceptual};
use crate::model::var::{Var, VarConfig};
use crate::model::vqvae::codes::Tokenizer;
use crate::model::vqvae::{Vqvae, VqvaeConfig};
use crate::score::Network;
use crate::train::classifier_trainer::ClassifierTrainer;
use crate::train::schedule::LrWd;
use crate::train::tokenizer_trainer::{TokenizerSettings, TokenizerStep, TokenizerTrainer};
use crate::train::var_trainer::{TransformerStep, VarTrainer};
use crate::{Error, Result};
use nextscale_tensor::cuda::{Gpu, GpuInfo, dry};
use nextscale_tensor::params::{Exchange, Move, Number, Values};
use nextscale_tensor::{DType, Device, Math, Params, Tensor, ops};
use std::sync::Arc;

/// On a CPU operators of the transformer take this part more than a dry run of a GPU's shows: 5 to 9 % of small models.
const BESIDE: usize = 12;

/// Copies of a tensor that there are while it is written to a checkpoint.
const SAVED: usize = 3;

/// Numbers up to which the bytes of a tensor, its copies and the patches of its convolutions can be counted in 64 bits.
const COUNTABLE: f64 = (1u64 << 50) as f64;

/// Numbers in the largest map of a classifier, or in an image.
fn largest_map(config: &ClassifierConfig) -> f64 {
    let maps = config.maps().map(|(side, width)| side * side * width);
    let image = 3 * config.side * config.side;
    maps.max().unwrap_or(0).max(image) as f64
}

/// The first of several processes, which exchanges nothing.
#[derive(Debug)]
struct OneOf(usize);

impl Exchange for OneOf {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        self.0
    }

    fn exchange(&self, _: Values<'_>, _: &[Move]) -> nextscale_tensor::Result<()> {
        Ok(())
    }

    fn join(&self) -> nextscale_tensor::Result<()> {
        Ok(())
    }

    fn sum(&self, _: Number<'_>) -> nextscale_tensor::Result<()> {
        Ok(())
    }
}

/// Shares a transformer's optimizer among so many processes, of which this is the first.
pub(super) fn share_out(var: &mut Var, shares: usize) -> Result<()> {
    if shares > 1 {
        var.params.share_out(Arc::new(OneOf(shares)))?;
    }
    Ok(())
}

/// A workload on a dry GPU, or on one that stands for the CPU.
pub struct Estimate<'a> {
    pub(super) device: Device,
    pub(super) gpu: &'static Gpu,
    /// Whether it stands for the CPU.
    pub(super) cpu: bool,
    pub(super) workload: Workload<'a>,
}

impl<'a> Estimate<'a> {
    /// For GPUs like this one.
    ///
    /// # Errors
    /// When there are too many dry GPUs to count.
    pub fn new(like: &GpuInfo, workload: Workload<'a>) -> Result<Self> {
        Self::dry(dry::device(like), false, workload)
    }

    /// For the CPU, where everything is float32.
    ///
    /// # Errors
    /// As [`Estimate::new`].
    pub fn on_cpu(workload: Workload<'a>) -> Result<Self> {
        Self::dry(dry::cpu(), true, workload.in_float32())
    }

    /// For a device.
    ///
    /// # Errors
    /// As [`Estimate::new`].
    pub fn of(device: Device, workload: Workload<'a>) -> Result<Self> {
        match device.gpu()? {
            Some(gpu) => Self::new(gpu.info(), workload),
            None => Self::on_cpu(workload),
        }
    }

    fn dry(device: Device, cpu: bool, workload: Workload<'a>) -> Result<Self> {
        let gpu = device
            .gpu()?
            .ok_or_else(|| Error::failed("a dry GPU is a GPU"))?;
        Ok(Self {
            device,
            gpu,
            cpu,
            workload,
        })
    }

    /// The most that was taken at once since the last [`Estimate::afresh`]: on a GPU what was alive, since what lies free there makes
    /// room when it is wanted, on a CPU all that its pool held.
    pub(super) fn taken(&self) -> usize {
        self.gpu.usage().peak
    }

    /// Begins another phase: what lies free goes back.
    pub(super) fn afresh(&self) -> Result<()> {
        self.gpu.trim()?;
        self.gpu.reset_peak();
        Ok(())
    }

    fn needed(&self, least: usize, first: usize) -> Need {
        Need {
            least,
            first,
            held: self.gpu.usage().held,
            reserve: if self.cpu { OWN } else { RESERVE },
        }
    }

    /// What the workload takes for `batch` images at a time.
    ///
    /// # Errors
    /// When the models can't be built.
    pub fn need(&self, batch: usize) -> Result<Need> {
        if batch > 1 && self.values(batch) > COUNTABLE {
            return Err(nextscale_tensor::Error::TooMany(format!(
                "{batch} images at a time take more memory than there is anywhere"
            ))
            .into());
        }
        self.afresh()?;
        match self.workload {
            Workload::Train {
                var,
                vqvae,
                from_tokens,
                math,
                ema,
                recompute,
                shares,
            } => {
                let how = (ema, recompute, shares);
                self.train((var, vqvae), from_tokens, math, how, batch)
            }
            Workload::TrainTokenizer {
                vqvae,
                math,
                settings,
                perceptual,
            } => self.train_tokenizer(vqvae, math, (settings, perceptual), batch),
            Workload::TrainClassifier { classifier, math } => {
                self.train_classifier(classifier, math, batch)
            }
            Workload::Evaluate { var, vqvae, math } => {
                let vqvae = Vqvae::on(vqvae.clone(), false, self.device, math)?;
                let tokenizer = Tokenizer::from(vqvae);
                let var = Var::on(var.clone(), false, self.device, math)?;
                let model = TeacherForcing {
                    tokenizer: &tokenizer,
                    var: &var,
                };
                self.repeated(|_| self.evaluate(model, false, batch))
            }
            Workload::Sample {
                var,
                vqvae,
                math,
                options,
            } => {
                let var = Var::on(var.clone(), false, self.device, math)?;
                let vqvae = Vqvae::on(vqvae.clone(), false, self.device, math)?;
                let sampler = Sampler {
                    var: &var,
                    vqvae: &vqvae,
                };
                let labels = vec![0; batch];
                if self.cpu {
                    // Nothing is captured there.
                    return self
                        .repeated(|_| sampler.draw(&labels, 0, options, None, None).map(|_| ()));
                }
                let mut batches = BatchSampler::new(sampler, options.clone(), batch);
                for _ in 0..3 {
                    batches.draw(&labels, 0)?;
                }
                Ok(self.needed(self.taken(), self.taken()))
            }
            Workload::Score { network, math } => self.score(network, math, batch),
            Workload::Tokenize { vqvae, math, back } => {
                let vqvae = Vqvae::on(vqvae.clone(), false, self.device, math)?;
                let pyramid = vqvae.config.pyramid.clone();
                self.repeated(|_| {
                    let (images, _slots) = self.images(&vqvae.config, batch)?;
                    if back {
                        vqvae.reconstruct(&images, &pyramid).map(|_| ())
                    } else {
                        vqvae.tokenize(&images, &pyramid).map(|_| ())
                    }
                })
            }
        }
    }

    /// Numbers in the largest tensor of a workload, or more: as a float, for which nothing is too large.
    fn values(&self, batch: usize) -> f64 {
        let (var, vqvae) = match &self.workload {
            Workload::Train { var, vqvae, .. }
            | Workload::Evaluate { var, vqvae, .. }
            | Workload::Sample { var, vqvae, .. } => (Some(var), vqvae),
            Workload::TrainTokenizer { vqvae, .. } | Workload::Tokenize { vqvae, .. } => {
                (None, vqvae)
            }
            Workload::Score {
                network: Network::Inception(_),
                ..
            } => return batch as f64 * (inception::SIDE * inception::SIDE * 64) as f64,
            Workload::Score {
                network: Network::Own(own),
                ..
            } => return batch as f64 * largest_map(&own.classifier.config),
            Workload::TrainClassifier { classifier, .. } => {
                return batch as f64 * largest_map(classifier);
            }
        };
        let (h, w) = vqvae.pyramid.finest();
        let widest = vqvae.ch_mult.iter().copied().max().unwrap_or(1);
        let step = vqvae.downsample() as f64;
        let map = (h * w) as f64 * step * step * (vqvae.ch * widest) as f64;
        let scores = var.map_or(0.0, |v| {
            let tokens = vqvae.pyramid.total() as f64;
            tokens * (v.hidden() + v.vocab) as f64 + tokens * tokens * v.heads as f64
        });
        batch as f64 * map.max(scores)
    }

    /// Whether so many images at a time can be done in `room` bytes.
    ///
    /// # Errors
    /// As [`Estimate::need`].
    pub fn fits(&self, batch: usize, room: usize) -> Result<bool> {
        self.need_is(batch, |need| need.fits(room))
    }

    /// The same with memory to spare, as [`Need::fits_well`] has it.
    ///
    /// # Errors
    /// As [`Estimate::need`].
    pub fn fits_well(&self, batch: usize, room: usize) -> Result<bool> {
        self.need_is(batch, |need| need.fits_well(room))
    }

    fn need_is(&self, batch: usize, fits: impl Fn(&Need) -> bool) -> Result<bool> {
        match self.need(batch) {
            Ok(need) => Ok(fits(&need)),
            // More than kernels take.
            Err(e) if e.is_memory() => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Why `batch` images at a time do not fit, in words.
    ///
    /// # Errors
    /// As [`Estimate::need`].
    pub fn shortage(&self, batch: usize, room: &Room) -> Result<String> {
        match self.need(batch) {
            Ok(need) => Ok(room.shortage(batch, need)),
            Err(Error::Tensor(nextscale_tensor::Error::TooMany(why))) => Ok(why),
            Err(e) => Err(e),
        }
    }

    /// A tokenizer's images on the device, and the bytes from which they were made: one batch in use, one on its way.
    fn images(&self, vqvae: &VqvaeConfig, batch: usize) -> Result<(Tensor, [Tensor; 2])> {
        let (h, w) = vqvae.pyramid.finest();
        let step = vqvae.downsample();
        self.images_of([batch, h * step, w * step, 3])
    }

    /// The same of a shape.
    fn images_of(&self, shape: [usize; 4]) -> Result<(Tensor, [Tensor; 2])> {
        let bytes = shape.iter().product::<usize>();
        let slot = || Tensor::zeros_on(self.device, [bytes.div_ceil(4)], DType::I32);
        let images = Tensor::zeros_on(self.device, shape, DType::F32)?;
        Ok((images, [slot()?, slot()?]))
    }

    /// Runs the workload for the first time, then as it goes on.
    fn repeated(&self, mut pass: impl FnMut(u64) -> Result<()>) -> Result<Need> {
        pass(0)?;
        let first = self.taken();
        self.afresh()?;
        for it in 1..3 {
            pass(it)?;
        }
        Ok(self.needed(self.taken(), first))
    }

    /// A trainer of these models, with an average, recomputation and shares as a run has them.
    pub(super) fn trainer(
        &self,
        (var, vqvae): (&VarConfig, &VqvaeConfig),
        [var_math, vqvae_math]: [Math; 2],
        (ema, recompute, shares): (Option<f64>, usize, usize),
    ) -> Result<VarTrainer> {
        let vqvae = Vqvae::on(vqvae.clone(), false, self.device, vqvae_math)?;
        let mut var = Var::on(var.clone(), true, self.device, var_math)?;
        share_out(&mut var, shares)?;
        let mut trainer = VarTrainer::new(vqvae, var, 0.0, 0)?;
        trainer.var.recompute = recompute;
        trainer.opt.keep_average(&trainer.var.params, ema)?;
        Ok(trainer)
    }

    /// Rows of tokens, as they come from a file.
    fn rows(&self, vqvae: &VqvaeConfig, batch: usize) -> Result<Tensor> {
        let shape = [batch, vqvae.pyramid.total()];
        Ok(Tensor::zeros_on(self.device, shape, DType::I32)?)
    }

    fn evaluate(&self, model: TeacherForcing<'_>, from_tokens: bool, batch: usize) -> Result<()> {
        let vqvae = model.tokenizer.config();
        let labels = Tensor::zeros_on(self.device, [batch], DType::I32)?;
        let measures = if from_tokens {
            model.measure_rows(&self.rows(vqvae, batch)?, &labels)
        } else {
            let (images, _slots) = self.images(vqvae, batch)?;
            model.measure(&images, &labels)
        };
        measures.map(|_| ())
    }

    /// A step of a transformer's training from images or their tokens.
    pub(super) fn train_step(
        &self,
        trainer: &mut VarTrainer,
        (vqvae, from_tokens): (&VqvaeConfig, bool),
        labels: &[i32],
        it: u64,
    ) -> Result<()> {
        let plan = TransformerStep::whole(it);
        let batch = labels.len();
        let pending = if from_tokens {
            trainer.step_rows(&self.rows(vqvae, batch)?, labels, &plan)
        } else {
            let (images, _slots) = self.images(vqvae, batch)?;
            trainer.step(&images, labels, &plan)
        };
        pending.map(|_| ())
    }

    fn train(
        &self,
        (var, vqvae): (&VarConfig, &VqvaeConfig),
        from_tokens: bool,
        math: [Math; 2],
        settings: (Option<f64>, usize, usize),
        batch: usize,
    ) -> Result<Need> {
        let mut trainer = self.trainer((var, vqvae), math, settings)?;
        let labels = vec![0; batch];
        let steps =
            self.repeated(|it| self.train_step(&mut trainer, (vqvae, from_tokens), &labels, it))?;
        // An evaluation may give cached memory back, since there are few of them.
        self.afresh()?;
        let saving = self.saving(&trainer.var.params);
        trainer.opt.exchange(&mut trainer.var.params)?;
        self.evaluate(trainer.model(), from_tokens, evaluation_batch(batch))?;
        let evaluation = self.taken();
        if self.cpu {
            self.afresh()?;
        }
        let sampler = Sampler {
            var: &trainer.var,
            vqvae: trainer.tokenizer.for_images()?,
        };
        let labels = vec![0; drawn(trainer.var.config.classes)];
        sampler.draw(&labels, 0, &SampleOptions::default(), None, None)?;
        let others = evaluation.max(self.taken()).max(saving);
        let least = steps.least.max(others);
        Ok(Need {
            least: match self.cpu {
                true => least + least / BESIDE,
                false => least,
            },
            ..steps
        })
    }

    /// What there is while a checkpoint is written, in the machine's memory; on a GPU nothing more is taken for it.
    fn saving(&self, params: &Params) -> usize {
        if self.cpu {
            let sizes = params.infos().iter().map(|i| i.shape.numel());
            self.gpu.usage().used + SAVED * 4 * sizes.max().unwrap_or(0)
        } else {
            0
        }
    }

    fn train_tokenizer(
        &self,
        vqvae: &VqvaeConfig,
        math: Math,
        (settings, perceptual): (TokenizerSettings, Option<&Perceptual>),
        batch: usize,
    ) -> Result<Need> {
        let vqvae = Vqvae::on(vqvae.clone(), true, self.device, math)?;
        let mut trainer = TokenizerTrainer::new(vqvae, settings)?;
        let like = |network: &Perceptual| network.like(self.device, COMPARING.math());
        trainer.perceptual = perceptual.map(like).transpose()?.map(Arc::new);
        let steps = self.repeated(|it| {
            let (images, _slots) = self.images(&trainer.vqvae.config, batch)?;
            let plan = TokenizerStep::usual(it);
            trainer.step(&images, &plan).map(|_| ())
        })?;
        self.afresh()?;
        let saving = self.saving(&trainer.vqvae.params);
        trainer.opt.exchange(&mut trainer.vqvae.params)?;
        // What an evaluation measures, and shows afterwards.
        let vqvae = &trainer.vqvae;
        for _ in 0..2 {
            let (images, _slots) = self.images(&vqvae.config, batch)?;
            let (back, _tokens) = vqvae.reconstruct(&images, &vqvae.config.pyramid)?;
            ops::to_unit_range(&back)?;
        }
        Ok(Need {
            least: steps.least.max(saving).max(self.taken()),
            ..steps
        })
    }
    fn score(&self, network: &Network, math: Math, batch: usize) -> Result<Need> {
        let plain = ForwardPass::plain(math);
        match network {
            Network::Inception(_) => {
                let net = Inception::on(self.device, math)?;
                self.repeated(|_| {
                    let shape = [batch, inception::SIDE, inception::SIDE, 3];
                    let (images, _slots) = self.images_of(shape)?;
                    net.forward(&plain, &images).map(|_| ())
                })
            }
            Network::Own(own) => {
                let config = &own.classifier.config;
                let net = Classifier::on(config.clone(), false, self.device, math)?;
                self.repeated(|_| {
                    let (images, _slots) = self.images_of([batch, config.side, config.side, 3])?;
                    net.forward(&plain, &images).map(|_| ())
                })
            }
        }
    }

    fn train_classifier(
        &self,
        config: &ClassifierConfig,
        math: Math,
        batch: usize,
    ) -> Result<Need> {
        let classifier = Classifier::on(config.clone(), true, self.device, math)?;
        let mut trainer = ClassifierTrainer::new(classifier)?;
        let shape = [batch, config.side, config.side, 3];
        let labels = vec![0; batch];
        let at = LrWd { lr: 1e-3, wd: 0.05 };
        let steps = self.repeated(|_| {
            let (images, _slots) = self.images_of(shape)?;
            let classes = Tensor::zeros_on(self.device, [batch], DType::I32)?;
            trainer.step(&images, &classes, &labels, at).map(|_| ())
        })?;
        self.afresh()?;
        let saving = self.saving(&trainer.classifier.params);
        trainer.opt.exchange(&mut trainer.classifier.params)?;
        for _ in 0..2 {
            let (images, _slots) = self.images_of(shape)?;
            let pass = ForwardPass::plain(math);
            trainer.classifier.forward(&pass, &images)?;
        }
        Ok(Need {
            least: steps.least.max(saving).max(self.taken()),
            ..steps
        })
    }
}
