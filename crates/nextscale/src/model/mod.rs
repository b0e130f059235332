//! The two models: the multi-scale tokenizer ([`vqvae`]) and the transformer ([`var`]). Each is written once, forward
//! only, for training, evaluation, sampling and editing; gradients come from the operators.

pub mod classifier;
pub mod inception;
pub mod layers;
pub mod load_into;
pub mod lpips;
#[cfg(test)]
mod parts_tests;
pub mod perceptual;
pub mod pyramid;
#[cfg(test)]
pub(crate) mod small;
pub mod state;
pub mod var;
pub mod vgg;
pub mod vqvae;

use nextscale_tensor::{Cx, DType, Device, Math, Params, Tensor};

pub use pyramid::Pyramid;

/// The largest side of an image that a model learns from or makes.
pub const MAX_SIDE: usize = 16_384;

/// Is shown named intermediate results.
pub type Probe<'a> = dyn Fn(&str, &Tensor) + 'a;

/// How a forward pass runs: with or without a tape, and who looks at what happens inside.
#[derive(Clone, Copy)]
pub struct ForwardPass<'a> {
    /// With a tape for training, without for everything else.
    pub cx: Cx<'a>,
    /// Is shown named intermediate results (for verification against the reference).
    pub probe: Option<&'a Probe<'a>>,
}

impl<'a> ForwardPass<'a> {
    /// Without a tape or a probe, in float32.
    pub fn off() -> Self {
        Self::plain(Math::FULL)
    }

    /// Without a tape or a probe, products in this arithmetic.
    pub fn plain(math: Math) -> Self {
        Self {
            cx: Cx::off().with(math),
            probe: None,
        }
    }

    /// On a tape.
    pub fn on(cx: Cx<'a>) -> Self {
        Self { cx, probe: None }
    }

    /// The same with float32 operands (TF32 as it was).
    pub fn full(&self) -> Self {
        Self {
            cx: self.cx.full(),
            ..*self
        }
    }

    /// The same in float32 without TF32: for the quantizer, whose choices must not depend on rounding.
    pub fn exact(&self) -> Self {
        Self {
            cx: self.cx.with(Math::FULL),
            ..*self
        }
    }

    /// Shows a result to the probe, if there is one.
    pub fn see(&self, name: impl FnOnce() -> String, value: &Tensor) {
        if let Some(probe) = self.probe {
            probe(&name(), value);
        }
    }
}

/// Moves weights to a device, with a copy in half precision where products read one.
pub(crate) fn to_device(
    params: &mut Params,
    device: Device,
    half: Option<DType>,
) -> nextscale_tensor::Result<()> {
    // A model needs most kernels.
    nextscale_tensor::ops::kernels::compile_together();
    params.to_device(device, half)
}

/// The type of the copy of the weights that products in `math` read, where they do not read the weights themselves.
pub(crate) fn half_copy(math: Math) -> Option<DType> {
    math.operands.is_half().then_some(math.operands)
}
