//! Describing a checkpoint, a tensor or a piece of one in memory at a time.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::class_names::{CLASSES_KEY, names_of_extra, names_of_metadata};
use super::classifier::{self, ClassifierRecord};
use super::places::{Place, Tree, open_pth, places};
use super::trainer_state::{self, ScalerState};
use super::weights::{
    CANVAS_KEY, MODULE_VERSIONS_KEY, ModelKind, PATCH_NUMS_KEY, TOKENIZER_KEY, format_patch_nums,
    parse_patch_nums,
};
use crate::canvas::Canvas;
use crate::format::host::{HostDType, checked_numel, count_non_finite};
use crate::format::outline::Outline;
use crate::format::pth::PthFile;
use crate::format::run_file;
use crate::format::safetensors::{SafetensorsFile, TextMetadata};
use crate::format::sniff::{FileFormat, sniff};
use crate::model::classifier::ClassifierConfig;
use crate::model::load_into::{NonFinite, may_be_infinite};
use crate::model::var::state_dict::VarShape;
use crate::model::var::state_dict::is_buffer;
use crate::model::vqvae::VqvaeConfig;
use crate::model::vqvae::state_dict::{HITS, VaeShape};
use crate::{Error, Result};
use torch_pth::{Dict, Value};

mod shown;

/// Bytes that are looked at together; a multiple of every element's size.
const PIECE: usize = 1 << 22;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A tokenizer's weights.
    VaeWeights,
    /// A transformer's weights.
    VarWeights,
    /// A full training checkpoint.
    Trainer,
    /// Weights of both models, without the rest of a training checkpoint.
    BothWeights,
    /// Images as tokens.
    Tokens,
    /// A classifier to take features from.
    Classifier,
    /// Tensors of something else.
    Foreign,
}

/// Tensors of one part of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartSummary {
    /// `var`, `vae`, `optimizer`, `others` beside these or, in a file of something else, `tensors`; else as a run names it.
    pub name: String,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of elements in them, without buffers; of a model's weights (`var`, `vae`, `weights`) these are its parameters.
    pub parameters: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// Where a training run stands.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedProgress {
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

/// What a tokenizer's run says of itself, as far as it is told here.
#[derive(serde::Deserialize)]
struct TokenizerProgress {
    it: u64,
    its_per_epoch: u64,
    #[serde(default)]
    updates: Option<u64>,
    #[serde(default)]
    scaler: Option<ScalerState>,
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
    pub kind: FileKind,
    /// Its parts.
    pub parts: Vec<PartSummary>,
    /// The tokenizer in it.
    pub vae: Option<VaeShape>,
    /// The transformer in it.
    pub var: Option<VarShape>,
    /// Where the training run stands, in a training checkpoint.
    pub progress: Option<SavedProgress>,
    /// The classifier in it, and how it was trained.
    pub classifier: Option<(ClassifierConfig, ClassifierRecord)>,
    /// The first names of a foreign file.
    pub names: Vec<String>,
    /// Images, crops of each and tokens of a crop, in a token file.
    pub tokens: Option<[usize; 3]>,
    /// Where the weights lie, where not at the top.
    pub roots: Vec<String>,
    /// The names of the classes, in class order.
    pub class_names: Option<Vec<String>>,
    /// Side of the images, patch numbers and pixels along a side of a token, where the file states them.
    pub sizes: Option<(usize, Vec<usize>, usize)>,
    /// What the images were laid on that the model was trained with.
    pub canvas: Option<Canvas>,
    /// Values that are no finite numbers.
    pub non_finite: NonFinite,
    /// Free text in the file, without what is told above.
    pub metadata: TextMetadata,
}

/// Describes a file of either format, told by its content. Reads it once from end to end, to count values that are no numbers.
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
        kind: FileKind::Foreign,
        parts: vec![],
        vae: None,
        var: None,
        progress: None,
        classifier: None,
        names: vec![],
        tokens: None,
        roots: vec![],
        class_names: None,
        sizes: None,
        canvas: None,
        non_finite: NonFinite::default(),
        metadata: TextMetadata::new(),
    };
    match format {
        FileFormat::Safetensors => d.read_safetensors(SafetensorsFile::open(path)?)?,
        FileFormat::Pth => {
            let (file, value) = open_pth(path)?;
            d.read_pth(file, &value)?;
        }
    }
    Ok(d)
}

/// Side of the images, patch numbers and pixels along a side of a token.
fn sizes_of(config: VqvaeConfig) -> Option<(usize, Vec<usize>, usize)> {
    let sides = config.pyramid.sides()?;
    let patch = config.downsample();
    Some((sides.last()? * patch, sides, patch))
}

impl Description {
    fn read_safetensors(&mut self, mut file: SafetensorsFile) -> Result<()> {
        if trainer_state::is_native_trainer(&file) {
            self.read_native_trainer(&mut file)?;
        } else {
            self.metadata = file.metadata();
            self.class_names = names_of_metadata(&self.metadata);
            self.metadata.remove(CLASSES_KEY);
            let text = self.metadata.get(TOKENIZER_KEY);
            self.sizes = text.and_then(|text| sizes_of(serde_json::from_str(text).ok()?));
            if self.sizes.is_some() {
                self.metadata.remove(TOKENIZER_KEY);
            }
            let text = self.metadata.get(CANVAS_KEY);
            self.canvas = text.and_then(|text| serde_json::from_str(text).ok());
            if self.canvas.is_some() {
                self.metadata.remove(CANVAS_KEY);
            }
            let sized = |shape: &[usize]| match *shape {
                [n, row] => Some([n, 1, row]),
                [n, crops, row] => Some([n, crops, row]),
                _ => None,
            };
            self.tokens = file.info("tokens")?.and_then(|(_, shape)| sized(shape));
            self.classifier = classifier::stated_by(&self.metadata);
            if self.classifier.is_some() {
                self.metadata.remove(classifier::CLASSIFIER_KEY);
                self.kind = FileKind::Classifier;
                let all = Outline::of_safetensors(&mut file, "")?;
                self.parts.push(summary("weights", &all));
            } else if self.tokens.is_some() && file.info("labels")?.is_some() {
                self.kind = FileKind::Tokens;
                let all = Outline::of_safetensors(&mut file, "")?;
                self.parts.push(summary("tensors", &all));
            } else if let Some(layout) = run_file::Layout::of(&file)?
                && let Some(text) = self.metadata.remove(run_file::TOKENIZER_RUN)
            {
                self.read_tokenizer_run(&mut file, &layout, &text)?;
            } else {
                let all = Outline::of_safetensors(&mut file, "")?;
                let places = places(file.names()).map_err(|e| self.bad(e))?;
                let mut outlines = Vec::new();
                for place in places {
                    let outline = Outline::of_place(&mut file, &place.names)?;
                    outlines.push((place, outline));
                }
                self.read_places(outlines, &all)?;
            }
        }
        self.count_safetensors(&mut file)
    }

    fn read_native_trainer(&mut self, file: &mut SafetensorsFile) -> Result<()> {
        let h = trainer_state::read_native_header(file)?;
        self.class_names = names_of_extra(&h.extra);
        let json = |key| h.extra.get(key).cloned();
        self.sizes = json(TOKENIZER_KEY).and_then(|v| sizes_of(serde_json::from_value(v).ok()?));
        self.canvas = json(CANVAS_KEY).and_then(|v| serde_json::from_value(v).ok());
        self.progress = Some(SavedProgress {
            epoch: h.epoch,
            iter: h.iter,
            g_it: h.g_it,
            adam_step: h.adam_step,
            scaler: h.scaler,
        });
        let var = Outline::of_safetensors(file, run_file::TRANSFORMER_WEIGHTS)?;
        let vae = Outline::of_safetensors(file, run_file::TOKENIZER_WEIGHTS)?;
        self.read_models(&var, &vae, &h.config.patch_nums)?;
        let layout = run_file::Layout::of(file)?.unwrap_or_default();
        self.read_other_parts(file, &layout, "var_")
    }

    /// A training checkpoint of a tokenizer.
    fn read_tokenizer_run(
        &mut self,
        file: &mut SafetensorsFile,
        layout: &run_file::Layout,
        text: &str,
    ) -> Result<()> {
        let damaged = |e: serde_json::Error| self.bad(format!("its progress is damaged: {e}"));
        let stated: TokenizerProgress = serde_json::from_str(text).map_err(damaged)?;
        self.kind = FileKind::Trainer;
        self.progress = Some(SavedProgress {
            epoch: stated.it / stated.its_per_epoch.max(1),
            iter: stated.it % stated.its_per_epoch.max(1),
            g_it: Some(stated.it),
            adam_step: stated.updates.unwrap_or(stated.it),
            scaler: stated.scaler,
        });
        let vae = Outline::of_safetensors(file, run_file::TOKENIZER_WEIGHTS)?;
        self.vae = Some(self.infer(VaeShape::infer(&vae))?);
        self.parts.push(summary("vae", &vae));
        self.read_other_parts(file, layout, "vae_")
    }

    /// What a run has beside the weights: the optimizer's parts together, others by their names.
    fn read_other_parts(
        &mut self,
        file: &mut SafetensorsFile,
        layout: &run_file::Layout,
        model: &str,
    ) -> Result<()> {
        let optimizer = format!("{model}opt.");
        let own = [run_file::TRANSFORMER_WEIGHTS, run_file::TOKENIZER_WEIGHTS];
        for part in &layout.parts {
            let prefix = format!("{part}.");
            if !own.contains(&prefix.as_str()) && !part.starts_with(&optimizer) {
                let outline = Outline::of_safetensors(file, &prefix)?;
                self.parts.push(summary(part, &outline));
            }
        }
        let all = Outline::of_safetensors(file, &optimizer)?;
        self.parts.push(summary("optimizer", &all));
        Ok(())
    }

    fn read_pth(&mut self, mut file: PthFile, value: &Value) -> Result<()> {
        let tree = Tree::new(value);
        if trainer_state::is_reference_trainer(value) {
            self.read_reference_trainer(&mut file, value)?;
        } else {
            let Value::Dict(dict) = value else {
                return Err(file.bad(format!(
                    "holds a {} and not a dict of tensors",
                    value.type_name()
                )));
            };
            let mut outlines = Vec::new();
            for place in tree.places().map_err(|e| file.bad(e))? {
                let views = tree.views(&place);
                let mut outline = Outline::of_views(views.iter().map(|(n, t)| (n.as_str(), *t)));
                if let Some((_, t)) = views.iter().find(|(n, _)| n == "lvl_1L") {
                    outline.set_levels(&file.tensor(t)?);
                }
                outlines.push((place, outline));
            }
            // A foreign file may hold other things between its tensors: they are not described.
            let all = Outline::of_views(tree.tensors());
            let stated = trainer_state::Stated::new(value).map_err(|e| file.bad(e))?;
            self.class_names = names_of_extra(&stated.extra);
            if let Some(pn) = &stated.patch_nums {
                self.metadata
                    .insert(PATCH_NUMS_KEY.into(), format_patch_nums(pn));
            }
            self.read_places(outlines, &all)?;
            let top = dict
                .items
                .iter()
                .any(|(_, v)| matches!(v, Value::Tensor(_)));
            if self.kind == FileKind::Foreign && !top {
                let keys = dict.items.iter().take(8);
                self.names = keys.map(|(k, _)| key_text(k)).collect();
            }
        }
        for (name, view) in tree.tensors() {
            if HostDType::from(view.dtype()).is_float() {
                self.non_finite.look_at(name, &file.tensor(view)?);
            }
        }
        Ok(())
    }

    fn read_reference_trainer(&mut self, file: &mut PthFile, value: &Value) -> Result<()> {
        let p = trainer_state::Parsed::new(value).map_err(|e| file.bad(e))?;
        self.class_names = names_of_extra(&p.extra);
        let outline = |dict: &Dict, what: &str| -> Result<Outline> {
            let views = dict
                .tensor_entries()
                .map_err(|e| file.bad(format!("{what} {e}")))?;
            Ok(Outline::of_views(views))
        };
        let mut var = outline(p.var, "trainer.var_wo_ddp")?;
        let vae = p
            .vae
            .map(|d| outline(d, "trainer.vae_local"))
            .transpose()?
            .unwrap_or_default();
        let moments = Outline::of_views(p.moment_views());
        if let Some(Value::Tensor(t)) = p.var.get("lvl_1L") {
            var.set_levels(&file.tensor(t)?);
        }
        let adam_step = p.adam_step(file)?;
        self.read_models(&var, &vae, &p.config.patch_nums)?;
        self.parts.push(summary("optimizer", &moments));
        self.progress = Some(SavedProgress {
            epoch: p.epoch,
            iter: p.iter,
            g_it: p.g_it,
            adam_step,
            scaler: p.scaler,
        });
        Ok(())
    }

    /// Counts what is no number, a piece of the file at a time.
    fn count_safetensors(&mut self, file: &mut SafetensorsFile) -> Result<()> {
        let names: Vec<String> = file.names().map(str::to_owned).collect();
        let mut piece = Vec::new();
        for name in names {
            let Some((dtype, shape)) = file.info(&name)? else {
                continue;
            };
            if !dtype.is_float() {
                continue;
            }
            let all = checked_numel(shape).map_or(0, |n| n as u64);
            let bytes = all.saturating_mul(dtype.size() as u64);
            let mut bad = 0;
            for from in (0..bytes).step_by(PIECE) {
                piece.resize((bytes - from).min(PIECE as u64) as usize, 0);
                file.read_part(&name, from, &mut piece)?;
                bad += count_non_finite(dtype, &piece, !may_be_infinite(&name));
            }
            self.non_finite.add(&name, bad, all);
        }
        Ok(())
    }

    /// Of a file that is no training checkpoint: its models, and what else is there.
    fn read_places(&mut self, found: Vec<(Place, Outline)>, all: &Outline) -> Result<()> {
        let text = self.metadata.remove(PATCH_NUMS_KEY);
        let stated = text.as_deref().and_then(parse_patch_nums);
        self.metadata.remove(MODULE_VERSIONS_KEY);
        let mut own = 0;
        for (place, outline) in &found {
            own += outline.tensors().len();
            match place.part {
                ModelKind::Var => {
                    let mut shape = self.infer(VarShape::infer(outline))?;
                    if let Some(pn) = &stated {
                        shape = self.infer(shape.with_patch_nums(pn))?;
                    }
                    self.var = Some(shape);
                    self.parts.push(summary("var", outline));
                }
                ModelKind::Vae => {
                    self.vae = Some(self.infer(VaeShape::infer(outline))?);
                    self.parts.push(summary("vae", outline));
                }
            }
            if !place.root.is_empty() {
                self.roots.push(place.shown().to_owned());
            }
        }
        self.kind = match (&self.var, &self.vae) {
            (Some(_), Some(_)) => FileKind::BothWeights,
            (Some(_), None) => FileKind::VarWeights,
            (None, Some(_)) => FileKind::VaeWeights,
            (None, None) => FileKind::Foreign,
        };
        if self.kind == FileKind::Foreign {
            let first = all.tensors().iter().take(8);
            self.names = first.map(|t| t.name.clone()).collect();
            self.parts.push(summary("tensors", all));
        } else if own < all.tensors().len() {
            let used: HashSet<&str> = found
                .iter()
                .flat_map(|(p, _)| p.names.iter().map(|(from, _)| from.as_str()))
                .collect();
            let mut rest = Outline::default();
            for t in all
                .tensors()
                .iter()
                .filter(|t| !used.contains(t.name.as_str()))
            {
                rest.push(&t.name, t.dtype, &t.shape);
            }
            self.parts.push(summary("others", &rest));
        }
        Ok(())
    }

    fn read_models(&mut self, var: &Outline, vae: &Outline, patch_nums: &[usize]) -> Result<()> {
        self.kind = FileKind::Trainer;
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
        shape.map_err(|e| self.bad(e))
    }

    fn bad(&self, why: String) -> Error {
        Error::input(format!("{}: {why}", self.path.display()))
    }
}

fn summary(name: &str, o: &Outline) -> PartSummary {
    let derived = |name: &str| is_buffer(name) || name == HITS;
    let sum = |numbers: &mut dyn Iterator<Item = u64>| numbers.fold(0, u64::saturating_add);
    PartSummary {
        name: name.to_owned(),
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
