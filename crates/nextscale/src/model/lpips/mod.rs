//! LPIPS (Zhang et al. 2018), version 0.1 on VGG-16: how unlike two pictures look, by the maps of a network that knows pictures.
//!
//! Images are scaled as the network wants them, the maps of both run through it are compared pixel by pixel with channels scaled to length
//! one, the squared differences weighted by the heads' numbers, averaged over the map and summed over the five maps. It is the number of
//! the PyPI package `lpips` with `net="vgg"` in evaluation.

#[cfg(test)]
mod tests;

use super::layers::Linear;
use super::load_into::load_into;
use super::state::expected;
use super::vgg::{CHANNELS, SMALLEST, Vgg};
use super::{ForwardPass, half_copy, to_device};
use crate::format::StateDict;
use crate::{Error, Result};
use nextscale_tensor::ops;
use nextscale_tensor::params::Layout;
use nextscale_tensor::{Device, Math, ParamId, Params, ParamsBuilder, Tensor};

/// What is taken from an image in \[−1, 1\], and what it is then divided by: ImageNet's mean and deviation in that range.
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
const SCALE: [f32; 3] = [0.458, 0.448, 0.450];

/// The distance with its weights, which no gradient reaches.
pub struct Lpips {
    /// All weights.
    pub params: Params,
    /// Arithmetic of its products.
    pub math: Math,
    scaling: Linear,
    vgg: Vgg,
    heads: Vec<ParamId>,
}

/// The name of a head in its file.
fn head(stage: usize) -> String {
    format!("lin{stage}.model.1.weight")
}

impl Lpips {
    /// The distance with all weights zero: [`Self::load`] fills them.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn new() -> Result<Self> {
        let mut b = ParamsBuilder::new();
        let scaling = Linear::new(&mut b, "scaling", 3, 3);
        let vgg = Vgg::new(&mut b);
        let heads = CHANNELS.iter().enumerate();
        let heads = heads.map(|(stage, c)| b.add(head(stage), [*c], Layout::Same));
        let heads = heads.collect();
        let mut params = b.build_on(false, Device::Cpu, None)?;
        let mut weight = [0.0; 9];
        for (c, scale) in SCALE.iter().enumerate() {
            weight[4 * c] = 1.0 / scale;
        }
        let bias: Vec<f32> = SHIFT.iter().zip(SCALE).map(|(a, b)| -a / b).collect();
        params.import("scaling.weight", &weight)?;
        params.import("scaling.bias", &bias)?;
        Ok(Self {
            params,
            math: Math::FULL,
            scaling,
            vgg,
            heads,
        })
    }

    /// Loads the network from torchvision's tensors and the heads from those of `lpips`; the classifier is passed over. The two may be one
    /// file.
    ///
    /// # Errors
    /// One line naming the source and the tensors that are missing, of another shape, or no numbers.
    pub fn load(&mut self, vgg: (&StateDict, &str), heads: (&StateDict, &str)) -> Result<()> {
        let all = expected(&self.params);
        for (prefix, (dict, source)) in [("features.", vgg), ("lin", heads)] {
            let of_file = |name: &str| name.starts_with(prefix);
            // A head is a convolution of one pixel with one output.
            let wanted: Vec<(String, Vec<usize>)> = all
                .iter()
                .filter(|(name, _)| of_file(name))
                .map(|(name, shape)| match shape[..] {
                    [c] if prefix == "lin" => (name.clone(), vec![1, c, 1, 1]),
                    _ => (name.clone(), shape.clone()),
                })
                .collect();
            let found: StateDict = dict
                .iter()
                .filter(|(name, _)| of_file(name))
                .map(|(name, tensor)| (name.to_owned(), tensor.clone()))
                .collect();
            load_into(&wanted, &found, source, |i, values| {
                Ok(self.params.import(&wanted[i].0, &values)?)
            })?;
        }
        Ok(())
    }

    /// Moves it to a device, where its products are computed in `math`.
    ///
    /// # Errors
    /// When the GPU can't be used or its memory is full.
    pub fn to_device(&mut self, device: Device, math: Math) -> Result<()> {
        self.math = math;
        Ok(to_device(&mut self.params, device, half_copy(math))?)
    }

    /// The distance of every pair of images \[B, H, W, 3\] in \[−1, 1\]: \[B\]. On a tape both sides get gradients.
    ///
    /// # Errors
    /// When shapes differ, or a side has less than 16 pixels.
    pub fn forward(&self, pass: &ForwardPass<'_>, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        match *a.dims() {
            [_, h, w, 3] if a.dims() == b.dims() && h.min(w) >= SMALLEST => {}
            _ => {
                return Err(Error::failed(format!(
                    "LPIPS takes two batches of images [B, H, W, 3] of the same size with sides of {SMALLEST} pixels or more, not {} and {}",
                    a.shape(),
                    b.shape()
                )));
            }
        }
        let p = &self.params;
        let maps = |x: &Tensor| -> Result<Vec<Tensor>> {
            // Scaling is no product that may be rounded.
            let x = self.scaling.forward(&pass.exact().cx, p, x)?;
            self.vgg.forward(pass, p, &x)
        };
        let mut sum: Option<Tensor> = None;
        for ((a, b), head) in maps(a)?.iter().zip(&maps(b)?).zip(&self.heads) {
            let of_stage = ops::unit_distance(&pass.cx, a, b, &p.get(*head))?;
            sum = Some(match sum {
                Some(sum) => ops::add(&pass.cx, &sum, &of_stage)?,
                None => of_stage,
            });
        }
        sum.ok_or_else(|| Error::failed("LPIPS lacks its stages"))
    }
}
