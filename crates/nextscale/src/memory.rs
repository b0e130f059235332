//! How much of a GPU's memory a pass takes, what fits, and what to say when it does not.
//!
//! Nothing here is a formula: the pass itself runs on a dry GPU ([`nextscale_tensor::cuda::dry`]), which counts what
//! operators ask for, so that a change of a model or an operator is known here at once.

use crate::generate::{BatchSampler, SampleOptions, Sampler};
use crate::model::var::{Var, VarConfig};
use crate::model::vqvae::{Vqvae, VqvaeConfig};
use crate::train::plan::process_batch;
use crate::train::tokenizer_trainer::{TokenizerStep, TokenizerTrainer};
use crate::train::var_trainer::{StepPlan, VarTrainer};
use crate::{Error, Result};
use nextscale_tensor::cuda::{Gpu, GpuInfo, dry, gib};
use nextscale_tensor::{DType, Device, Math, Tensor};

/// What is left for libraries and their kernels, which the pool knows nothing of, and for the scratch memory that a
/// convolution may take.
pub const RESERVE: usize = 3 << 29;

/// Images that an evaluation during training draws at most.
pub(crate) const DRAWN: usize = 16;

/// What a pass takes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The most that is alive at once. With less the pass fails.
    pub least: usize,
    /// The same of the first pass, in which algorithms are tried.
    pub first: usize,
    /// What the pool holds in the long run where it never gives anything back: with less, every pass has to ask the driver
    /// for memory again, which waits for the GPU.
    pub held: usize,
}

impl Need {
    /// Bytes that must be free for the pass to run.
    pub fn bytes(&self) -> usize {
        self.least.max(self.first) + RESERVE
    }

    /// Whether a pass runs with so many bytes free.
    pub fn fits(&self, free: usize) -> bool {
        self.bytes() <= free
    }

    /// Whether it runs at full speed.
    pub fn fits_well(&self, free: usize) -> bool {
        self.bytes().max(self.held + RESERVE) <= free
    }
}

/// A kind of pass, whose memory follows from the number of images.
pub enum Pass<'a> {
    /// Training a transformer with a frozen tokenizer, and the evaluations between.
    Train {
        /// The transformer.
        var: &'a VarConfig,
        /// The tokenizer.
        vqvae: &'a VqvaeConfig,
        /// Whether tokens are at hand, so that no image is encoded.
        from_tokens: bool,
        /// Arithmetic of both.
        math: [Math; 2],
    },
    /// Training a tokenizer.
    TrainTokenizer {
        /// The tokenizer.
        vqvae: &'a VqvaeConfig,
        /// Its arithmetic.
        math: Math,
    },
    /// A transformer's losses.
    Evaluate {
        /// The transformer.
        var: &'a VarConfig,
        /// The tokenizer.
        vqvae: &'a VqvaeConfig,
        /// Arithmetic of both.
        math: Math,
    },
    /// Drawing batch after batch.
    Sample {
        /// The transformer.
        var: &'a VarConfig,
        /// The tokenizer.
        vqvae: &'a VqvaeConfig,
        /// Arithmetic of both.
        math: Math,
        /// How images are drawn.
        options: &'a SampleOptions,
    },
    /// Images to tokens and, if `back`, to images again.
    Tokenize {
        /// The tokenizer.
        vqvae: &'a VqvaeConfig,
        /// Its arithmetic.
        math: Math,
        /// Whether the decoder follows.
        back: bool,
    },
}

/// A kind of pass on a dry GPU.
pub struct Estimate<'a> {
    device: Device,
    gpu: &'static Gpu,
    pass: Pass<'a>,
}

impl<'a> Estimate<'a> {
    /// For GPUs like this one.
    ///
    /// # Errors
    /// When there are too many dry GPUs to count.
    pub fn new(like: &GpuInfo, pass: Pass<'a>) -> Result<Self> {
        let device = dry::device(like);
        let gpu = device
            .gpu()?
            .ok_or_else(|| Error::failed("a dry GPU is a GPU"))?;
        Ok(Self { device, gpu, pass })
    }

    /// What the pass takes for `batch` images at a time.
    ///
    /// # Errors
    /// When the models can't be built.
    pub fn need(&self, batch: usize) -> Result<Need> {
        self.gpu.trim()?;
        self.gpu.reset_peak();
        match self.pass {
            Pass::Train {
                var,
                vqvae,
                from_tokens,
                math,
            } => self.train((var, vqvae), from_tokens, math, batch),
            Pass::TrainTokenizer { vqvae, math } => self.train_tokenizer(vqvae, math, batch),
            Pass::Evaluate { var, vqvae, math } => {
                let trainer = self.trainer(var, vqvae, [math, math], false)?;
                self.repeated(|_| self.evaluate(&trainer, false, batch))
            }
            Pass::Sample {
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
                let mut batches = BatchSampler::new(sampler, options.clone(), batch);
                let labels = vec![0; batch];
                for _ in 0..3 {
                    batches.draw(&labels, 0)?;
                }
                let u = self.gpu.usage();
                Ok(Need {
                    least: u.peak,
                    first: u.peak,
                    held: u.held,
                })
            }
            Pass::Tokenize { vqvae, math, back } => {
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

    /// Images on the device, and the bytes from which they were made: one batch in use, one on its way.
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
    pub fn shortage(&self, gpu: &GpuInfo, batch: usize, room: usize) -> Result<String> {
        match self.need(batch) {
            Ok(need) => Ok(shortage(gpu, batch, need, room)),
            Err(Error::Tensor(nextscale_tensor::Error::TooMany(why))) => Ok(why),
            Err(e) => Err(e),
        }
    }

    fn images(&self, vqvae: &VqvaeConfig, batch: usize) -> Result<(Tensor, [Tensor; 2])> {
        let (h, w) = vqvae.pyramid.finest();
        let step = vqvae.downsample();
        let shape = [batch, h * step, w * step, 3];
        let bytes = shape.iter().product::<usize>();
        let slot = || Tensor::zeros_on(self.device, [bytes.div_ceil(4)], DType::I32);
        let images = Tensor::zeros_on(self.device, shape, DType::F32)?;
        Ok((images, [slot()?, slot()?]))
    }

    /// Runs a pass for the first time, then as it goes on.
    fn repeated(&self, mut pass: impl FnMut(u64) -> Result<()>) -> Result<Need> {
        pass(0)?;
        let first = self.gpu.usage().peak;
        self.gpu.trim()?;
        self.gpu.reset_peak();
        for it in 1..3 {
            pass(it)?;
        }
        let u = self.gpu.usage();
        Ok(Need {
            least: u.peak,
            first,
            held: u.held,
        })
    }

    fn trainer(
        &self,
        var: &VarConfig,
        vqvae: &VqvaeConfig,
        [var_math, vqvae_math]: [Math; 2],
        trainable: bool,
    ) -> Result<VarTrainer> {
        let vqvae = Vqvae::on(vqvae.clone(), false, self.device, vqvae_math)?;
        let var = Var::on(var.clone(), trainable, self.device, var_math)?;
        VarTrainer::new(vqvae, var, 0.0, 0)
    }

    /// Rows of tokens, as they come from a file.
    fn rows(&self, vqvae: &VqvaeConfig, batch: usize) -> Result<Tensor> {
        let shape = [batch, vqvae.pyramid.total()];
        Ok(Tensor::zeros_on(self.device, shape, DType::I32)?)
    }

    fn evaluate(&self, trainer: &VarTrainer, from_tokens: bool, batch: usize) -> Result<()> {
        let (vqvae, labels) = (trainer.tokenizer.config(), vec![0; batch]);
        let measures = if from_tokens {
            trainer.evaluate_rows(&self.rows(vqvae, batch)?, &labels)
        } else {
            let (images, _slots) = self.images(vqvae, batch)?;
            trainer.evaluate(&images, &labels)
        };
        measures.map(|_| ())
    }

    fn train(
        &self,
        (var, vqvae): (&VarConfig, &VqvaeConfig),
        from_tokens: bool,
        math: [Math; 2],
        batch: usize,
    ) -> Result<Need> {
        let mut trainer = self.trainer(var, vqvae, math, true)?;
        let labels = vec![0; batch];
        let steps = self.repeated(|it| {
            let plan = StepPlan::whole(it);
            let late = if from_tokens {
                trainer.step_rows(&self.rows(vqvae, batch)?, &labels, &plan)
            } else {
                let (images, _slots) = self.images(vqvae, batch)?;
                trainer.step(&images, &labels, &plan)
            };
            late.map(|_| ())
        })?;
        // An evaluation may give cached memory back, since there are few of them: only what is alive counts.
        self.gpu.trim()?;
        self.gpu.reset_peak();
        self.evaluate(&trainer, from_tokens, evaluation_batch(batch))?;
        let sampler = Sampler {
            var: &trainer.var,
            vqvae: trainer.tokenizer.for_images()?,
        };
        let labels = vec![0; DRAWN];
        sampler.draw(&labels, 0, &SampleOptions::default(), None, None)?;
        let evaluation = self.gpu.usage().peak;
        Ok(Need {
            least: steps.least.max(evaluation),
            ..steps
        })
    }

    fn train_tokenizer(&self, vqvae: &VqvaeConfig, math: Math, batch: usize) -> Result<Need> {
        let vqvae = Vqvae::on(vqvae.clone(), true, self.device, math)?;
        let mut trainer = TokenizerTrainer::new(vqvae, (0.9, 0.95), (0.2, 1.0), 0)?;
        self.repeated(|it| {
            let (images, _slots) = self.images(&trainer.vqvae.config, batch)?;
            let plan = TokenizerStep::usual(it);
            trainer.step(&images, &plan).map(|_| ())
        })
    }
}

/// Images at a time in the evaluations of a training run with `batch` images a step.
pub fn evaluation_batch(batch: usize) -> usize {
    ((batch as f64 * 1.5).round_ties_even() as usize).max(1)
}

/// The largest number from 1 to `most` that fits, where fewer always fit too; `None` where not even 1 does.
///
/// # Errors
/// What `fits` returns.
pub fn largest(most: usize, mut fits: impl FnMut(usize) -> Result<bool>) -> Result<Option<usize>> {
    // What fits below, and what does not above.
    let (mut below, mut above) = (0, most.saturating_add(1));
    while above - below > 1 {
        let middle = below + (above - below) / 2;
        if fits(middle)? {
            below = middle;
        } else {
            above = middle;
        }
    }
    Ok((below > 0).then_some(below))
}

/// Bytes that a run on this GPU can have when it has let go of everything that it holds.
///
/// # Errors
/// When the driver refuses.
pub fn room(gpu: &Gpu) -> Result<usize> {
    Ok(gpu.free_memory()? + gpu.usage().used)
}

/// The error to show for `e`: where a GPU's memory is full, one line with what `batch` images at a time need, what there
/// is, and the largest number that fits, as a value of `flag`.
pub fn advise(e: Error, device: Device, flag: &str, batch: usize, pass: Pass<'_>) -> Error {
    if !e.is_memory() {
        return e;
    }
    let line = || -> Result<String> {
        let gpu = device.gpu()?.ok_or_else(|| Error::failed("no GPU"))?;
        let (room, estimate) = (room(gpu)?, Estimate::new(gpu.info(), pass)?);
        let short = estimate.shortage(gpu.info(), batch, room)?;
        let most = largest(batch - 1, |b| estimate.fits(b, room))?;
        Ok(format!(
            "--{flag}={batch}: {short}; {}",
            match most {
                Some(n) => format!("the largest that fits is --{flag}={n}"),
                None => "not even one image at a time fits: use a GPU with more memory".into(),
            }
        ))
    };
    // Where nothing can be said, the cause is.
    line().map_or(e, Error::Input)
}

/// What is needed and what there is, in words.
pub fn shortage(gpu: &GpuInfo, batch: usize, need: Need, room: usize) -> String {
    format!(
        "{batch} images at a time need {} of memory, and of the {} of GPU {} ({}) {} can be had",
        gib(need.bytes()),
        gib(gpu.memory),
        gpu.ordinal,
        gpu.name,
        gib(room)
    )
}

/// Accumulated iterations for `images` a step: the fewest, from `from` on, with which the images of one iteration fit.
/// `fits` is asked for images of one iteration of one of `world` processes; fewer always fit too. `None` where not even
/// single images do.
///
/// Accumulations that divide the images of a step evenly are preferred, up to twice the fewest: then a step has as many
/// images as asked for, and the learning rate, which follows from them, is the one without accumulation.
///
/// # Errors
/// What `fits` returns.
pub fn accumulation(
    images: usize,
    from: usize,
    world: usize,
    mut fits: impl FnMut(usize) -> Result<bool>,
) -> Result<Option<usize>> {
    let batch = |ac| process_batch(images, ac, world);
    let whole = batch(from)?;
    let Some(most) = (if fits(whole)? {
        Some(whole)
    } else {
        largest(whole - 1, fits)?
    }) else {
        return Ok(None);
    };
    let last = (images / world).max(from);
    let mut fitting = (from..=last).filter(|&ac| batch(ac).is_ok_and(|b| b <= most));
    let Some(fewest) = fitting.next() else {
        return Ok(None);
    };
    let even = (fewest..=last.min(2 * fewest)).find(|ac| images.is_multiple_of(ac * world));
    Ok(Some(even.unwrap_or(fewest)))
}

#[cfg(test)]
mod tests;
