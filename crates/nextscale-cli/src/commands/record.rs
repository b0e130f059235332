//! What a PNG file says of how it was drawn: one JSON value under a keyword, and a description to read.

use nextscale::checkpoint::WeightsKind;
use nextscale::checkpoint::open::OpenPair;
use nextscale::model::state::fingerprint;
use nextscale::pictures::{PngText, read_png_text};
use nextscale::{Error, Result};
use nextscale_tensor::{Device, Precision};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// The keyword of the JSON value.
pub const KEYWORD: &str = "nextscale";

/// The models that drew, and on what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The program's name and version.
    pub software: String,
    pub version: String,
    pub model: Weights,
    pub tokenizer: Weights,
    /// `cpu` or `cuda`.
    pub device: String,
    /// The precision of products.
    pub precision: String,
}

impl Origin {
    /// Of a pair of models that is still on the CPU; `kind` are the weights that were asked for.
    ///
    /// # Errors
    /// When weights can't be read.
    pub fn of(
        pair: &OpenPair,
        (model, tokenizer): (&Path, Option<&Path>),
        kind: Option<WeightsKind>,
        (device, precision): (Device, Precision),
    ) -> Result<Self> {
        Ok(Self {
            software: "nextscale".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            model: Weights {
                file: Some(model.display().to_string()),
                fingerprint: fingerprint(&pair.var.params)?,
                weights: kind.map(kind_text),
            },
            tokenizer: Weights {
                file: tokenizer.map(|file| file.display().to_string()),
                fingerprint: fingerprint(&pair.tokenizer.vqvae.params)?,
                weights: None,
            },
            device: if device.is_async() { "cuda" } else { "cpu" }.into(),
            precision: precision.name().into(),
        })
    }
}

/// Weights and the file that they came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Weights {
    /// As it was given; `None` for a tokenizer that lies in the model's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Their fingerprint.
    pub fingerprint: String,
    /// Which of a file's weights were asked for (`--weights`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
}

/// The image that a file shows, where that is one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// Its class; `None` where it is no single one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// Its number within the seed.
    pub number: u64,
}

/// All that a file says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record<F> {
    #[serde(flatten)]
    pub origin: Origin,
    /// The subcommand.
    pub command: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// The flags that decide the pixels.
    pub flags: F,
}

impl<F: Serialize> Record<F> {
    /// The texts of a PNG file; `flags` are those in words.
    pub fn texts(&self, flags: &str) -> Result<Vec<PngText>> {
        let json = serde_json::to_string(self)
            .map_err(|e| Error::failed(format!("the record of a picture: {e}")))?;
        let o = &self.origin;
        let software = format!("{} {}", o.software, o.version);
        let tokenizer = match &o.tokenizer.file {
            Some(file) => format!(" and the tokenizer {file} ({})", o.tokenizer.fingerprint),
            None => String::new(),
        };
        let description = format!(
            "{} by {software} {} with {} (weights {}){tokenizer}, {flags}, on {} in {}",
            self.subject(),
            self.command,
            o.model.file.as_deref().unwrap_or_default(),
            o.model.fingerprint,
            o.device,
            o.precision
        );
        let one_line: String = description
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        Ok(vec![
            ("Software".into(), software),
            ("Description".into(), one_line),
            (KEYWORD.into(), json),
        ])
    }

    /// What the file shows, as the beginning of a sentence.
    fn subject(&self) -> String {
        match &self.image {
            None => "Images".to_owned(),
            Some(image) => {
                let class = match (image.class, &image.class_name) {
                    (Some(class), Some(name)) => format!(" of class {class} ({name})"),
                    (Some(class), None) => format!(" of class {class}"),
                    _ => String::new(),
                };
                format!("Image {}{class}", image.number)
            }
        }
    }
}

/// Which weights were asked for, as `--weights` has it.
pub fn kind_text(kind: WeightsKind) -> String {
    use clap::ValueEnum;
    let value = kind.to_possible_value();
    value.map_or_else(String::new, |v| v.get_name().to_owned())
}

/// What a PNG file says of itself, where `command` drew it.
///
/// # Errors
/// One line naming the file and `flag` when it is no PNG file, says nothing, is another command's, or what it says can't be understood.
pub fn read<F: DeserializeOwned>(path: &Path, flag: &str, command: &str) -> Result<Record<F>> {
    let bad = |why: String| Error::input(format!("--{flag}={}: {why}", path.display()));
    let Some(text) = read_png_text(path, KEYWORD)? else {
        return Err(bad(
            "it does not say how it was drawn: PNG files of sample and edit do, until another program takes it out, those of learn and the trainers do not; give the flags themselves"
                .into(),
        ));
    };
    // Names that serde sets in backticks are no flags.
    let damaged = |e: serde_json::Error| {
        let why = e.to_string().replace('`', "'");
        format!("what it says of how it was drawn can't be read: {why}")
    };
    let value: Value = serde_json::from_str(&text).map_err(|e| bad(damaged(e)))?;
    let found = value.get("command").and_then(Value::as_str);
    if let Some(other) = found.filter(|found| *found != command) {
        return Err(bad(format!(
            "it was made by {other:?}; give a picture of {command}"
        )));
    }
    let version = value.get("version").and_then(Value::as_str);
    let of_other = version
        .filter(|version| *version != env!("CARGO_PKG_VERSION"))
        .map(|version| format!(" (it was drawn by version {version})"))
        .unwrap_or_default();
    serde_json::from_str(&text).map_err(|e| bad(damaged(e) + &of_other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record() -> Record<Value> {
        let weights = |file: Option<&str>| Weights {
            file: file.map(str::to_owned),
            fingerprint: "00c0ffee".into(),
            weights: None,
        };
        Record {
            origin: Origin {
                software: "nextscale".into(),
                version: "0".into(),
                model: weights(Some("m")),
                tokenizer: weights(None),
                device: "cpu".into(),
                precision: "fp32".into(),
            },
            command: "sample".into(),
            image: Some(Image {
                class: Some(1),
                class_name: Some("a\nb".into()),
                number: 4,
            }),
            flags: json!({"cfg": 1.5}),
        }
    }

    #[test]
    fn texts_say_all_and_can_be_read_back() {
        let texts = record().texts("--cfg=1.5").unwrap();
        assert_eq!(
            texts[1].1,
            "Image 4 of class 1 (a b) by nextscale 0 sample with m (weights 00c0ffee), --cfg=1.5, on cpu in fp32"
        );
        let back: Record<Value> = serde_json::from_str(&texts[2].1).unwrap();
        assert_eq!(back, record());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        let picture = nextscale::pictures::Picture::filled(1, 1, [0; 3]);
        picture.save_with(&path, &texts).unwrap();
        assert_eq!(read::<Value>(&path, "again", "sample").unwrap(), record());
        let said = |path: &Path, command| {
            let e = read::<Value>(path, "again", command).unwrap_err();
            e.to_string()
        };
        assert!(said(&path, "edit").ends_with("made by \"sample\"; give a picture of edit"));
        picture.save(&path).unwrap();
        assert!(said(&path, "sample").contains("does not say how it was drawn"));
        for (json, part) in [
            ("{", "can't be read"),
            ("{\"command\":\"sample\",\"version\":\"9\"}", "version 9"),
        ] {
            picture
                .save_with(&path, &[(KEYWORD.into(), json.into())])
                .unwrap();
            let text = said(&path, "sample");
            assert!(text.contains(part) && text.contains("a.png"), "{text}");
        }
    }
}
