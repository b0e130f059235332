//! A training checkpoint as one safetensors file: tensors under the reference's names, the rest as JSON beside them.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::{AdamSettings, ScalerState, TrainerConfig, TrainerState};
use crate::format::run_file;
use crate::format::safetensors::SafetensorsFile;
use crate::{Error, Result};

/// The metadata key that marks a training checkpoint and holds its [`Header`].
const KEY: &str = "nextscale.trainer";
/// The newest layout. Raised when a file can no longer be read by an older program.
const VERSION: u64 = 3;
/// The layout of a file with pending gradients and without parts that only its run knows.
const WITHOUT_OTHERS: u64 = 2;
/// The layout of a file without either, which every program reads.
const WITHOUT_PENDING: u64 = 1;
/// Prefixes of the names of all sets of tensors.
pub(crate) const PREFIXES: [&str; 5] = [
    run_file::TRANSFORMER_WEIGHTS,
    run_file::TOKENIZER_WEIGHTS,
    "var_opt.exp_avg.",
    "var_opt.exp_avg_sq.",
    "var_opt.pending.",
];

/// Prefix of the transformer's averaged weights, a part that a run may have.
pub(crate) const AVERAGED: &str = "var_ema.";

/// What the checkpoint holds beside tensors.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    version: u64,
    pub(crate) epoch: u64,
    pub(crate) iter: u64,
    pub(crate) g_it: Option<u64>,
    pub(crate) adam_step: u64,
    pub(crate) adam: AdamSettings,
    pub(crate) scaler: Option<ScalerState>,
    pub(crate) config: TrainerConfig,
    args: Map<String, Json>,
    pub(crate) extra: Map<String, Json>,
    #[serde(default)]
    var_versions: Option<Vec<(String, i64)>>,
    #[serde(default)]
    vae_versions: Option<Vec<(String, i64)>>,
}

/// Whether a safetensors file is a training checkpoint of ours.
pub(crate) fn is_trainer(file: &SafetensorsFile) -> bool {
    file.metadata().contains_key(KEY)
}

/// Reads what the file holds beside tensors.
pub(crate) fn read_header(file: &SafetensorsFile) -> Result<Header> {
    let bad = |why: String| Error::input(format!("{}: {why}", file.path().display()));
    let metadata = file.metadata();
    let Some(text) = metadata.get(KEY) else {
        return Err(bad("holds no training state, only tensors".into()));
    };
    let json: Json = serde_json::from_str(text)
        .map_err(|e| bad(format!("its training state is damaged: {e}")))?;
    match json.get("version").and_then(Json::as_u64) {
        Some(WITHOUT_PENDING..=VERSION) => {}
        Some(v) if v > VERSION => {
            return Err(bad(format!(
                "was written by a newer nextscale (layout {v}, this one reads {VERSION}); update nextscale"
            )));
        }
        _ => return Err(bad("its training state has no layout version".into())),
    }
    serde_json::from_value(json).map_err(|e| bad(format!("its training state is damaged: {e}")))
}

impl TrainerState {
    /// Writes the checkpoint as a safetensors file, atomically. Names: `var_wo_ddp.NAME`, `vae_local.NAME`,
    /// `var_opt.exp_avg.NAME`, `var_opt.exp_avg_sq.NAME`, `var_opt.pending.NAME`, and `PART.NAME` of other parts.
    ///
    /// # Errors
    /// When writing fails; an existing file is then unchanged.
    pub fn save_safetensors(&self, path: impl AsRef<Path>) -> Result<()> {
        self.check_moments().map_err(Error::failed)?;
        let all = [
            &self.var,
            &self.vae,
            &self.exp_avg,
            &self.exp_avg_sq,
            &self.pending,
        ];
        let named = PREFIXES.iter().map(|prefix| (*prefix).to_owned());
        let others = self.others.keys().map(|name| format!("{name}."));
        let parts: Vec<_> = named
            .chain(others)
            .zip(all.into_iter().chain(self.others.values()))
            .map(|(prefix, dict)| run_file::Part::of_dict(prefix, dict))
            .collect();
        self.save_parts(path.as_ref(), &parts, !self.pending.is_empty())
    }

    /// The same with the tensors of `parts` in place of its own, which may be empty; `pending` says whether gradients are among them.
    ///
    /// # Errors
    /// As [`run_file::write`].
    pub(crate) fn save_parts(
        &self,
        path: &Path,
        parts: &[run_file::Part<'_>],
        pending: bool,
    ) -> Result<()> {
        self.check_finite()?;
        let others = parts.iter().any(|part| !PREFIXES.contains(&part.prefix()));
        let header = Header {
            version: match (others, pending) {
                (true, _) => VERSION,
                (_, true) => WITHOUT_OTHERS,
                _ => WITHOUT_PENDING,
            },
            epoch: self.epoch,
            iter: self.iter,
            g_it: self.g_it,
            adam_step: self.adam_step,
            adam: self.adam.clone(),
            scaler: self.scaler.clone(),
            config: self.config.clone(),
            args: self.args.clone(),
            extra: self.extra.clone(),
            var_versions: self.var.module_versions.clone(),
            vae_versions: self.vae.module_versions.clone(),
        };
        let text = serde_json::to_string(&header)
            .map_err(|e| Error::failed(format!("saving the training state: {e}")))?;
        run_file::write(path, "transformer", parts, [(KEY.into(), text)].into())
    }

    /// Reads a checkpoint that [`Self::save_safetensors`] wrote.
    ///
    /// # Errors
    /// When the file is missing, damaged, of a newer layout, or not a training checkpoint.
    pub fn load_safetensors(path: impl AsRef<Path>) -> Result<Self> {
        let mut file = SafetensorsFile::open(path)?;
        let h = read_header(&file)?;
        let layout = run_file::Layout::of(&file)?;
        let parts = layout.map_or(Vec::new(), |l| l.parts);
        let parts = parts.into_iter().map(|name| format!("{name}."));
        let others: Vec<String> = parts.filter(|p| !PREFIXES.contains(&p.as_str())).collect();
        let known = |name: &str| {
            let own = PREFIXES.iter().copied();
            own.chain(others.iter().map(String::as_str))
                .any(|p| name.starts_with(p))
        };
        if let Some(name) = file.names().find(|n| !known(n)) {
            return Err(Error::input(format!(
                "{}: holds {name:?}, which belongs to no part of a training checkpoint",
                file.path().display()
            )));
        }
        let [mut var, mut vae, exp_avg, exp_avg_sq, pending] =
            PREFIXES.map(|p| file.read_prefix(p));
        let others = others.iter().map(|prefix| {
            let name = prefix.trim_end_matches('.').to_owned();
            Ok((name, file.read_prefix(prefix)?))
        });
        let others = others.collect::<Result<_>>()?;
        if let Ok(d) = &mut var {
            d.module_versions = h.var_versions;
        }
        if let Ok(d) = &mut vae {
            d.module_versions = h.vae_versions;
        }
        let state = Self {
            epoch: h.epoch,
            iter: h.iter,
            g_it: h.g_it,
            config: h.config,
            var: var?,
            vae: vae?,
            exp_avg: exp_avg?,
            exp_avg_sq: exp_avg_sq?,
            pending: pending?,
            others,
            adam_step: h.adam_step,
            adam: h.adam,
            scaler: h.scaler,
            args: h.args,
            extra: h.extra,
        };
        state
            .check_moments()
            .map_err(|e| Error::input(format!("{}: {e}", file.path().display())))?;
        Ok(state)
    }
}
