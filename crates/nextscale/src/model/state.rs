//! Weights in and out of models: between flat parameters and the reference's state dicts.

use super::load_into::load_into;
use super::var::Var;
use super::vqvae::Vqvae;
use super::vqvae::state_dict::HITS;
use crate::format::StateDict;
use crate::format::host::count_non_finite;
use crate::format::run_file::Part;
use crate::{Error, Result};
use nextscale_tensor::{GradBuffer, Params};
use std::borrow::Cow;

/// Names and shapes of the parameters, for [`load_into`].
pub(crate) fn expected(params: &Params) -> Vec<(String, Vec<usize>)> {
    let infos = params.infos().iter();
    infos
        .map(|i| (i.name.clone(), i.shape.dims().to_vec()))
        .collect()
}

/// Loads every parameter from `dict`; the reference's derived buffers are passed over.
///
/// # Errors
/// One line naming `source` and the tensors that are missing, unexpected or of another shape.
pub fn load_params(params: &mut Params, dict: &StateDict, source: &str) -> Result<()> {
    let expected = expected(params);
    load_into(&expected, dict, source, |i, values| {
        Ok(params.import(&expected[i].0, &values)?)
    })
}

/// Loads averaged weights into a buffer that is laid out as `params`.
///
/// # Errors
/// As [`load_params`]: an average lacks nothing.
pub fn load_average(
    buffer: &mut GradBuffer,
    params: &Params,
    dict: &StateDict,
    source: &str,
) -> Result<()> {
    let infos = params.infos();
    let expected = expected(params);
    let source = format!("{source}: its averaged weights");
    load_into(&expected, dict, &source, |i, values| {
        Ok(buffer.import(&infos[i], &values)?)
    })
}

/// Loads an optimizer's moment, laid out as `params`, as [`load_buffer`] does.
///
/// # Errors
/// One line naming `source` when a value is NaN, which every later step would put into the weights (an infinite second moment only keeps
/// its weight where it is), or when a tensor has another size.
pub fn load_moment(
    buffer: &mut GradBuffer,
    params: &Params,
    dict: &StateDict,
    source: &str,
) -> Result<()> {
    for info in params.infos() {
        let found = dict.get(&info.name);
        if let Some(t) = found.filter(|t| t.shape != info.shape.dims()) {
            return Err(Error::input(format!(
                "{source}: the optimizer's state of {:?} has the shape {:?}, the weights have {:?}",
                info.name,
                t.shape,
                info.shape.dims()
            )));
        }
    }
    for (name, t) in dict.iter() {
        let lost = count_non_finite(t.dtype, &t.data, false);
        if lost > 0 {
            return Err(Error::input(format!(
                "{source}: {lost} of the {} values of the optimizer's state of {name:?} are no numbers (NaN); the run has diverged: \
                 go on from an earlier checkpoint",
                t.numel()
            )));
        }
    }
    load_buffer(buffer, params, dict)
}

/// Loads a buffer laid out as `params`. A parameter that is missing keeps zeros: it never had a gradient.
///
/// # Errors
/// When a tensor has another size.
pub fn load_buffer(buffer: &mut GradBuffer, params: &Params, dict: &StateDict) -> Result<()> {
    for info in params.infos() {
        if let Some(t) = dict.get(&info.name) {
            buffer.import(info, &t.to_f32_vec())?;
        }
    }
    Ok(())
}

/// A buffer laid out as `params`, by parameter name, as a part of a checkpoint.
pub fn buffer_part<'a>(
    prefix: impl Into<Cow<'a, str>>,
    buffer: &'a GradBuffer,
    params: &'a Params,
) -> Part<'a> {
    let mut part = Part::new(prefix);
    for info in params.infos() {
        let shape = info.shape.dims();
        part.push(&info.name, shape, || Ok(buffer.export(info)?));
    }
    part.shared(buffer.is_shared())
}

/// The parameters by name, in the reference's order, as a part of a checkpoint.
pub fn params_part<'a>(prefix: impl Into<Cow<'a, str>>, params: &'a Params) -> Part<'a> {
    let mut part = Part::new(prefix);
    for info in params.infos() {
        let shape = info.shape.dims();
        part.push(&info.name, shape, || Ok(params.export(&info.name)?));
    }
    part.shared(params.sharding().is_some())
}

/// A tokenizer with the reference's keys in its order, its hit averages \[scales\]\[V\] among them, as a part of a checkpoint.
pub fn vqvae_part<'a>(
    prefix: impl Into<Cow<'a, str>>,
    model: &'a Vqvae,
    hits: &'a [Vec<f32>],
) -> Part<'a> {
    vqvae_part_of(prefix, model, None, hits)
}

/// The same with weights from a buffer that is laid out as the model's, such as their average.
pub fn vqvae_part_of<'a>(
    prefix: impl Into<Cow<'a, str>>,
    model: &'a Vqvae,
    weights: Option<&'a GradBuffer>,
    hits: &'a [Vec<f32>],
) -> Part<'a> {
    let mut part = Part::new(prefix);
    let mut pending = true;
    for info in model.params.infos() {
        // The buffer stands first among the quantizer's own entries.
        if info.name.starts_with("quantize.") && std::mem::take(&mut pending) {
            let shape = [hits.len(), model.config.vocab];
            part.push(HITS, &shape, || Ok(hits.concat()));
        }
        let shape = info.shape.dims();
        part.push(&info.name, shape, move || match weights {
            Some(buffer) => Ok(buffer.export(info)?),
            None => Ok(model.params.export(&info.name)?),
        });
    }
    part
}

/// The parameters by name, in the reference's order.
///
/// # Errors
/// When a tensor can't be described; not for parameters of a model.
pub fn params_state(params: &Params) -> Result<StateDict> {
    params_part("", params).to_dict()
}

/// Loads a tokenizer's weights.
///
/// # Errors
/// As [`load_params`].
pub fn load_vqvae(model: &mut Vqvae, dict: &StateDict, source: &str) -> Result<()> {
    load_params(&mut model.params, dict, source)
}

/// The hit averages \[scales\]\[V\] of a state dict; zeros where they are missing or of another size, as the
/// reference does, and where one is no finite number: they only say which codes are dead.
pub fn hit_averages(dict: &StateDict, scales: usize, vocab: usize) -> Vec<Vec<f32>> {
    match dict.get(HITS) {
        Some(t) if t.shape == [scales, vocab] => t
            .to_f32_vec()
            .chunks_exact(vocab.max(1))
            .map(|row| row.iter().map(|x| if x.is_finite() { *x } else { 0.0 }))
            .map(Iterator::collect)
            .collect(),
        _ => vec![vec![0.0; vocab]; scales],
    }
}

/// A tokenizer's state dict with the reference's keys in its order, its hit averages \[scales\]\[V\] among them.
///
/// # Errors
/// When the hit averages do not fit the model.
pub fn vqvae_state(model: &Vqvae, hits: &[Vec<f32>]) -> Result<StateDict> {
    vqvae_part("", model, hits).to_dict()
}

/// Loads a transformer's weights.
///
/// # Errors
/// As [`load_params`].
pub fn load_var(model: &mut Var, dict: &StateDict, source: &str) -> Result<()> {
    load_params(&mut model.params, dict, source)
}

/// A short text that differs between models with different weights: CRC-32C of names and float32 values.
///
/// # Errors
/// When the weights can't be read from their device.
pub fn fingerprint(params: &Params) -> Result<String> {
    let mut crc = 0;
    // One after the other: no copy of all weights is made.
    for info in params.infos() {
        let values = params.export(&info.name)?;
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, info.name.as_bytes()), &bytes);
    }
    Ok(format!("{crc:08x}"))
}
