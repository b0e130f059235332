//! Initial weights of the tokenizer.
//!
//! The reference never trains one, so it specifies none. Convolutions keep the variance of what goes in (uniform within
//! ±√(3/fan_in)); the last one of every branch starts small, so that the deep stack begins near the identity; norms are 1
//! and 0, biases 0. The codebook and the scale of the features are set from the first batch, see
//! `TokenizerTrainer::seed_codebook`.

use super::VqvaeConfig;
use crate::Result;
use nextscale_tensor::Params;
use nextscale_tensor::rng::{Purpose, Stream};

pub(super) fn init(params: &mut Params, config: &VqvaeConfig, seed: u64) -> Result<()> {
    let infos = params.infos().to_vec();
    let flat = params.flat_mut()?;
    for (i, info) in infos.iter().enumerate() {
        let values = &mut flat[info.range()];
        let mut s = Stream::new(seed, Purpose::Init, i as u64, 1);
        let name = info.name.as_str();
        let bound = match info.shape.dims() {
            _ if name == super::CODEBOOK => 1.0 / config.vocab as f32,
            &[_, i, kh, kw] => {
                let gain = if LAST.iter().any(|l| name.contains(l)) {
                    0.2
                } else {
                    1.0
                };
                gain * (3.0 / (i * kh * kw) as f32).sqrt()
            }
            _ => {
                // One-dimensional: norms' weights are 1, everything else 0.
                values.fill(if name.contains("norm") && name.ends_with("weight") {
                    1.0
                } else {
                    0.0
                });
                continue;
            }
        };
        values
            .iter_mut()
            .for_each(|v| *v = (2.0 * s.uniform() - 1.0) * bound);
    }
    Ok(())
}

/// The last convolution of residual branches, and the one that makes the image.
const LAST: [&str; 3] = [".conv2.", ".proj_out.", "decoder.conv_out."];
