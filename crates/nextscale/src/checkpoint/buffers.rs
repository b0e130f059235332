//! The buffers that the reference keeps in a transformer's state dict although they can be derived.

use super::host::HostTensor;
use super::param_groups::reference_rank;
use super::state_dict::StateDict;
use crate::{Error, Result};

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
    use crate::checkpoint::fixtures::unpacked;
    use crate::checkpoint::param_groups::is_buffer;
    use crate::checkpoint::safetensors::read_safetensors;

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
