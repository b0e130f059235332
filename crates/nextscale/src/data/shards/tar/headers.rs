//! The members of a tar file: POSIX (ustar), with long names of GNU and extended headers of pax.

use std::borrow::Cow;

use tar::{EntryType, Header};

use super::super::files::Shard;
use crate::{Error, Result};

/// Bytes of a header, and what members are filled up to.
const BLOCK: u64 = 512;

/// The longest name or extended header that is read, in bytes.
const MAX_EXTENSION: u64 = 1 << 20;

/// A file in a tar file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Its path as the tar file has it, without `./` before it.
    pub name: String,
    /// Where the first of its headers begins.
    pub headers: u64,
    /// Where its content begins.
    pub offset: u64,
    /// Bytes of its content.
    pub size: u64,
}

/// The files of a tar file in their order; folders, links and devices are passed over.
pub(super) struct Members<'a> {
    shard: &'a Shard,
    at: u64,
    ended: bool,
}

/// What headers before a member's own say of it.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<'a> Members<'a> {
    /// All of them.
    pub fn new(shard: &'a Shard) -> Self {
        Self::starting_at(shard, 0)
    }

    /// From the headers at `at` on.
    pub fn starting_at(shard: &'a Shard, at: u64) -> Self {
        Self {
            shard,
            at,
            ended: false,
        }
    }

    fn bad(&self, what: impl std::fmt::Display) -> Error {
        self.shard.bad(format!("byte {}: {what}", self.at))
    }

    fn member(&mut self) -> Result<Option<Member>> {
        let mut headers = self.at;
        let mut extended = Extended::default();
        loop {
            let mut header = [0; BLOCK as usize];
            if self.at == self.shard.size() {
                // Whoever writes a tar file ends it with empty blocks.
                return Err(self.shard.bad(
                    "it is truncated: a tar file ends with empty blocks, and this one does not",
                ));
            }
            self.shard.read(self.at, &mut header)?;
            if header.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            let header = Header::from_byte_slice(&header);
            self.check(header)?;
            let stated = header
                .entry_size()
                .map_err(|_| self.bad("the header's size is damaged"))?;
            let kind = header.entry_type();
            let own = matches!(
                kind,
                EntryType::GNULongName
                    | EntryType::GNULongLink
                    | EntryType::XHeader
                    | EntryType::XGlobalHeader
            );
            let size = if own {
                stated
            } else {
                extended.size.unwrap_or(stated)
            };
            let offset = self.at + BLOCK;
            let end = offset
                .checked_add(size)
                .filter(|end| *end <= self.shard.size());
            let Some(end) = end else {
                let name = shown(&extended, header);
                return Err(Error::input(format!(
                    "{}:{name}: it is truncated: the member has {size} bytes, and the file ends before",
                    self.shard.path().display()
                )));
            };
            let next = end.next_multiple_of(BLOCK);
            match kind {
                EntryType::GNULongName => extended.path = Some(text(self.content(offset, size)?)),
                EntryType::XHeader => {
                    let content = self.content(offset, size)?;
                    self.pax(&content, &mut extended)?;
                }
                // What it says of all members, such as a comment, concerns neither names nor sizes.
                EntryType::XGlobalHeader => {
                    let mut global = Extended::default();
                    let content = self.content(offset, size)?;
                    self.pax(&content, &mut global)?;
                    if global.path.is_some() || global.size.is_some() {
                        return Err(self.bad("a header for all members sets their name or size"));
                    }
                }
                EntryType::GNULongLink => {}
                EntryType::GNUSparse => {
                    let name = shown(&extended, header);
                    return Err(self.bad(format!(
                        "{name} is a sparse file, which is not read; write it anew without --sparse"
                    )));
                }
                EntryType::Regular | EntryType::Continuous => {
                    let name = shown(&extended, header).into_owned();
                    self.at = next;
                    // Older programs mark folders by their names alone.
                    if !name.ends_with('/') {
                        return Ok(Some(Member {
                            name,
                            headers,
                            offset,
                            size,
                        }));
                    }
                    (extended, headers) = (Extended::default(), next);
                }
                _ => (extended, headers) = (Extended::default(), next),
            }
            self.at = next;
        }
    }

    /// Holds a header against its sum.
    fn check(&self, header: &Header) -> Result<()> {
        let bytes = header.as_bytes();
        let sum = |byte: fn(u8) -> i64| -> i64 {
            // The field of the sum itself counts as blanks.
            let blank = |(i, b): (usize, &u8)| {
                if (148..156).contains(&i) {
                    32
                } else {
                    byte(*b)
                }
            };
            bytes.iter().enumerate().map(blank).sum()
        };
        let stated = header.cksum().ok().map(i64::from);
        // Some programs of old add signed bytes.
        if stated == Some(sum(i64::from)) || stated == Some(sum(|b| i64::from(b.cast_signed()))) {
            return Ok(());
        }
        let hint = match bytes {
            [0x1f, 0x8b, ..] => {
                "it is compressed with gzip; unpack it once (gunzip), images in it are read in place"
            }
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                "it is compressed with Zstandard; unpack it once (unzstd), images in it are read in place"
            }
            [b'B', b'Z', b'h', ..] => {
                "it is compressed with bzip2; unpack it once (bunzip2), images in it are read in place"
            }
            [0xfd, b'7', b'z', b'X', b'Z', ..] => {
                "it is compressed with xz; unpack it once (unxz), images in it are read in place"
            }
            _ if self.at == 0 => "it is no tar file, or a damaged one",
            _ => {
                return Err(
                    self.bad("here should be the header of a member; the tar file is damaged")
                );
            }
        };
        Err(self.shard.bad(hint))
    }

    fn content(&self, offset: u64, size: u64) -> Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(self.bad(format!(
                "an extended header has {size} bytes; at most {MAX_EXTENSION} are read"
            )));
        }
        let mut bytes = vec![0; size as usize];
        self.shard.read(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Takes name and size from records of pax: a length, a key and a value each.
    fn pax(&self, mut records: &[u8], extended: &mut Extended) -> Result<()> {
        while !records.is_empty() && records[0] != 0 {
            let (key, value, rest) =
                record(records).ok_or_else(|| self.bad("an extended header is damaged"))?;
            match key {
                b"path" => extended.path = Some(value.to_vec()),
                b"size" => {
                    let size = str::from_utf8(value)
                        .ok()
                        .and_then(|text| text.parse().ok());
                    extended.size =
                        Some(size.ok_or_else(|| self.bad("an extended header is damaged"))?);
                }
                _ if key.starts_with(b"GNU.sparse.") => {
                    return Err(self.bad("a member is a sparse file, which is not read; write it anew without --sparse"));
                }
                _ => {}
            }
            records = rest;
        }
        Ok(())
    }
}

impl Iterator for Members<'_> {
    type Item = Result<Member>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let member = self.member().transpose();
        self.ended = !matches!(member, Some(Ok(_)));
        member
    }
}

/// Key, value and what follows the first record.
pub(super) fn record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let blank = records.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = str::from_utf8(&records[..blank]).ok()?.parse().ok()?;
    let (record, rest) = records.split_at_checked(length)?;
    let record = record.get(blank + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], rest))
}

/// A long name up to its end.
fn text(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

/// A member's name for people and for matching; bytes that are no UTF-8 are replaced.
fn shown<'a>(extended: &'a Extended, header: &'a Header) -> Cow<'a, str> {
    let name = match &extended.path {
        Some(path) => String::from_utf8_lossy(path),
        None => Cow::Owned(String::from_utf8_lossy(&header.path_bytes()).into_owned()),
    };
    match name.strip_prefix("./") {
        Some(rest) => Cow::Owned(rest.to_owned()),
        None => name,
    }
}
