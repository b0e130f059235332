//! What is known of a transformer's state dict: names and shapes, and what a model is built from; the order of the reference's
//! parameters and which of them are decayed; the buffers that it keeps although they can be derived.
//!
//! The reference's optimizer knows its parameters by number only. The numbers run over the groups, in the order in which each group
//! first appears when the model's parameters are walked, and inside a group in that same order. `pos_start` comes first and is not
//! decayed, so group 0 is the undecayed one.

use crate::format::outline::Outline;
use crate::format::{HostTensor, StateDict};
use crate::{Error, Result};

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

impl VarShape {
    /// The tensors by which a transformer is known.
    pub(crate) const TELLING: &[&str] = &["pos_1LC", "word_embed.weight", "lvl_embed.weight"];

    /// Whether these are a transformer's tensors.
    pub fn fits(o: &Outline) -> bool {
        Self::TELLING.iter().all(|n| o.contains(n))
    }

    /// Tells the construction parameters; an error completes a sentence that begins with the file's name.
    ///
    /// # Errors
    /// When a tensor that tells them is missing or its shape contradicts another one.
    pub fn infer(o: &Outline) -> Result<Self, String> {
        let [_, seq_len, width] = o.dims("pos_1LC")?;
        let [_, first_len, start_width] = o.dims("pos_start")?;
        o.check(
            start_width == width,
            "pos_start",
            &format!("the width is {width}"),
        )?;
        let [word_width, cvae] = o.dims("word_embed.weight")?;
        o.check(
            word_width == width,
            "word_embed.weight",
            &format!("the width is {width}"),
        )?;
        let [num_scales, _] = o.dims("lvl_embed.weight")?;
        let [class_rows, _] = o.dims("class_emb.weight")?;
        o.check(
            class_rows > 0,
            "class_emb.weight",
            "there must be a row for \"no class\"",
        )?;
        let [vocab_size, head_width] = o.dims("head.weight")?;
        o.check(
            head_width == width,
            "head.weight",
            &format!("the width is {width}"),
        )?;
        let depth = o.count(|i| format!("blocks.{i}.attn.proj.weight"));
        if depth == 0 {
            return Err("has no blocks".into());
        }
        let [ffn_width, _] = o.dims("blocks.0.ffn.fc1.weight")?;
        let scale_mul = "blocks.0.attn.scale_mul_1H11";
        let anorm = o.contains(scale_mul);
        let heads = if anorm {
            let [_, heads, _, _] = o.dims(scale_mul)?;
            o.check(
                heads > 0 && width % heads == 0,
                scale_mul,
                &format!("the width is {width}"),
            )?;
            heads
        } else {
            o.check(width % 64 == 0, "pos_1LC", "heads have 64 channels")?;
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

/// Parts of names whose parameters are not decayed.
const UNDECAYED: [&str; 14] = [
    "cls_token",
    "start_token",
    "task_token",
    "cfg_uncond",
    "pos_embed",
    "pos_1LC",
    "pos_start",
    "start_pos",
    "lvl_embed",
    "gamma",
    "beta",
    "ada_gss",
    "moe_bias",
    "scale_mul",
];

/// Names outside the blocks, in the reference's order; the blocks come before `head_nm`.
const OUTSIDE: [&str; 14] = [
    "pos_start",
    "pos_1LC",
    "lvl_1L",
    "attn_bias_for_masking",
    "word_embed.weight",
    "word_embed.bias",
    "class_emb.weight",
    "lvl_embed.weight",
    "shared_ada_lin.1.weight",
    "shared_ada_lin.1.bias",
    "head_nm.ada_lin.1.weight",
    "head_nm.ada_lin.1.bias",
    "head.weight",
    "head.bias",
];
const FIRST_AFTER_BLOCKS: usize = 10;

/// Names inside a block, in the reference's order.
const INSIDE: [&str; 14] = [
    "ada_gss",
    "attn.scale_mul_1H11",
    "attn.q_bias",
    "attn.v_bias",
    "attn.zero_k_bias",
    "attn.mat_qkv.weight",
    "attn.proj.weight",
    "attn.proj.bias",
    "ffn.fc1.weight",
    "ffn.fc1.bias",
    "ffn.fc2.weight",
    "ffn.fc2.bias",
    "ada_lin.1.weight",
    "ada_lin.1.bias",
];

/// Whether a name of a transformer's state dict is a buffer (derived, never trained) and not a parameter.
pub fn is_buffer(name: &str) -> bool {
    matches!(name, "lvl_1L" | "attn_bias_for_masking") || name.ends_with(".zero_k_bias")
}

/// Whether weight decay applies to a parameter: not to vectors, biases and position-like tables.
pub fn is_decayed(name: &str, ndim: usize) -> bool {
    !(ndim == 1 || name.ends_with("bias") || UNDECAYED.iter().any(|k| name.contains(k)))
}

/// Where a name of a transformer's state dict stands in the reference's order: a sorting key. Names that
/// the reference does not have come last.
pub fn reference_rank(name: &str) -> (usize, usize, usize) {
    let block = name
        .strip_prefix("blocks.")
        .and_then(|rest| rest.split_once('.'));
    if let Some((number, inner)) = block
        && let Ok(number) = number.parse()
    {
        let place = INSIDE
            .iter()
            .position(|&n| n == inner)
            .unwrap_or(INSIDE.len());
        return (FIRST_AFTER_BLOCKS, number, place);
    }
    match OUTSIDE.iter().position(|&n| n == name) {
        Some(i) if i >= FIRST_AFTER_BLOCKS => (i + 1, 0, 0),
        Some(i) => (i, 0, 0),
        None => (usize::MAX, 0, 0),
    }
}

/// One group of the optimizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamGroup {
    /// Whether weight decay applies.
    pub decayed: bool,
    /// Names of the parameters, in the order of their numbers.
    pub names: Vec<String>,
}

/// The groups for parameters (name and number of axes) in the order in which the model lists them. Buffers are left out.
pub fn param_groups<'a>(params: impl IntoIterator<Item = (&'a str, usize)>) -> Vec<ParamGroup> {
    let mut groups: Vec<ParamGroup> = Vec::new();
    for (name, ndim) in params {
        if is_buffer(name) {
            continue;
        }
        let decayed = is_decayed(name, ndim);
        match groups.iter_mut().find(|g| g.decayed == decayed) {
            Some(g) => g.names.push(name.to_owned()),
            None => groups.push(ParamGroup {
                decayed,
                names: vec![name.to_owned()],
            }),
        }
    }
    groups
}

/// The longest sequence whose mask (4·L² bytes) is derived: three times that of a 1024 pixel schedule.
const MAX_TOKENS: usize = 32_768;

/// Adds the buffers that are missing: `lvl_1L` (int64, 1×L, the level of each token), `attn_bias_for_masking`
/// (1×1×L×L, 0 where a token sees another and −∞ elsewhere) and each block's `zero_k_bias` (C zeros). The dict
/// is put into the reference's order.
///
/// # Errors
/// When `patch_nums` does not give the L of `pos_1LC`, there is no such tensor, or the mask would be absurdly large.
pub fn add_reference_buffers(var: &mut StateDict, patch_nums: &[usize]) -> Result<()> {
    let l = patch_nums
        .iter()
        .map(|&pn| pn.saturating_mul(pn))
        .fold(0, usize::saturating_add);
    // Checked before anything of that size is made.
    match var.get("pos_1LC").map(|t| t.shape.as_slice()) {
        Some(&[_, found, _]) if found == l => {}
        found => {
            return Err(Error::input(format!(
                "patch numbers {patch_nums:?} make {l} tokens, but pos_1LC has the shape {found:?}"
            )));
        }
    }
    if l > MAX_TOKENS {
        return Err(Error::input(format!(
            "the attention mask of {l} tokens would be too large (at most {MAX_TOKENS})"
        )));
    }
    let level_l: Vec<i64> = patch_nums
        .iter()
        .enumerate()
        .flat_map(|(k, &pn)| std::iter::repeat_n(k as i64, pn * pn))
        .collect();
    if !var.contains("lvl_1L") {
        var.insert("lvl_1L", HostTensor::from_i64(&[1, l], &level_l)?);
    }
    if !var.contains("attn_bias_for_masking") {
        let bias: Vec<f32> = level_l
            .iter()
            .flat_map(|from| {
                level_l
                    .iter()
                    .map(move |to| if from >= to { 0.0 } else { f32::NEG_INFINITY })
            })
            .collect();
        var.insert(
            "attn_bias_for_masking",
            HostTensor::from_f32(&[1, 1, l, l], &bias)?,
        );
    }
    let missing: Vec<(String, Vec<usize>)> = var
        .iter()
        .filter_map(|(name, t)| {
            let buffer = format!("{}zero_k_bias", name.strip_suffix("q_bias")?);
            (!var.contains(&buffer)).then(|| (buffer, t.shape.clone()))
        })
        .collect();
    for (name, shape) in missing {
        var.insert(name, HostTensor::zeros_f32(&shape)?);
    }
    var.sort_by_key(reference_rank);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::fixtures::{json, unpacked};
    use crate::format::safetensors::read_safetensors;

    #[test]
    fn groups_and_numbers_equal_the_reference_s() {
        let (_dir, path) = unpacked("var/l2_weights.safetensors");
        let (mut dict, _) = read_safetensors(path).unwrap();
        dict.sort_by_key(reference_rank);
        let groups = param_groups(dict.iter().map(|(n, t)| (n, t.shape.len())));
        let want = json("var/param_groups.json");
        let want = want["order"].as_array().unwrap();
        assert_eq!(groups.len(), want.len());
        for (got, want) in groups.iter().zip(want) {
            assert_eq!(
                f64::from(u8::from(got.decayed)),
                want["wd_sc"].as_f64().unwrap()
            );
            let names: Vec<_> = want["params"]
                .as_array()
                .unwrap()
                .iter()
                .map(|n| n.as_str().unwrap())
                .collect();
            assert_eq!(got.names, names);
        }
    }

    #[test]
    fn the_order_of_every_variant_is_the_reference_s() {
        for name in ["var/l2_weights.pth", "var/saln_weights.pth"] {
            let (_dir, path) = unpacked(name);
            let (_, value) = crate::format::pth::PthFile::open(path).unwrap();
            let torch_pth::Value::Dict(d) = value else {
                panic!()
            };
            let (entries, mut sorted) = (d.tensor_entries().unwrap(), vec![]);
            sorted.extend(entries.iter().map(|e| e.0));
            sorted.reverse();
            sorted.sort_by_key(|n| reference_rank(n));
            assert_eq!(entries.iter().map(|e| e.0).collect::<Vec<_>>(), sorted);
            assert!(sorted.iter().all(|n| reference_rank(n).0 < usize::MAX));
        }
        assert!(reference_rank("blocks.10.ada_gss") > reference_rank("blocks.9.ada_lin.1.bias"));
        assert!(
            reference_rank("head_nm.ada_lin.1.weight") > reference_rank("blocks.29.ada_lin.1.bias")
        );
        assert!(is_decayed("class_emb.weight", 2) && !is_decayed("lvl_embed.weight", 2));
        assert!(!is_decayed("blocks.3.ada_gss", 4) && is_decayed("shared_ada_lin.1.weight", 2));
    }

    #[test]
    fn buffers_equal_the_reference_s() {
        for name in ["l2", "nol2", "saln"] {
            let (_dir, path) = unpacked(&format!("var/{name}_weights.safetensors"));
            let (mut whole, _) = read_safetensors(path).unwrap();
            whole.sort_by_key(reference_rank);
            let mut bare: StateDict = whole
                .clone()
                .into_iter()
                .filter(|(n, _)| !is_buffer(n))
                .collect();
            assert_eq!(whole.len() - bare.len(), 4);
            add_reference_buffers(&mut bare, &[1, 2, 3, 4]).unwrap();
            assert!(bare == whole, "{name}");
            assert!(
                add_reference_buffers(&mut bare, &[1, 2])
                    .unwrap_err()
                    .to_string()
                    .contains("30")
            );
        }
    }
}
