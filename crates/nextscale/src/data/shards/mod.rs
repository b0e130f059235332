//! Images in shards: tar files as WebDataset has them, and Parquet files as the Hugging Face hub has them.
//!
//! Shards are read in place. An index, made once and kept, knows where every image lies, so that images are as numbered, and come in the
//! same global order, as those of folders; nothing is unpacked beforehand. Images are in the order of their shards' names, within a shard in
//! its own.

mod build;
mod cache;
mod codec;
mod entry;
mod files;
mod index;
mod parquet;
mod snappy;
mod tar;
#[cfg(test)]
mod tests;
mod zstd;

use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};

use super::decode::decode_read;
use super::{ImageSource, LoadBuffers};
use crate::checkpoint::class_names::named_twice;
use crate::remark::remark;
use crate::{Error, Result};
use build::Labels;
use codec::Codec;
use entry::Entry;
use files::Files;
use index::{Index, IndexedShard};

/// Endings of files that are shards.
const ENDINGS: [&str; 2] = ["tar", "parquet"];

/// Bytes that are unpacked in vain for an image, on average, from which on that is told.
const SLOW: u64 = 1 << 20;

/// Whether a file is a shard by its name, and which ending it has.
pub(super) fn shard_ending(name: &str) -> Option<&'static str> {
    let (_, ending) = name.rsplit_once('.')?;
    ENDINGS.into_iter().find(|e| e.eq_ignore_ascii_case(ending))
}

/// What the labels of a split's shards mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// Numbers of classes, of which the shards may know the names.
    Numbers(Option<Vec<String>>),
    /// Places in these names, which are in order.
    Names(Vec<String>),
}

/// The images of one split in shards.
#[derive(Debug)]
pub struct ShardSource {
    files: Files,
    shards: Vec<IndexedShard>,
    /// The number of each shard's first image, and behind the last one that of all.
    first: Vec<usize>,
    entries: Vec<Entry>,
    own: Own,
    classes: Vec<String>,
}

impl ShardSource {
    /// Opens the shards of one split, in the order of their names. Their index is read where it was made before, else made, and kept
    /// beside the data (in `root`) or in the user's cache folder. Labels that are numbers get the names that shards have for them; else the
    /// numbers are the names.
    ///
    /// # Errors
    /// [`Error::Input`] that names the shard, and the member or row, where one can't be used; [`Error::Io`] where one can't be read.
    pub fn open(root: &Path, split: &str, shards: &[PathBuf]) -> Result<Self> {
        let mut source = Self::raw(root, split, shards)?;
        match source.own.clone() {
            Own::Numbers(None) => {
                let count = source.entries.iter().map(|e| e.label as usize + 1).max();
                let names = (0..count.unwrap_or(0)).map(|i| i.to_string()).collect();
                source.set_classes(names)?;
            }
            Own::Numbers(Some(names)) | Own::Names(names) => source.set_classes(names)?,
        }
        Ok(source)
    }

    /// The same without classes: they depend on the other split too.
    pub(super) fn raw(root: &Path, split: &str, shards: &[PathBuf]) -> Result<Self> {
        let mut shards = shards.to_vec();
        shards.sort();
        let Index {
            shards: indexed,
            mut entries,
        } = cache::open(root, split, &shards)?;
        if u32::try_from(entries.len()).is_err() {
            return Err(Error::input(format!(
                "{}: {} images are more than can be numbered",
                root.display(),
                entries.len()
            )));
        }
        tell_slow(root, &entries);
        let own = unite(&shards, &indexed, &mut entries)?;
        let mut first = vec![0];
        first.extend(indexed.iter().scan(0, |sum, shard| {
            *sum += shard.images;
            Some(*sum)
        }));
        let files = shards
            .into_iter()
            .zip(indexed.iter().map(|shard| shard.stamp));
        Ok(Self {
            files: Files::new(files.collect()),
            shards: indexed,
            first,
            entries,
            own,
            classes: Vec::new(),
        })
    }

    /// What the labels mean.
    pub(super) fn own(&self) -> &Own {
        &self.own
    }

    /// Gives the classes their names; labels are numbers of them.
    ///
    /// # Errors
    /// One line that names the first image whose label is out of range, or a name that stands twice.
    pub(super) fn set_classes(&mut self, names: Vec<String>) -> Result<()> {
        if let Some(index) = self
            .entries
            .iter()
            .position(|e| e.label as usize >= names.len())
        {
            return Err(Error::input(format!(
                "{}: has label {}, and there are {} classes (0 to {})",
                self.name(index),
                self.entries[index].label,
                names.len(),
                names.len().saturating_sub(1)
            )));
        }
        if let Some(name) = named_twice(&names) {
            return Err(Error::input(format!(
                "{}: two classes are called {name:?}",
                self.files.path(0).display()
            )));
        }
        self.classes = names;
        Ok(())
    }

    /// Turns every label into another, by place.
    pub(super) fn relabel(&mut self, labels: &[u32]) {
        for entry in &mut self.entries {
            entry.label = labels[entry.label as usize];
        }
    }

    /// The labels that occur.
    pub(super) fn labels(&self) -> BTreeSet<u32> {
        self.entries.iter().map(|entry| entry.label).collect()
    }

    /// What was left out of the shards, in words; `None` where that is nothing.
    pub fn left_out(&self) -> Option<String> {
        let sum = |count: fn(&IndexedShard) -> u64| self.shards.iter().map(count).sum::<u64>();
        let hidden = sum(|s| s.left_out.hidden);
        let without = sum(|s| s.left_out.without_image);
        let (place, shard) =
            (self.shards.iter().enumerate()).find(|(_, s)| !s.left_out.example.is_empty())?;
        let mut parts = Vec::new();
        if hidden > 0 {
            parts.push(format!("{hidden} hidden"));
        }
        if without > 0 {
            let samples = if without == 1 { "sample" } else { "samples" };
            parts.push(format!("{without} {samples} without an image"));
        }
        Some(format!(
            "left out of the images: {}, for example {}:{}",
            parts.join(" and "),
            self.files.path(place).display(),
            shard.left_out.example
        ))
    }

    /// An image's shard and place.
    fn place(&self, index: usize) -> Result<(usize, Entry)> {
        let entry = self.entries.get(index).ok_or_else(|| {
            Error::input(format!(
                "there is no image {index} among {}",
                self.entries.len()
            ))
        })?;
        Ok((
            self.first.partition_point(|first| *first <= index) - 1,
            *entry,
        ))
    }

    fn try_name(&self, index: usize) -> Result<String> {
        let (shard, entry) = self.place(index)?;
        let path = self.files.path(shard);
        if shard_ending(&path.to_string_lossy()) == Some("parquet") {
            return Ok(format!(
                "{}:row {}",
                path.display(),
                index - self.first[shard]
            ));
        }
        let member = tar::name(&*self.files.get(shard)?, entry.offset, entry.skip)?;
        Ok(format!("{}:{member}", path.display()))
    }
}

/// An image's name, looked up only where it is shown.
struct Name<'a>(&'a ShardSource, usize);

impl Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name(self.1))
    }
}

impl ImageSource for ShardSource {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn class_names(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> u32 {
        self.entries.get(index).map_or(0, |entry| entry.label)
    }

    fn name(&self, index: usize) -> String {
        self.try_name(index)
            .unwrap_or_else(|_| match self.place(index) {
                Ok((shard, _)) => format!(
                    "{}:image {}",
                    self.files.path(shard).display(),
                    index - self.first[shard]
                ),
                Err(_) => format!("image {index}"),
            })
    }

    /// A member's name, whichever shard it is in; a row by its file and number.
    fn key(&self, index: usize) -> Result<String> {
        let (shard, entry) = self.place(index)?;
        let path = self.files.path(shard);
        if shard_ending(&path.to_string_lossy()) == Some("parquet") {
            let file = path.file_name().unwrap_or_default();
            return Ok(format!(
                "{}:row {}",
                file.to_string_lossy(),
                index - self.first[shard]
            ));
        }
        let member = tar::name(&*self.files.get(shard)?, entry.offset, entry.skip)?;
        Ok(member.strip_prefix("./").unwrap_or(&member).to_owned())
    }

    fn is_stored(&self) -> bool {
        true
    }

    fn probe(&self, index: usize) -> Result<()> {
        let (shard, _) = self.place(index)?;
        self.files.get(shard).map(drop)
    }

    fn load(&self, index: usize, buffers: &mut LoadBuffers) -> Result<()> {
        let (shard, entry) = self.place(index)?;
        let file = self.files.get(shard)?;
        let name = Name(self, index);
        decode_read(&name, entry.memory(), buffers, |bytes| {
            let stored = entry.stored as usize;
            if entry.codec == Codec::Stored {
                bytes.resize(stored, 0);
                file.read(entry.offset, bytes)?;
                return Ok(0..stored);
            }
            let mut packed = vec![0; stored];
            file.read(entry.offset, &mut packed)?;
            let (skip, length) = (entry.skip as usize, entry.length as usize);
            let whole = skip.saturating_add(length);
            let unpacked = entry.codec.unpack(&packed, whole, bytes);
            unpacked.map_err(|what| Error::input(format!("{name}: {what}")))?;
            Ok(skip..whole)
        })
    }
}

/// Tells of pages of which much has to be unpacked for every image.
fn tell_slow(root: &Path, entries: &[Entry]) {
    let before = entries
        .iter()
        .filter(|e| matches!(e.codec, Codec::Zstd | Codec::Gzip));
    let mean = before.map(|e| u64::from(e.skip)).sum::<u64>() / entries.len().max(1) as u64;
    if mean > SLOW {
        remark(&format!(
            "{}: for every image about {} MiB before it are unpacked; write these files with snappy, without compression, or with smaller pages to read them faster",
            root.display(),
            mean >> 20
        ));
    }
}

/// Makes labels of all shards places in one list: names are sorted; of numbers all shards must have the same names.
fn unite(paths: &[PathBuf], shards: &[IndexedShard], entries: &mut [Entry]) -> Result<Own> {
    let bad = |shard: usize, what: &str| {
        Err(Error::input(format!(
            "{}: {what} than {}",
            paths[shard].display(),
            paths[0].display()
        )))
    };
    let mut all = BTreeSet::new();
    let mut numbers = None;
    for (i, shard) in shards.iter().enumerate() {
        match (&shard.labels, &shards[0].labels) {
            (Labels::Names(names), Labels::Names(_)) => all.extend(names.iter()),
            (Labels::Numbers(names), Labels::Numbers(first)) => {
                if names != first {
                    return bad(i, "has other names for its classes");
                }
                numbers = Some(names.as_ref().map(|names| names.to_vec()));
            }
            _ => {
                return bad(
                    i,
                    "labels its images in another way (one by numbers, one by names)",
                );
            }
        }
    }
    if let Some(names) = numbers {
        return Ok(Own::Numbers(names));
    }
    let all: Vec<&String> = all.into_iter().collect();
    let mut rest = entries;
    for shard in shards {
        let (own, after) = rest.split_at_mut(shard.images);
        rest = after;
        if let Labels::Names(names) = &shard.labels {
            let places: Vec<u32> = names
                .iter()
                .map(|name| all.binary_search(&name).unwrap_or(0) as u32)
                .collect();
            own.iter_mut()
                .for_each(|entry| entry.label = places[entry.label as usize]);
        }
    }
    Ok(Own::Names(all.into_iter().cloned().collect()))
}
