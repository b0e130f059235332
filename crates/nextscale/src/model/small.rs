//! Small models for tests that need a device: scales of 1, 2 and 4 tokens a side, 300 codes, two blocks.

use super::Pyramid;
use super::var::{InitScales, Var, VarConfig};
use super::vqvae::{Vqvae, VqvaeConfig};
use nextscale_tensor::{Device, Math};

/// Side lengths of the token maps.
const SIDES: [usize; 3] = [1, 2, 4];
/// Codes.
pub(crate) const VOCAB: usize = 300;
/// Blocks of the transformer.
pub(crate) const DEPTH: usize = 2;

/// A frozen tokenizer and a transformer, with weights drawn at these scales.
pub(crate) fn models(
    device: Device,
    math: Math,
    trainable: bool,
    scales: InitScales,
) -> (Vqvae, Var) {
    let pyramid = Pyramid::square(&SIDES).unwrap();
    let config = VqvaeConfig {
        ch: 32,
        vocab: VOCAB,
        ch_mult: vec![1, 2],
        num_res_blocks: 1,
        ..VqvaeConfig::published(pyramid.clone())
    };
    let mut vqvae = Vqvae::new(config, false).unwrap();
    vqvae.init(1).unwrap();
    let config = VarConfig {
        vocab: VOCAB,
        ..VarConfig::of_depth(DEPTH, 10, pyramid)
    };
    let mut var = Var::new(config, trainable).unwrap();
    var.init(scales, 1).unwrap();
    vqvae.to_device(device, math).unwrap();
    var.to_device(device, math).unwrap();
    (vqvae, var)
}
