//! What Inception's layers are called in TensorFlow's graph of 2015, and in the TorchScript program that NVIDIA made of it.
//!
//! The graph's names are public: `torch-fidelity` and others convert it. The program's are known from a public port to PaddlePaddle
//! that reads its state dict and prints its code (miemie2013's PaGAN): the same layers below `layers`, `output` for the classifier, and in
//! a layer `weight`, `beta`, `mean` and `var`; no scale, and 0.001 is added to variances. In the last two blocks its towers are no modules
//! of their own, so that a slash of the graph is an underscore there. Since the file was not at hand, names are compared with dots and
//! slashes as underscores, which tells all layers apart all the same; shapes are checked.

use std::collections::HashMap;

use crate::format::{HostTensor, StateDict};

/// What a block's layers are called here and in the graph.
type Layers = &'static [(&'static str, &'static str)];

const A: Layers = &[
    ("branch1x1", "conv"),
    ("branch5x5_1", "tower/conv"),
    ("branch5x5_2", "tower/conv_1"),
    ("branch3x3dbl_1", "tower_1/conv"),
    ("branch3x3dbl_2", "tower_1/conv_1"),
    ("branch3x3dbl_3", "tower_1/conv_2"),
    ("branch_pool", "tower_2/conv"),
];
const B: Layers = &[
    ("branch3x3", "conv"),
    ("branch3x3dbl_1", "tower/conv"),
    ("branch3x3dbl_2", "tower/conv_1"),
    ("branch3x3dbl_3", "tower/conv_2"),
];
const C: Layers = &[
    ("branch1x1", "conv"),
    ("branch7x7_1", "tower/conv"),
    ("branch7x7_2", "tower/conv_1"),
    ("branch7x7_3", "tower/conv_2"),
    ("branch7x7dbl_1", "tower_1/conv"),
    ("branch7x7dbl_2", "tower_1/conv_1"),
    ("branch7x7dbl_3", "tower_1/conv_2"),
    ("branch7x7dbl_4", "tower_1/conv_3"),
    ("branch7x7dbl_5", "tower_1/conv_4"),
    ("branch_pool", "tower_2/conv"),
];
const D: Layers = &[
    ("branch3x3_1", "tower/conv"),
    ("branch3x3_2", "tower/conv_1"),
    ("branch7x7x3_1", "tower_1/conv"),
    ("branch7x7x3_2", "tower_1/conv_1"),
    ("branch7x7x3_3", "tower_1/conv_2"),
    ("branch7x7x3_4", "tower_1/conv_3"),
];
const E: Layers = &[
    ("branch1x1", "conv"),
    ("branch3x3_1", "tower/conv"),
    ("branch3x3_2a", "tower/mixed/conv"),
    ("branch3x3_2b", "tower/mixed/conv_1"),
    ("branch3x3dbl_1", "tower_1/conv"),
    ("branch3x3dbl_2", "tower_1/conv_1"),
    ("branch3x3dbl_3a", "tower_1/mixed/conv"),
    ("branch3x3dbl_3b", "tower_1/mixed/conv_1"),
    ("branch_pool", "tower_2/conv"),
];
const STEM: Layers = &[
    ("Conv2d_1a_3x3", "conv"),
    ("Conv2d_2a_3x3", "conv_1"),
    ("Conv2d_2b_3x3", "conv_2"),
    ("Conv2d_3b_1x1", "conv_3"),
    ("Conv2d_4a_3x3", "conv_4"),
];
const BLOCKS: [(&str, &str, Layers); 11] = [
    ("Mixed_5b", "mixed", A),
    ("Mixed_5c", "mixed_1", A),
    ("Mixed_5d", "mixed_2", A),
    ("Mixed_6a", "mixed_3", B),
    ("Mixed_6b", "mixed_4", C),
    ("Mixed_6c", "mixed_5", C),
    ("Mixed_6d", "mixed_6", C),
    ("Mixed_6e", "mixed_7", C),
    ("Mixed_7a", "mixed_8", D),
    ("Mixed_7b", "mixed_9", E),
    ("Mixed_7c", "mixed_10", E),
];

/// Every convolution: its name here, and in the graph.
pub(super) fn layers() -> impl Iterator<Item = (String, String)> {
    let stem = STEM.iter();
    let stem = stem.map(|(ours, theirs)| ((*ours).to_owned(), (*theirs).to_owned()));
    let blocks = BLOCKS.iter().flat_map(|(block, scope, layers)| {
        let named = move |(ours, theirs): &(&str, &str)| {
            (format!("{block}.{ours}"), format!("{scope}/{theirs}"))
        };
        layers.iter().map(named)
    });
    stem.chain(blocks)
}

/// A name of the program, whatever stands between its parts.
fn joined(name: &str) -> String {
    name.replace(['.', '/'], "_")
}

/// The name of a tensor in the program of NVIDIA that is there in every copy of it.
pub(super) const SCRIPT_TELLS: [&str; 2] = ["layers_conv_weight", "output_weight"];

/// Whether a TorchScript module with tensors of these names is the program.
pub(super) fn is_program<'a>(names: impl Iterator<Item = &'a str>) -> bool {
    let names: Vec<String> = names.map(joined).collect();
    let there = |name: &&str| names.iter().any(|n| n == name);
    SCRIPT_TELLS.iter().all(there)
}

/// The program's tensors under the names of the PyTorch ports. What is missing stays missing, what is unknown keeps its name, and a layer
/// without a scale gets one of ones.
pub(super) fn from_program(found: StateDict) -> StateDict {
    let mut names = HashMap::new();
    for (ours, theirs) in layers() {
        for (to, from) in [
            ("conv.weight", "weight"),
            ("bn.weight", "gamma"),
            ("bn.bias", "beta"),
            ("bn.running_mean", "mean"),
            ("bn.running_var", "var"),
        ] {
            names.insert(
                joined(&format!("layers/{theirs}/{from}")),
                format!("{ours}.{to}"),
            );
        }
    }
    for part in ["weight", "bias"] {
        names.insert(format!("output_{part}"), format!("fc.{part}"));
    }
    let mut out: StateDict = found
        .into_iter()
        .map(|(name, tensor)| match names.get(&joined(&name)) {
            Some(ours) => (ours.clone(), tensor),
            None => (name, tensor),
        })
        .collect();
    for (ours, _) in layers() {
        let scale = format!("{ours}.bn.weight");
        let shift = out.get(&format!("{ours}.bn.bias"));
        let shape = shift.map(|shift| shift.shape.clone());
        if let (false, Some(shape)) = (out.contains(&scale), shape)
            && let Ok(ones) = ones(&shape)
        {
            out.insert(scale, ones);
        }
    }
    out
}

/// A tensor of ones.
pub(super) fn ones(shape: &[usize]) -> crate::Result<HostTensor> {
    let mut tensor = HostTensor::zeros_f32(shape)?;
    for one in tensor.data.as_chunks_mut::<4>().0 {
        *one = 1f32.to_le_bytes();
    }
    Ok(tensor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::inception::Inception;
    use std::collections::HashSet;

    #[test]
    fn every_convolution_has_one_name_in_each() {
        let net = Inception::new().unwrap();
        let own: HashSet<String> = crate::model::state::expected(&net.params)
            .into_iter()
            .filter_map(|(name, _)| Some(name.strip_suffix(".conv.weight")?.to_owned()))
            .collect();
        let ours: HashSet<String> = layers().map(|(ours, _)| ours).collect();
        assert_eq!(ours, own);
        let theirs: HashSet<String> = layers().map(|(_, theirs)| joined(&theirs)).collect();
        assert_eq!((theirs.len(), layers().count()), (94, 94));
    }
}
