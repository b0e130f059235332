//! Reading the reference's training checkpoint.

use std::path::Path;

use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;

use super::{AdamSettings, ScalerState, TrainerConfig, TrainerState, args};
use crate::Result;
use crate::checkpoint::places::open_pth;
use crate::format::pth::PthFile;
use crate::format::state_dict::StateDict;
use crate::model::var::state_dict::param_groups;
use torch_pth::{Dict, TensorRef, Value};

/// What goes wrong here, as text that completes "FILE: ".
type Parse<T> = std::result::Result<T, String>;

/// A checkpoint whose tensors have not been read yet.
pub(crate) struct Parsed<'v> {
    pub(crate) epoch: u64,
    pub(crate) iter: u64,
    pub(crate) g_it: Option<u64>,
    pub(crate) config: TrainerConfig,
    pub(crate) scaler: Option<ScalerState>,
    adam: AdamSettings,
    args: Map<String, Json>,
    pub(crate) extra: Map<String, Json>,
    pub(crate) var: &'v Dict,
    pub(crate) vae: Option<&'v Dict>,
    moments: Vec<Moments<'v>>,
}

/// The optimizer's state of one parameter.
struct Moments<'v> {
    name: String,
    step: &'v Value,
    exp_avg: &'v TensorRef,
    exp_avg_sq: &'v TensorRef,
}

/// Whether an object is a whole training checkpoint, optimizer included.
pub(crate) fn is_trainer(value: &Value) -> bool {
    let Value::Dict(top) = value else {
        return false;
    };
    matches!(top.get("trainer"), Some(Value::Dict(t)) if t.get("var_wo_ddp").is_some() && t.get("var_opt").is_some())
}

/// What an object states of its models beside their tensors, where it does: also one without all that a training checkpoint has.
#[derive(Default)]
pub(crate) struct Stated {
    pub(crate) patch_nums: Option<Vec<usize>>,
    pub(crate) extra: Map<String, Json>,
}

impl Stated {
    /// Looks where a training checkpoint says it, and then at the options.
    pub(crate) fn new(value: &Value) -> Parse<Self> {
        let Value::Dict(top) = value else {
            return Ok(Self::default());
        };
        let config = inner(top, "trainer").and_then(|t| inner(t, "config"));
        let stated = |d: Option<&Dict>, at: &str| match d {
            Some(d) => sizes(d, "patch_nums", at),
            None => Ok(None),
        };
        let patch_nums = match stated(config, "trainer.config.")? {
            None => stated(inner(top, "args"), "args.")?,
            found => found,
        };
        let (_, extra) = ours(top)?;
        Ok(Self { patch_nums, extra })
    }
}

impl TrainerState {
    /// Reads a training checkpoint of the reference.
    ///
    /// # Errors
    /// When the file can't be read (see [`torch_pth::PthFile::open`]), lacks a part, or its optimizer state does not fit its
    /// transformer.
    pub fn from_reference_pth(path: impl AsRef<Path>) -> Result<Self> {
        let (mut file, value) = open_pth(path.as_ref())?;
        Self::from_parsed_pth(&mut file, &value)
    }

    pub(crate) fn from_parsed_pth(file: &mut PthFile, value: &Value) -> Result<Self> {
        let p = Parsed::new(value).map_err(|e| file.bad(e))?;
        let var = file.state_dict(p.var, "trainer.var_wo_ddp")?;
        let vae = match p.vae {
            Some(d) => file.state_dict(d, "trainer.vae_local")?,
            None => StateDict::new(),
        };
        let adam_step = p.adam_step(file)?;
        let (mut exp_avg, mut exp_avg_sq) = (StateDict::new(), StateDict::new());
        for m in &p.moments {
            exp_avg.insert(m.name.as_str(), file.tensor(m.exp_avg)?);
            exp_avg_sq.insert(m.name.as_str(), file.tensor(m.exp_avg_sq)?);
        }
        let state = Self {
            epoch: p.epoch,
            iter: p.iter,
            g_it: p.g_it,
            config: p.config,
            var,
            vae,
            exp_avg,
            exp_avg_sq,
            pending: StateDict::new(),
            others: BTreeMap::new(),
            adam_step,
            adam: p.adam,
            scaler: p.scaler,
            args: p.args,
            extra: p.extra,
        };
        state.check_moments().map_err(|e| file.bad(e))?;
        Ok(state)
    }
}

impl<'v> Parsed<'v> {
    /// Takes a checkpoint's object apart.
    pub(crate) fn new(value: &'v Value) -> Parse<Self> {
        let Value::Dict(top) = value else {
            return Err("is not a training checkpoint: it holds no dict".into());
        };
        let trainer = dict(top, "trainer", "")?;
        let var = dict(trainer, "var_wo_ddp", "trainer.")?;
        let vae = match trainer.get("vae_local") {
            None | Some(Value::None) => None,
            Some(_) => Some(dict(trainer, "vae_local", "trainer.")?),
        };
        let opt = dict(trainer, "var_opt", "trainer.")?;
        let optimizer = dict(opt, "optimizer", "trainer.var_opt.")?;
        let scaler = match opt.get("scaler") {
            Some(Value::Dict(d)) if !d.items.is_empty() => Some(scaler(d)?),
            _ => None,
        };
        let (adam, moments) = adam(optimizer, var)?;
        let args = match top.get("args") {
            Some(Value::Dict(d)) => args::to_json(d)?,
            None | Some(Value::None) => Map::new(),
            Some(other) => {
                return Err(format!(
                    "its args are of type {}, not a dict",
                    other.type_name()
                ));
            }
        };
        let (g_it, extra) = ours(top)?;
        Ok(Self {
            epoch: unsigned(top, "epoch", "")?,
            iter: unsigned(top, "iter", "")?,
            g_it,
            config: config(dict(trainer, "config", "trainer.")?)?,
            scaler,
            adam,
            args,
            extra,
            var,
            vae,
            moments,
        })
    }

    /// The optimizer's moments, twice under each parameter's name.
    pub(crate) fn moment_views(&self) -> Vec<(&str, &TensorRef)> {
        self.moments
            .iter()
            .flat_map(|m| {
                [
                    (m.name.as_str(), m.exp_avg),
                    (m.name.as_str(), m.exp_avg_sq),
                ]
            })
            .collect()
    }

    /// How many steps the optimizer has taken; the same for every parameter.
    pub(crate) fn adam_step(&self, file: &mut PthFile) -> Result<u64> {
        let mut common: Option<(u64, &str)> = None;
        for m in &self.moments {
            let step = match m.step {
                Value::Tensor(t) if t.numel() == 1 => f64::from(file.tensor(t)?.to_f32_vec()[0]),
                Value::Int(i) => *i as f64,
                Value::Float(f) => *f,
                other => {
                    return Err(file.bad(format!(
                        "the optimizer's step of {:?} is a {}",
                        m.name,
                        other.type_name()
                    )));
                }
            };
            if !(step >= 0.0 && step.fract() == 0.0 && step <= 2f64.powi(53)) {
                return Err(file.bad(format!(
                    "the optimizer's step of {:?} is {step}, not a count",
                    m.name
                )));
            }
            let step = step as u64;
            match common {
                None => common = Some((step, &m.name)),
                Some((other, _)) if other == step => {}
                Some((other, name)) => {
                    return Err(file.bad(format!(
                        "the optimizer is at step {other} for {name:?} and at {step} for {:?}; only one common step is supported",
                        m.name
                    )));
                }
            }
        }
        Ok(common.map_or(0, |(step, _)| step))
    }
}

/// What [`TrainerState::to_reference_pth`] adds for us and the reference ignores.
fn ours(top: &Dict) -> Parse<(Option<u64>, Map<String, Json>)> {
    let Some(Value::Str(text)) = top.get("nextscale") else {
        return Ok((None, Map::new()));
    };
    let json: Map<String, Json> = serde_json::from_str(text)
        .map_err(|e| format!("its entry \"nextscale\" is damaged: {e}"))?;
    let extra = json
        .get("extra")
        .and_then(Json::as_object)
        .cloned()
        .unwrap_or_default();
    Ok((json.get("g_it").and_then(Json::as_u64), extra))
}

/// A tuple of sizes, where there is one.
fn sizes(d: &Dict, key: &str, at: &str) -> Parse<Option<Vec<usize>>> {
    let elements = match d.get(key) {
        None => return Ok(None),
        Some(Value::Tuple(v) | Value::List(v)) => v,
        Some(other) => {
            return Err(format!(
                "its {at}{key} is of type {}, not a tuple",
                other.type_name()
            ));
        }
    };
    let sizes = elements.iter().map(|v| match v {
        Value::Int(i) if (1..=1 << 20).contains(i) => Some(*i as usize),
        _ => None,
    });
    sizes
        .collect::<Option<_>>()
        .map(Some)
        .ok_or_else(|| format!("its {at}{key} is not a tuple of positive whole numbers"))
}

fn config(d: &Dict) -> Parse<TrainerConfig> {
    let at = "trainer.config.";
    let patch_nums =
        sizes(d, "patch_nums", at)?.ok_or_else(|| format!("it lacks {at}patch_nums"))?;
    let fresh = TrainerConfig::new(&patch_nums, 0.0);
    Ok(TrainerConfig {
        resos: sizes(d, "resos", at)?.unwrap_or(fresh.resos),
        label_smooth: if d.get("label_smooth").is_some() {
            number(d, "label_smooth", at)?
        } else {
            0.0
        },
        prog_it: if d.get("prog_it").is_some() {
            unsigned(d, "prog_it", at)?
        } else {
            0
        },
        last_prog_si: match d.get("last_prog_si") {
            None => -1,
            Some(Value::Int(i)) => *i,
            Some(other) => {
                return Err(format!(
                    "its {at}last_prog_si is of type {}",
                    other.type_name()
                ));
            }
        },
        first_prog: match d.get("first_prog") {
            None => true,
            Some(Value::Bool(b)) => *b,
            Some(other) => {
                return Err(format!(
                    "its {at}first_prog is of type {}",
                    other.type_name()
                ));
            }
        },
        patch_nums,
    })
}

fn scaler(d: &Dict) -> Parse<ScalerState> {
    let at = "trainer.var_opt.scaler.";
    Ok(ScalerState {
        scale: number(d, "scale", at)?,
        growth_factor: number(d, "growth_factor", at)?,
        backoff_factor: number(d, "backoff_factor", at)?,
        growth_interval: unsigned(d, "growth_interval", at)?,
        growth_tracker: unsigned(d, "_growth_tracker", at)?,
    })
}

/// The optimizer's settings, and its state by parameter name instead of number.
fn adam<'v>(optimizer: &'v Dict, var: &'v Dict) -> Parse<(AdamSettings, Vec<Moments<'v>>)> {
    let at = "trainer.var_opt.optimizer.";
    let Some(Value::List(groups)) = optimizer.get("param_groups") else {
        return Err(format!("it lacks the list {at}param_groups"));
    };
    let params = var
        .tensor_entries()
        .map_err(|e| format!("trainer.var_wo_ddp {e}"))?;
    let ours = param_groups(params.iter().map(|(name, t)| (*name, t.shape().len())));
    if ours.len() != groups.len() {
        return Err(format!(
            "its optimizer has {} parameter groups, its transformer makes {}",
            groups.len(),
            ours.len()
        ));
    }

    let mut settings = AdamSettings::default();
    let mut names: std::collections::HashMap<i64, String> = std::collections::HashMap::new();
    for (i, (group, our)) in groups.iter().zip(&ours).enumerate() {
        let at = format!("{at}param_groups[{i}].");
        let Value::Dict(g) = group else {
            return Err(format!("its {at} is not a dict"));
        };
        let Some(Value::List(numbers)) = g.get("params") else {
            return Err(format!("it lacks the list {at}params"));
        };
        if numbers.len() != our.names.len() {
            return Err(format!(
                "its {at}params lists {} parameters, its transformer makes {}",
                numbers.len(),
                our.names.len()
            ));
        }
        for (number, name) in numbers.iter().zip(&our.names) {
            let Value::Int(number) = number else {
                return Err(format!("its {at}params is not a list of whole numbers"));
            };
            if names.insert(*number, name.clone()).is_some() {
                return Err(format!("its {at}params has the number {number} twice"));
            }
        }
        if g.get("wd_sc").is_some() && (number(g, "wd_sc", &at)? > 0.0) != our.decayed {
            return Err(format!(
                "its {at}wd_sc does not fit the parameters that the reference puts there"
            ));
        }
        if matches!(g.get("amsgrad"), Some(Value::Bool(true))) {
            return Err("its optimizer is AMSGrad, which is not supported".into());
        }
        settings.lr = number(g, "lr", &at)?;
        settings.eps = number(g, "eps", &at)?;
        if our.decayed {
            settings.weight_decay = number(g, "weight_decay", &at)?;
        }
        settings.betas = match g.get("betas") {
            Some(Value::Tuple(v) | Value::List(v)) => match v.as_slice() {
                [Value::Float(a), Value::Float(b)] => [*a, *b],
                _ => return Err(format!("its {at}betas are not two numbers")),
            },
            _ => return Err(format!("it lacks {at}betas")),
        };
        settings.flags = Map::new();
        for (k, v) in &g.items {
            if let Value::Str(k) = k
                && ![
                    "wd_sc",
                    "lr_sc",
                    "lr",
                    "betas",
                    "eps",
                    "weight_decay",
                    "params",
                ]
                .contains(&&**k)
            {
                settings.flags.insert(
                    k.to_string(),
                    args::encode(v).map_err(|e| format!("its {at}{k} {e}"))?,
                );
            }
        }
    }

    let mut moments = Vec::new();
    for (key, entry) in &dict(optimizer, "state", at)?.items {
        let (Value::Int(number), Value::Dict(entry)) = (key, entry) else {
            return Err(format!("its {at}state is not a dict of numbers and dicts"));
        };
        let Some(name) = names.get(number) else {
            return Err(format!(
                "its {at}state has the number {number}, which no group lists"
            ));
        };
        let (Some(step), Some(Value::Tensor(exp_avg)), Some(Value::Tensor(exp_avg_sq))) = (
            entry.get("step"),
            entry.get("exp_avg"),
            entry.get("exp_avg_sq"),
        ) else {
            return Err(format!(
                "its {at}state[{number}] lacks step, exp_avg or exp_avg_sq: not an AdamW state"
            ));
        };
        moments.push(Moments {
            name: name.clone(),
            step,
            exp_avg,
            exp_avg_sq,
        });
    }
    Ok((settings, moments))
}

/// A dict in a dict, where there is one.
fn inner<'v>(d: &'v Dict, key: &str) -> Option<&'v Dict> {
    match d.get(key) {
        Some(Value::Dict(d)) => Some(d),
        _ => None,
    }
}

fn dict<'v>(d: &'v Dict, key: &str, at: &str) -> Parse<&'v Dict> {
    match d.get(key) {
        Some(Value::Dict(d)) => Ok(d),
        Some(other) => Err(format!(
            "its {at}{key} is of type {}, not a dict",
            other.type_name()
        )),
        None => Err(format!("it lacks {at}{key}")),
    }
}

fn unsigned(d: &Dict, key: &str, at: &str) -> Parse<u64> {
    match d.get(key) {
        Some(Value::Int(i)) if *i >= 0 => Ok(*i as u64),
        Some(_) => Err(format!("its {at}{key} is not a whole number of at least 0")),
        None => Err(format!("it lacks {at}{key}")),
    }
}

fn number(d: &Dict, key: &str, at: &str) -> Parse<f64> {
    match d.get(key) {
        Some(Value::Float(f)) if f.is_finite() => Ok(*f),
        Some(Value::Int(i)) => Ok(*i as f64),
        Some(_) => Err(format!("its {at}{key} is not a finite number")),
        None => Err(format!("it lacks {at}{key}")),
    }
}
