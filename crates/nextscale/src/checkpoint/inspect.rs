//! Describing a checkpoint without loading its tensors.

use std::fmt;
use std::path::{Path, PathBuf};

use super::outline::Outline;
use super::param_groups::is_buffer;
use super::pickle::Value;
use super::pth::{PthFile, tensor_entries};
use super::safetensors::{SafetensorsFile, TextMetadata};
use super::shapes::{PhiKind, VaeShape, VarShape};
use super::sniff::{FileFormat, sniff};
use super::trainer_state::{self, ScalerState};
use super::weights::{
    MODULE_VERSIONS_KEY, PATCH_NUMS_KEY, Part, format_patch_nums, parse_patch_nums, which,
};
use crate::{Error, Result};

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A tokenizer's weights.
    VaeWeights,
    /// A transformer's weights.
    VarWeights,
    /// A full training checkpoint.
    Trainer,
    /// Tensors of something else.
    Foreign,
}

/// Tensors of one part of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartSummary {
    /// `var`, `vae`, `optimizer` or, in a foreign file, `tensors`.
    pub name: &'static str,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of elements in them, without buffers.
    pub parameters: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// Where a training run stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// The epoch to go on with, counted from 0.
    pub epoch: u64,
    /// The iteration of that epoch to go on with.
    pub iter: u64,
    /// Iterations since the start, where the file states them.
    pub g_it: Option<u64>,
    /// Optimizer steps taken.
    pub adam_step: u64,
    /// The loss scaler of float16 training.
    pub scaler: Option<ScalerState>,
}

/// What [`describe`] tells.
#[derive(Debug, Clone)]
pub struct Description {
    /// The file.
    pub path: PathBuf,
    /// Its format.
    pub format: FileFormat,
    /// Its size in bytes.
    pub file_bytes: u64,
    /// What it is.
    pub kind: Kind,
    /// Its parts.
    pub parts: Vec<PartSummary>,
    /// The tokenizer in it.
    pub vae: Option<VaeShape>,
    /// The transformer in it.
    pub var: Option<VarShape>,
    /// Where the training run stands, in a training checkpoint.
    pub progress: Option<Progress>,
    /// The first names of a foreign file.
    pub names: Vec<String>,
    /// Free text in the file, without what is told above.
    pub metadata: TextMetadata,
}

/// Describes a file of either format, told by its content. Reads names and shapes only.
///
/// # Errors
/// When the file is missing, truncated or foreign, or its tensors contradict each other: one line that names it.
pub fn describe(path: impl AsRef<Path>) -> Result<Description> {
    let path = path.as_ref();
    let format = sniff(path)?;
    let mut d = Description {
        path: path.to_path_buf(),
        format,
        file_bytes: std::fs::metadata(path).map_err(Error::io(path))?.len(),
        kind: Kind::Foreign,
        parts: vec![],
        vae: None,
        var: None,
        progress: None,
        names: vec![],
        metadata: TextMetadata::new(),
    };
    match format {
        FileFormat::Safetensors => d.read_safetensors(SafetensorsFile::open(path)?)?,
        FileFormat::Pth => {
            let (file, value) = PthFile::open(path)?;
            d.read_pth(file, &value)?;
        }
    }
    Ok(d)
}

impl Description {
    fn read_safetensors(&mut self, mut file: SafetensorsFile) -> Result<()> {
        if !trainer_state::is_native_trainer(&file) {
            self.metadata = file.metadata();
            return self.read_weights(&Outline::of_safetensors(&mut file, "")?);
        }
        let h = trainer_state::read_native_header(&file)?;
        self.progress = Some(Progress {
            epoch: h.epoch,
            iter: h.iter,
            g_it: h.g_it,
            adam_step: h.adam_step,
            scaler: h.scaler,
        });
        let var = Outline::of_safetensors(&mut file, "var_wo_ddp.")?;
        let vae = Outline::of_safetensors(&mut file, "vae_local.")?;
        self.read_models(&var, &vae, &h.config.patch_nums)?;
        self.parts.push(summary(
            "optimizer",
            &Outline::of_safetensors(&mut file, "var_opt.")?,
        ));
        Ok(())
    }

    fn read_pth(&mut self, mut file: PthFile, value: &Value) -> Result<()> {
        if !trainer_state::is_reference_trainer(value) {
            let Value::Dict(dict) = value else {
                return Err(file.bad(format!(
                    "holds a {} and not a dict of tensors",
                    value.type_name()
                )));
            };
            // A foreign file may hold other things between its tensors: they are not described.
            let views: Vec<_> = dict
                .items
                .iter()
                .filter_map(|(k, v)| match (k, v) {
                    (Value::Str(k), Value::Tensor(t)) => Some((&**k, &**t)),
                    _ => None,
                })
                .collect();
            let mut outline = Outline::of_views(&views);
            if let Some(Value::Tensor(t)) = dict.get("lvl_1L") {
                outline.set_levels(&file.tensor(t)?);
            }
            self.read_weights(&outline)?;
            if views.is_empty() {
                self.names = dict
                    .items
                    .iter()
                    .take(8)
                    .map(|(k, _)| key_text(k))
                    .collect();
            }
            return Ok(());
        }
        let p = trainer_state::Parsed::new(value).map_err(|e| file.bad(e))?;
        let outline = |dict, what: &str| -> Result<Outline> {
            let views = tensor_entries(dict).map_err(|e| file.bad(format!("{what} {e}")))?;
            Ok(Outline::of_views(&views))
        };
        let mut var = outline(p.var, "trainer.var_wo_ddp")?;
        let vae = p
            .vae
            .map(|d| outline(d, "trainer.vae_local"))
            .transpose()?
            .unwrap_or_default();
        let moments = Outline::of_views(&p.moment_views());
        if let Some(Value::Tensor(t)) = p.var.get("lvl_1L") {
            var.set_levels(&file.tensor(t)?);
        }
        let adam_step = p.adam_step(&mut file)?;
        self.read_models(&var, &vae, &p.config.patch_nums)?;
        self.parts.push(summary("optimizer", &moments));
        self.progress = Some(Progress {
            epoch: p.epoch,
            iter: p.iter,
            g_it: p.g_it,
            adam_step,
            scaler: p.scaler,
        });
        Ok(())
    }

    fn read_weights(&mut self, outline: &Outline) -> Result<()> {
        let text = self.metadata.remove(PATCH_NUMS_KEY);
        self.metadata.remove(MODULE_VERSIONS_KEY);
        match which(outline) {
            Some(Part::Var) => {
                self.kind = Kind::VarWeights;
                let mut shape = self.infer(VarShape::infer(outline))?;
                if let Some(pn) = text.as_deref().and_then(parse_patch_nums) {
                    shape = self.infer(shape.with_patch_nums(&pn))?;
                }
                self.var = Some(shape);
                self.parts.push(summary("var", outline));
            }
            Some(Part::Vae) => {
                self.kind = Kind::VaeWeights;
                self.vae = Some(self.infer(VaeShape::infer(outline))?);
                self.parts.push(summary("vae", outline));
            }
            None => {
                self.names = outline
                    .tensors()
                    .iter()
                    .take(8)
                    .map(|t| t.name.clone())
                    .collect();
                self.parts.push(summary("tensors", outline));
            }
        }
        Ok(())
    }

    fn read_models(&mut self, var: &Outline, vae: &Outline, patch_nums: &[usize]) -> Result<()> {
        self.kind = Kind::Trainer;
        let shape = VarShape::infer(var).and_then(|s| s.with_patch_nums(patch_nums));
        self.var = Some(self.infer(shape)?);
        self.parts.push(summary("var", var));
        if !vae.tensors().is_empty() {
            self.vae = Some(self.infer(VaeShape::infer(vae))?);
            self.parts.push(summary("vae", vae));
        }
        Ok(())
    }

    fn infer<T>(&self, shape: std::result::Result<T, String>) -> Result<T> {
        shape.map_err(|e| Error::input(format!("{}: {e}", self.path.display())))
    }
}

fn summary(name: &'static str, o: &Outline) -> PartSummary {
    let derived = |name: &str| is_buffer(name) || name == "quantize.ema_vocab_hit_SV";
    let sum = |numbers: &mut dyn Iterator<Item = u64>| numbers.fold(0, u64::saturating_add);
    PartSummary {
        name,
        tensors: o.tensors().len(),
        parameters: sum(&mut o
            .tensors()
            .iter()
            .filter(|t| !derived(&t.name))
            .map(|t| t.numel())),
        bytes: sum(&mut o
            .tensors()
            .iter()
            .map(|t| t.numel().saturating_mul(t.dtype.size() as u64))),
    }
}

fn key_text(key: &Value) -> String {
    match key {
        Value::Str(s) => s.chars().take(80).collect(),
        Value::Int(i) => i.to_string(),
        other => other.type_name().to_owned(),
    }
}

/// Several lines for people.
impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::VaeWeights => "VQVAE tokenizer weights",
            Kind::VarWeights => "VAR transformer weights",
            Kind::Trainer => "training checkpoint",
            Kind::Foreign => "tensors of something else than VAR",
        };
        writeln!(f, "{}", self.path.display())?;
        writeln!(
            f,
            "  kind       {kind} ({}, {} bytes)",
            self.format, self.file_bytes
        )?;
        for p in &self.parts {
            writeln!(
                f,
                "  {:<10} {} tensors, {} parameters, {} bytes",
                p.name, p.tensors, p.parameters, p.bytes
            )?;
        }
        if let Some(v) = &self.var {
            let pn = v
                .patch_nums
                .as_deref()
                .map_or("unknown".into(), format_patch_nums);
            writeln!(
                f,
                "  VAR        depth {}, width {}, heads {}, classes {}, V {}, Cvae {}, L {} in {} scales, patch numbers {pn}, \
                 {}, attention {}",
                v.depth,
                v.width,
                v.heads,
                v.num_classes,
                v.vocab_size,
                v.cvae,
                v.seq_len,
                v.num_scales,
                if v.shared_aln {
                    "shared modulation"
                } else {
                    "modulation per block"
                },
                if v.anorm {
                    "normalised"
                } else {
                    "not normalised"
                },
            )?;
        }
        if let Some(v) = &self.vae {
            let phi = match v.phi {
                PhiKind::None => "no φ".to_owned(),
                PhiKind::Shared => "1 shared φ".to_owned(),
                PhiKind::Partial(n) => format!("{n} partially shared φ"),
                PhiKind::PerScale(n) => format!("{n} φ, one a scale"),
            };
            let scales = v
                .num_scales
                .map_or(String::new(), |n| format!(", code counts of {n} scales"));
            writeln!(
                f,
                "  VQVAE      ch {}, multipliers {:?}, {} residual blocks, V {}, Cvae {}, {phi}{scales}",
                v.ch, v.ch_mult, v.num_res_blocks, v.vocab_size, v.cvae
            )?;
        }
        if let Some(p) = &self.progress {
            write!(
                f,
                "  progress   epoch {}, iteration {}, {} optimizer steps",
                p.epoch, p.iter, p.adam_step
            )?;
            if let Some(g) = p.g_it {
                write!(f, ", {g} iterations in all")?;
            }
            if let Some(s) = &p.scaler {
                write!(f, ", loss scale {}", s.scale)?;
            }
            writeln!(f)?;
        }
        if !self.names.is_empty() {
            writeln!(f, "  names      {}", self.names.join(", "))?;
        }
        for (k, v) in &self.metadata {
            writeln!(f, "  {k}: {}", v.chars().take(120).collect::<String>())?;
        }
        Ok(())
    }
}
