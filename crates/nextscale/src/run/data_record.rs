//! What a run remembers of its images, held against those that it is to go on with.

use super::Dataset;
use crate::checkpoint::class_names::first_difference;
use crate::data::{Aspect, Background, Canvas};
use crate::options::{DataOptions, FolderOptions};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::Arc;

/// The images of a run, as far as a checkpoint says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct DataRecord {
    /// The classes' names in the order of their labels; a checkpoint keeps them for all who use its weights, not here.
    #[serde(skip)]
    pub(super) classes: Arc<Vec<String>>,
    /// Number of training images.
    pub(super) images: Option<u64>,
    /// Whether they are mirrored by chance.
    pub(super) hflip: Option<bool>,
    /// They are resized to this many times their final side.
    pub(super) mid_reso: Option<f64>,
    /// What is seen through their transparent parts.
    pub(super) background: Option<Background>,
    /// How they become squares.
    pub(super) aspect: Option<Aspect>,
}

impl DataRecord {
    /// Of images that are read on the way.
    pub(super) fn of_images(data: &Dataset, options: &DataOptions, folder: &FolderOptions) -> Self {
        Self {
            classes: Arc::new(data.train.class_names().to_vec()),
            images: Some(data.train.len() as u64),
            hflip: Some(options.hflip),
            mid_reso: Some(options.mid_reso),
            background: Some(folder.canvas.chosen().background),
            aspect: Some(folder.canvas.chosen().aspect),
        }
    }

    /// What they are laid on, where that is known.
    pub(super) fn canvas(&self) -> Option<Canvas> {
        Some(Canvas {
            background: self.background?,
            aspect: self.aspect?,
        })
    }

    /// What is not known is taken from a run's options, where they hold it.
    pub(super) fn or_options(self, options: &Map<String, Value>) -> Self {
        let flag = |v: &Value| v.as_bool().or(v.as_i64().map(|n| n != 0));
        Self {
            hflip: self.hflip.or(options.get("hflip").and_then(flag)),
            mid_reso: self
                .mid_reso
                .or(options.get("mid_reso").and_then(Value::as_f64)),
            ..self
        }
    }

    /// What is another now, a line each. `path` is the checkpoint that says how it was.
    ///
    /// # Errors
    /// When the classes are others or in another order: the first that differs.
    pub(super) fn against(&self, now: &Self, path: &Path) -> Result<Vec<String>> {
        if !self.classes.is_empty()
            && let Some(text) = first_difference(&self.classes, &now.classes)
        {
            return Err(Error::input(format!(
                "{}: the run has other classes than these images: {text}; give the images that it began with, or choose another `out`",
                path.display()
            )));
        }
        let mut told = Vec::new();
        if let (Some(a), Some(b)) = (self.images, now.images)
            && a != b
        {
            told.push(format!(
                "the run began with {a} training images and goes on with {b}: which comes when is no longer as before"
            ));
        }
        if let (Some(a), Some(b)) = (self.hflip, now.hflip)
            && a != b
        {
            let [a, b] = [a, b].map(u8::from);
            told.push(format!(
                "the run began with `hflip`={a} and goes on with `hflip`={b}"
            ));
        }
        if let (Some(a), Some(b)) = (self.mid_reso, now.mid_reso)
            && a != b
        {
            told.push(format!(
                "the run began with `mid_reso`={a} and goes on with `mid_reso`={b}"
            ));
        }
        // Runs that say nothing of it have dropped transparency and cropped.
        let known = self.images.is_some();
        let before = self.background.or(known.then_some(Background::Drop));
        if let (Some(a), Some(b)) = (before, now.background)
            && a != b
        {
            told.push(format!(
                "the run began with `background`={a} and goes on with `background`={b}"
            ));
        }
        let before = self.aspect.or(known.then_some(Aspect::Crop));
        if let (Some(a), Some(b)) = (before, now.aspect)
            && a != b
        {
            told.push(format!(
                "the run began with `aspect`={a} and goes on with `aspect`={b}"
            ));
        }
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(classes: &[&str], images: u64, hflip: bool, mid_reso: f64) -> DataRecord {
        DataRecord {
            classes: Arc::new(classes.iter().map(|n| (*n).to_owned()).collect()),
            images: Some(images),
            hflip: Some(hflip),
            mid_reso: Some(mid_reso),
            background: None,
            aspect: None,
        }
    }

    #[test]
    fn other_classes_are_refused_and_other_settings_told() {
        let before = record(&["a", "b"], 5, false, 1.125);
        let path = Path::new("last");
        assert!(before.against(&before, path).unwrap().is_empty());
        let told = before
            .against(&record(&["a", "b"], 6, true, 1.0), path)
            .unwrap();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].contains("5 training images") && told[0].contains("with 6"));
        assert!(told[1].contains("`hflip`=0 and goes on with `hflip`=1"));
        assert!(told[2].contains("`mid_reso`=1.125 and goes on with `mid_reso`=1"));
        let renamed = before.against(&record(&["a", "bb"], 5, false, 1.125), path);
        let text = renamed.unwrap_err().to_string();
        assert!(
            text.contains("class 1 is \"b\" there and \"bb\" here"),
            "{text}"
        );
        assert!(
            before
                .against(&record(&["b", "a"], 5, false, 1.125), path)
                .is_err()
        );
        let on_white = DataRecord {
            background: Some(Background::WHITE),
            aspect: Some(Aspect::Pad),
            ..before.clone()
        };
        let told = before.against(&on_white, path).unwrap();
        assert!(told[0].contains("`background`=drop and goes on with `background`=white"));
        assert!(told[1].contains("`aspect`=crop and goes on with `aspect`=pad"));
        // A checkpoint that says nothing is taken as it is.
        let silent = DataRecord::default();
        assert!(silent.against(&before, path).unwrap().is_empty());
    }

    #[test]
    fn options_fill_what_is_not_known() {
        let options = json!({ "hflip": 1, "mid_reso": 1.5 });
        let options = options.as_object().unwrap();
        let filled = DataRecord::default().or_options(options);
        assert_eq!((filled.hflip, filled.mid_reso), (Some(true), Some(1.5)));
        let kept = record(&[], 1, false, 1.0).or_options(options);
        assert_eq!((kept.hflip, kept.mid_reso), (Some(false), Some(1.0)));
    }
}
