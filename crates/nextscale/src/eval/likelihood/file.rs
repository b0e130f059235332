//! Likelihoods by image as a file: a line of JSON an image, or a table of comma-separated values.

use super::Likelihood;
use crate::data::ImageSource;
use crate::format::write_atomic;
use crate::{Error, Result};
use serde::Serialize;
use std::io;
use std::path::{Path, PathBuf};

/// A file of likelihoods, whose format follows from its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LikelihoodFile {
    path: PathBuf,
    is_csv: bool,
}

/// What a file says of an image.
#[derive(Serialize)]
struct Row<'a> {
    image: String,
    label: u32,
    class: &'a str,
    nats: f64,
    nats_per_token: f64,
    bits_per_dim: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    predicted: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    predicted_class: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    predicted_probability: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rank: Option<usize>,
}

impl LikelihoodFile {
    /// A file by its name.
    ///
    /// # Errors
    /// Where it ends neither in `.jsonl` nor in `.csv`.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
        let is_csv = match ending.to_str() {
            Some("jsonl") => false,
            Some("csv") => true,
            _ => {
                let why = "likelihoods are written as .jsonl or .csv; give such a name";
                return Err(Error::field("out", path.display().to_string(), why));
            }
        };
        Ok(Self { path, is_csv })
    }

    /// Its name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a row for every image of `source`, whose classes are those of the model.
    ///
    /// # Errors
    /// Where the disk refuses, or the source can't say what an image is called.
    pub fn write(&self, found: &Likelihood, source: &dyn ImageSource) -> Result<()> {
        let names = source.class_names();
        let name = |label: u32| names.get(label as usize).map_or("", String::as_str);
        let per_bit = found.nats_per_bit();
        let rows = found.images.iter().map(|image| {
            Ok(Row {
                image: source.key(image.index)?,
                label: image.label,
                class: name(image.label),
                nats: image.nats,
                nats_per_token: image.nats / found.tokens as f64,
                bits_per_dim: image.nats / per_bit,
                predicted: image.guess.map(|g| g.class),
                predicted_class: image.guess.map(|g| name(g.class)),
                predicted_probability: image.guess.map(|g| g.probability),
                rank: image.guess.map(|g| g.rank),
            })
        });
        let rows = rows.collect::<Result<Vec<_>>>()?;
        write_atomic(&self.path, |out| match self.is_csv {
            true => {
                let mut table = csv::Writer::from_writer(out);
                rows.iter().try_for_each(|row| table.serialize(row))?;
                table.flush()
            }
            false => rows.iter().try_for_each(|row| {
                serde_json::to_writer(&mut *out, row).map_err(io::Error::from)?;
                out.write_all(b"\n")
            }),
        })
    }
}
