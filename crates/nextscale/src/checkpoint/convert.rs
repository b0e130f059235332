//! Converting between `.pth` and `.safetensors`, bit for bit.

use std::path::Path;

use super::class_names::CLASSES_KEY;
use super::trainer_state::TrainerState;
use super::weights::{
    Loaded, MODULE_VERSIONS_KEY, ModelKind, PATCH_NUMS_KEY, Weights, WeightsKind,
    format_patch_nums, load_part, load_weights,
};
use crate::format::pth::PthBuilder;
use crate::format::run_file;
use crate::format::safetensors::{TextMetadata, write_safetensors};
use crate::format::sniff::FileFormat;
use crate::format::state_dict::StateDict;
use crate::model::load_into::NonFinite;
use crate::model::var::state_dict::add_reference_buffers;
use crate::{Error, Result};

/// What to take from the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConvertPart {
    /// Everything that it holds.
    #[default]
    All,
    /// The transformer's weights.
    Var,
    /// The tokenizer's weights.
    Vae,
}

/// What a conversion did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvertReport {
    /// Whether a full training checkpoint was written, and not weights only.
    pub trainer: bool,
    /// Number of tensors written, optimizer moments included.
    pub tensors: usize,
    /// Bytes of those tensors.
    pub bytes: usize,
    /// What the reader should know, such as text that the output format can't hold.
    pub notes: Vec<String>,
}

/// Reads `input`, in whatever format it is, and writes `output` in the format of its extension (`.pth` or `.safetensors`),
/// atomically. With a `kind` it is the weights alone that are written.
///
/// # Errors
/// For another extension, the same file twice, an input that can't be read or lacks the part, or a failure to write.
pub fn convert(
    input: impl AsRef<Path>,
    output: impl AsRef<Path>,
    part: ConvertPart,
    kind: Option<WeightsKind>,
) -> Result<ConvertReport> {
    let (input, output) = (input.as_ref(), output.as_ref());
    let target = match output
        .extension()
        .and_then(|e| e.to_str())
        .map(str::to_ascii_lowercase)
        .as_deref()
    {
        Some("pth" | "pt") => FileFormat::Pth,
        Some("safetensors") => FileFormat::Safetensors,
        _ => {
            return Err(Error::input(format!(
                "{}: the output's name must end in .pth or .safetensors",
                output.display()
            )));
        }
    };
    let same = std::fs::canonicalize(input)
        .ok()
        .zip(std::fs::canonicalize(output).ok())
        .is_some_and(|(a, b)| a == b);
    if same {
        return Err(Error::input(format!(
            "{}: is both input and output; give the output another name",
            output.display()
        )));
    }
    let weights = match part {
        ConvertPart::Var => load_part(input, ModelKind::Var, kind)?,
        ConvertPart::Vae => load_part(input, ModelKind::Vae, kind)?,
        ConvertPart::All => match (load_weights(input)?, kind) {
            (Loaded::Weights(w), None) => w,
            (Loaded::Weights(Weights { part: Some(p), .. }), _) => load_part(input, p, kind)?,
            (Loaded::Trainer(_), Some(_)) => load_part(input, ModelKind::Var, kind)?,
            (Loaded::Weights(w), Some(_)) => w,
            (Loaded::Trainer(state), None) => return write_trainer(&state, output, target),
        },
    };
    write_weights(weights, input, output, target)
}

fn write_trainer(state: &TrainerState, output: &Path, target: FileFormat) -> Result<ConvertReport> {
    match target {
        FileFormat::Safetensors => state.save_safetensors(output)?,
        FileFormat::Pth => state.to_reference_pth(output)?,
    }
    let mut parts = vec![&state.var, &state.vae, &state.exp_avg, &state.exp_avg_sq];
    let mut notes = Vec::new();
    let others = state.others.values();
    let all: Vec<&StateDict> = parts.iter().copied().chain(others).collect();
    warn_of_values(&all, &mut notes);
    let pending = (!state.pending.is_empty()).then_some("the gradients of half a step");
    let named = state.others.keys().map(String::as_str);
    let beside: Vec<&str> = pending.into_iter().chain(named).collect();
    match target {
        FileFormat::Safetensors => {
            parts.push(&state.pending);
            parts.extend(state.others.values());
        }
        FileFormat::Pth if beside.is_empty() => {}
        FileFormat::Pth => notes.push(format!(
            "left out: {}, for which the reference's file has no place",
            beside.join(", ")
        )),
    }
    Ok(ConvertReport {
        trainer: true,
        tensors: parts.iter().map(|d| d.len()).sum(),
        bytes: parts.iter().map(|d| d.num_bytes()).sum(),
        notes,
    })
}

fn write_weights(
    mut w: Weights,
    input: &Path,
    output: &Path,
    target: FileFormat,
) -> Result<ConvertReport> {
    let mut notes = Vec::new();
    warn_of_values(&[&w.tensors], &mut notes);
    if w.others > 0 {
        notes.push(format!(
            "left out: {} tensors beside the model's weights",
            w.others
        ));
    }
    match target {
        FileFormat::Safetensors => {
            let mut metadata = std::mem::take(&mut w.metadata);
            // They speak of a run, which is not in this file.
            for key in [run_file::RUN_KEY, run_file::TOKENIZER_RUN] {
                metadata.remove(key);
            }
            metadata
                .entry("format".into())
                .or_insert_with(|| "pt".into());
            if let (Some(ModelKind::Var), Some(pn)) = (w.part, &w.patch_nums) {
                metadata.insert(PATCH_NUMS_KEY.into(), format_patch_nums(pn));
            }
            if let Some(versions) = &w.tensors.module_versions {
                let text = serde_json::to_string(versions)
                    .map_err(|e| Error::failed(format!("{}: {e}", output.display())))?;
                metadata.insert(MODULE_VERSIONS_KEY.into(), text);
            }
            write_safetensors(output, &w.tensors, &metadata)?;
        }
        FileFormat::Pth => {
            if w.part == Some(ModelKind::Var) {
                match &w.patch_nums {
                    Some(pn) => {
                        let before = w.tensors.len();
                        add_reference_buffers(&mut w.tensors, pn)
                            .map_err(|e| Error::input(format!("{}: {e}", input.display())))?;
                        if w.tensors.len() > before {
                            notes.push(format!("added {} buffers that the reference derives", w.tensors.len() - before));
                        }
                    }
                    None if !w.tensors.contains("lvl_1L") => notes.push(
                        "the file does not tell its patch numbers, so the buffers lvl_1L and attn_bias_for_masking are missing: \
                         load it in the reference with strict=False"
                            .into(),
                    ),
                    None => {}
                }
            }
            let lost: Vec<&str> = lost_keys(&w.metadata);
            if !lost.is_empty() {
                notes.push(format!(
                    "a .pth file of weights can't hold the metadata {}",
                    lost.join(", ")
                ));
            }
            if lost.contains(&CLASSES_KEY) {
                notes.push("left out with it: the names of the classes; a whole training checkpoint as .pth, or weights as .safetensors, keep them".into());
            }
            let mut b = PthBuilder::new();
            let value = b.state_dict(&w.tensors);
            b.write(output, &value)?;
        }
    }
    Ok(ConvertReport {
        trainer: false,
        tensors: w.tensors.len(),
        bytes: w.tensors.num_bytes(),
        notes,
    })
}

/// Notes values that are no numbers: they are converted as they are, and no model loads them.
fn warn_of_values(parts: &[&StateDict], notes: &mut Vec<String>) {
    let mut bad = NonFinite::default();
    for (name, tensor) in parts.iter().flat_map(|d| d.iter()) {
        bad.look_at(name, tensor);
    }
    if !bad.is_empty() {
        notes.push(format!("{bad}; they are kept as they are"));
    }
}

/// Text that says more than the tensors do.
fn lost_keys(metadata: &TextMetadata) -> Vec<&str> {
    metadata
        .keys()
        .map(String::as_str)
        .filter(|k| {
            let known = [
                "format",
                PATCH_NUMS_KEY,
                MODULE_VERSIONS_KEY,
                run_file::RUN_KEY,
                run_file::TOKENIZER_RUN,
            ];
            !known.contains(k)
        })
        .collect()
}
