//! Initial weights, as the specification gives them (`init_weights` in the reference).

use super::VarConfig;
use crate::Result;
use nextscale_tensor::Params;
use nextscale_tensor::rng::{Purpose, Stream};

/// The reference's initialisation flags.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InitScales {
    /// Deviation of linear and embedding weights; negative: √(1/(3C)).
    pub ini: f32,
    /// Factor on the head's weight.
    pub hd: f32,
    /// Factor on modulation weights other than gates.
    pub aln: f32,
    /// Factor on the modulation weights of the gates γ.
    pub alng: f32,
}

impl Default for InitScales {
    fn default() -> Self {
        Self {
            ini: -1.0,
            hd: 0.02,
            aln: 0.5,
            alng: 1e-5,
        }
    }
}

/// Truncation of normal draws: absolute, not in deviations.
const BOUND: f32 = 2.0;

pub(super) fn init(
    params: &mut Params,
    config: &VarConfig,
    s: InitScales,
    seed: u64,
) -> Result<()> {
    let c = config.width();
    let automatic = (1.0 / c as f32 / 3.0).sqrt();
    let std = if s.ini < 0.0 { automatic } else { s.ini };
    let shrink = 1.0 / (2.0 * config.depth as f32).sqrt();
    let infos = params.infos().to_vec();
    let flat = params.flat_mut()?;
    for (i, info) in infos.iter().enumerate() {
        let values = &mut flat[info.range()];
        let mut draw = Stream::new(seed, Purpose::Init, i as u64, 0);
        let name = info.name.as_str();
        if name.ends_with("bias") {
            values.fill(0.0);
            continue;
        }
        if name.ends_with("scale_mul_1H11") {
            values.fill(4.0f32.ln());
            continue;
        }
        if name.ends_with("ada_gss") {
            // Starts as N(0, 1)/√C, then the same factors as a block's own layer.
            let scale = 1.0 / (c as f32).sqrt();
            for (j, v) in values.iter_mut().enumerate() {
                let factor = if j < 2 * c { s.alng } else { s.aln };
                *v = draw.normal() * scale * factor;
            }
            continue;
        }
        let std = match name {
            "pos_start" | "pos_1LC" => automatic,
            _ => std,
        };
        draw.fill_truncated_normal(values, std, BOUND);
        if name == "head.weight" {
            // A negative factor leaves the head alone, as in the reference.
            if s.hd >= 0.0 {
                values.iter_mut().for_each(|v| *v *= s.hd);
            }
        } else if name == "head_nm.ada_lin.1.weight" {
            values.iter_mut().for_each(|v| *v *= s.aln);
        } else if name.ends_with("attn.proj.weight") || name.ends_with("ffn.fc2.weight") {
            values.iter_mut().for_each(|v| *v *= shrink);
        } else if name.starts_with("blocks.") && name.ends_with("ada_lin.1.weight") {
            // Rows of γ1 and γ2 come first.
            let (gates, rest) = values.split_at_mut(2 * c * c);
            gates.iter_mut().for_each(|v| *v *= s.alng);
            rest.iter_mut().for_each(|v| *v *= s.aln);
        }
    }
    Ok(())
}
