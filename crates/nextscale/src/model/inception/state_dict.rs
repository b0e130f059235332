//! Weights of Inception from the files of the PyTorch ports: batch norms are folded into the convolutions before them.

use super::Inception;
use crate::format::StateDict;
use crate::format::host::HostTensor;
use crate::model::load_into::match_tensors;
use crate::model::state::expected;
use crate::{Error, Result};

/// Added to variances by the network's batch norms.
const EPS: f64 = 1e-3;

/// A batch norm's tensors, in the order in which they are used here.
const NORM: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

/// Whether these tensors are an Inception network's, as `pytorch-fid` and `torch-fidelity` name them.
pub fn fits(dict: &StateDict) -> bool {
    fits_names(dict.names())
}

/// The same by the tensors' names alone.
pub fn fits_names<'a>(names: impl IntoIterator<Item = &'a str>) -> bool {
    let telling = [
        "Conv2d_1a_3x3.conv.weight",
        "Mixed_7c.branch_pool.bn.running_var",
    ];
    let found = names.into_iter().filter(|name| telling.contains(name));
    found.count() == telling.len()
}

/// Loads every weight from `dict`. What belongs to no part of the network that scores use (`AuxLogits`, counters of batch norms) is
/// passed over.
///
/// # Errors
/// One line naming `source` and the tensors that are missing, unexpected, of another shape, or no numbers.
pub fn load(net: &mut Inception, dict: &StateDict, source: &str) -> Result<()> {
    // Here a convolution has a bias, in the files a batch norm.
    let own = expected(&net.params);
    let mut wanted = Vec::new();
    for (name, shape) in &own {
        match name.strip_suffix(".conv.bias") {
            Some(layer) => {
                wanted.extend(NORM.map(|t| (format!("{layer}.bn.{t}"), shape.clone())));
            }
            None => wanted.push((name.clone(), shape.clone())),
        }
    }
    let used: StateDict = dict
        .iter()
        .filter(|(name, _)| {
            !name.starts_with("AuxLogits.") && !name.ends_with(".num_batches_tracked")
        })
        .map(|(name, tensor)| (name.to_owned(), tensor.clone()))
        .collect();
    let found = match_tensors(&wanted, &used, source)?;
    let values = |name: &str| -> Result<Vec<f32>> {
        let at = wanted.iter().position(|(n, _)| n == name);
        let tensor = at.and_then(|i| found[i]);
        let tensor =
            tensor.ok_or_else(|| Error::failed(format!("{source}: {name} was not matched")))?;
        numbers(tensor, name, source)
    };
    for (name, _) in own
        .iter()
        .filter(|(name, _)| name.ends_with(".conv.weight"))
    {
        let layer = name.trim_end_matches(".conv.weight");
        let mut weight = values(name)?;
        let [gamma, beta, mean, variance] = NORM.map(|t| values(&format!("{layer}.bn.{t}")));
        let (gamma, beta, mean, variance) = (gamma?, beta?, mean?, variance?);
        let inner = weight.len() / gamma.len().max(1);
        let mut bias = Vec::with_capacity(gamma.len());
        for (o, row) in weight.chunks_exact_mut(inner.max(1)).enumerate() {
            if variance[o] < 0.0 {
                return Err(Error::input(format!(
                    "{source}: tensor \"{layer}.bn.running_var\" has a negative variance; the file is damaged: get it again"
                )));
            }
            let scale = f64::from(gamma[o]) / (f64::from(variance[o]) + EPS).sqrt();
            for w in row {
                *w = (f64::from(*w) * scale) as f32;
            }
            bias.push((f64::from(beta[o]) - f64::from(mean[o]) * scale) as f32);
        }
        net.params.import(name, &weight)?;
        net.params.import(&format!("{layer}.conv.bias"), &bias)?;
    }
    for name in ["fc.weight", "fc.bias"] {
        net.params.import(name, &values(name)?)?;
    }
    Ok(())
}

/// A tensor's values, all of them finite.
fn numbers(tensor: &HostTensor, name: &str, source: &str) -> Result<Vec<f32>> {
    let values = tensor.to_f32_vec();
    let lost = values.iter().filter(|v| !v.is_finite()).count();
    if !tensor.dtype.is_float() || lost > 0 {
        return Err(Error::input(format!(
            "{source}: tensor {name:?} is of type {} and {lost} of its {} values are no finite numbers; the file is damaged: get it again",
            tensor.dtype,
            values.len()
        )));
    }
    Ok(values)
}
