//! The tokenizer: an image to token maps of growing size and back (VAR paper, section 3.2; `VQVAE` in the reference).

mod attn_block;
pub mod codes;
mod decoder;
mod encoder;
mod init;
pub mod quantizer;
mod resnet_block;
pub mod state_dict;

use super::layers::{Conv2d, GroupNorm};
use super::{ForwardPass, Pyramid, half_copy, to_device};
use crate::{Error, Result};
use decoder::Decoder;
use encoder::Encoder;
use nextscale_tensor::ops;
use nextscale_tensor::{Device, Math, Params, ParamsBuilder, PartId, Tensor};
use quantizer::Quantizer;
use serde::{Deserialize, Serialize};
pub(crate) use state_dict::CODEBOOK;

/// Groups of every group normalisation.
const GROUPS: usize = 32;
/// Added to variances in group normalisation.
const EPS: f32 = 1e-6;

/// What a tokenizer is built from. Names as in the reference's constructor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VqvaeConfig {
    /// Codebook size V.
    pub vocab: usize,
    /// Code width (`z_channels`).
    pub cvae: usize,
    /// Base width of the convolutions.
    pub ch: usize,
    /// Width multiplier of every level; each level but the last halves the image's sides.
    pub ch_mult: Vec<usize>,
    /// Residual blocks a level in the encoder; the decoder has one more.
    pub num_res_blocks: usize,
    /// Dropout inside residual blocks while training.
    pub dropout: f32,
    /// Weight of the commitment loss.
    pub beta: f32,
    /// Search codes by cosine instead of distance.
    pub using_znorm: bool,
    /// Kernel size of `quant_conv` and `post_quant_conv`.
    pub quant_conv_ks: usize,
    /// Blend ρ of φ.
    pub quant_resi: f32,
    /// 0: one φ a scale; 1: one for all; n: n shared by position.
    pub share_quant_resi: usize,
    /// Number of φ when `share_quant_resi` is 0; 0 means one a scale.
    pub default_qresi_counts: usize,
    /// The scales.
    pub pyramid: Pyramid,
}

impl VqvaeConfig {
    /// The published tokenizer's settings with these scales.
    pub fn published(pyramid: Pyramid) -> Self {
        Self {
            vocab: 4096,
            cvae: 32,
            ch: 160,
            ch_mult: vec![1, 1, 2, 2, 4],
            num_res_blocks: 2,
            dropout: 0.0,
            beta: 0.25,
            using_znorm: false,
            quant_conv_ks: 3,
            quant_resi: 0.5,
            share_quant_resi: 4,
            default_qresi_counts: 0,
            pyramid,
        }
    }

    /// Pixels a patch's side spans: 2^(levels − 1).
    pub fn downsample(&self) -> usize {
        1 << (self.ch_mult.len() - 1)
    }

    /// Says in one line what can't be built.
    ///
    /// # Errors
    /// When a value is out of range.
    pub fn check(&self) -> Result<()> {
        self.check_of("tokenizer")
    }

    /// The same of the settings that `source` holds.
    ///
    /// # Errors
    /// When a value is out of range: one line that begins with `source`.
    pub fn check_of(&self, source: &str) -> Result<()> {
        match self.misfit() {
            Some(text) => Err(Error::input(format!("{source}: {text}"))),
            None => Ok(()),
        }
    }

    /// The first value that is out of range, in words.
    fn misfit(&self) -> Option<String> {
        if self.ch_mult.is_empty() || self.ch_mult.contains(&0) || self.num_res_blocks == 0 {
            return Some("every level needs a width and a residual block".into());
        }
        let widest = self.ch_mult.iter().copied().max().unwrap_or(1);
        for (name, n, least, most) in [
            ("vocab", self.vocab, 1, limits::VOCAB),
            ("cvae", self.cvae, 1, limits::CVAE),
            ("ch", self.ch, 1, limits::CH),
            ("ch_mult", widest, 1, limits::CH_MULT),
            ("levels of ch_mult", self.ch_mult.len(), 1, limits::LEVELS),
            ("num_res_blocks", self.num_res_blocks, 1, limits::RES_BLOCKS),
            ("share_quant_resi", self.share_quant_resi, 0, limits::PHIS),
            (
                "default_qresi_counts",
                self.default_qresi_counts,
                0,
                limits::PHIS,
            ),
            ("quant_conv_ks", self.quant_conv_ks, 1, limits::KERNEL),
        ] {
            if !(least..=most).contains(&n) {
                return Some(format!("{name} is {n}; it must be from {least} to {most}"));
            }
        }
        if !self.ch.is_multiple_of(GROUPS) {
            return Some(format!(
                "ch is {}; it must be a multiple of {GROUPS} (group normalisation has {GROUPS} groups)",
                self.ch
            ));
        }
        if self.quant_conv_ks.is_multiple_of(2) {
            return Some(format!(
                "quant_conv_ks is {}; it must be odd",
                self.quant_conv_ks
            ));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Some(format!("dropout is {}; it must be in [0, 1)", self.dropout));
        }
        None
    }
}

/// The largest settings of a tokenizer: far above what anybody trains, and below what overflows. A damaged file must not ask for all
/// memory there is.
pub(crate) mod limits {
    pub(crate) const VOCAB: usize = 1 << 20;
    pub(crate) const CVAE: usize = 1 << 12;
    pub(crate) const CH: usize = 1 << 12;
    pub(crate) const CH_MULT: usize = 1 << 6;
    pub(crate) const LEVELS: usize = 12;
    pub(crate) const RES_BLOCKS: usize = 1 << 6;
    pub(crate) const PHIS: usize = 1 << 10;
    pub(crate) const KERNEL: usize = 31;
}

/// A group normalisation of the tokenizer's.
fn norm(b: &mut ParamsBuilder, name: &str, channels: usize) -> GroupNorm {
    GroupNorm::new(b, name, channels, GROUPS, EPS)
}

/// Dropout inside residual blocks: the stream's seed, the training step, and which samples of the step's batch these are.
#[derive(Clone, Copy, Debug)]
pub struct DropoutDraw {
    /// Seed of the run.
    pub seed: u64,
    /// Training step.
    pub step: u64,
    /// Number of the first sample within the batch of all processes.
    pub first: u64,
}

/// What a training pass gives.
pub struct TrainOutput {
    /// The reconstruction \[B, H, W, 3\], not clamped.
    pub image: Tensor,
    /// The quantizer's loss, \[1\].
    pub vq_loss: Tensor,
    /// How often each code was hit, by scale: integers \[V\].
    pub hits: Vec<Tensor>,
}

/// The tokenizer with its weights.
pub struct Vqvae {
    /// What it was built from.
    pub config: VqvaeConfig,
    /// All weights, under the reference's names.
    pub params: Params,
    /// Arithmetic of the encoder's and decoder's products where no context is given. The quantizer is always exact.
    pub math: Math,
    encoder: Encoder,
    decoder: Decoder,
    /// What is between encoder and decoder.
    codes: PartId,
    /// The multi-scale quantizer.
    pub quantizer: Quantizer,
    quant_conv: Conv2d,
    post_quant_conv: Conv2d,
}

impl Vqvae {
    /// A tokenizer with all weights zero: load them or call [`Vqvae::init`]. `trainable` decides whether gradients
    /// are wanted.
    ///
    /// # Errors
    /// When the configuration can't be built.
    pub fn new(config: VqvaeConfig, trainable: bool) -> Result<Self> {
        Self::on(config, trainable, Device::Cpu, Math::FULL)
    }

    /// The same on a device at once, where the encoder's and the decoder's products are computed in `math`.
    ///
    /// # Errors
    /// When the configuration can't be built, the GPU can't be used, or its memory is full.
    pub fn on(config: VqvaeConfig, trainable: bool, device: Device, math: Math) -> Result<Self> {
        config.check()?;
        let mut b = ParamsBuilder::new();
        let encoder = Encoder::new(&mut b, &config);
        let decoder = Decoder::new(&mut b, &config);
        let codes = b.part();
        let quantizer = Quantizer::new(&mut b, &config);
        let (c, ks) = (config.cvae, config.quant_conv_ks);
        let quant_conv = Conv2d::same(&mut b, "quant_conv", (c, c), ks);
        let post_quant_conv = Conv2d::same(&mut b, "post_quant_conv", (c, c), ks);
        Ok(Self {
            config,
            params: b.build_on(trainable, device, half_copy(math))?,
            math,
            encoder,
            decoder,
            codes,
            quantizer,
            quant_conv,
            post_quant_conv,
        })
    }

    /// Draws initial weights.
    ///
    /// # Errors
    /// While a tensor still holds the weights.
    pub fn init(&mut self, seed: u64) -> Result<()> {
        init::init(&mut self.params, &self.config, seed)
    }

    /// Moves the weights to `device`, where the encoder's and the decoder's products are computed in `math` from then on.
    ///
    /// # Errors
    /// When the GPU can't be used or its memory is full.
    pub fn to_device(&mut self, device: Device, math: Math) -> Result<()> {
        to_device(&mut self.params, device, half_copy(math))?;
        self.math = math;
        Ok(())
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.params.device()
    }

    /// The feature f = quant_conv(encoder(image)): \[B, H, W, 3\] in \[−1, 1\] to \[B, h, w, Cvae\].
    ///
    /// # Errors
    /// When the image's sides are not multiples of the patch size.
    pub fn features(
        &self,
        pass: &ForwardPass<'_>,
        image: &Tensor,
        drop: Option<DropoutDraw>,
    ) -> Result<Tensor> {
        let step = self.config.downsample();
        match image.dims() {
            &[_, h, w, 3] if h % step == 0 && w % step == 0 && h * w > 0 => {}
            d => {
                return Err(Error::input(format!(
                    "an image batch is {d:?}; expected [B, H, W, 3] with sides that are multiples of {step}"
                )));
            }
        }
        let z = self.encoder.forward(pass, &self.params, image, drop)?;
        pass.cx.first_use(&self.params, self.codes);
        // What the quantizer searches codes for is float32.
        let f = self.quant_conv.forward(&pass.full(), &self.params, &z)?;
        pass.see(|| "f".into(), &f);
        Ok(f)
    }

    /// The token maps of images, one \[B, h·w\] tensor a scale of `pyramid` (`img_to_idxBl`).
    ///
    /// # Errors
    /// When the finest scale is not the size of the feature map.
    pub fn tokenize(&self, image: &Tensor, pyramid: &Pyramid) -> Result<Vec<Tensor>> {
        self.tokenize_in(self.math, image, pyramid)
    }

    /// [`Vqvae::tokenize`] with the encoder in this arithmetic.
    ///
    /// # Errors
    /// As [`Vqvae::tokenize`].
    pub fn tokenize_in(
        &self,
        math: Math,
        image: &Tensor,
        pyramid: &Pyramid,
    ) -> Result<Vec<Tensor>> {
        let pass = ForwardPass::plain(math);
        let f = self.features(&pass, image, None)?;
        Ok(self
            .quantizer
            .encode(&pass, &self.params, &f, pyramid)?
            .indices)
    }

    /// f̂ to an image in \[−1, 1\], not clamped.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn decode(
        &self,
        pass: &ForwardPass<'_>,
        f_hat: &Tensor,
        drop: Option<DropoutDraw>,
    ) -> Result<Tensor> {
        let z = self.post_quant_conv.forward(pass, &self.params, f_hat)?;
        self.decoder.forward(pass, &self.params, &z, drop)
    }

    /// f̂ to an image clamped to \[−1, 1\] (`fhat_to_img`).
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn decode_clamped(&self, f_hat: &Tensor) -> Result<Tensor> {
        let image = self.decode(&ForwardPass::plain(self.math), f_hat, None)?;
        Ok(ops::clamp(&image, -1.0, 1.0)?)
    }

    /// Images to their reconstructions from all scales, clamped (`img_to_reconstructed_img`, last one).
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn reconstruct(&self, image: &Tensor, pyramid: &Pyramid) -> Result<(Tensor, Vec<Tensor>)> {
        let pass = ForwardPass::plain(self.math);
        let f = self.features(&pass, image, None)?;
        let code = self.quantizer.encode(&pass, &self.params, &f, pyramid)?;
        Ok((self.decode_clamped(&code.f_hat)?, code.indices))
    }

    /// A training pass over images \[B, H, W, 3\] in \[−1, 1\].
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn train_forward(
        &self,
        pass: &ForwardPass<'_>,
        image: &Tensor,
        drop: Option<DropoutDraw>,
    ) -> Result<TrainOutput> {
        let f = self.features(pass, image, drop)?;
        let q = self.quantizer.train_forward(pass, &self.params, &f)?;
        let image = self.decode(pass, &q.f_hat, drop)?;
        Ok(TrainOutput {
            image,
            vq_loss: q.vq_loss,
            hits: q.hits,
        })
    }
}
