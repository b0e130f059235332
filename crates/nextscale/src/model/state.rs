//! Weights in and out of models: between [`Params`] and the reference's state dicts.

use super::var::{Var, VarConfig};
use super::vqvae::Vqvae;
use crate::checkpoint::{HostTensor, StateDict};
use crate::{Error, Result};
use nextscale_tensor::Params;

/// Loads every parameter of `params` from `dict`. Entries that `is_buffer` names are passed over.
///
/// # Errors
/// One line naming `source` and the first tensor that is missing, unexpected or of another shape.
pub fn load_params(
    params: &mut Params,
    dict: &StateDict,
    source: &str,
    is_buffer: impl Fn(&str) -> bool,
) -> Result<()> {
    let infos = params.infos().to_vec();
    for info in &infos {
        let Some(t) = dict.get(&info.name) else {
            return Err(Error::input(format!(
                "{source}: tensor {} is missing (expected shape {:?}); is this a checkpoint of another model?",
                info.name,
                info.shape.dims()
            )));
        };
        if t.shape != info.shape.dims() {
            return Err(Error::input(format!(
                "{source}: tensor {} has shape {:?} in the file but {:?} in the model",
                info.name,
                t.shape,
                info.shape.dims()
            )));
        }
        if !t.dtype.is_float() {
            return Err(Error::input(format!(
                "{source}: tensor {} holds {}, expected floats",
                info.name,
                t.dtype.name()
            )));
        }
        params.import(&info.name, &t.to_f32_vec())?;
    }
    match dict
        .names()
        .find(|n| params.info(n).is_none() && !is_buffer(n))
    {
        Some(name) => Err(Error::input(format!(
            "{source}: tensor {name} is not part of the model; is this a checkpoint of another one?"
        ))),
        None => Ok(()),
    }
}

/// The tokenizer's buffer of hit averages.
pub const HITS: &str = "quantize.ema_vocab_hit_SV";

/// Loads a tokenizer's weights.
///
/// # Errors
/// As [`load_params`].
pub fn load_vqvae(model: &mut Vqvae, dict: &StateDict, source: &str) -> Result<()> {
    load_params(&mut model.params, dict, source, |n| n == HITS)
}

/// The hit averages \[scales\]\[V\] of a state dict; zeros where they are missing or of another size, as the
/// reference does.
pub fn hit_averages(dict: &StateDict, scales: usize, vocab: usize) -> Vec<Vec<f32>> {
    match dict.get(HITS) {
        Some(t) if t.shape == [scales, vocab] => t
            .to_f32_vec()
            .chunks_exact(vocab.max(1))
            .map(<[f32]>::to_vec)
            .collect(),
        _ => vec![vec![0.0; vocab]; scales],
    }
}

/// A tokenizer's state dict with the reference's keys in its order.
///
/// # Errors
/// When the hit averages do not fit the model.
pub fn vqvae_state(model: &Vqvae, hits: &[Vec<f32>]) -> Result<StateDict> {
    let mut out = StateDict::new();
    let mut pending = Some(HostTensor::from_f32(
        &[hits.len(), model.config.vocab],
        &hits.concat(),
    )?);
    for info in model.params.infos() {
        // The buffer stands first among the quantizer's own entries.
        if info.name.starts_with("quantize.")
            && let Some(t) = pending.take()
        {
            out.insert(HITS, t);
        }
        let values = model.params.export(&info.name)?;
        out.insert(
            info.name.clone(),
            HostTensor::from_f32(info.shape.dims(), &values)?,
        );
    }
    Ok(out)
}

/// Whether a key of a transformer's state dict is one of the reference's buffers.
pub fn is_var_buffer(name: &str) -> bool {
    name == "lvl_1L" || name == "attn_bias_for_masking" || name.ends_with("attn.zero_k_bias")
}

/// Loads a transformer's weights.
///
/// # Errors
/// As [`load_params`].
pub fn load_var(model: &mut Var, dict: &StateDict, source: &str) -> Result<()> {
    load_params(&mut model.params, dict, source, is_var_buffer)
}

/// A transformer's state dict with the reference's keys in its order, buffers included, so that the reference loads it
/// strictly.
///
/// # Errors
/// While a tensor still holds the weights.
pub fn var_state(model: &Var) -> Result<StateDict> {
    let mut out = StateDict::new();
    for info in model.params.infos() {
        let values = model.params.export(&info.name)?;
        out.insert(
            info.name.clone(),
            HostTensor::from_f32(info.shape.dims(), &values)?,
        );
        if info.name == "pos_1LC" {
            for (name, t) in sequence_buffers(&model.config)? {
                out.insert(name, t);
            }
        }
        if let Some(block) = info.name.strip_suffix("attn.v_bias") {
            let zeros = HostTensor::zeros_f32(&[model.config.width()])?;
            out.insert(format!("{block}attn.zero_k_bias"), zeros);
        }
    }
    Ok(out)
}

/// `lvl_1L` and `attn_bias_for_masking`.
fn sequence_buffers(config: &VarConfig) -> Result<[(&'static str, HostTensor); 2]> {
    let p = &config.pyramid;
    let levels: Vec<i64> = (0..p.count())
        .flat_map(|k| std::iter::repeat_n(k as i64, p.len_of(k)))
        .collect();
    let l = levels.len();
    let mut mask = Vec::with_capacity(l * l);
    for q in &levels {
        mask.extend(
            levels
                .iter()
                .map(|k| if q >= k { 0.0f32 } else { f32::NEG_INFINITY }),
        );
    }
    Ok([
        ("lvl_1L", HostTensor::from_i64(&[1, l], &levels)?),
        (
            "attn_bias_for_masking",
            HostTensor::from_f32(&[1, 1, l, l], &mask)?,
        ),
    ])
}
