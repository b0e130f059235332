//! A transformer's run as a checkpoint and back.

use super::epoch::EpochSums;
use super::task::TransformerState;
use crate::checkpoint::class_names::{CLASSES_KEY, names_of_extra};
use crate::checkpoint::trainer_state::{AVERAGED, TRANSFORMER_PREFIXES};
use crate::checkpoint::weights::{CANVAS_KEY, FINGERPRINT_KEY, TOKENIZER_KEY};
use crate::checkpoint::{AdamSettings, ScalerState, TrainerConfig, TrainerState};
use crate::eval::Trend;
use crate::format::StateDict;
use crate::format::run_file::{self, Part};
use crate::model::state::{buffer_part, load_var, params_part, vqvae_part};
use crate::model::vqvae::Vqvae;
use crate::options::TransformerOptions;
use crate::options::{Horizon, TransformerPlan};
use crate::run::check_length;
use crate::run::checkpoints::{self, last_is_there};
use crate::run::data_record::DataRecord;
use crate::run::optimizer::{self, SavedOptimizer};
use crate::run::task::Progress;
use crate::train::optimizer::{ADAM_EPS, BETAS};
use crate::train::progressive::StageState;
use crate::train::var_trainer::VarTrainer;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Key of the run's own progress among a checkpoint's extras.
const PROGRESS_KEY: &str = "nextscale.progress";

/// What [`PROGRESS_KEY`] holds.
#[derive(Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    progress: Progress,
    /// Lowest validation loss of the last scale.
    best_tail: Option<f64>,
    /// Losses of the epoch so far.
    epoch: EpochSums,
    /// Validation losses.
    #[serde(default, skip_serializing_if = "Trend::is_empty")]
    trend: Trend,
}

/// The files of a run.
#[derive(Clone, Debug)]
pub struct TransformerPaths {
    /// The checkpoint to resume from.
    pub last: PathBuf,
    /// The checkpoint with the lowest validation loss of the last scale.
    pub best: PathBuf,
    /// The reference's own checkpoint, taken up where there is none of ours.
    pub reference: PathBuf,
}

/// The files of a run in the folder `out`.
pub fn transformer_paths(out: &Path) -> TransformerPaths {
    TransformerPaths {
        last: out.join("ar-ckpt-last.safetensors"),
        best: out.join("ar-ckpt-best.safetensors"),
        reference: out.join("ar-ckpt-last.pth"),
    }
}

/// The checkpoint that a run in this folder resumes from.
///
/// # Errors
/// When it is there and can't be read, and where it can't be known whether it is there.
pub(super) fn find(out: &Path) -> Result<Option<(TrainerState, PathBuf)>> {
    let p = transformer_paths(out);
    if last_is_there(&p.last)? {
        return Ok(Some((TrainerState::load_safetensors(&p.last)?, p.last)));
    }
    if checkpoints::is_there(&p.reference)? {
        let state = TrainerState::from_reference_pth(&p.reference)?;
        return Ok(Some((state, p.reference)));
    }
    Ok(None)
}

/// The run's progress and its own state that a checkpoint holds.
pub(super) fn progress(
    saved: &TrainerState,
    horizon: &Horizon,
    flag: &str,
    path: &Path,
) -> Result<(Progress, TransformerState)> {
    let its = horizon.its_per_epoch;
    let counted = || saved.epoch.checked_mul(its)?.checked_add(saved.iter);
    let it = saved.g_it.or_else(counted).ok_or_else(|| {
        Error::input(format!(
            "{}: epoch {} and iteration {} of it are beyond any run; choose another `out`",
            path.display(),
            saved.epoch,
            saved.iter
        ))
    })?;
    let stage = StageState {
        prog_it: saved.config.prog_it,
        last_prog_si: saved.config.last_prog_si,
        first_prog: saved.config.first_prog,
    };
    let Some(kept) = saved.extra.get(PROGRESS_KEY) else {
        check_length(it, horizon.max_it, flag, path)?;
        let progress = Progress {
            it,
            its_per_epoch: its,
            ..Progress::default()
        };
        let state = TransformerState {
            stage,
            ..TransformerState::default()
        };
        return Ok((progress, state));
    };
    let kept: Kept = serde_json::from_value(kept.clone())
        .map_err(|e| Error::input(format!("{}: its progress is damaged: {e}", path.display())))?;
    let progress = kept.progress;
    if progress.its_per_epoch != its {
        return Err(Error::input(format!(
            "{}: the run had {} iterations an epoch, with these flags and images it would have {its}: give `bs`, `ac` and `data_path` or `tokens` as before, or choose another `out`",
            path.display(),
            progress.its_per_epoch
        )));
    }
    check_length(progress.it, horizon.max_it, flag, path)?;
    let state = TransformerState {
        best_tail: kept.best_tail,
        epoch: kept.epoch,
        stage,
        trend: kept.trend,
    };
    Ok((progress, state))
}

/// The seed that a checkpoint's run began with, where it says so: the reference's does in its options.
pub(super) fn saved_seed(state: &TrainerState, progress: &Progress) -> Option<u64> {
    match state.extra.contains_key(PROGRESS_KEY) {
        true => Some(progress.seed),
        false => state.args.get("seed").and_then(Value::as_u64),
    }
}

/// What a checkpoint says of its run's images.
pub(super) fn data_record(
    state: &TrainerState,
    progress: &Progress,
    o: &TransformerOptions,
) -> DataRecord {
    let record = DataRecord {
        classes: Arc::new(names_of_extra(&state.extra).unwrap_or_default()),
        ..progress.data.clone()
    };
    match o.tokens {
        // The crops were made before: options say nothing of them.
        Some(_) => record,
        None => record.or_options(&state.args),
    }
}

/// The accumulated iterations of a checkpoint of this program's runs, which keep them.
pub(super) fn own_accumulation(state: &TrainerState) -> Option<usize> {
    state.extra.get(PROGRESS_KEY)?;
    let ac = state.args.get("ac")?.as_u64()?;
    usize::try_from(ac).ok().filter(|ac| *ac > 0)
}

/// [`run::check_accumulation`](crate::run::check_accumulation), where the checkpoint is one of this program's runs.
pub(super) fn check_accumulation(state: &TrainerState, path: &Path, ac: usize) -> Result<()> {
    match own_accumulation(state) {
        Some(before) => crate::run::check_accumulation(ac, before, path),
        None => Ok(()),
    }
}

/// Whether there is a checkpoint that a run in this folder would resume from.
///
/// # Errors
/// Where that can't be known.
pub(super) fn is_there(out: &Path) -> Result<bool> {
    let p = transformer_paths(out);
    Ok(last_is_there(&p.last)? || checkpoints::is_there(&p.reference)?)
}

/// The averaged weights of a checkpoint, where it holds some.
pub(super) fn averaged(state: &TrainerState) -> Option<&StateDict> {
    state.others.get(AVERAGED.trim_end_matches('.'))
}

/// Puts a checkpoint's weights and optimizer state, after so many steps, into a trainer.
///
/// # Errors
/// When they are of another model: names the tensor and both shapes.
pub(super) fn restore(
    trainer: &mut VarTrainer,
    state: &TrainerState,
    steps: u64,
    path: &Path,
) -> Result<()> {
    let source = path.display().to_string();
    load_var(&mut trainer.var, &state.var, &source)?;
    let saved = SavedOptimizer {
        moments: [&state.exp_avg, &state.exp_avg_sq],
        pending: &state.pending,
        average: averaged(state),
        scaler: state.scaler.as_ref(),
        updates: state.adam_step,
        steps,
    };
    let is_first = trainer.sum.world().is_first();
    optimizer::restore(
        &mut trainer.opt,
        &trainer.var.params,
        &saved,
        is_first,
        &source,
    )
}

/// Refuses to go on with the tokens of another tokenizer than before. `vqvae` is the present one, where there is more of it than a
/// codebook; `fingerprint` is what a file of tokens says of it.
///
/// # Errors
/// When they differ: names the checkpoint and the flag.
pub(super) fn check_tokenizer(
    state: &TrainerState,
    path: &Path,
    (vqvae, fingerprint): (Option<&Vqvae>, Option<&str>),
    o: &TransformerOptions,
) -> Result<()> {
    let mut another = false;
    for info in vqvae.map_or(&[][..], |v| v.params.infos()) {
        if let (Some(v), Some(before)) = (vqvae, state.vae.get(&info.name)) {
            another |= before.to_f32_vec() != v.params.export(&info.name)?;
        }
    }
    let before = state.extra.get(FINGERPRINT_KEY).and_then(Value::as_str);
    another |= before.zip(fingerprint).is_some_and(|(a, b)| a != b);
    if !another {
        return Ok(());
    }
    let given = match (&o.tokenizer, &o.tokens) {
        (Some(file), _) => format!("`tokenizer`={}", file.display()),
        (None, Some(file)) => format!("`tokens`={}", file.display()),
        (None, None) => "this run".into(),
    };
    Err(Error::input(format!(
        "{}: the run learns the tokens of another tokenizer than {given} has: give the one that it began with, or choose another `out`",
        path.display()
    )))
}

/// What [`save`] writes beside the trainer.
pub(super) struct Saving<'a> {
    pub(super) options: &'a TransformerOptions,
    pub(super) plan: &'a TransformerPlan,
    pub(super) horizon: &'a Horizon,
    pub(super) progress: &'a Progress,
    pub(super) state: &'a TransformerState,
    /// Of the tokenizer that made the tokens, where they come from a file that says so.
    pub(super) fingerprint: Option<&'a str>,
    pub(super) cmd: &'a str,
    /// The tokenizer's hit averages \[scales\]\[V\].
    pub(super) hits: &'a [Vec<f32>],
}

impl Saving<'_> {
    /// Whether gradients have been added up since the last update.
    fn is_pending(&self) -> bool {
        !self
            .progress
            .it
            .is_multiple_of(self.options.schedule.ac as u64)
    }
}

/// Writes a checkpoint.
///
/// # Errors
/// When writing fails or the weights or moments are no numbers; an existing file is then unchanged.
pub(super) fn save(trainer: &VarTrainer, s: &Saving<'_>, path: &Path) -> Result<()> {
    let now = s.horizon.schedule.at(s.progress.it.saturating_sub(1));
    let mut config = TrainerConfig::new(&s.plan.patch_nums, s.options.ls);
    config.resos = s.plan.resolutions.clone();
    config.prog_it = s.state.stage.prog_it;
    config.last_prog_si = s.state.stage.last_prog_si;
    config.first_prog = s.state.stage.first_prog;
    let json = |e: serde_json::Error| Error::failed(format!("describing the run: {e}"));
    let mut extra = Map::new();
    extra.insert(
        TOKENIZER_KEY.into(),
        serde_json::to_value(trainer.tokenizer.config()).map_err(json)?,
    );
    extra.insert(
        PROGRESS_KEY.into(),
        serde_json::to_value(Kept {
            progress: s.progress.clone(),
            best_tail: s.state.best_tail,
            epoch: s.state.epoch.clone(),
            trend: s.state.trend.clone(),
        })
        .map_err(json)?,
    );
    if let Some(text) = s.fingerprint {
        extra.insert(FINGERPRINT_KEY.into(), text.into());
    }
    let names = s.progress.data.classes.as_slice();
    extra.insert(CLASSES_KEY.into(), json!(names));
    if let Some(canvas) = s.progress.data.canvas() {
        extra.insert(
            CANVAS_KEY.into(),
            serde_json::to_value(canvas).map_err(json)?,
        );
    }
    let its = s.horizon.its_per_epoch;
    let pending = s.is_pending();
    let opt = &trainer.opt;
    // Its tensors are taken from the trainer, one by one.
    let state = TrainerState {
        epoch: s.progress.it / its,
        iter: s.progress.it % its,
        g_it: Some(s.progress.it),
        config,
        var: StateDict::new(),
        vae: StateDict::new(),
        exp_avg: StateDict::new(),
        exp_avg_sq: StateDict::new(),
        pending: StateDict::new(),
        others: BTreeMap::new(),
        adam_step: opt.updates()?,
        adam: AdamSettings {
            lr: now.lr,
            weight_decay: now.wd,
            betas: [BETAS.0, BETAS.1],
            eps: ADAM_EPS,
            ..AdamSettings::default()
        },
        scaler: opt.scaler()?.map(ScalerState::from),
        args: reference_args(s)?,
        extra,
    };
    state.save_parts(path, &parts(trainer, s, pending), pending)
}

/// Makes what the first process writes, where all have shares of it.
///
/// # Errors
/// When another process is gone.
pub(super) fn make_along(trainer: &VarTrainer, s: &Saving<'_>) -> Result<()> {
    run_file::make_along(&parts(trainer, s, s.is_pending()))
}

/// The tensors of a checkpoint.
fn parts<'a>(trainer: &'a VarTrainer, s: &Saving<'a>, pending: bool) -> Vec<Part<'a>> {
    let (params, opt) = (&trainer.var.params, &trainer.opt);
    let [var, vae, m, v, sums] = TRANSFORMER_PREFIXES;
    let mut parts = vec![
        params_part(var, params).checked("the weights"),
        match trainer.tokenizer.whole() {
            Some(vqvae) => vqvae_part(vae, vqvae, s.hits),
            None => Part::new(vae),
        },
        buffer_part(m, &opt.exp_avg, params).checked("the optimizer's averages"),
        buffer_part(v, &opt.exp_avg_sq, params).checked("the optimizer's averages of squares"),
    ];
    if let Some(average) = opt.averaged() {
        let part = buffer_part(AVERAGED, average, params);
        parts.push(part.checked("the averaged weights"));
    }
    if pending {
        parts.push(buffer_part(sums, &opt.grads, params));
    }
    parts
}

/// The options under the reference's names and in its order, with what it derives from them.
fn reference_args(s: &Saving<'_>) -> Result<Map<String, Value>> {
    let own = serde_json::to_value(s.options)
        .map_err(|e| Error::failed(format!("describing the run: {e}")))?;
    let own = own.as_object().cloned().unwrap_or_default();
    let mut out = Map::new();
    const ORDER: [&str; 41] = [
        "data_path",
        "exp_name",
        "vfast",
        "tfast",
        "depth",
        "ini",
        "hd",
        "aln",
        "alng",
        "fp16",
        "tblr",
        "tlr",
        "twd",
        "twde",
        "tclip",
        "ls",
        "bs",
        "batch_size",
        "glb_batch_size",
        "ac",
        "ep",
        "wp",
        "wp0",
        "wpe",
        "sche",
        "opt",
        "afuse",
        "saln",
        "anorm",
        "fuse",
        "pn",
        "patch_size",
        "patch_nums",
        "resos",
        "data_load_reso",
        "mid_reso",
        "hflip",
        "workers",
        "pg",
        "pg0",
        "pgwp",
    ];
    for key in ORDER {
        let value = match key {
            "tlr" => json!(s.plan.lr),
            "twde" => json!(s.plan.wd_end),
            "bs" | "glb_batch_size" => json!(s.plan.global_batch),
            "batch_size" => json!(s.plan.batch),
            "wp" => json!(s.plan.warmup_epochs(s.horizon)),
            "pgwp" => json!(s.plan.ramp_epochs(s.horizon)),
            "sche" => json!(s.plan.curve),
            "patch_nums" => json!(s.plan.patch_nums),
            "resos" => json!(s.plan.resolutions),
            "data_load_reso" => json!(s.plan.image_size),
            "workers" => json!(s.plan.workers),
            _ => own.get(key).cloned().unwrap_or(Value::Null),
        };
        out.insert(key.into(), value);
    }
    out.insert("cmd".into(), json!(s.cmd));
    out.insert(
        "tf32".into(),
        own.get("tf32").cloned().unwrap_or(Value::Null),
    );
    out.insert("seed".into(), json!(s.progress.seed));
    Ok(out)
}
