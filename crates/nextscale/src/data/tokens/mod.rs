//! Images as tokens in a file: training without decoding, cropping or tokenizing.
//!
//! A token file is a safetensors file: `tokens` \[N, crops, L\] (all scales, coarse to fine; 16 bits each where the codebook
//! allows it, else int32), `labels` \[N\] int32, and the tokenizer's `quantize.*`, which makes the transformer's input. Its
//! free text says what it was made with. Files whose `tokens` are \[N, L\], without the rest, are read too.

mod loader;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use loader::{TokenBatch, TokenLoader};
pub use read::TokenFile;
pub use write::{PutTokens, TokenSet, write_tokens};

use crate::canvas::Canvas;
use crate::format::HostTensor;
use crate::format::StateDict;
use crate::model::state::params_state;
use crate::{Error, Result};
use nextscale_tensor::Params;
use serde::{Deserialize, Serialize};

/// The metadata key of [`TokenInfo`] as JSON.
pub const TOKENS_KEY: &str = "nextscale.tokens";

const TOKENS: &str = "tokens";
const LABELS: &str = "labels";
/// What the names of the quantizer's weights begin with.
const QUANTIZER: &str = "quantize.";

/// How a token file was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// Crops of an image: 1 is the middle, more are drawn.
    pub crops: usize,
    /// Whether crops were mirrored by chance.
    pub hflip: bool,
    /// Images were resized to this many times their final side before the crop.
    pub mid_reso: f64,
    /// Seed of the crops: crop v is the one that training on images with this seed sees in epoch v.
    pub seed: u64,
    /// What the images were laid on, where it is known.
    #[serde(default)]
    pub canvas: Option<Canvas>,
    /// The tokenizer's [`fingerprint`](crate::model::state::fingerprint).
    pub tokenizer: String,
}

/// The quantizer's weights among `params`.
fn quantizer_state(params: &Params) -> Result<StateDict> {
    let all = params_state(params)?;
    let own = all.iter().filter(|(name, _)| name.starts_with(QUANTIZER));
    Ok(own.map(|(n, t)| (n.to_owned(), t.clone())).collect())
}

fn i32s(values: &[i32]) -> Result<HostTensor> {
    let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    HostTensor::new(crate::format::HostDType::I32, vec![values.len()], data)
}

/// A problem with one token.
fn outside(token: i64, vocab: usize) -> Error {
    Error::input(format!(
        "token {token} is outside the codebook of {vocab} codes"
    ))
}
