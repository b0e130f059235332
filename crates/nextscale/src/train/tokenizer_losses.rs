//! The losses of a tokenizer, by name.

use crate::Result;
use crate::model::perceptual::Perceptual;
use nextscale_tensor::{Cx, PendingTensor, Tensor, ops};

/// A loss of the tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The quantizer's: codes and commitment to them.
    Quantizer,
    /// Mean squared error of the image.
    L2,
    /// Mean absolute error of the image.
    L1,
    /// How unlike the image looks.
    Perceptual,
}

impl Loss {
    /// Its name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quantizer => "vq_loss",
            Self::L2 => "l2",
            Self::L1 => "l1",
            Self::Perceptual => "perceptual",
        }
    }
}

/// Losses of a step, each with its weight, in the order in which they are added.
#[derive(Default)]
pub struct Losses {
    kinds: Vec<Loss>,
    terms: Vec<(Tensor, f32)>,
}

impl Losses {
    /// What a reconstruction costs: the quantizer's loss, and how far the image is from the original. `weights` are those of the
    /// squared and the absolute error; a perceptual distance comes with its own.
    ///
    /// # Errors
    /// When shapes differ.
    pub fn of(
        cx: &Cx<'_>,
        (original, restored): (&Tensor, &Tensor),
        quantizer: Tensor,
        (l2, l1): (f32, f32),
        perceptual: Option<(&Perceptual, f32)>,
    ) -> Result<Self> {
        let mut losses = Self::default();
        losses.add(Loss::Quantizer, quantizer, 1.0);
        losses.add(Loss::L2, ops::mse(cx, restored, original)?, l2);
        losses.add(Loss::L1, ops::l1(cx, restored, original)?, l1);
        if let Some((network, weight)) = perceptual {
            let distance = network.mean(cx, original, restored)?;
            losses.add(Loss::Perceptual, distance, weight);
        }
        Ok(losses)
    }

    fn add(&mut self, kind: Loss, value: Tensor, weight: f32) {
        self.kinds.push(kind);
        self.terms.push((value, weight));
    }

    /// What is minimised.
    ///
    /// # Errors
    /// When a loss is no scalar.
    pub fn sum(&self, cx: &Cx<'_>) -> Result<Tensor> {
        Ok(ops::weighted_sum(cx, &self.terms)?)
    }

    /// Their values on the way to the host.
    ///
    /// # Errors
    /// When the GPU failed.
    pub fn to_host(&self) -> Result<Vec<(Loss, PendingTensor)>> {
        let copy = |(kind, (value, _)): (&Loss, &(Tensor, f32))| Ok((*kind, value.copy_to_host()?));
        self.kinds.iter().zip(&self.terms).map(copy).collect()
    }
}
