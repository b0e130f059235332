//! A tokenizer's quantizer by itself: all that training on known tokens needs.

use super::super::to_device;
use super::quantizer::Quantizer;
use super::{Vqvae, VqvaeConfig};
use crate::{Error, Result};
use nextscale_tensor::{Device, Params, ParamsBuilder};

/// The codebook and φ of a tokenizer, without encoder and decoder.
pub struct Codes {
    /// What the whole tokenizer was built from.
    pub config: VqvaeConfig,
    /// The weights, `quantize.*` under the reference's names.
    pub params: Params,
    /// The quantizer.
    pub quantizer: Quantizer,
}

impl Codes {
    /// With all weights zero: load them.
    ///
    /// # Errors
    /// When the configuration can't be built.
    pub fn new(config: VqvaeConfig) -> Result<Self> {
        config.check()?;
        let mut b = ParamsBuilder::new();
        let quantizer = Quantizer::new(&mut b, &config);
        Ok(Self {
            config,
            params: b.build(false),
            quantizer,
        })
    }
}

/// A tokenizer, or what is at hand of it.
pub enum Tokenizer {
    /// All of it.
    Whole(Box<Vqvae>),
    /// The quantizer alone.
    Codes(Box<Codes>),
}

impl Tokenizer {
    /// What the whole tokenizer was built from.
    pub fn config(&self) -> &VqvaeConfig {
        match self {
            Self::Whole(v) => &v.config,
            Self::Codes(c) => &c.config,
        }
    }

    /// The quantizer with the parameters that its weights are among.
    pub fn quantizer(&self) -> (&Quantizer, &Params) {
        match self {
            Self::Whole(v) => (&v.quantizer, &v.params),
            Self::Codes(c) => (&c.quantizer, &c.params),
        }
    }

    /// All of it, where it is at hand.
    pub fn whole(&self) -> Option<&Vqvae> {
        match self {
            Self::Whole(v) => Some(v),
            Self::Codes(_) => None,
        }
    }

    /// All of it, for what can't do without.
    ///
    /// # Errors
    /// Where only the quantizer is at hand.
    pub fn for_images(&self) -> Result<&Vqvae> {
        self.whole().ok_or_else(|| {
            Error::input(
                "images need the whole tokenizer, here is only its codebook: give `tokenizer`=FILE",
            )
        })
    }

    /// Moves the weights to `device`; `math` is the arithmetic of the encoder and the decoder there.
    ///
    /// # Errors
    /// When the GPU can't be used or its memory is full.
    pub fn to_device(&mut self, device: Device, math: nextscale_tensor::Math) -> Result<()> {
        match self {
            Self::Whole(v) => v.to_device(device, math),
            Self::Codes(c) => Ok(to_device(&mut c.params, device, None)?),
        }
    }
}

impl From<Vqvae> for Tokenizer {
    fn from(vqvae: Vqvae) -> Self {
        Self::Whole(Box::new(vqvae))
    }
}

impl From<Codes> for Tokenizer {
    fn from(codes: Codes) -> Self {
        Self::Codes(Box::new(codes))
    }
}
