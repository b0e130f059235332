//! How the reference orders and groups a transformer's parameters, which fixes the numbers in its optimizer's state.
//!
//! The optimizer knows its parameters by number only. The numbers run over the groups, in the order in which
//! each group first appears when the model's parameters are walked, and inside a group in that same order.
//! `pos_start` comes first and is not decayed, so group 0 is the undecayed one.

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::fixtures::{json, unpacked};
    use crate::checkpoint::safetensors::read_safetensors;

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
            let (_, value) = crate::checkpoint::pth::PthFile::open(path).unwrap();
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
}
