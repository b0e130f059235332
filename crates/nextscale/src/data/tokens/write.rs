//! Writing a token file as the tokens come.

use super::{LABELS, TOKENS, TOKENS_KEY, TokenInfo, i32s, outside, quantizer_state};
use crate::checkpoint::class_names::{CLASSES_KEY, names_to_text};
use crate::checkpoint::weights::{PATCH_NUMS_KEY, TOKENIZER_KEY, format_patch_nums};
use crate::format::safetensors::{Coming, TextMetadata, write_before};
use crate::format::{HostDType, HostTensor, write_atomic};
use crate::model::Pyramid;
use crate::model::vqvae::Vqvae;
use crate::{Error, Result};
use nextscale_tensor::ops::NO_CODE;
use std::io;
use std::path::Path;

/// What is known of a set of images before their tokens.
pub struct TokenSet<'a> {
    /// The tokenizer.
    pub vqvae: &'a Vqvae,
    /// The scales, square.
    pub pyramid: &'a Pyramid,
    /// The classes' names.
    pub classes: &'a [String],
    /// The class of every image.
    pub labels: &'a [i32],
    /// How it is made.
    pub info: TokenInfo,
}

/// Takes the tokens of the next images.
pub type PutTokens<'a> = dyn FnMut(&[i32]) -> Result<()> + 'a;

/// Writes a token file, atomically and in constant memory: `fill` hands over the tokens image by image, of each the crops, of
/// each all scales.
///
/// # Errors
/// What `fill` returns; when there are other than the announced tokens, one is outside the codebook, or writing fails. An
/// existing file is then unchanged.
pub fn write_tokens(
    path: &Path,
    set: &TokenSet<'_>,
    fill: impl FnOnce(&mut PutTokens<'_>) -> Result<()>,
) -> Result<()> {
    let vocab = set.vqvae.config.vocab;
    let dtype = if vocab <= 1 << 16 {
        HostDType::U16
    } else {
        HostDType::I32
    };
    let last = Coming {
        name: TOKENS.into(),
        dtype,
        shape: vec![set.labels.len(), set.info.crops, set.pyramid.total()],
    };
    let mut missing: usize = last.shape.iter().product();
    let json = |e: serde_json::Error| Error::failed(format!("describing the tokens: {e}"));
    let sides = set
        .pyramid
        .sides()
        .ok_or_else(|| Error::input("token files have square scales"))?;
    let metadata: TextMetadata = [
        (PATCH_NUMS_KEY, format_patch_nums(&sides)),
        (CLASSES_KEY, names_to_text(set.classes)),
        (TOKENS_KEY, serde_json::to_string(&set.info).map_err(json)?),
        (
            TOKENIZER_KEY,
            serde_json::to_string(&set.vqvae.config).map_err(json)?,
        ),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .into();
    let quantizer = quantizer_state(&set.vqvae.params)?;
    let labels = i32s(set.labels)?;
    let mut tensors: Vec<(String, &HostTensor)> = vec![(LABELS.into(), &labels)];
    tensors.extend(quantizer.iter().map(|(n, t)| (n.to_owned(), t)));

    // The first error is the one that matters, not that writing was given up.
    let mut failure = None;
    let written = write_atomic(path, |w| {
        write_before(w, &tensors, &last, &metadata)?;
        let mut bytes = Vec::new();
        let mut put = |tokens: &[i32]| -> Result<()> {
            missing = missing
                .checked_sub(tokens.len())
                .ok_or_else(|| Error::failed("more tokens than announced"))?;
            let none = tokens.iter().filter(|t| **t == NO_CODE).count();
            if none > 0 {
                return Err(Error::Tensor(nextscale_tensor::Error::NotNumbers {
                    what: "features to be coded",
                    bad: none,
                    of: tokens.len(),
                }));
            }
            bytes.clear();
            for &t in tokens {
                let inside = usize::try_from(t).is_ok_and(|t| t < vocab);
                match (inside, dtype) {
                    (false, _) => return Err(outside(i64::from(t), vocab)),
                    (true, HostDType::U16) => bytes.extend((t as u16).to_le_bytes()),
                    (true, _) => bytes.extend(t.to_le_bytes()),
                }
            }
            w.write_all(&bytes).map_err(Error::io(path))
        };
        let mut done = fill(&mut put);
        if done.is_ok() && missing > 0 {
            done = Err(Error::failed("fewer tokens than announced"));
        }
        done.map_err(|e| {
            let text = e.to_string();
            failure = Some(e);
            io::Error::other(text)
        })
    });
    match failure {
        Some(e) => Err(e),
        None => written,
    }
}
