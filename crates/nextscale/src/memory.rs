//! How much memory a workload takes, on a GPU or a CPU, what fits, and what to say when it does not.
//!
//! Hardly anything here is a formula: the workload itself runs on a dry GPU ([`nextscale_tensor::cuda::dry`]), which counts what
//! operators ask for, so that a change of a model or an operator is known here at once. A dry CPU is one of them.

mod estimate;
mod fit;
mod room;
mod step;

pub use estimate::Estimate;
pub use fit::{Fit, Fitting};
pub use room::Room;
pub use step::TrainParts;

use crate::generate::SampleOptions;
use crate::model::classifier::ClassifierConfig;
use crate::model::perceptual::Perceptual;
use crate::model::var::VarConfig;
use crate::model::vqvae::VqvaeConfig;
use crate::options::process_batch;
use crate::score::Network;
use crate::train::tokenizer_trainer::TokenizerSettings;
use crate::{Error, Result};
use nextscale_tensor::cpu::pool::{OutOfMemory, held_bytes};
use nextscale_tensor::cuda::gib;
use nextscale_tensor::{Device, Math};

/// What is left of a GPU's memory for libraries and their kernels, which the pool knows nothing of, and for the scratch memory
/// that a convolution may take.
pub const RESERVE: usize = 3 << 29;

/// What is left of a machine's memory for the program itself and the images that are being read.
pub const OWN: usize = 256 << 20;

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
        /// Of so many blocks one is run again for its gradients; 0: none.
        recompute: usize,
        /// Processes that share master weights and moments; 1: each has all of them.
        shares: usize,
    },
    /// Training a tokenizer, and the evaluations between.
    TrainTokenizer {
        /// The tokenizer.
        vqvae: &'a VqvaeConfig,
        /// Its arithmetic.
        math: Math,
        /// How it is trained.
        settings: TokenizerSettings,
        /// By what images are compared beside their pixels.
        perceptual: Option<&'a Perceptual>,
    },
    /// Training a classifier, and the evaluations between.
    TrainClassifier {
        /// The classifier.
        classifier: &'a ClassifierConfig,
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
    /// The features of images by which they are scored.
    Score {
        /// The network.
        network: &'a Network,
        /// Its arithmetic.
        math: Math,
    },
}

impl Workload<'_> {
    /// The same with the arithmetic of a CPU.
    fn in_float32(mut self) -> Self {
        match &mut self {
            Self::Train { math, .. } => *math = [Math::FULL; 2],
            Self::TrainTokenizer { math, .. }
            | Self::TrainClassifier { math, .. }
            | Self::Evaluate { math, .. }
            | Self::Sample { math, .. }
            | Self::Tokenize { math, .. }
            | Self::Score { math, .. } => *math = Math::FULL,
        }
        self
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
