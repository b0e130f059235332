//! A training checkpoint: one safetensors file of named parts, of which no more than one tensor at a time is in memory.
//!
//! A part is a set of tensors with one prefix: weights, an optimizer's moments, gradients so far. Beside them stand, as text, the layout
//! ([`RUN_KEY`]) and what each kind of run says of itself.

use super::host::{HostDType, HostTensor};
use super::safetensors::{Coming, SafetensorsFile, TextMetadata, write_made, written_order};
use super::state_dict::StateDict;
use super::write_atomic;
use crate::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::HashSet;
use std::io;
use std::path::Path;

/// The metadata key of every training checkpoint, which holds its [`Layout`] as JSON.
pub const RUN_KEY: &str = "nextscale.run";

/// The metadata key that marks a tokenizer's training checkpoint and holds its progress as JSON.
pub const TOKENIZER_RUN: &str = "nextscale.tokenizer_trainer";

/// Prefixes of a transformer's and a tokenizer's weights in training checkpoints.
pub const TRANSFORMER_WEIGHTS: &str = "var_wo_ddp.";
/// See [`TRANSFORMER_WEIGHTS`].
pub const TOKENIZER_WEIGHTS: &str = "vae_local.";

/// The newest layout.
const VERSION: u64 = 1;

/// What a training checkpoint says of its form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Raised when a file can no longer be read by an older program.
    pub version: u64,
    /// What was trained.
    pub task: String,
    /// Prefixes of its parts, without the last dot.
    pub parts: Vec<String>,
}

/// A tensor that is made when it is written.
struct Entry<'a> {
    name: String,
    dtype: HostDType,
    shape: Vec<usize>,
    make: Box<dyn Fn() -> Result<Cow<'a, [u8]>> + 'a>,
}

/// A set of tensors with one prefix.
pub struct Part<'a> {
    prefix: Cow<'a, str>,
    /// In words, where a number that is none ends the save.
    checked: Option<&'static str>,
    /// Whether all processes make its tensors together.
    shared: bool,
    entries: Vec<Entry<'a>>,
}

impl Layout {
    /// What a file says of its form; `None` where it is no training checkpoint, or one from before there were parts.
    ///
    /// # Errors
    /// When that is damaged, or the file is of a newer program.
    pub fn of(file: &SafetensorsFile) -> Result<Option<Self>> {
        let bad = |why: String| Error::input(format!("{}: {why}", file.path().display()));
        let metadata = file.metadata();
        let Some(text) = metadata.get(RUN_KEY) else {
            return Ok(None);
        };
        let layout: Self = serde_json::from_str(text)
            .map_err(|e| bad(format!("its list of parts is damaged: {e}")))?;
        if layout.version > VERSION {
            return Err(bad(format!(
                "was written by a newer nextscale (layout {}, this one reads {VERSION}); update nextscale",
                layout.version
            )));
        }
        Ok(Some(layout))
    }
}

impl<'a> Part<'a> {
    /// A part without tensors; `prefix` ends with a dot.
    pub fn new(prefix: impl Into<Cow<'a, str>>) -> Self {
        Self {
            prefix: prefix.into(),
            checked: None,
            shared: false,
            entries: Vec::new(),
        }
    }

    /// What its tensors' names begin with, with a dot at the end.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The tensors of a state dict.
    pub fn of_dict(prefix: impl Into<Cow<'a, str>>, dict: &'a StateDict) -> Self {
        let entries = dict.iter().map(|(name, tensor)| Entry {
            name: name.to_owned(),
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
            make: Box::new(|| Ok(Cow::Borrowed(tensor.data.as_slice()))),
        });
        Self {
            entries: entries.collect(),
            ..Self::new(prefix)
        }
    }

    /// Its tensors, without the prefix.
    ///
    /// # Errors
    /// When one can't be made.
    pub fn to_dict(&self) -> Result<StateDict> {
        let tensor = |entry: &Entry<'a>| {
            let tensor = HostTensor {
                dtype: entry.dtype,
                shape: entry.shape.clone(),
                data: (entry.make)()?.into_owned(),
            };
            Ok((entry.name.clone(), tensor))
        };
        self.entries.iter().map(tensor).collect()
    }

    /// A save is refused where these, `what` in words, hold a number that is not finite.
    #[must_use]
    pub fn checked(mut self, what: &'static str) -> Self {
        self.checked = Some(what);
        self
    }

    /// Processes that have shares of its numbers make its tensors together: while one writes, the others call [`make_along`].
    #[must_use]
    pub fn shared(mut self, shared: bool) -> Self {
        self.shared = shared;
        self
    }

    /// Adds a tensor of float32 whose values are made when it is written.
    pub fn push(
        &mut self,
        name: impl Into<String>,
        shape: &[usize],
        values: impl Fn() -> Result<Vec<f32>> + 'a,
    ) {
        let dims = shape.to_vec();
        self.entries.push(Entry {
            name: name.into(),
            dtype: HostDType::F32,
            shape: shape.to_vec(),
            make: Box::new(move || Ok(Cow::Owned(HostTensor::from_f32(&dims, &values()?)?.data))),
        });
    }
}

/// Writes a training checkpoint of `task`, whole or not at all.
///
/// # Errors
/// [`Error::Diverged`] where a checked part holds a number that is none, and when a tensor can't be made or writing fails; an existing
/// file is then unchanged.
pub fn write(path: &Path, task: &str, parts: &[Part<'_>], metadata: TextMetadata) -> Result<()> {
    let name = |part: &Part<'_>| part.prefix.trim_end_matches('.').to_owned();
    let present = parts.iter().filter(|part| !part.entries.is_empty());
    let layout = Layout {
        version: VERSION,
        task: task.to_owned(),
        parts: present.map(name).collect(),
    };
    let layout = serde_json::to_string(&layout)
        .map_err(|e| Error::failed(format!("describing a checkpoint: {e}")))?;
    let mut metadata = metadata;
    metadata.insert(RUN_KEY.into(), layout);
    write_parts(path, parts, metadata)
}

/// Writes one part alone, under its own prefix, as a file of weights.
///
/// # Errors
/// As [`write()`].
pub fn write_weights(path: &Path, part: &Part<'_>, metadata: TextMetadata) -> Result<()> {
    write_parts(path, std::slice::from_ref(part), metadata)
}

fn write_parts(path: &Path, parts: &[Part<'_>], mut metadata: TextMetadata) -> Result<()> {
    metadata.insert("format".into(), "pt".into());
    let all = all_of(parts);
    let coming = coming(&all);
    // An error of making a tensor is none of the file's.
    let mut failed = None;
    let mut tried = HashSet::new();
    let written = write_atomic(path, |w| {
        write_made(w, &coming, &metadata, |i| {
            let (part, entry) = all[i];
            tried.insert(i);
            made(part, entry).map_err(|e| {
                failed = Some(e);
                io::Error::other("a tensor can't be made")
            })
        })
    });
    if written.is_err() {
        // The other processes make all of them.
        for i in written_order(&coming) {
            let (part, entry) = all[i];
            if part.shared && !tried.contains(&i) {
                (entry.make)()?;
            }
        }
    }
    match failed {
        Some(e) => Err(e),
        None => written,
    }
}

/// Makes the tensors that processes make together, in the order in which another one writes the same parts.
///
/// # Errors
/// When one can't be made.
pub fn make_along(parts: &[Part<'_>]) -> Result<()> {
    let all = all_of(parts);
    for i in written_order(&coming(&all)) {
        let (part, entry) = all[i];
        if part.shared {
            (entry.make)()?;
        }
    }
    Ok(())
}

/// Every tensor with its part.
fn all_of<'p, 'a>(parts: &'p [Part<'a>]) -> Vec<(&'p Part<'a>, &'p Entry<'a>)> {
    let of = |part: &'p Part<'a>| part.entries.iter().map(move |entry| (part, entry));
    parts.iter().flat_map(of).collect()
}

fn coming(all: &[(&Part<'_>, &Entry<'_>)]) -> Vec<Coming> {
    all.iter()
        .map(|(part, entry)| Coming {
            name: format!("{}{}", part.prefix, entry.name),
            dtype: entry.dtype,
            shape: entry.shape.clone(),
        })
        .collect()
}

fn made<'a>(part: &Part<'_>, entry: &Entry<'a>) -> Result<Cow<'a, [u8]>> {
    let bytes = (entry.make)()?;
    if let Some(what) = part.checked
        && entry.dtype == HostDType::F32
        && bytes.par_chunks(1 << 20).any(is_not_finite)
    {
        let name = &entry.name;
        return Err(Error::Diverged(format!(
            "{what} of {name} hold numbers that are not finite"
        )));
    }
    Ok(bytes)
}

/// Whether float32 values as bytes hold one that is not finite.
fn is_not_finite(bytes: &[u8]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().fold(false, |bad, w| {
        bad | (u32::from_le_bytes(*w) & EXPONENT == EXPONENT)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part<'a>(values: Vec<f32>) -> Part<'a> {
        let mut part = Part::new("a.").checked("the weights");
        part.push("x", &[values.len()], move || Ok(values.clone()));
        part
    }

    #[test]
    fn parts_are_written_under_their_prefixes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.safetensors");
        let mut dict = StateDict::new();
        dict.insert("n", HostTensor::from_i64(&[2], &[3, 4]).unwrap());
        let parts = [
            part(vec![1.0, -2.5]),
            Part::of_dict("b.", &dict),
            Part::new("none."),
        ];
        write(&path, "test", &parts, [("k".into(), "v".into())].into()).unwrap();
        let mut file = SafetensorsFile::open(&path).unwrap();
        assert_eq!(file.names().collect::<Vec<_>>(), ["a.x", "b.n"]);
        assert_eq!(file.read("a.x").unwrap().to_f32_vec(), [1.0, -2.5]);
        assert_eq!(file.read("b.n").unwrap().to_i64_vec().unwrap(), [3, 4]);
        let metadata = file.metadata();
        assert_eq!(metadata["k"], "v");
        let layout = Layout::of(&file).unwrap().unwrap();
        assert_eq!(layout.parts, ["a", "b"]);
        assert_eq!((layout.version, layout.task.as_str()), (VERSION, "test"));
    }

    #[test]
    fn what_is_no_number_or_cant_be_made_leaves_the_file_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.safetensors");
        std::fs::write(&path, "old").unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let parts = [part(vec![1.0, bad])];
            let e = write(&path, "test", &parts, TextMetadata::new()).unwrap_err();
            assert!(matches!(e, Error::Diverged(_)));
            assert_eq!(
                e.to_string(),
                "the weights of x hold numbers that are not finite"
            );
        }
        let mut failing = Part::new("a.");
        failing.push("x", &[1], || Err(Error::failed("the GPU is gone")));
        let mut short = Part::new("a.");
        short.push("x", &[2], || Ok(vec![1.0]));
        for (part, text) in [(failing, "the GPU is gone"), (short, "")] {
            let e = write(&path, "test", &[part], TextMetadata::new()).unwrap_err();
            assert!(e.to_string().contains(text), "{e}");
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
