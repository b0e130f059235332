//! Writing the reference's training checkpoint.

use std::path::Path;

use serde_json::json;

use super::{ScalerState, TrainerConfig, TrainerState, args};
use crate::format::host::HostTensor;
use crate::format::pth::PthBuilder;
use crate::model::var::state_dict::add_reference_buffers;
use crate::model::var::state_dict::param_groups;
use crate::{Error, Result};
use torch_pth::{Dict, Value};

impl TrainerState {
    /// Writes the checkpoint as the reference's trainer would, atomically: `torch.load` reads it and the
    /// reference resumes from it. Buffers that the reference derives are added where they are missing. What only we
    /// keep (`g_it`, `extra`) goes into an entry `nextscale`, which the reference ignores.
    ///
    /// # Errors
    /// When the state does not fit together, or writing fails; an existing file is then unchanged.
    pub fn to_reference_pth(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let context = |why: String| Error::failed(format!("{}: {why}", path.display()));
        self.check_finite()?;
        self.check_moments().map_err(context)?;
        let completed;
        let var = if needs_buffers(self) {
            let mut var = self.var.clone();
            add_reference_buffers(&mut var, &self.config.patch_nums)
                .map_err(|e| context(e.to_string()))?;
            completed = var;
            &completed
        } else {
            &self.var
        };
        let groups = param_groups(var.iter().map(|(n, t)| (n, t.shape.len())));
        // One scalar for each parameter: PyTorch adds to it in place.
        let step = HostTensor::from_f32(&[], &[self.adam_step as f32])?;
        let mut b = PthBuilder::new();

        let var_value = b.state_dict(var);
        let vae_value = b.state_dict(&self.vae);
        let mut state = Dict::default();
        let mut group_values = Vec::new();
        let mut number = 0i64;
        for group in &groups {
            let first = number;
            for name in &group.names {
                if let (Some(avg), Some(sq)) = (self.exp_avg.get(name), self.exp_avg_sq.get(name)) {
                    let entry = [
                        ("step", b.tensor(&step)),
                        ("exp_avg", b.tensor(avg)),
                        ("exp_avg_sq", b.tensor(sq)),
                    ];
                    state
                        .items
                        .push((Value::Int(number), Value::Dict(Dict::from_pairs(entry))));
                }
                number += 1;
            }
            group_values.push(self.group(group.decayed, (first..number).map(Value::Int).collect()));
        }

        let optimizer = [
            ("state", Value::Dict(state)),
            ("param_groups", Value::List(group_values)),
        ];
        let optimizer = ("optimizer", Value::Dict(Dict::from_pairs(optimizer)));
        let opt = match &self.scaler {
            Some(s) => Dict::from_pairs([("scaler", scaler(s)), optimizer]),
            None => Dict::from_pairs([optimizer]),
        };
        let trainer = [
            ("config", config(&self.config)),
            ("var_wo_ddp", var_value),
            ("vae_local", vae_value),
            ("var_opt", Value::Dict(opt)),
        ];
        let mut top = Dict::from_pairs([
            ("epoch", int(self.epoch)),
            ("iter", int(self.iter)),
            ("trainer", Value::Dict(Dict::from_pairs(trainer))),
            ("args", args::from_json(&self.args)),
        ]);
        if self.g_it.is_some() || !self.extra.is_empty() {
            let ours = json!({ "g_it": self.g_it, "extra": self.extra }).to_string();
            top.items.push((Value::str("nextscale"), Value::str(ours)));
        }
        b.write(path, &Value::Dict(top))
    }

    /// One entry of `param_groups`.
    fn group(&self, decayed: bool, params: Vec<Value>) -> Value {
        let a = &self.adam;
        let scale = f64::from(u8::from(decayed));
        let mut group = Dict::from_pairs([
            ("wd_sc", Value::Float(scale)),
            ("lr_sc", Value::Float(1.0)),
            ("lr", Value::Float(a.lr)),
            ("betas", Value::Tuple(a.betas.map(Value::Float).to_vec())),
            ("eps", Value::Float(a.eps)),
            ("weight_decay", Value::Float(a.weight_decay * scale)),
        ]);
        group.items.extend(
            a.flags
                .iter()
                .map(|(k, v)| (Value::str(k.as_str()), args::decode(v))),
        );
        group
            .items
            .push((Value::str("params"), Value::List(params)));
        Value::Dict(group)
    }
}

/// Whether a buffer is missing, or the tensors are not in the order in which the reference numbers them.
fn needs_buffers(state: &TrainerState) -> bool {
    let var = &state.var;
    let missing = |n: &str| {
        n.strip_suffix("q_bias")
            .is_some_and(|p| !var.contains(&format!("{p}zero_k_bias")))
    };
    !var.contains("lvl_1L")
        || !var.contains("attn_bias_for_masking")
        || var.names().any(missing)
        || !var
            .names()
            .is_sorted_by_key(crate::model::var::state_dict::reference_rank)
}

fn int(n: u64) -> Value {
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

fn config(c: &TrainerConfig) -> Value {
    let tuple = |v: &[usize]| Value::Tuple(v.iter().map(|&n| int(n as u64)).collect());
    Value::Dict(Dict::from_pairs([
        ("patch_nums", tuple(&c.patch_nums)),
        ("resos", tuple(&c.resos)),
        ("label_smooth", Value::Float(c.label_smooth)),
        ("prog_it", int(c.prog_it)),
        ("last_prog_si", Value::Int(c.last_prog_si)),
        ("first_prog", Value::Bool(c.first_prog)),
    ]))
}

fn scaler(s: &ScalerState) -> Value {
    Value::Dict(Dict::from_pairs([
        ("scale", Value::Float(s.scale)),
        ("growth_factor", Value::Float(s.growth_factor)),
        ("backoff_factor", Value::Float(s.backoff_factor)),
        ("growth_interval", int(s.growth_interval)),
        ("_growth_tracker", int(s.growth_tracker)),
    ]))
}
