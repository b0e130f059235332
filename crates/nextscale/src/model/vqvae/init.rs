//! Initial weights of the tokenizer.
//!
//! The reference never trains one, so it specifies none; these are the framework defaults that its published weights
//! were trained from: convolutions uniform within ±1/√fan_in (weights and biases), norms 1 and 0, and a codebook
//! uniform within ±1/V as in VQ-VAE practice, which lets the encoder's features find the codes early on.

use super::VqvaeConfig;
use crate::Result;
use nextscale_tensor::Params;
use nextscale_tensor::rng::{Purpose, Stream};

pub(super) fn init(params: &mut Params, config: &VqvaeConfig, seed: u64) -> Result<()> {
    let infos = params.infos().to_vec();
    let flat = params.flat_mut()?;
    let mut fan_in = 1usize;
    for (i, info) in infos.iter().enumerate() {
        let values = &mut flat[info.range()];
        let mut s = Stream::new(seed, Purpose::Init, i as u64, 1);
        let mut uniform = |bound: f32, values: &mut [f32]| {
            values
                .iter_mut()
                .for_each(|v| *v = (2.0 * s.uniform() - 1.0) * bound);
        };
        let norm = info.name.contains("norm");
        if info.name == "quantize.embedding.weight" {
            uniform(1.0 / config.vocab as f32, values);
        } else if norm {
            values.fill(if info.name.ends_with("weight") {
                1.0
            } else {
                0.0
            });
        } else {
            // A bias follows its weight and shares its fan-in.
            if let &[_, i, kh, kw] = info.shape.dims() {
                fan_in = i * kh * kw;
            }
            uniform(1.0 / (fan_in as f32).sqrt(), values);
        }
    }
    Ok(())
}
