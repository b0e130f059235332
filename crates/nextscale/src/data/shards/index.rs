//! The index of a split on disk: every shard with what it is known by, and every image's place.
//!
//! It is one file: a magic word, the length of a description in JSON (shards, classes), the description, 24 bytes an image, and a
//! checksum of all before it. It is written whole or not at all, and one that is damaged, or of another version, is made anew.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::build::{Labels, LeftOut};
use super::entry::Entry;
use super::files::Stamp;
use crate::Result;
use crate::format::atomic::write_atomic;

/// Begins the file; the digit is the format's version.
const MAGIC: &[u8; 8] = b"nsindex1";

/// A shard as the index knows it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct IndexedShard {
    /// Its path from the data folder on.
    pub name: String,
    pub stamp: Stamp,
    pub images: usize,
    pub labels: Labels,
    pub left_out: LeftOut,
}

/// An index in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Index {
    pub shards: Vec<IndexedShard>,
    /// Those of the first shard, then those of the second, and so on.
    pub entries: Vec<Entry>,
}

/// The description in a file.
#[derive(Serialize, Deserialize)]
struct Description {
    /// Lists of classes; shards mostly share one.
    names: Vec<Vec<String>>,
    shards: Vec<Described>,
}

#[derive(Serialize, Deserialize)]
struct Described {
    name: String,
    size: u64,
    modified: i64,
    images: usize,
    /// Whether labels are numbers, else places in the list of names.
    numbers: bool,
    names: Option<usize>,
    #[serde(default)]
    hidden: u64,
    #[serde(default)]
    without_image: u64,
    #[serde(default)]
    example: String,
}

impl Index {
    /// The content of a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut lists: Vec<Arc<[String]>> = Vec::new();
        let mut place = |names: &Arc<[String]>| {
            let found = lists.iter().rposition(|list| list == names);
            found.unwrap_or_else(|| {
                lists.push(Arc::clone(names));
                lists.len() - 1
            })
        };
        let shards = self.shards.iter().map(|shard| {
            let (numbers, names) = match &shard.labels {
                Labels::Numbers(names) => (true, names.as_ref()),
                Labels::Names(names) => (false, Some(names)),
            };
            Described {
                name: shard.name.clone(),
                size: shard.stamp.size,
                modified: shard.stamp.modified,
                images: shard.images,
                numbers,
                names: names.map(&mut place),
                hidden: shard.left_out.hidden,
                without_image: shard.left_out.without_image,
                example: shard.left_out.example.clone(),
            }
        });
        let shards = shards.collect();
        let names = lists.iter().map(|list| list.to_vec()).collect();
        let json = serde_json::to_vec(&Description { names, shards }).expect("plain data");
        let mut bytes = Vec::with_capacity(24 + json.len() + Entry::BYTES * self.entries.len());
        bytes.extend(MAGIC);
        bytes.extend((json.len() as u64).to_le_bytes());
        bytes.extend(json);
        self.entries
            .iter()
            .for_each(|entry| bytes.extend(entry.to_bytes()));
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// An index from a file's content; `None` where it is not a whole one of this version.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (bytes, sum) = bytes.split_last_chunk::<4>()?;
        let rest = bytes.strip_prefix(MAGIC)?;
        if crc32c::crc32c(bytes) != u32::from_le_bytes(*sum) {
            return None;
        }
        Self::from_content(rest)
    }

    /// What stands between the magic word and the checksum.
    pub fn from_content(content: &[u8]) -> Option<Self> {
        let (length, rest) = content.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (json, entries) = rest.split_at_checked(length)?;
        let Description { names, shards } = serde_json::from_slice(json).ok()?;
        let lists: Vec<Arc<[String]>> = names.into_iter().map(Into::into).collect();
        let (chunks, []) = entries.as_chunks::<{ Entry::BYTES }>() else {
            return None;
        };
        let mut entries = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            entries.push(Entry::from_bytes(chunk)?);
        }
        let mut left = entries.as_slice();
        let mut found = Vec::with_capacity(shards.len());
        for shard in shards {
            let (own, rest) = left.split_at_checked(shard.images)?;
            left = rest;
            if own.iter().any(|entry| !entry.is_within(shard.size)) {
                return None;
            }
            let names = match shard.names {
                Some(place) => Some(Arc::clone(lists.get(place)?)),
                None => None,
            };
            let labels = match (shard.numbers, names) {
                (true, names) => Labels::Numbers(names),
                (false, names) => Labels::Names(names?),
            };
            if let Labels::Names(names) = &labels
                && own.iter().any(|entry| entry.label as usize >= names.len())
            {
                return None;
            }
            found.push(IndexedShard {
                name: shard.name,
                stamp: Stamp {
                    size: shard.size,
                    modified: shard.modified,
                },
                images: shard.images,
                labels,
                left_out: LeftOut {
                    hidden: shard.hidden,
                    without_image: shard.without_image,
                    example: shard.example,
                },
            });
        }
        left.is_empty().then_some(Self {
            shards: found,
            entries,
        })
    }

    /// The index in a file; `None` where there is none that can be used.
    pub fn read(path: &Path) -> Option<Self> {
        // A pipe of this name, say, is nothing to wait for.
        let (_, _) = crate::input::open_input(path).ok()?;
        Self::from_bytes(&std::fs::read(path).ok()?)
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// When the disk or the folder refuses.
    pub fn write(&self, path: &Path) -> Result<()> {
        let bytes = self.to_bytes();
        write_atomic(path, |out| out.write_all(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec::Codec;
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn entry() -> impl Strategy<Value = Entry> {
        let numbers = (0u8..5, 0u64..1 << 55, any::<[u32; 4]>());
        numbers.prop_map(|(codec, offset, [stored, skip, length, label])| {
            let codec = Codec::from_number(codec).unwrap();
            let length = length >> 3;
            Entry {
                codec,
                offset: offset | 1 << 32,
                stored: if codec == Codec::Stored {
                    length
                } else {
                    stored
                },
                skip: skip >> 3,
                length,
                label: label % 3,
            }
        })
    }

    fn an_index() -> impl Strategy<Value = Index> {
        let names: Arc<[String]> = ["a", "ß \"", "c\n"].map(String::from).into();
        let labels = prop_oneof![
            Just(Labels::Numbers(None)),
            Just(Labels::Numbers(Some(Arc::clone(&names)))),
            Just(Labels::Names(names)),
        ];
        let shard = (
            ".{0,9}",
            (1u64 << 56.., any::<i64>(), any::<u64>()),
            labels,
            vec(entry(), 0..5),
        );
        vec(shard, 0..6).prop_map(|shards| {
            let mut index = Index::default();
            for (name, (size, modified, hidden), labels, entries) in shards {
                index.shards.push(IndexedShard {
                    left_out: LeftOut {
                        hidden,
                        without_image: 2,
                        example: name.clone(),
                    },
                    name,
                    stamp: Stamp { size, modified },
                    images: entries.len(),
                    labels,
                });
                index.entries.extend(entries);
            }
            index
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_damage_is_noticed(
            index in an_index(),
            at in any::<prop::sample::Index>(),
            bit in 0u32..8,
        ) {
            let mut bytes = index.to_bytes();
            prop_assert_eq!(Index::from_bytes(&bytes), Some(index));
            let at = at.index(bytes.len());
            prop_assert_eq!(Index::from_bytes(&bytes[..at]), None);
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(Index::from_bytes(&bytes), None);
        }

        #[test]
        fn any_content_is_an_index_or_none(bytes in vec(any::<u8>(), 0..200)) {
            let _ = Index::from_content(&bytes);
        }
    }
}
