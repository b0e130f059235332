//! The first directory of a TIFF or BigTIFF file.

/// The directory's entries, still in the file's bytes.
pub(super) struct Tags<'a> {
    bytes: &'a [u8],
    pub big_endian: bool,
    big: bool,
    entries: Vec<Entry>,
}

/// A tag's bytes, its type and the bytes of one value.
type Raw<'a> = (&'a [u8], u16, usize);

struct Entry {
    tag: u16,
    kind: u16,
    count: u64,
    /// Where the value, or its place, stands.
    at: usize,
}

/// Values of one tag at most: what more would take is no picture.
const MOST_VALUES: u64 = 1 << 24;

const SHORT: &str = "TIFF: the file ends early";

impl<'a> Tags<'a> {
    pub fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut tags = Self {
            bytes,
            big_endian: bytes.starts_with(b"MM"),
            big: false,
            entries: Vec::new(),
        };
        tags.big = tags.integer(2, 2)? == 43;
        let (count_size, word) = if tags.big { (8, 8) } else { (2, 4) };
        let start = tags.integer(if tags.big { 8 } else { 4 }, word)?;
        let start = usize::try_from(start).map_err(|_| SHORT)?;
        let count = tags.integer(start, count_size)?;
        let size = if tags.big { 20 } else { 12 };
        if count > 65_535 {
            return Err(format!("TIFF: its directory claims {count} entries"));
        }
        for i in 0..count as usize {
            let at = start.saturating_add(count_size + i * size);
            let entry = Entry {
                tag: tags.integer(at, 2)? as u16,
                kind: tags.integer(at + 2, 2)? as u16,
                count: tags.integer(at + 4, word)?,
                at: at + 4 + word,
            };
            tags.entries.push(entry);
        }
        Ok(tags)
    }

    /// The unsigned integer of `size` bytes at `at`.
    fn integer(&self, at: usize, size: usize) -> Result<u64, String> {
        let end = at.checked_add(size).ok_or(SHORT)?;
        let bytes = self.bytes.get(at..end).ok_or(SHORT)?;
        let add = |sum: u64, &byte: &u8| sum << 8 | u64::from(byte);
        Ok(if self.big_endian {
            bytes.iter().fold(0, add)
        } else {
            bytes.iter().rev().fold(0, add)
        })
    }

    /// The values of `tag` with the size of one, as bytes of the file.
    fn raw(&self, tag: u16) -> Result<Option<Raw<'a>>, String> {
        let Some(entry) = self.entries.iter().find(|e| e.tag == tag) else {
            return Ok(None);
        };
        let size = match entry.kind {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 11 | 13 => 4,
            5 | 10 | 12 | 16..=18 => 8,
            kind => return Err(format!("TIFF: tag {tag} has the unknown type {kind}")),
        };
        if entry.count > MOST_VALUES {
            return Err(format!("TIFF: tag {tag} claims {} values", entry.count));
        }
        let length = entry.count as usize * size;
        let word = if self.big { 8 } else { 4 };
        let at = if length <= word {
            entry.at
        } else {
            usize::try_from(self.integer(entry.at, word)?).map_err(|_| SHORT)?
        };
        let end = at.checked_add(length).ok_or(SHORT)?;
        let bytes = self.bytes.get(at..end).ok_or(SHORT)?;
        Ok(Some((bytes, entry.kind, size)))
    }

    /// The bytes of `tag`.
    pub fn bytes(&self, tag: u16) -> Result<Option<&'a [u8]>, String> {
        Ok(self.raw(tag)?.map(|(bytes, ..)| bytes))
    }

    /// The whole numbers of `tag`.
    pub fn numbers(&self, tag: u16) -> Result<Option<Vec<u64>>, String> {
        let Some((bytes, kind, size)) = self.raw(tag)? else {
            return Ok(None);
        };
        if matches!(kind, 2 | 5 | 10..=12) {
            return Err(format!("TIFF: tag {tag} is no whole number"));
        }
        let value = |b: &[u8]| {
            let add = |sum: u64, &byte: &u8| sum << 8 | u64::from(byte);
            if self.big_endian {
                b.iter().fold(0, add)
            } else {
                b.iter().rev().fold(0, add)
            }
        };
        Ok(Some(bytes.chunks_exact(size).map(value).collect()))
    }

    /// The fractions of `tag`.
    pub fn fractions(&self, tag: u16) -> Result<Option<Vec<f64>>, String> {
        match self.raw(tag)? {
            Some((bytes, 5, _)) => {
                let word = |b: &[u8]| {
                    let four = [b[0], b[1], b[2], b[3]];
                    f64::from(if self.big_endian {
                        u32::from_be_bytes(four)
                    } else {
                        u32::from_le_bytes(four)
                    })
                };
                let value = |b: &[u8]| word(&b[..4]) / word(&b[4..]);
                Ok(Some(bytes.chunks_exact(8).map(value).collect()))
            }
            Some(_) => {
                let whole = self.numbers(tag)?.unwrap_or_default();
                Ok(Some(whole.into_iter().map(|v| v as f64).collect()))
            }
            None => Ok(None),
        }
    }

    /// The one number of `tag`, or `default` where there is no such tag.
    pub fn number(&self, tag: u16, default: u64) -> Result<u64, String> {
        let values = self.numbers(tag)?;
        Ok(values.and_then(|v| v.first().copied()).unwrap_or(default))
    }

    /// The file's bytes from `at` on, `length` of them or as many as there are.
    pub fn slice(&self, at: u64, length: Option<u64>) -> &'a [u8] {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let rest = self.bytes.get(at..).unwrap_or(&[]);
        let length = length.map_or(rest.len(), |n| usize::try_from(n).unwrap_or(usize::MAX));
        &rest[..length.min(rest.len())]
    }
}
