//! What is known of a tokenizer's state dict: names and shapes, and what a model is built from.

use crate::format::outline::Outline;

/// The codebook's name.
pub(crate) const CODEBOOK: &str = "quantize.embedding.weight";

/// The buffer of hit averages \[scales\]\[V\].
pub const HITS: &str = "quantize.ema_vocab_hit_SV";

/// Whether weight decay applies to a parameter of these axes: not to norms and biases.
pub fn is_decayed(ndim: usize) -> bool {
    ndim > 1
}

/// Which φ convolutions a tokenizer's quantizer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PhiKind {
    /// None at all: φ is the identity (`quant_resi` = 0).
    None,
    /// One for all scales (`share_quant_resi` = 1).
    Shared,
    /// So many, of which each scale takes the nearest (`share_quant_resi` = n).
    Partial(usize),
    /// So many, one for each scale (`share_quant_resi` = 0).
    PerScale(usize),
}

/// What a tokenizer (VQVAE) is built from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaeShape {
    /// Base width of the convolutions.
    pub ch: usize,
    /// Width of each level in multiples of `ch`, from the image inwards.
    pub ch_mult: Vec<usize>,
    /// Residual blocks of each level of the encoder; the decoder has one more.
    pub num_res_blocks: usize,
    /// Code width (Cvae).
    pub cvae: usize,
    /// Number of codes (V).
    pub vocab_size: usize,
    /// The quantizer's φ convolutions.
    pub phi: PhiKind,
    /// Kernel size of `quant_conv` and `post_quant_conv`.
    pub quant_conv_ks: usize,
    /// Rows of `ema_vocab_hit_SV`, where there is one. A file may state another number than its model uses.
    pub num_scales: Option<usize>,
}

impl VaeShape {
    /// The tensors by which a tokenizer is known.
    pub(crate) const TELLING: &[&str] = &[CODEBOOK, "encoder.conv_in.weight"];

    /// Whether these are a tokenizer's tensors.
    pub fn fits(o: &Outline) -> bool {
        Self::TELLING.iter().all(|n| o.contains(n))
    }

    /// Tells the construction parameters; an error completes a sentence that begins with the file's name.
    ///
    /// # Errors
    /// When a tensor that tells them is missing or its shape contradicts another one.
    pub fn infer(o: &Outline) -> Result<Self, String> {
        let [ch, ..] = o.dims::<4>("encoder.conv_in.weight")?;
        let [vocab_size, cvae] = o.dims(CODEBOOK)?;
        let [quant_out, _, quant_conv_ks, _] = o.dims("quant_conv.weight")?;
        o.check(
            quant_out == cvae,
            "quant_conv.weight",
            &format!("codes have {cvae} channels"),
        )?;
        let levels = o.count(|i| format!("encoder.down.{i}.block.0.conv1.weight"));
        let num_res_blocks = o.count(|j| format!("encoder.down.0.block.{j}.conv1.weight"));
        o.check(
            levels > 0 && ch > 0,
            "encoder.conv_in.weight",
            "there are no encoder levels",
        )?;
        let mut ch_mult = Vec::new();
        for i in 0..levels {
            let name = format!("encoder.down.{i}.block.0.conv1.weight");
            let [out, ..] = o.dims::<4>(&name)?;
            o.check(
                out % ch == 0,
                &name,
                &format!("widths are multiples of {ch}"),
            )?;
            ch_mult.push(out / ch);
        }
        let partial = o.count(|n| format!("quantize.quant_resi.qresi_ls.{n}.weight"));
        let per_scale = o.count(|n| format!("quantize.quant_resi.{n}.weight"));
        let phi = if o.contains("quantize.quant_resi.qresi.weight") {
            PhiKind::Shared
        } else if partial > 0 {
            PhiKind::Partial(partial)
        } else if per_scale > 0 {
            PhiKind::PerScale(per_scale)
        } else {
            PhiKind::None
        };
        let num_scales = match o.shape(HITS) {
            Some(&[rows, _]) => Some(rows),
            _ => None,
        };
        Ok(Self {
            ch,
            ch_mult,
            num_res_blocks,
            cvae,
            vocab_size,
            phi,
            quant_conv_ks,
            num_scales,
        })
    }
}
