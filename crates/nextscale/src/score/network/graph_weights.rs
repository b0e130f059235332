//! Inception's weights from TensorFlow's graph of 2015: `classify_image_graph_def.pb`.
//!
//! Every convolution has the constants `conv2d_params` (height, width, in, out) and `batchnorm/` `beta`, `gamma`, `moving_mean` and
//! `moving_variance`, and a node that normalises and says what is added to variances and whether `gamma` counts. The classifier is
//! `softmax/weights` (in, out) and `softmax/biases`.

use std::collections::HashSet;
use std::io::Read;
use std::path::Path;

use super::graph_def::{self, Constant, Graph};
use super::{names, words};
use crate::format::{HostTensor, StateDict};
use crate::input::open_input;
use crate::{Error, Result};

/// The longest graph that is read. The published one has 96 MB.
const LONGEST: u64 = 512 << 20;
/// What the network adds to variances.
const EPSILON: f32 = 1e-3;

const NORM: [(&str, &str); 4] = [
    ("bn.weight", "gamma"),
    ("bn.bias", "beta"),
    ("bn.running_mean", "moving_mean"),
    ("bn.running_var", "moving_variance"),
];

/// Reads the graph's weights under the names of the PyTorch ports.
pub(super) fn read(path: &Path) -> Result<StateDict> {
    let (file, len) = open_input(path)?;
    let bad = |why: String| Error::input(format!("{}: {why}", path.display()));
    if len > LONGEST {
        let text =
            format!("is a TensorFlow graph of {len} bytes, which is more than Inception needs");
        return Err(bad(text));
    }
    let mut bytes = Vec::new();
    let mut file = file.take(LONGEST);
    file.read_to_end(&mut bytes).map_err(Error::io(path))?;
    weights(&bytes).map_err(bad)
}

/// The same from a graph's bytes; the error completes a sentence that begins with the file's name.
pub(super) fn weights(bytes: &[u8]) -> Result<StateDict, String> {
    let mut wanted: HashSet<String> = ["softmax/weights", "softmax/biases"]
        .map(str::to_owned)
        .into();
    for (_, scope) in names::layers() {
        wanted.insert(format!("{scope}/conv2d_params"));
        wanted.extend(NORM.map(|(_, part)| format!("{scope}/batchnorm/{part}")));
    }
    let mut graph = graph_def::read(bytes, |name| wanted.contains(name))?;
    if !graph.constants.contains_key("conv/conv2d_params") {
        return Err(format!(
            "is a TensorFlow graph of {} nodes, and not {}; get {}",
            graph.nodes,
            words::INCEPTION,
            words::GRAPH.words()
        ));
    }
    let scales = scales(&graph)?;
    let mut out = StateDict::new();
    for (ours, scope) in names::layers() {
        let weight = take(&mut graph, &format!("{scope}/conv2d_params"))?;
        let tensor = turned::<4>(weight, [3, 2, 0, 1], &scope)?;
        out.insert(format!("{ours}.conv.weight"), tensor);
        for (to, from) in NORM {
            let name = format!("{scope}/batchnorm/{from}");
            // A scale that is not applied need not be there.
            let tensor = match (from, scales) {
                ("gamma", false) => {
                    let size = out.get(&format!("{ours}.conv.weight")).map(|t| t.shape[0]);
                    names::ones(&[size.unwrap_or(0)]).map_err(|e| e.to_string())?
                }
                _ => plain(take(&mut graph, &name)?)?,
            };
            out.insert(format!("{ours}.{to}"), tensor);
        }
    }
    let weight = take(&mut graph, "softmax/weights")?;
    out.insert("fc.weight", turned::<2>(weight, [1, 0], "softmax")?);
    let bias = plain(take(&mut graph, "softmax/biases")?)?;
    out.insert("fc.bias", bias);
    Ok(out)
}

/// Whether `gamma` counts: in graphs that normalise by several small nodes it does where it is there.
fn scales(graph: &Graph) -> Result<bool, String> {
    let Some(&(_, first)) = graph.norms.first() else {
        return Ok(true);
    };
    for &(epsilon, scales) in &graph.norms {
        if (epsilon - EPSILON).abs() > 1e-6 || scales != first {
            return Err(format!(
                "its batch norms add {epsilon} to variances and scale: {scales}; Inception of 2015-12-05 adds {EPSILON}, all alike: it is another graph"
            ));
        }
    }
    Ok(first)
}

fn take(graph: &mut Graph, name: &str) -> Result<Constant, String> {
    graph
        .constants
        .remove(name)
        .ok_or_else(|| format!("lacks the constant {name:?}; get {}", words::GRAPH.words()))
}

fn plain(constant: Constant) -> Result<HostTensor, String> {
    HostTensor::from_f32(&constant.shape, &constant.values).map_err(|e| e.to_string())
}

/// A constant with its axes in another order: axis i of the result is axis `order[i]`.
fn turned<const N: usize>(
    constant: Constant,
    order: [usize; N],
    what: &str,
) -> Result<HostTensor, String> {
    let Constant { shape, values } = constant;
    let Ok(sizes) = <[usize; N]>::try_from(shape.as_slice()) else {
        return Err(format!(
            "its weights of {what:?} have the shape {shape:?}, and {N} axes are expected"
        ));
    };
    let mut steps = [1; N];
    for axis in (1..N).rev() {
        steps[axis - 1] = steps[axis] * sizes[axis];
    }
    let to = order.map(|axis| sizes[axis]);
    let step = order.map(|axis| steps[axis]);
    let (mut out, mut index) = (Vec::with_capacity(values.len()), [0; N]);
    for _ in 0..values.len() {
        let at: usize = index.iter().zip(step).map(|(i, s)| i * s).sum();
        out.push(values.get(at).copied().unwrap_or_default());
        for axis in (0..N).rev() {
            index[axis] += 1;
            if index[axis] < to[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
    HostTensor::from_f32(&to, &out).map_err(|e| e.to_string())
}
