//! What indexing a shard finds, and indexing those of a split that are new.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;

use super::entry::Entry;
use super::files::{Shard, Stamp};
use super::index::IndexedShard;
use super::{parquet, tar};
use crate::{Error, Result};

/// The highest number of a class.
pub(super) const MAX_LABEL: i64 = (1 << 20) - 1;

/// An image's class as its shard has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Label {
    Number(i64),
    Name(String),
}

/// What the labels of a shard's entries are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Labels {
    /// Numbers of classes, which the shard may name.
    Numbers(Option<Arc<[String]>>),
    /// Places in a list of names, in the order in which they came.
    Names(Arc<[String]>),
}

/// What a shard holds beside images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// Hidden files.
    pub hidden: u64,
    /// Samples without an image.
    pub without_image: u64,
    /// The first of them.
    pub example: String,
}

/// A shard's part of the index.
#[derive(Clone, Debug)]
pub(super) struct ShardContent {
    pub entries: Vec<Entry>,
    pub labels: Labels,
    pub left_out: LeftOut,
}

/// What was found so far of a shard.
#[derive(Default)]
pub(super) struct Found {
    entries: Vec<Entry>,
    places: HashMap<String, u32>,
    names: Vec<String>,
    left_out: LeftOut,
}

impl Found {
    /// Adds an image of a class.
    ///
    /// # Errors
    /// What is wrong with the label.
    pub fn add(&mut self, entry: Entry, label: Label) -> Result<(), String> {
        let mixed = |is, were| format!("has {is} as its class, and images before it have {were}");
        let label = match label {
            Label::Number(_) if !self.names.is_empty() => {
                return Err(mixed("a number", "names"));
            }
            Label::Name(_) if self.names.is_empty() && !self.entries.is_empty() => {
                return Err(mixed("a name", "numbers"));
            }
            Label::Number(number) => in_range(number)?,
            Label::Name(name) => match self.places.get(&name) {
                Some(place) => *place,
                None => {
                    let place = self.names.len() as u32;
                    self.names.push(name.clone());
                    self.places.insert(name, place);
                    place
                }
            },
        };
        self.entries.push(Entry { label, ..entry });
        Ok(())
    }

    /// Counts a hidden file.
    pub fn hidden(&mut self, name: &str) {
        self.left_out.hidden += 1;
        self.example(name);
    }

    /// Counts a sample without an image.
    pub fn without_image(&mut self, name: &str) {
        self.left_out.without_image += 1;
        self.example(name);
    }

    fn example(&mut self, name: &str) {
        if self.left_out.example.is_empty() {
            self.left_out.example = name.to_owned();
        }
    }

    /// The whole.
    pub fn finish(self) -> ShardContent {
        ShardContent {
            labels: match self.names.is_empty() {
                true => Labels::Numbers(None),
                false => Labels::Names(self.names.into()),
            },
            entries: self.entries,
            left_out: self.left_out,
        }
    }
}

/// A number of a class that can be one.
///
/// # Errors
/// What is wrong with it.
pub(super) fn in_range(number: i64) -> Result<u32, String> {
    match number {
        0..=MAX_LABEL => Ok(number as u32),
        _ => Err(format!(
            "has label {number}; labels are numbers from 0 to at most {MAX_LABEL}"
        )),
    }
}

/// Indexes these files, several at a time. They come with the names that the index has for them.
///
/// # Errors
/// One line that names the file.
pub(super) fn index_all(files: Vec<(PathBuf, String)>) -> Result<Vec<(IndexedShard, Vec<Entry>)>> {
    files
        .into_par_iter()
        .map(|(path, name)| {
            let (shard, stamp) = Shard::open(&path)?;
            let content = match path
                .extension()
                .is_some_and(|end| end.eq_ignore_ascii_case("tar"))
            {
                true => tar::index(&shard)?,
                false => parquet::index(&shard)?,
            };
            if Stamp::at(&path)? != stamp {
                return Err(
                    shard.bad("it was written while it was indexed; start again when it is whole")
                );
            }
            if content.entries.is_empty() {
                return Err(shard.bad("there is no image in it; remove it"));
            }
            let shard = IndexedShard {
                name,
                stamp,
                images: content.entries.len(),
                labels: content.labels,
                left_out: content.left_out,
            };
            Ok((shard, content.entries))
        })
        .collect::<Result<Vec<_>, Error>>()
}
