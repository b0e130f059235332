//! A tokenizer's run as a checkpoint and back, and its weights as a file to use.

use super::task::TokenizerState;
use crate::checkpoint::ScalerState;
use crate::checkpoint::class_names::{CLASSES_KEY, names_of_metadata, names_to_text};
use crate::checkpoint::weights::{CANVAS_KEY, TOKENIZER_KEY};
use crate::format::run_file::{TOKENIZER_RUN, TOKENIZER_WEIGHTS};
use crate::format::safetensors::{SafetensorsFile, TextMetadata};
use crate::format::{StateDict, run_file};
use crate::model::state::{buffer_part, hit_averages, load_vqvae, vqvae_part, vqvae_part_of};
use crate::model::vqvae::VqvaeConfig;
use crate::run::checkpoints::last_is_there;
use crate::run::optimizer::{self, SavedOptimizer};
use crate::run::task::Progress;
use crate::train::tokenizer_trainer::TokenizerTrainer;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// Prefixes of weights, of AdamW's moments, of gradients since the last update, and of averaged weights.
const PREFIXES: [&str; 5] = [
    TOKENIZER_WEIGHTS,
    "vae_opt.exp_avg.",
    "vae_opt.exp_avg_sq.",
    "vae_opt.pending.",
    "vae_ema.",
];

/// What a training checkpoint says of its run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Found {
    #[serde(flatten)]
    pub(super) progress: Progress,
    #[serde(flatten)]
    pub(super) state: TokenizerState,
    /// Iterations of a step.
    #[serde(default = "one")]
    pub(super) ac: usize,
    /// Updates that the optimizer has made; in files before there were loss scales, one an iteration.
    #[serde(default)]
    updates: Option<u64>,
    /// Whether averaged weights are kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) ema: bool,
    /// The loss scale, in float16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scaler: Option<ScalerState>,
}

fn one() -> usize {
    1
}

fn settings(trainer: &TokenizerTrainer) -> Result<String> {
    serde_json::to_string(&trainer.vqvae.config)
        .map_err(|e| Error::failed(format!("describing the tokenizer: {e}")))
}

/// Writes the training checkpoint.
///
/// # Errors
/// When writing fails or the weights or averages are no numbers; an existing file is then unchanged.
pub(super) fn save(
    trainer: &TokenizerTrainer,
    progress: &Progress,
    state: &TokenizerState,
    ac: usize,
    path: &Path,
) -> Result<()> {
    let average = trainer.opt.averaged();
    let kept = Found {
        progress: progress.clone(),
        state: state.clone(),
        ac,
        updates: Some(trainer.opt.updates()?),
        ema: average.is_some(),
        scaler: trainer.opt.scaler()?.map(ScalerState::from),
    };
    let text = serde_json::to_string(&kept)
        .map_err(|e| Error::failed(format!("describing the run: {e}")))?;
    let mut metadata = of_weights(trainer, progress)?;
    metadata.insert(TOKENIZER_RUN.into(), text);
    let (params, opt) = (&trainer.vqvae.params, &trainer.opt);
    let [weights, m, v, sums, averaged] = PREFIXES;
    let mut parts = vec![
        vqvae_part(weights, &trainer.vqvae, &trainer.hits.ema).checked("the weights"),
        buffer_part(m, &opt.exp_avg, params).checked("the optimizer's averages"),
        buffer_part(v, &opt.exp_avg_sq, params).checked("the optimizer's averages of squares"),
    ];
    if !progress.it.is_multiple_of(ac as u64) {
        parts.push(buffer_part(sums, &opt.grads, params));
    }
    if average.is_some() {
        let part = vqvae_part_of(averaged, &trainer.vqvae, average, &trainer.hits.ema);
        parts.push(part.checked("the averaged weights"));
    }
    run_file::write(path, "tokenizer", &parts, metadata)
}

/// What is kept beside the weights for whoever uses them: the tokenizer's settings, and what images it saw.
fn of_weights(trainer: &TokenizerTrainer, progress: &Progress) -> Result<TextMetadata> {
    let data = &progress.data;
    let mut metadata: TextMetadata = [
        (TOKENIZER_KEY.into(), settings(trainer)?),
        (CLASSES_KEY.into(), names_to_text(&data.classes)),
    ]
    .into();
    if let Some(canvas) = data.canvas() {
        let text = serde_json::to_string(&canvas)
            .map_err(|e| Error::failed(format!("describing the images: {e}")))?;
        metadata.insert(CANVAS_KEY.into(), text);
    }
    Ok(metadata)
}

/// Reads a training checkpoint's progress, if `path` is there. It has to be of a tokenizer like `config`, but for what only training
/// knows of.
///
/// # Errors
/// When the file is there and is none, or of another tokenizer, and where it can't be known whether it is there.
pub(super) fn find(path: &Path, config: &VqvaeConfig) -> Result<Option<Found>> {
    if !last_is_there(path)? {
        return Ok(None);
    }
    let file = SafetensorsFile::open(path)?;
    run_file::Layout::of(&file)?;
    let bad = |why: String| Error::input(format!("{}: {why}", path.display()));
    let metadata = file.metadata();
    let text = metadata
        .get(TOKENIZER_RUN)
        .ok_or_else(|| bad("is no training checkpoint of a tokenizer".into()))?;
    let mut found: Found =
        serde_json::from_str(text).map_err(|e| bad(format!("its progress is damaged: {e}")))?;
    found.progress.data.classes = Arc::new(names_of_metadata(&metadata).unwrap_or_default());
    let Some(text) = metadata.get(TOKENIZER_KEY) else {
        return Ok(Some(found));
    };
    let before: VqvaeConfig = serde_json::from_str(text)
        .map_err(|e| bad(format!("its tokenizer's settings are damaged: {e}")))?;
    let same = VqvaeConfig {
        dropout: config.dropout,
        beta: config.beta,
        ..before.clone()
    } == *config;
    if !same {
        return Err(bad(format!(
            "the run's tokenizer is another than these flags describe ({}): give `ch`, `ch_mult`, `num_res_blocks`, `vocab`, `cvae`, `pn`, `share_quant_resi`, `quant_resi` and `znorm` as before, or choose another `out`",
            difference(&before, config)
        )));
    }
    Ok(Some(found))
}

/// All settings in which two tokenizers differ.
fn difference(before: &VqvaeConfig, now: &VqvaeConfig) -> String {
    let both = [before, now].map(|c| serde_json::to_value(c).unwrap_or_default());
    let [Value::Object(before), Value::Object(now)] = both else {
        return String::new();
    };
    let other = |key: &&String| {
        !matches!(key.as_str(), "dropout" | "beta") && before.get(*key) != now.get(*key)
    };
    let all = now.keys().filter(other);
    let all = all.map(|key| format!("{key} was {}", before.get(key).unwrap_or(&Value::Null)));
    all.collect::<Vec<_>>().join(", ")
}

/// Puts a checkpoint's weights and optimizer state into a trainer.
///
/// # Errors
/// When they are of another tokenizer: names the tensor and both shapes.
pub(super) fn restore(trainer: &mut TokenizerTrainer, found: &Found, path: &Path) -> Result<()> {
    let mut file = SafetensorsFile::open(path)?;
    let mut part = |i: usize| -> Result<StateDict> { file.read_prefix(PREFIXES[i]) };
    let (weights, m, v, sums, averaged) = (part(0)?, part(1)?, part(2)?, part(3)?, part(4)?);
    load_vqvae(&mut trainer.vqvae, &weights, &path.display().to_string())?;
    let config = &trainer.vqvae.config;
    trainer.hits.ema = hit_averages(&weights, config.pyramid.count(), config.vocab);
    trainer.hits.records = found.state.records;
    let saved = SavedOptimizer {
        moments: [&m, &v],
        pending: &sums,
        average: found.ema.then_some(&averaged),
        scaler: found.scaler.as_ref(),
        updates: found.updates.unwrap_or(found.progress.it),
        steps: found.progress.it / found.ac as u64,
    };
    let source = path.display().to_string();
    let is_first = trainer.sum.world().is_first();
    optimizer::restore(
        &mut trainer.opt,
        &trainer.vqvae.params,
        &saved,
        is_first,
        &source,
    )
}

/// Writes the weights alone, averaged where an average is kept, under the reference's names. Beside them stands
/// what is kept for whoever uses them.
///
/// # Errors
/// When writing fails; an existing file is then unchanged.
pub(super) fn export(trainer: &TokenizerTrainer, progress: &Progress, path: &Path) -> Result<()> {
    let metadata = of_weights(trainer, progress)?;
    let average = trainer.opt.averaged();
    let weights = vqvae_part_of("", &trainer.vqvae, average, &trainer.hits.ema);
    run_file::write_weights(path, &weights, metadata)
}
