//! Loading weights from whatever file they are in.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use super::class_names::{
    CLASSES_KEY, named_twice, names_of_extra, names_of_metadata, names_to_text,
};
use super::places::{self, Place, Tree};
use super::trainer_state::{self, AVERAGED, TrainerState};
use crate::canvas::Canvas;
use crate::format::outline::Outline;
use crate::format::pth::PthFile;
use crate::format::run_file;
use crate::format::safetensors::{SafetensorsFile, TextMetadata};
use crate::format::sniff::{FileFormat, sniff};
use crate::format::state_dict::StateDict;
use crate::model::var::state_dict::VarShape;
use crate::model::vqvae::state_dict::VaeShape;
use crate::text::unquoted;
use crate::{Error, Result};
use torch_pth::Value;

/// The metadata key under which a transformer's weight file states its patch numbers (`1_2_3_4`).
pub const PATCH_NUMS_KEY: &str = "nextscale.patch_nums";

/// The metadata key under which weights that came from a `.pth` file keep its `_metadata`.
pub const MODULE_VERSIONS_KEY: &str = "nextscale.module_versions";

/// The metadata key, and the key among a training checkpoint's extras, of a tokenizer's settings as JSON.
pub const TOKENIZER_KEY: &str = "nextscale.tokenizer";

/// The same of what the images were laid on that a model was trained with ([`Canvas`]), as JSON.
pub const CANVAS_KEY: &str = "nextscale.canvas";

/// The same of the fingerprint of the tokenizer that made the tokens a transformer was trained on.
pub const FINGERPRINT_KEY: &str = "nextscale.tokenizer_fingerprint";

/// One of the two models of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelKind {
    /// The transformer.
    Var,
    /// The tokenizer.
    Vae,
}

impl std::fmt::Display for ModelKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Var => "VAR transformer",
            Self::Vae => "VQVAE tokenizer",
        })
    }
}

/// Which weights of a file are meant, where it holds averages beside those that were trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum WeightsKind {
    /// Their moving average
    #[cfg_attr(feature = "cli", value(name = "ema"))]
    Averaged,
    /// As they were trained
    #[cfg_attr(feature = "cli", value(name = "raw"))]
    Trained,
}

/// What is said where there are no averaged weights; it completes a sentence that begins with the file's name.
pub(super) const NO_AVERAGE: &str =
    "holds no averaged weights (`weights`=ema); those of a run with `ema` do";

/// The weights of one model.
#[derive(Debug, Clone)]
pub struct Weights {
    /// The tensors under the reference's names.
    pub tensors: StateDict,
    /// Which model they are of; `None` where the names fit neither.
    pub part: Option<ModelKind>,
    /// The file's format.
    pub format: FileFormat,
    /// Whether they were taken out of a training checkpoint.
    pub from_trainer: bool,
    /// A transformer's patch numbers, where the file states them or has the buffer `lvl_1L`.
    pub patch_nums: Option<Vec<usize>>,
    /// Free text beside the tensors; of a `.pth` file what it states in other ways.
    pub metadata: TextMetadata,
    /// Tensors of the file that are none of these weights; not counted in a training checkpoint.
    pub others: usize,
}

/// What a file holds.
#[derive(Debug)]
pub enum Loaded {
    /// One model's weights.
    Weights(Weights),
    /// A full training checkpoint.
    Trainer(Box<TrainerState>),
}

/// Loads a file of either format, told by its content.
///
/// # Errors
/// When the file is missing, a folder, empty, truncated, foreign or damaged, or holds the weights of both models and is no training
/// checkpoint: one line that names it.
pub fn load_weights(path: impl AsRef<Path>) -> Result<Loaded> {
    let path = path.as_ref();
    let state = match Opened::new(path)? {
        Opened::Safetensors(file) if trainer_state::is_native_trainer(&file) => {
            TrainerState::load_safetensors(path)?
        }
        Opened::Pth(mut file, value) if trainer_state::is_reference_trainer(&value) => {
            TrainerState::from_parsed_pth(&mut file, &value)?
        }
        other => return Ok(Loaded::Weights(other.weights(path, None, None)?)),
    };
    Ok(Loaded::Trainer(Box::new(state)))
}

/// Loads one model's weights, from a file of that model, out of a training checkpoint (whose other parts are not read), or from
/// whatever wrapping they lie in. Without a `kind` averaged weights come before others.
///
/// # Errors
/// As [`load_weights`], and when the file holds something else than that model, several of its kind, or no averaged weights.
pub fn load_part(
    path: impl AsRef<Path>,
    part: ModelKind,
    kind: Option<WeightsKind>,
) -> Result<Weights> {
    let path = path.as_ref();
    let bad = |why: String| Error::input(format!("{}: {why}", path.display()));
    let weights = match Opened::new(path)? {
        Opened::Safetensors(mut file) if trainer_state::is_native_trainer(&file) => {
            let header = trainer_state::read_native_header(&file)?;
            let averaged = file.names().any(|n| n.starts_with(AVERAGED));
            let tensors = file.read_prefix(match (part, kind) {
                (ModelKind::Var, Some(WeightsKind::Averaged)) if !averaged => {
                    return Err(bad(NO_AVERAGE.into()));
                }
                (ModelKind::Var, None | Some(WeightsKind::Averaged)) if averaged => AVERAGED,
                (ModelKind::Var, _) => run_file::TRANSFORMER_WEIGHTS,
                // It is not trained here.
                (ModelKind::Vae, _) => run_file::TOKENIZER_WEIGHTS,
            })?;
            Weights::of_trainer(
                tensors,
                part,
                FileFormat::Safetensors,
                &header.config.patch_nums,
                &header.extra,
            )
        }
        Opened::Pth(mut file, value) if trainer_state::is_reference_trainer(&value) => {
            if part == ModelKind::Var && kind == Some(WeightsKind::Averaged) {
                return Err(bad(NO_AVERAGE.into()));
            }
            let parsed = trainer_state::Parsed::new(&value).map_err(bad)?;
            let tensors = match (part, parsed.vae) {
                (ModelKind::Var, _) => file.state_dict(parsed.var, "trainer.var_wo_ddp")?,
                (ModelKind::Vae, Some(vae)) => file.state_dict(vae, "trainer.vae_local")?,
                (ModelKind::Vae, None) => StateDict::new(),
            };
            let pn = &parsed.config.patch_nums;
            Weights::of_trainer(tensors, part, FileFormat::Pth, pn, &parsed.extra)
        }
        other => other.weights(path, Some(part), kind)?,
    };
    if weights.tensors.is_empty() {
        return Err(bad(format!("holds no weights of a {part}")));
    }
    match weights.part {
        Some(found) if found == part => Ok(weights),
        Some(found) => Err(bad(format!(
            "holds the weights of a {found}, those of a {part} are needed"
        ))),
        None => {
            let names: Vec<&str> = weights.tensors.names().take(3).collect();
            Err(bad(format!(
                "does not hold the weights of a {part}: its {} tensors begin with {}",
                weights.tensors.len(),
                names.join(", ")
            )))
        }
    }
}

/// A file whose tensors have not been read yet.
enum Opened {
    Safetensors(SafetensorsFile),
    Pth(PthFile, Value),
}

impl Opened {
    fn new(path: &Path) -> Result<Self> {
        Ok(match sniff(path)? {
            FileFormat::Safetensors => {
                let file = SafetensorsFile::open(path)?;
                // A training checkpoint of a newer program is not guessed at.
                run_file::Layout::of(&file)?;
                Self::Safetensors(file)
            }
            FileFormat::Pth => {
                let (file, value) = places::open_pth(path)?;
                Self::Pth(file, value)
            }
        })
    }

    /// The weights of a file that is no training checkpoint, of `part` where there are several.
    fn weights(
        self,
        path: &Path,
        part: Option<ModelKind>,
        kind: Option<WeightsKind>,
    ) -> Result<Weights> {
        let bad = |why: String| Error::input(format!("{}: {why}", path.display()));
        let choose = |places: &[Place]| -> Result<Option<Place>> {
            let has = |part| places.iter().any(|p| p.part == part);
            let part = match (part, has(ModelKind::Var), has(ModelKind::Vae)) {
                (Some(part), _, _) if has(part) => part,
                (None, true, true) => {
                    return Err(bad(format!(
                        "holds the weights of a {} and of a {} without the rest of a training checkpoint; take out one with `part`=var or `part`=vae",
                        ModelKind::Var,
                        ModelKind::Vae
                    )));
                }
                (_, true, _) => ModelKind::Var,
                (_, _, true) => ModelKind::Vae,
                (_, false, false) => return Ok(None),
            };
            places::place_of(places, part, kind)
                .map_err(bad)
                .map(Option::<&Place>::cloned)
        };
        match self {
            Self::Safetensors(mut file) => {
                let place = choose(&places::places(file.names()).map_err(bad)?)?;
                let all = file.names().len();
                let tensors = match &place {
                    Some(place) => {
                        let mut dict = StateDict::new();
                        for (from, to) in &place.names {
                            dict.insert(to.as_str(), file.read(from)?);
                        }
                        dict
                    }
                    None => file.read_prefix("")?,
                };
                let others = all - tensors.len();
                let metadata = file.metadata();
                Weights::new(tensors, FileFormat::Safetensors, metadata, path, others)
            }
            Self::Pth(mut file, value) => {
                let tree = Tree::new(&value);
                let place = choose(&tree.places().map_err(bad)?)?;
                let Some(place) = &place else {
                    let tensors = plain_state_dict(&mut file, &value)?;
                    return Weights::new(tensors, FileFormat::Pth, TextMetadata::new(), path, 0);
                };
                let tensors = tree.read(&mut file, place)?;
                let stated = trainer_state::Stated::new(&value).map_err(bad)?;
                let mut metadata = metadata_of(&stated.extra, place.part);
                if let Some(pn) = &stated.patch_nums {
                    metadata.insert(PATCH_NUMS_KEY.into(), format_patch_nums(pn));
                }
                let others = tree.count() - tensors.len();
                Weights::new(tensors, FileFormat::Pth, metadata, path, others)
            }
        }
    }
}

/// What a training checkpoint's extras say of one of its models.
fn metadata_of(extra: &Map<String, Json>, part: ModelKind) -> TextMetadata {
    let mut out = TextMetadata::new();
    if let Some(settings) = extra.get(TOKENIZER_KEY) {
        out.insert(TOKENIZER_KEY.into(), settings.to_string());
    }
    if let Some(canvas) = extra.get(CANVAS_KEY) {
        out.insert(CANVAS_KEY.into(), canvas.to_string());
    }
    if let Some(text) = extra.get(FINGERPRINT_KEY).and_then(Json::as_str) {
        out.insert(FINGERPRINT_KEY.into(), text.into());
    }
    if part == ModelKind::Var
        && let Some(names) = names_of_extra(extra)
    {
        out.insert(CLASSES_KEY.into(), names_to_text(&names));
    }
    out
}

/// A `.pth` file's object as a state dict.
fn plain_state_dict(file: &mut PthFile, value: &Value) -> Result<StateDict> {
    let Value::Dict(dict) = value else {
        return Err(file.bad(format!(
            "holds a {} and not a dict of tensors",
            value.type_name()
        )));
    };
    if !dict.items.is_empty()
        && !dict
            .items
            .iter()
            .any(|(_, v)| matches!(v, Value::Tensor(_)))
    {
        let keys = dict.items.iter().take(5).map(|(k, _)| match k {
            Value::Str(s) => s.chars().take(40).collect(),
            other => other.type_name().to_owned(),
        });
        return Err(file.bad(format!(
            "is neither a state dict nor a training checkpoint of VAR: it holds a dict with {}",
            keys.collect::<Vec<_>>().join(", ")
        )));
    }
    file.state_dict(dict, "the file")
}

impl Weights {
    /// Weights from a file of their own.
    fn new(
        mut tensors: StateDict,
        format: FileFormat,
        metadata: TextMetadata,
        path: &Path,
        others: usize,
    ) -> Result<Self> {
        if let Some(text) = metadata.get(MODULE_VERSIONS_KEY) {
            tensors.module_versions = Some(understood(path, MODULE_VERSIONS_KEY, text)?);
        }
        let outline = Outline::from(&tensors);
        let part = which(&outline);
        let stated = metadata.get(PATCH_NUMS_KEY).map(|text| {
            parse_patch_nums(text).ok_or_else(|| {
                Error::input(format!(
                    "{}: its metadata {PATCH_NUMS_KEY}={text:?} is not like 1_2_3",
                    path.display()
                ))
            })
        });
        let patch_nums = match stated {
            Some(p) => Some(p?),
            None if part == Some(ModelKind::Var) => {
                VarShape::infer(&outline).ok().and_then(|s| s.patch_nums)
            }
            None => None,
        };
        Ok(Self {
            tensors,
            part,
            format,
            from_trainer: false,
            patch_nums,
            metadata,
            others,
        })
    }

    fn of_trainer(
        tensors: StateDict,
        part: ModelKind,
        format: FileFormat,
        patch_nums: &[usize],
        extra: &Map<String, Json>,
    ) -> Self {
        Self {
            tensors,
            part: Some(part),
            format,
            from_trainer: true,
            patch_nums: Some(patch_nums.to_vec()),
            metadata: metadata_of(extra, part),
            others: 0,
        }
    }

    /// What the images were laid on that the model was trained with, where the file says it.
    ///
    /// # Errors
    /// When it can't be understood. `path` is named in the message.
    pub fn canvas(&self, path: &Path) -> Result<Option<Canvas>> {
        let text = self.metadata.get(CANVAS_KEY);
        text.map(|text| understood(path, CANVAS_KEY, text))
            .transpose()
    }

    /// The names of a transformer's classes, where the file holds them.
    ///
    /// # Errors
    /// When they are not as many as the weights have classes, or one stands twice. `path` is named in the message.
    pub fn class_names(
        &self,
        path: impl AsRef<Path>,
        classes: usize,
    ) -> Result<Option<Vec<String>>> {
        let Some(names) = names_of_metadata(&self.metadata) else {
            return Ok(None);
        };
        let bad = if names.len() != classes {
            format!(
                "names {} classes, but its weights have {classes}",
                names.len()
            )
        } else if let Some(name) = named_twice(&names) {
            format!("names the class {name:?} twice, so its classes can't be told apart by name")
        } else {
            return Ok(Some(names));
        };
        Err(Error::input(format!("{}: {bad}", path.as_ref().display())))
    }

    /// The transformer's construction parameters, with the patch numbers that the file states.
    ///
    /// # Errors
    /// When the tensors do not tell them or contradict each other. `path` is named in the message.
    pub fn var_shape(&self, path: impl AsRef<Path>) -> Result<VarShape> {
        let bad = |e| Error::input(format!("{}: {e}", path.as_ref().display()));
        let shape = VarShape::infer(&Outline::from(&self.tensors)).map_err(bad)?;
        match &self.patch_nums {
            Some(pn) => shape.with_patch_nums(pn).map_err(bad),
            None => Ok(shape),
        }
    }

    /// The tokenizer's construction parameters.
    ///
    /// # Errors
    /// When the tensors do not tell them or contradict each other. `path` is named in the message.
    pub fn vae_shape(&self, path: impl AsRef<Path>) -> Result<VaeShape> {
        VaeShape::infer(&Outline::from(&self.tensors))
            .map_err(|e| Error::input(format!("{}: {e}", path.as_ref().display())))
    }
}

/// What a file states under `key` as JSON.
pub(super) fn understood<T: DeserializeOwned>(path: &Path, key: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| {
        let e = unquoted(&e);
        Error::input(format!(
            "{}: its metadata {key} is damaged: {e}; get or make the file again",
            path.display()
        ))
    })
}

/// Which model has tensors of these names.
pub(super) fn which(outline: &Outline) -> Option<ModelKind> {
    if VarShape::fits(outline) {
        Some(ModelKind::Var)
    } else if VaeShape::fits(outline) {
        Some(ModelKind::Vae)
    } else {
        None
    }
}

/// `1_2_3` as numbers.
pub(crate) fn parse_patch_nums(text: &str) -> Option<Vec<usize>> {
    text.split('_')
        .map(|n| n.parse().ok().filter(|&n| n > 0))
        .collect()
}

/// Numbers as `1_2_3`.
pub fn format_patch_nums(patch_nums: &[usize]) -> String {
    patch_nums
        .iter()
        .map(usize::to_string)
        .collect::<Vec<_>>()
        .join("_")
}
