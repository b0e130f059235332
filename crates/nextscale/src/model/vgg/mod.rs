//! The convolutions of VGG-16 (Simonyan & Zisserman 2014), whose maps perceptual distances compare. Names are those of torchvision's file.

use super::ForwardPass;
use super::layers::Conv2d;
use crate::Result;
use nextscale_tensor::ops::{self, Window};
use nextscale_tensor::{Params, ParamsBuilder, Tensor};

/// Maps that the network gives.
pub const STAGES: usize = 5;
/// Channels of each map.
pub const CHANNELS: [usize; STAGES] = [64, 128, 256, 512, 512];
/// Where each stage's convolutions stand in torchvision's `features`.
const LAYERS: [&[usize]; STAGES] = [
    &[0, 2],
    &[5, 7],
    &[10, 12, 14],
    &[17, 19, 21],
    &[24, 26, 28],
];
/// The smallest side of an image: four poolings halve it.
pub const SMALLEST: usize = 16;

const HALVE: Window = Window {
    size: 2,
    stride: 2,
    pad: 0,
};

/// The convolutions; their weights lie among the parameters of what they are a part of.
pub struct Vgg {
    stages: Vec<Vec<Conv2d>>,
}

impl Vgg {
    /// Adds its parameters, `features.N.weight` and `features.N.bias`.
    pub fn new(b: &mut ParamsBuilder) -> Self {
        let mut channels = 3;
        let stages = LAYERS.iter().zip(CHANNELS).map(|(layers, out)| {
            let conv = |layer: &usize| {
                let from = std::mem::replace(&mut channels, out);
                Conv2d::same(b, &format!("features.{layer}"), (from, out), 3)
            };
            layers.iter().map(conv).collect()
        });
        Self {
            stages: stages.collect(),
        }
    }

    /// The last map of each stage, behind its ReLU (`relu1_2`, `relu2_2`, `relu3_3`, `relu4_3`, `relu5_3`), of images \[B, H, W, 3\] in
    /// ImageNet's normalisation.
    ///
    /// # Errors
    /// When a side has less than 16 pixels.
    pub fn forward(&self, pass: &ForwardPass<'_>, p: &Params, x: &Tensor) -> Result<Vec<Tensor>> {
        let (mut x, mut maps) = (x.clone(), Vec::with_capacity(STAGES));
        for (i, convs) in self.stages.iter().enumerate() {
            if i > 0 {
                x = ops::max_pool(&pass.cx, &x, HALVE)?;
            }
            for conv in convs {
                x = ops::relu(&pass.cx, &conv.forward(pass, p, &x)?)?;
            }
            pass.see(|| format!("stage{}", i + 1), &x);
            maps.push(x.clone());
        }
        Ok(maps)
    }
}
