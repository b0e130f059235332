//! Inception v3 as scores of generated images use it (Szegedy et al. 2015): the network that TensorFlow published on 2015-12-05,
//! whose features the Fréchet inception distance compares.
//!
//! It differs from the later Inception v3 of the frameworks: averages do not count what is padded, the last block pools by the
//! largest, and there are 1,008 outputs. Each convolution is followed by a batch norm, which is folded into its weights when
//! they are loaded, and by ReLU. Names are those of the PyTorch ports (`pytorch-fid`, `torch-fidelity`).

mod blocks;
pub mod state_dict;

use super::layers::Linear;
use super::{ForwardPass, half_copy, to_device};
use crate::{Error, Result};
use blocks::{Block, ConvRelu};
use nextscale_tensor::ops::{self, Activation, Bias, Window};
use nextscale_tensor::{Device, Math, Params, ParamsBuilder, Tensor};

/// Side of the images that the network sees.
pub const SIDE: usize = 299;
/// Numbers of an image's features (`pool_3`).
pub const FEATURES: usize = 2048;
/// Outputs of the classifier, of which 1,000 are ImageNet's classes.
pub const LOGITS: usize = 1008;
/// Numbers of an image's spatial features: the first seven channels of a map of 17×17 (`mixed_6/conv`, as ADM takes them).
pub const SPATIAL: usize = 7 * 17 * 17;

/// What the network says of a batch of images.
pub struct Activations {
    /// The last map averaged, \[B, 2048\].
    pub features: Tensor,
    /// Outputs without their bias, \[B, 1008\]: what inception scores are made of.
    pub logits: Tensor,
    /// Spatial features, pixel by pixel, \[B, 2023\].
    pub spatial: Tensor,
}

/// The network with its weights.
pub struct Inception {
    /// All weights, batch norms folded in.
    pub params: Params,
    /// Arithmetic of its products.
    pub math: Math,
    /// Up to the first pooling, and between the first and the second.
    stem: [Vec<ConvRelu>; 2],
    blocks: Vec<(&'static str, Block)>,
    fc: Linear,
}

const SHRINK: Window = Window {
    size: 3,
    stride: 2,
    pad: 0,
};

impl Inception {
    /// The network with all weights zero: [`state_dict::load`] fills them.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new() -> Result<Self> {
        Self::on(Device::Cpu, Math::FULL)
    }

    /// The same on a device at once, where products are computed in `math`.
    ///
    /// # Errors
    /// When the GPU can't be used or there is no memory for it.
    pub fn on(device: Device, math: Math) -> Result<Self> {
        let mut b = ParamsBuilder::new();
        let conv = |b: &mut ParamsBuilder, name: &str, io, size, stride, pad| {
            ConvRelu::new(b, name, io, (size, size), stride, (pad, pad))
        };
        let stem = [
            vec![
                conv(&mut b, "Conv2d_1a_3x3", (3, 32), 3, 2, 0),
                conv(&mut b, "Conv2d_2a_3x3", (32, 32), 3, 1, 0),
                conv(&mut b, "Conv2d_2b_3x3", (32, 64), 3, 1, 1),
            ],
            vec![
                conv(&mut b, "Conv2d_3b_1x1", (64, 80), 1, 1, 0),
                conv(&mut b, "Conv2d_4a_3x3", (80, 192), 3, 1, 0),
            ],
        ];
        let blocks = vec![
            ("Mixed_5b", Block::a(&mut b, "Mixed_5b", 192, 32)),
            ("Mixed_5c", Block::a(&mut b, "Mixed_5c", 256, 64)),
            ("Mixed_5d", Block::a(&mut b, "Mixed_5d", 288, 64)),
            ("Mixed_6a", Block::b(&mut b, "Mixed_6a", 288)),
            ("Mixed_6b", Block::c(&mut b, "Mixed_6b", 128)),
            ("Mixed_6c", Block::c(&mut b, "Mixed_6c", 160)),
            (SPATIAL_BLOCK, Block::c(&mut b, SPATIAL_BLOCK, 160)),
            ("Mixed_6e", Block::c(&mut b, "Mixed_6e", 192)),
            ("Mixed_7a", Block::d(&mut b, "Mixed_7a")),
            ("Mixed_7b", Block::e(&mut b, "Mixed_7b", 1280, false)),
            ("Mixed_7c", Block::e(&mut b, "Mixed_7c", 2048, true)),
        ];
        let fc = Linear::new(&mut b, "fc", FEATURES, LOGITS);
        Ok(Self {
            params: b.build_on(false, device, half_copy(math))?,
            math,
            stem,
            blocks,
            fc,
        })
    }

    /// Moves the network to a device, where its products are computed in `math`.
    ///
    /// # Errors
    /// When the GPU can't be used or its memory is full.
    pub fn to_device(&mut self, device: Device, math: Math) -> Result<()> {
        self.math = math;
        Ok(to_device(&mut self.params, device, half_copy(math))?)
    }

    /// What it says of images \[B, 299, 299, 3\] in its own range, about \[−1, 1\].
    ///
    /// # Errors
    /// When the images have another size.
    pub fn forward(&self, pass: &ForwardPass<'_>, x_bhwc: &Tensor) -> Result<Activations> {
        if x_bhwc.dims().get(1..) != Some(&[SIDE, SIDE, 3]) {
            let found = x_bhwc.shape();
            let text = format!("Inception takes images [B, {SIDE}, {SIDE}, 3], not {found}");
            return Err(Error::failed(text));
        }
        let p = &self.params;
        let mut x = x_bhwc.clone();
        for (i, convs) in self.stem.iter().enumerate() {
            for conv in convs {
                x = conv.forward(pass, p, &x)?;
                pass.see(|| conv.name.clone(), &x);
            }
            x = ops::max_pool(&pass.cx, &x, SHRINK)?;
            pass.see(|| format!("pool{}", i + 1), &x);
        }
        let mut spatial = None;
        for (name, block) in &self.blocks {
            let (joined, first_branch) = block.forward(pass, p, &x)?;
            x = joined;
            pass.see(|| (*name).to_owned(), &x);
            if *name == SPATIAL_BLOCK {
                spatial = Some(ops::channels(&pass.cx, &first_branch, 0..7)?);
            }
        }
        let features = ops::area(&pass.cx, &x, (1, 1))?.reshape([x.dims()[0], FEATURES])?;
        let (weight, _) = self.fc.params(p);
        let (bias, none) = (Bias::None, Activation::None);
        let logits = ops::linear(&pass.cx, &features, &weight, bias, none)?;
        let spatial = spatial.ok_or_else(|| Error::failed("Inception lacks its spatial block"))?;
        Ok(Activations {
            spatial: spatial.reshape([x.dims()[0], SPATIAL])?,
            features,
            logits,
        })
    }
}

/// The block whose first branch gives spatial features (`mixed_6/conv` in TensorFlow's graph).
const SPATIAL_BLOCK: &str = "Mixed_6d";

#[cfg(test)]
mod tests;
