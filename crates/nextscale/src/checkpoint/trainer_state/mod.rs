//! All that a training run needs to go on: weights, optimizer moments, counters, settings.
//!
//! Two files hold it: our own (safetensors, [`TrainerState::save_safetensors`]) and the reference's
//! ([`TrainerState::to_reference_pth`]), from which the reference's trainer resumes. Nothing is lost between the two but gradients
//! of half a step ([`TrainerState::pending`]).

mod args;
mod native;
mod reference_read;
mod reference_write;

#[cfg(test)]
mod tests;

pub(crate) use native::{AVERAGED, PREFIXES as TRANSFORMER_PREFIXES};
pub(super) use native::{is_trainer as is_native_trainer, read_header as read_native_header};
pub(super) use reference_read::{Parsed, Stated, is_trainer as is_reference_trainer};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;

use crate::format::state_dict::StateDict;
use crate::{Error, Result};

/// The trainer's own settings and progress, `trainer.config` in the reference's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainerConfig {
    /// Side of each scale's token map, coarse to fine.
    pub patch_nums: Vec<usize>,
    /// Image side of each scale in pixels.
    pub resos: Vec<usize>,
    /// Label smoothing of the training loss.
    pub label_smooth: f64,
    /// Iterations since the current progressive stage began.
    pub prog_it: u64,
    /// The current progressive stage; −1 when training is not progressive.
    pub last_prog_si: i64,
    /// Whether the first progressive stage still runs.
    pub first_prog: bool,
}

impl TrainerConfig {
    /// The state of a new run: nothing trained yet, 16 pixels a token.
    pub fn new(patch_nums: &[usize], label_smooth: f64) -> Self {
        Self {
            patch_nums: patch_nums.to_vec(),
            resos: patch_nums.iter().map(|&pn| pn.saturating_mul(16)).collect(),
            label_smooth,
            prog_it: 0,
            last_prog_si: -1,
            first_prog: true,
        }
    }
}

/// State of the loss scaler of float16 training, `trainer.var_opt.scaler` in the reference's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScalerState {
    /// The factor on the loss.
    pub scale: f64,
    /// By what the scale grows after enough clean steps.
    pub growth_factor: f64,
    /// By what the scale is multiplied after an overflow.
    pub backoff_factor: f64,
    /// Clean steps before the scale grows.
    pub growth_interval: u64,
    /// Clean steps since the last change.
    #[serde(alias = "_growth_tracker")]
    pub growth_tracker: u64,
}

/// What the optimizer's groups state beside their parameters, `param_groups` in the reference's file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdamSettings {
    /// Learning rate of the last step.
    pub lr: f64,
    /// Weight decay of the decayed group at the last step.
    pub weight_decay: f64,
    /// Decay rates of the two moments.
    pub betas: [f64; 2],
    /// What is added to the square root of the second moment.
    pub eps: f64,
    /// The other entries of a group (`foreach`, `fused` and the like), which only matter to PyTorch.
    pub flags: Map<String, Json>,
}

impl Default for AdamSettings {
    fn default() -> Self {
        let no = Json::Bool(false);
        let flags = [
            ("amsgrad", no.clone()),
            ("maximize", no.clone()),
            ("foreach", Json::Null),
            ("capturable", no.clone()),
            ("differentiable", no),
            ("fused", Json::Null),
            ("decoupled_weight_decay", Json::Bool(true)),
        ];
        Self {
            lr: 0.0,
            weight_decay: 0.0,
            betas: [0.9, 0.95],
            eps: 1e-8,
            flags: flags.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        }
    }
}

/// A full training checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainerState {
    /// The epoch to go on with, counted from 0.
    pub epoch: u64,
    /// The iteration of that epoch to go on with.
    pub iter: u64,
    /// Iterations since the very start. `None` in a file of the reference, which does not state it: it is then
    /// `epoch` times the iterations of an epoch, plus `iter`.
    pub g_it: Option<u64>,
    /// The trainer's own settings and progress.
    pub config: TrainerConfig,
    /// The transformer.
    pub var: StateDict,
    /// The tokenizer.
    pub vae: StateDict,
    /// Adam's first moments by parameter name. A parameter that never had a gradient is missing.
    pub exp_avg: StateDict,
    /// Adam's second moments by parameter name.
    pub exp_avg_sq: StateDict,
    /// Gradients that were added up since the last optimizer step, where the checkpoint was made between two; else empty. The
    /// reference's file has no place for them.
    pub pending: StateDict,
    /// What other parts a run of this program has written, by name: averaged weights (`var_ema`), say. The reference's file has no
    /// place for them.
    pub others: BTreeMap<String, StateDict>,
    /// Optimizer steps taken.
    pub adam_step: u64,
    /// The optimizer's settings.
    pub adam: AdamSettings,
    /// The loss scaler; `None` unless training in float16.
    pub scaler: Option<ScalerState>,
    /// The command line's options, in order, under the reference's names. Lists under `patch_nums` and `resos` are Python
    /// tuples; other things that JSON lacks are marked: `{"$tuple": […]}`, `{"$float": "nan"}`.
    pub args: Map<String, Json>,
    /// What only nextscale keeps: seed, best losses, tokenizer settings.
    pub extra: Map<String, Json>,
}

impl TrainerState {
    /// Checks what both file formats rely on: every moment and gradient belongs to a parameter, moments in pairs, with its shape.
    fn check_moments(&self) -> Result<(), String> {
        for (moments, what) in [
            (&self.exp_avg, "exp_avg"),
            (&self.exp_avg_sq, "exp_avg_sq"),
            (&self.pending, "gradient"),
        ] {
            for (name, m) in moments.iter() {
                match self.var.get(name) {
                    Some(p) if p.shape == m.shape => {}
                    Some(p) => {
                        return Err(format!(
                            "the optimizer's {what} of {name:?} has the shape {:?}, the parameter {:?}",
                            m.shape, p.shape
                        ));
                    }
                    None => {
                        return Err(format!(
                            "the optimizer has an {what} of {name:?}, the transformer no such parameter"
                        ));
                    }
                }
            }
        }
        match self.exp_avg.names().find(|n| !self.exp_avg_sq.contains(n)) {
            Some(name) => Err(format!(
                "the optimizer has only one of the two moments of {name:?}"
            )),
            None if self.exp_avg.len() != self.exp_avg_sq.len() => {
                Err("the optimizer has only one of the two moments of some parameters".into())
            }
            None => Ok(()),
        }
    }

    /// Numbers that JSON can't hold are refused before a file is written that can't be read back.
    fn check_finite(&self) -> Result<()> {
        let a = &self.adam;
        let mut numbers = vec![
            self.config.label_smooth,
            a.lr,
            a.weight_decay,
            a.betas[0],
            a.betas[1],
            a.eps,
        ];
        if let Some(s) = &self.scaler {
            numbers.extend([s.scale, s.growth_factor, s.backoff_factor]);
        }
        match numbers.iter().all(|x| x.is_finite()) {
            true => Ok(()),
            false => Err(Error::failed(
                "the training state can't be saved: a setting of it is not a finite number",
            )),
        }
    }
}
