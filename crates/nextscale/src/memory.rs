//! How much memory a workload takes, on a GPU or a CPU, what fits, and what to say when it does not.
//!
//! Hardly anything here is a formula: the workload itself runs on a dry GPU ([`nextscale_tensor::cuda::dry`]), which counts what
//! operators ask for, so that a change of a model or an operator is known here at once. A dry CPU is one of them.

mod fit;
mod room;

pub use fit::Fit;
pub use room::Room;

use crate::eval::TeacherForcing;
use crate::generate::{BatchSampler, SampleOptions, Sampler};
use crate::model::var::{Var, VarConfig};
use crate::model::vqvae::codes::Tokenizer;
use crate::model::vqvae::{Vqvae, VqvaeConfig};
use crate::options::process_batch;
use crate::train::tokenizer_trainer::{TokenizerSettings, TokenizerStep, TokenizerTrainer};
use crate::train::var_trainer::{TransformerStep, VarTrainer};
use crate::{Error, Result};
use nextscale_tensor::cpu::pool::{OutOfMemory, held_bytes};
use nextscale_tensor::cuda::{Gpu, GpuInfo, dry, gib};
use nextscale_tensor::{DType, Device, Math, Params, Tensor, ops};

/// What is left of a GPU's memory for libraries and their kernels, which the pool knows nothing of, and for the scratch memory
/// that a convolution may take.
pub const RESERVE: usize = 3 << 29;

/// What is left of a machine's memory for the program itself and the images that are being read.
pub const OWN: usize = 256 << 20;

/// On a CPU operators of the transformer take this part more than a dry run of a GPU's shows: 5 to 9 % of small models.
const BESIDE: usize = 12;

/// Copies of a tensor that there are while it is written to a checkpoint.
const SAVED: usize = 3;

/// Numbers up to which the bytes of a tensor, its copies and the patches of its convolutions can be counted in 64 bits.
const COUNTABLE: f64 = (1u64 << 50) as f64;

/// Images that an evaluation during training draws.
pub(crate) fn drawn(classes: usize) -> usize {
    classes.clamp(4, 16)
}

/// What a workload takes, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The most that is alive at once. With less it fails.
    pub least: usize,
    /// The same of the first pass, in which algorithms are tried.
    pub first: usize,
    /// What the pool holds in the long run where it never gives anything back: with less, every pass has to ask the driver
    /// for memory again, which waits for the GPU.
    pub held: usize,
    /// What must be left beside.
    pub reserve: usize,
}

impl Need {
    /// Bytes that must be free for it to run.
    pub fn bytes(&self) -> usize {
        self.least.max(self.first) + self.reserve
    }

    /// Whether it runs with so many bytes free.
    pub fn fits(&self, free: usize) -> bool {
        self.bytes() <= free
    }

    /// Whether it runs at full speed.
    pub fn fits_well(&self, free: usize) -> bool {
        self.bytes().max(self.held + self.reserve) <= free
    }
}

/// What is to be done, whose memory follows from the number of images.
#[derive(Clone, Copy)]
pub enum Workload<'a> {
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
        /// Decay of the average of the weights, where one is kept.
        ema: Option<f64>,
    },
    /// Training a tokenizer, and the evaluations between.
    TrainTokenizer {
        /// The tokenizer.
        vqvae: &'a VqvaeConfig,
        /// Its arithmetic.
        math: Math,
        /// How it is trained.
        settings: TokenizerSettings,
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

impl Workload<'_> {
    /// The same with the arithmetic of a CPU.
    fn in_float32(mut self) -> Self {
        match &mut self {
            Self::Train { math, .. } => *math = [Math::FULL; 2],
            Self::TrainTokenizer { math, .. }
            | Self::Evaluate { math, .. }
            | Self::Sample { math, .. }
            | Self::Tokenize { math, .. } => *math = Math::FULL,
        }
        self
    }
}

/// A workload on a dry GPU, or on one that stands for the CPU.
pub struct Estimate<'a> {
    device: Device,
    gpu: &'static Gpu,
    cpu: bool,
    workload: Workload<'a>,
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
    fn taken(&self) -> usize {
        self.gpu.usage().peak
    }

    /// Begins another phase: what lies free goes back.
    fn afresh(&self) -> Result<()> {
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
            } => self.train((var, vqvae), from_tokens, math, ema, batch),
            Workload::TrainTokenizer {
                vqvae,
                math,
                settings,
            } => self.train_tokenizer(vqvae, math, settings, batch),
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

    /// Images on the device, and the bytes from which they were made: one batch in use, one on its way.
    fn images(&self, vqvae: &VqvaeConfig, batch: usize) -> Result<(Tensor, [Tensor; 2])> {
        let (h, w) = vqvae.pyramid.finest();
        let step = vqvae.downsample();
        let shape = [batch, h * step, w * step, 3];
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

    fn trainer(
        &self,
        var: &VarConfig,
        vqvae: &VqvaeConfig,
        [var_math, vqvae_math]: [Math; 2],
    ) -> Result<VarTrainer> {
        let vqvae = Vqvae::on(vqvae.clone(), false, self.device, vqvae_math)?;
        let var = Var::on(var.clone(), true, self.device, var_math)?;
        VarTrainer::new(vqvae, var, 0.0, 0)
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

    fn train(
        &self,
        (var, vqvae): (&VarConfig, &VqvaeConfig),
        from_tokens: bool,
        math: [Math; 2],
        ema: Option<f64>,
        batch: usize,
    ) -> Result<Need> {
        let mut trainer = self.trainer(var, vqvae, math)?;
        let params = &trainer.var.params;
        trainer.opt.keep_average(params, ema)?;
        let labels = vec![0; batch];
        let steps = self.repeated(|it| {
            let plan = TransformerStep::whole(it);
            let pending = if from_tokens {
                trainer.step_rows(&self.rows(vqvae, batch)?, &labels, &plan)
            } else {
                let (images, _slots) = self.images(vqvae, batch)?;
                trainer.step(&images, &labels, &plan)
            };
            pending.map(|_| ())
        })?;
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
        settings: TokenizerSettings,
        batch: usize,
    ) -> Result<Need> {
        let vqvae = Vqvae::on(vqvae.clone(), true, self.device, math)?;
        let mut trainer = TokenizerTrainer::new(vqvae, settings)?;
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

/// Refuses a batch that a CPU's memory can't hold, in one line as [`advise`] says it, so that nothing is begun that the
/// system would end. A full GPU is an error where it happens.
///
/// # Errors
/// [`Error::Input`] with that line.
pub fn check(device: Device, flag: &str, batch: usize, workload: Workload<'_>) -> Result<()> {
    if device != Device::Cpu {
        return Ok(());
    }
    let Some((room, estimate)) = known(device, workload)? else {
        return Ok(());
    };
    if estimate.fits(batch, room.bytes)? {
        return Ok(());
    }
    Err(too_large(flag, batch, &room, &estimate)?)
}

/// What there is and what a workload takes of it; `None` where the system does not tell what there is, or an operator's kernels can't
/// do what the CPU can.
///
/// # Errors
/// As [`Room::of`] and [`Estimate::of`].
pub fn known<'a>(device: Device, workload: Workload<'a>) -> Result<Option<(Room, Estimate<'a>)>> {
    let Some(room) = Room::of(device)? else {
        return Ok(None);
    };
    let estimate = Estimate::of(device, workload)?;
    let can_tell = !estimate.cpu || estimate.need(1).is_ok();
    Ok(can_tell.then_some((room, estimate)))
}

/// Runs `f`, in which a buffer that the system has no memory for is an error as a full GPU is.
///
/// # Errors
/// What `f` returns, or that the memory is full.
pub fn caught<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    // What was being computed is lost and never looked at again.
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)) {
        Ok(done) => done,
        Err(payload) => match payload.downcast::<OutOfMemory>() {
            Ok(full) => Err(nextscale_tensor::Error::Memory(format!(
                "the memory of this machine is full: {} more are needed, {} are in use here",
                gib(full.bytes),
                gib(held_bytes())
            ))
            .into()),
            Err(other) => std::panic::resume_unwind(other),
        },
    }
}

/// The error to show for `e`: where the memory is full, one line with what `batch` images at a time need, what there
/// is, and the largest number that fits, as a value of `flag`.
pub fn advise(e: Error, device: Device, flag: &str, batch: usize, workload: Workload<'_>) -> Error {
    if !e.is_memory() {
        return e;
    }
    let line = || -> Result<Error> {
        let (room, estimate) =
            known(device, workload)?.ok_or_else(|| Error::failed("not known"))?;
        too_large(flag, batch, &room, &estimate)
    };
    // Where nothing can be said, the cause is.
    line().unwrap_or(e)
}

/// The line for a batch that does not fit, whatever its estimate says.
fn too_large(flag: &str, batch: usize, room: &Room, estimate: &Estimate<'_>) -> Result<Error> {
    let most = largest(batch.saturating_sub(1), |b| estimate.fits(b, room.bytes))?;
    let what_to_do = match most {
        Some(n) => format!("the largest that fits is `{flag}`={n}"),
        None if estimate.cpu => {
            "not even one image at a time fits: use a smaller model or a machine with more memory"
                .into()
        }
        None => "not even one image at a time fits: use a GPU with more memory".into(),
    };
    Ok(Error::input(format!(
        "`{flag}`={batch}: {}; {what_to_do}",
        estimate.shortage(batch, room)?
    )))
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
