//! Files of classifiers: weights as safetensors, and beside them as text what they were built from and how they were trained.

use super::class_names::{CLASSES_KEY, names_of_metadata, names_to_text};
use super::weights::{CANVAS_KEY, understood};
use crate::canvas::Canvas;
use crate::format::run_file::{Part, write_weights};
use crate::format::safetensors::{SafetensorsFile, TextMetadata};
use crate::format::sniff::{FileFormat, sniff};
use crate::model::classifier::{Classifier, ClassifierConfig};
use crate::model::state::{fingerprint, load_params};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The metadata key that marks a classifier's file and holds its settings and record as JSON.
pub const CLASSIFIER_KEY: &str = "nextscale.classifier";

/// The newest layout.
const VERSION: u64 = 1;

/// How a classifier was trained, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClassifierRecord {
    /// Images are resized to this many times their final side before the crop.
    pub mid_reso: f64,
    /// Whether half of the training images were mirrored.
    pub hflip: bool,
    /// Training images.
    pub images: usize,
    /// Steps.
    pub steps: u64,
    /// Images of a step.
    pub batch: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Weight decay.
    pub wd: f64,
    /// Seed of all random draws.
    pub seed: u64,
    /// Precision of products.
    pub precision: String,
    /// Held-out images.
    pub held_out: usize,
    /// Share of them that it names rightly, 0 to 1.
    pub accuracy: f64,
    /// Share that is right where every image is taken for the class that has most, 0 to 1.
    pub chance: f64,
}

/// What a file says of its network.
#[derive(Serialize, Deserialize)]
struct Stated {
    version: u64,
    config: ClassifierConfig,
    record: ClassifierRecord,
}

/// A classifier and what is known of it.
pub struct TrainedClassifier {
    /// The network.
    pub classifier: Classifier,
    /// The names of its classes, in class order.
    pub class_names: Vec<String>,
    /// What its images were laid on.
    pub canvas: Canvas,
    /// How it was trained.
    pub record: ClassifierRecord,
}

impl TrainedClassifier {
    /// Opens a file that [`TrainedClassifier::write`] has written, whatever it is called, on the CPU and frozen.
    ///
    /// # Errors
    /// One line naming the file when it is missing, damaged, of something else or of a newer program, or when its tensors are not
    /// those that it says.
    pub fn open(path: &Path) -> Result<Self> {
        let bad = |why: &str| Error::input(format!("{}: {why}", path.display()));
        if sniff(path)? != FileFormat::Safetensors {
            return Err(bad(FOREIGN));
        }
        let mut file = SafetensorsFile::open(path)?;
        let metadata = file.metadata();
        let text = metadata.get(CLASSIFIER_KEY).ok_or_else(|| bad(FOREIGN))?;
        let version: Version = understood(path, CLASSIFIER_KEY, text)?;
        if version.version > VERSION {
            return Err(bad(&format!(
                "was written by a newer nextscale (layout {}, this one reads {VERSION}); update nextscale",
                version.version
            )));
        }
        let Stated { config, record, .. } = understood(path, CLASSIFIER_KEY, text)?;
        // Before anything is made of these numbers.
        config.check(&format!("{}: its classifier", path.display()))?;
        if !(1.0..=16.0).contains(&record.mid_reso) {
            return Err(bad(&format!(
                "its classifier: mid_reso is {}; it must be from 1 to 16",
                record.mid_reso
            )));
        }
        // Each takes two bytes or more.
        let bytes = std::fs::metadata(path).map_err(Error::io(path))?.len();
        let weights = config.parameters();
        if weights > bytes {
            return Err(bad(&format!(
                "has {bytes} bytes, and the classifier that it tells of has {weights} weights; get or make the file again"
            )));
        }
        let class_names = names_of_metadata(&metadata).unwrap_or_default();
        if class_names.len() != config.classes {
            return Err(bad(&format!(
                "names {} classes and has {}; get or make the file again",
                class_names.len(),
                config.classes
            )));
        }
        let canvas = match metadata.get(CANVAS_KEY) {
            Some(text) => understood(path, CANVAS_KEY, text)?,
            None => Canvas::default(),
        };
        let mut classifier = Classifier::new(config, false)?;
        let dict = file.read_prefix("")?;
        load_params(&mut classifier.params, &dict, &path.display().to_string())?;
        Ok(Self {
            classifier,
            class_names,
            canvas,
            record,
        })
    }

    /// Whether a file that can be read holds one.
    pub fn is_in(path: &Path) -> bool {
        let file = SafetensorsFile::open(path);
        file.is_ok_and(|file| file.metadata().contains_key(CLASSIFIER_KEY))
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// When weights are no finite numbers or can't be brought from their device, or writing fails; an existing file is then
    /// unchanged.
    pub fn write(&self, path: &Path) -> Result<()> {
        let stated = Stated {
            version: VERSION,
            config: self.classifier.config.clone(),
            record: self.record.clone(),
        };
        let text = |value: serde_json::Result<String>| {
            value.map_err(|e| Error::failed(format!("describing a classifier: {e}")))
        };
        let metadata = TextMetadata::from([
            (
                CLASSIFIER_KEY.to_owned(),
                text(serde_json::to_string(&stated))?,
            ),
            (
                CANVAS_KEY.to_owned(),
                text(serde_json::to_string(&self.canvas))?,
            ),
            (CLASSES_KEY.to_owned(), names_to_text(&self.class_names)),
        ]);
        let params = &self.classifier.params;
        let mut part = Part::new("").checked("the weights");
        for info in params.infos() {
            let shape = info.shape.dims();
            part.push(&info.name, shape, || Ok(params.export(&info.name)?));
        }
        write_weights(path, &part, metadata)
    }

    /// A short text that differs between classifiers with different weights.
    ///
    /// # Errors
    /// When the weights can't be read from their device.
    pub fn fingerprint(&self) -> Result<String> {
        fingerprint(&self.classifier.params)
    }
}

/// Of what [`Stated`] says, that which every layout has.
#[derive(Deserialize)]
struct Version {
    version: u64,
}

/// What is said of other files; it completes a sentence that begins with the file's name.
const FOREIGN: &str =
    "holds no classifier to take features from; make one with `nextscale train-features`";

/// What a file says of the classifier in it, in words; `None` where it holds none.
pub(super) fn stated_by(metadata: &TextMetadata) -> Option<(ClassifierConfig, ClassifierRecord)> {
    let stated: Stated = serde_json::from_str(metadata.get(CLASSIFIER_KEY)?).ok()?;
    Some((stated.config, stated.record))
}

#[cfg(test)]
mod tests;
