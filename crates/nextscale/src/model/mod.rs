//! The two models: the multi-scale tokenizer ([`vqvae`]) and the transformer ([`var`]). Each is written once, forward
//! only, for training, evaluation, sampling and editing; gradients come from the operators.

pub mod open;
pub mod pyramid;
pub mod state;
pub mod var;
pub mod vqvae;

use nextscale_tensor::{Cx, Tensor};

pub use pyramid::Pyramid;

/// Is shown named intermediate results.
pub type Probe<'a> = dyn Fn(&str, &Tensor) + 'a;

/// How a forward pass runs: with or without a tape, and who looks at what happens inside.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// With a tape for training, without for everything else.
    pub cx: Cx<'a>,
    /// Is shown named intermediate results (for verification against the reference).
    pub probe: Option<&'a Probe<'a>>,
}

impl<'a> Run<'a> {
    /// Without a tape or a probe.
    pub fn off() -> Self {
        Self {
            cx: Cx::off(),
            probe: None,
        }
    }

    /// On a tape.
    pub fn on(cx: Cx<'a>) -> Self {
        Self { cx, probe: None }
    }

    /// Shows a result to the probe, if there is one.
    pub fn see(&self, name: impl FnOnce() -> String, value: &Tensor) {
        if let Some(probe) = self.probe {
            probe(&name(), value);
        }
    }
}
