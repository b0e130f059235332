//! A model's construction parameters, told from the names and shapes of its tensors.

use super::outline::Outline;

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

/// What a transformer (VAR) is built from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VarShape {
    /// Number of blocks (d).
    pub depth: usize,
    /// Channels (C).
    pub width: usize,
    /// Attention heads (H).
    pub heads: usize,
    /// Width of the feed-forward layer.
    pub ffn_width: usize,
    /// Classes without the "no class" row.
    pub num_classes: usize,
    /// Whether the blocks share one modulation layer (`saln`).
    pub shared_aln: bool,
    /// Whether queries and keys are normalised (`anorm`).
    pub anorm: bool,
    /// Number of codes (V).
    pub vocab_size: usize,
    /// Code width (Cvae).
    pub cvae: usize,
    /// Tokens of all scales (L).
    pub seq_len: usize,
    /// Tokens of the first scale.
    pub first_len: usize,
    /// Number of scales (K).
    pub num_scales: usize,
    /// Side of each scale's token map; `None` where the file has no `lvl_1L` to tell it from.
    pub patch_nums: Option<Vec<usize>>,
}

/// An axis of a tensor that must have `N` axes; the error completes a sentence that begins with the file's name.
fn dims<const N: usize>(o: &Outline, name: &str) -> Result<[usize; N], String> {
    let shape = o
        .shape(name)
        .ok_or_else(|| format!("lacks the tensor {name:?}"))?;
    match shape.try_into() {
        Ok(dims) if !shape.contains(&0) => Ok(dims),
        Ok(_) => Err(format!(
            "its tensor {name:?} has the shape {shape:?}: a size is 0"
        )),
        Err(_) => Err(format!(
            "its tensor {name:?} has the shape {shape:?}, {N} axes are expected"
        )),
    }
}

/// How many of 0, 1, 2, … in a row make a name that is there.
fn count(o: &Outline, name: impl Fn(usize) -> String) -> usize {
    (0..).take_while(|&i| o.contains(&name(i))).count()
}

/// A product or quotient that the shapes must give.
fn check(holds: bool, name: &str, o: &Outline, expected: &str) -> Result<(), String> {
    if holds {
        return Ok(());
    }
    let shape = o.shape(name).unwrap_or_default();
    Err(format!(
        "its tensor {name:?} has the shape {shape:?}, but {expected}"
    ))
}

impl VaeShape {
    /// The tensors by which a tokenizer is known.
    pub(super) const TELLING: &[&str] = &["quantize.embedding.weight", "encoder.conv_in.weight"];

    /// Whether these are a tokenizer's tensors.
    pub fn fits(o: &Outline) -> bool {
        Self::TELLING.iter().all(|n| o.contains(n))
    }

    /// Tells the construction parameters; an error completes a sentence that begins with the file's name.
    ///
    /// # Errors
    /// When a tensor that tells them is missing or its shape contradicts another one.
    pub fn infer(o: &Outline) -> Result<Self, String> {
        let [ch, ..] = dims::<4>(o, "encoder.conv_in.weight")?;
        let [vocab_size, cvae] = dims(o, "quantize.embedding.weight")?;
        let [quant_out, _, quant_conv_ks, _] = dims(o, "quant_conv.weight")?;
        check(
            quant_out == cvae,
            "quant_conv.weight",
            o,
            &format!("codes have {cvae} channels"),
        )?;
        let levels = count(o, |i| format!("encoder.down.{i}.block.0.conv1.weight"));
        let num_res_blocks = count(o, |j| format!("encoder.down.0.block.{j}.conv1.weight"));
        check(
            levels > 0 && ch > 0,
            "encoder.conv_in.weight",
            o,
            "there are no encoder levels",
        )?;
        let mut ch_mult = Vec::new();
        for i in 0..levels {
            let name = format!("encoder.down.{i}.block.0.conv1.weight");
            let [out, ..] = dims::<4>(o, &name)?;
            check(
                out % ch == 0,
                &name,
                o,
                &format!("widths are multiples of {ch}"),
            )?;
            ch_mult.push(out / ch);
        }
        let partial = count(o, |n| format!("quantize.quant_resi.qresi_ls.{n}.weight"));
        let per_scale = count(o, |n| format!("quantize.quant_resi.{n}.weight"));
        let phi = if o.contains("quantize.quant_resi.qresi.weight") {
            PhiKind::Shared
        } else if partial > 0 {
            PhiKind::Partial(partial)
        } else if per_scale > 0 {
            PhiKind::PerScale(per_scale)
        } else {
            PhiKind::None
        };
        let num_scales = match o.shape("quantize.ema_vocab_hit_SV") {
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

impl VarShape {
    /// The tensors by which a transformer is known.
    pub(super) const TELLING: &[&str] = &["pos_1LC", "word_embed.weight", "lvl_embed.weight"];

    /// Whether these are a transformer's tensors.
    pub fn fits(o: &Outline) -> bool {
        Self::TELLING.iter().all(|n| o.contains(n))
    }

    /// Tells the construction parameters; an error completes a sentence that begins with the file's name.
    ///
    /// # Errors
    /// When a tensor that tells them is missing or its shape contradicts another one.
    pub fn infer(o: &Outline) -> Result<Self, String> {
        let [_, seq_len, width] = dims(o, "pos_1LC")?;
        let [_, first_len, start_width] = dims(o, "pos_start")?;
        check(
            start_width == width,
            "pos_start",
            o,
            &format!("the width is {width}"),
        )?;
        let [word_width, cvae] = dims(o, "word_embed.weight")?;
        check(
            word_width == width,
            "word_embed.weight",
            o,
            &format!("the width is {width}"),
        )?;
        let [num_scales, _] = dims(o, "lvl_embed.weight")?;
        let [class_rows, _] = dims(o, "class_emb.weight")?;
        check(
            class_rows > 0,
            "class_emb.weight",
            o,
            "there must be a row for \"no class\"",
        )?;
        let [vocab_size, head_width] = dims(o, "head.weight")?;
        check(
            head_width == width,
            "head.weight",
            o,
            &format!("the width is {width}"),
        )?;
        let depth = count(o, |i| format!("blocks.{i}.attn.proj.weight"));
        if depth == 0 {
            return Err("has no blocks".into());
        }
        let [ffn_width, _] = dims(o, "blocks.0.ffn.fc1.weight")?;
        let scale_mul = "blocks.0.attn.scale_mul_1H11";
        let anorm = o.contains(scale_mul);
        let heads = if anorm {
            let [_, heads, _, _] = dims(o, scale_mul)?;
            check(
                heads > 0 && width % heads == 0,
                scale_mul,
                o,
                &format!("the width is {width}"),
            )?;
            heads
        } else {
            check(width % 64 == 0, "pos_1LC", o, "heads have 64 channels")?;
            width / 64
        };
        let patch_nums = match &o.level_sizes {
            Some(sizes) => Some(squares(sizes, seq_len, num_scales)?),
            None => None,
        };
        Ok(Self {
            depth,
            width,
            heads,
            ffn_width,
            num_classes: class_rows - 1,
            shared_aln: o.contains("blocks.0.ada_gss"),
            anorm,
            vocab_size,
            cvae,
            seq_len,
            first_len,
            num_scales,
            patch_nums,
        })
    }
}

impl VarShape {
    /// The same with the patch numbers that a file states; an error completes a sentence that begins with the file's
    /// name.
    ///
    /// # Errors
    /// When they do not give the sequence's length.
    pub fn with_patch_nums(mut self, patch_nums: &[usize]) -> Result<Self, String> {
        let tokens = patch_nums
            .iter()
            .map(|&n| n.saturating_mul(n))
            .fold(0, usize::saturating_add);
        if tokens != self.seq_len || patch_nums.len() != self.num_scales {
            return Err(format!(
                "states the patch numbers {patch_nums:?} ({tokens} tokens), but pos_1LC has {} tokens and lvl_embed {} levels",
                self.seq_len, self.num_scales
            ));
        }
        self.patch_nums = Some(patch_nums.to_vec());
        Ok(self)
    }
}

/// The sides of square token maps.
fn squares(sizes: &[usize], seq_len: usize, num_scales: usize) -> Result<Vec<usize>, String> {
    if sizes.len() != num_scales || sizes.iter().sum::<usize>() != seq_len {
        return Err(format!(
            "its lvl_1L has {} levels with {} tokens, its embeddings {num_scales} with {seq_len}",
            sizes.len(),
            sizes.iter().sum::<usize>()
        ));
    }
    let side = |&n: &usize| (n.isqrt().pow(2) == n).then(|| n.isqrt());
    let sides: Option<Vec<usize>> = sizes.iter().map(side).collect();
    sides.ok_or_else(|| {
        format!("the levels of its lvl_1L have {sizes:?} tokens, which are not all squares")
    })
}
