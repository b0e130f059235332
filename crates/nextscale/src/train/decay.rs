//! Which parameters get weight decay, and the optimizer's parameter groups.

/// A parameter whose name holds one of these is never decayed.
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

/// Whether the parameter `name` of `shape` gets weight decay: not if it is one-dimensional, a bias, an
/// embedding of positions or levels, or a learned scale.
pub fn is_decayed(name: &str, shape: &[usize]) -> bool {
    shape.len() != 1 && !name.ends_with("bias") && !UNDECAYED.iter().any(|key| name.contains(key))
}

/// A group of parameters with one weight decay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamGroup {
    /// Whether its parameters are decayed.
    pub decayed: bool,
    /// Its parameters, as positions in the list of all parameters.
    pub params: Vec<usize>,
}

impl ParamGroup {
    /// The factor on the run's weight decay: 0 or 1 (`wd_sc` in the reference's checkpoints).
    pub fn wd_scale(&self) -> f64 {
        if self.decayed { 1.0 } else { 0.0 }
    }
}

/// The groups of `params` (names and shapes in registration order). A group stands where its first
/// parameter appears. Walking the groups in order numbers the optimizer states as the reference does: see
/// [`param_order`].
pub fn param_groups<'a>(
    params: impl IntoIterator<Item = (&'a str, &'a [usize])>,
) -> Vec<ParamGroup> {
    let mut groups: Vec<ParamGroup> = Vec::with_capacity(2);
    for (index, (name, shape)) in params.into_iter().enumerate() {
        let decayed = is_decayed(name, shape);
        match groups.iter_mut().find(|group| group.decayed == decayed) {
            Some(group) => group.params.push(index),
            None => groups.push(ParamGroup {
                decayed,
                params: vec![index],
            }),
        }
    }
    groups
}

/// For every optimizer state index of the reference's checkpoints, the position of its parameter.
pub fn param_order(groups: &[ParamGroup]) -> Vec<usize> {
    groups
        .iter()
        .flat_map(|group| group.params.iter().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// The parameters of the fixture's transformer (depth 2, width 128) in registration order.
    fn two_blocks() -> Vec<(String, Vec<usize>)> {
        let mut params: Vec<(String, Vec<usize>)> = vec![
            ("pos_start".into(), vec![1, 1, 128]),
            ("pos_1LC".into(), vec![1, 30, 128]),
            ("word_embed.weight".into(), vec![128, 32]),
            ("word_embed.bias".into(), vec![128]),
            ("class_emb.weight".into(), vec![11, 128]),
            ("lvl_embed.weight".into(), vec![4, 128]),
        ];
        for block in 0..2 {
            for (name, shape) in [
                ("attn.scale_mul_1H11", vec![1, 2, 1, 1]),
                ("attn.q_bias", vec![128]),
                ("attn.v_bias", vec![128]),
                ("attn.mat_qkv.weight", vec![384, 128]),
                ("attn.proj.weight", vec![128, 128]),
                ("attn.proj.bias", vec![128]),
                ("ffn.fc1.weight", vec![512, 128]),
                ("ffn.fc1.bias", vec![512]),
                ("ffn.fc2.weight", vec![128, 512]),
                ("ffn.fc2.bias", vec![128]),
                ("ada_lin.1.weight", vec![768, 128]),
                ("ada_lin.1.bias", vec![768]),
            ] {
                params.push((format!("blocks.{block}.{name}"), shape));
            }
        }
        for (name, shape) in [
            ("head_nm.ada_lin.1.weight", vec![256, 128]),
            ("head_nm.ada_lin.1.bias", vec![256]),
            ("head.weight", vec![128, 128]),
            ("head.bias", vec![128]),
        ] {
            params.push((name.into(), shape));
        }
        params
    }

    #[test]
    fn the_groups_of_the_fixture() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../fixtures/var/param_groups.json"
        );
        let fixture: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let params = two_blocks();
        let groups = param_groups(
            params
                .iter()
                .map(|(name, shape)| (name.as_str(), shape.as_slice())),
        );
        let expected = fixture["order"].as_array().unwrap();
        assert_eq!(groups.len(), expected.len());
        let mut order = Vec::new();
        for (group, expected) in groups.iter().zip(expected) {
            assert_eq!(group.wd_scale(), expected["wd_sc"].as_f64().unwrap());
            let names: Vec<&str> = group.params.iter().map(|&i| params[i].0.as_str()).collect();
            let expected: Vec<&str> = expected["params"]
                .as_array()
                .unwrap()
                .iter()
                .map(|name| name.as_str().unwrap())
                .collect();
            assert_eq!(names, expected);
            order.extend(expected);
        }
        let found: Vec<&str> = param_order(&groups)
            .iter()
            .map(|&i| params[i].0.as_str())
            .collect();
        assert_eq!(found, order);
        assert_eq!(found.len(), params.len());
    }

    #[test]
    fn shared_adaptive_norms_and_one_dimension_are_undecayed() {
        assert!(!is_decayed("blocks.3.ada_gss", &[1, 1, 6, 64]));
        assert!(!is_decayed("anything", &[64]));
        assert!(is_decayed("shared_ada_lin.1.weight", &[384, 64]));
        assert!(is_decayed("class_emb.weight", &[1001, 64]));
    }
}
