//! The pages of a column.

use super::super::codec::{Compression, MAX_PAGE};
use super::super::files::Shard;
use super::Wrong;
use super::footer::{Chunk, Column};
use super::thrift::{Fault, Kind, Reader};
use super::values::hybrid;

/// The longest header of a page: least and greatest values of a column of pictures may stand in it.
const MAX_HEADER: usize = 64 << 20;

/// How values are written in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Plain,
    /// Places in the dictionary.
    Dictionary,
    /// Numbers as differences.
    Deltas,
    /// All lengths, as differences, and then all bytes.
    Lengths,
    Other(i64),
}

impl Encoding {
    fn of(number: i64) -> Self {
        match number {
            0 => Self::Plain,
            2 | 8 => Self::Dictionary,
            5 => Self::Deltas,
            6 => Self::Lengths,
            other => Self::Other(other),
        }
    }
}

impl std::fmt::Display for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain => f.write_str("PLAIN"),
            Self::Dictionary => f.write_str("RLE_DICTIONARY"),
            Self::Deltas => f.write_str("DELTA_BINARY_PACKED"),
            Self::Lengths => f.write_str("DELTA_LENGTH_BYTE_ARRAY"),
            Self::Other(3) => f.write_str("RLE"),
            Self::Other(7) => f.write_str("DELTA_BYTE_ARRAY"),
            Self::Other(9) => f.write_str("BYTE_STREAM_SPLIT"),
            Self::Other(n) => write!(f, "number {n}"),
        }
    }
}

/// A page's header.
#[derive(Clone, Debug, Default)]
struct Header {
    kind: i64,
    unpacked: i64,
    packed: i64,
    values: i64,
    encoding: i64,
    level_encoding: i64,
    /// Bytes of levels before the values, of pages of the second version.
    levels: [i64; 2],
    /// Whether a page of the second version is compressed.
    compressed: bool,
}

/// A page with values: where they stand in the file, and how.
#[derive(Debug)]
pub(super) struct Page {
    pub dictionary: bool,
    pub encoding: Encoding,
    pub compression: Compression,
    /// Values that are there.
    pub count: usize,
    /// The first value of the page that is missing.
    pub missing: Option<usize>,
    /// Where the compressed bytes begin in the file.
    pub offset: u64,
    /// Where the values begin in what they unpack to, and its bytes.
    pub start: u64,
    pub unpacked: u64,
}

/// The pages of a column's chunk, in their order.
pub(super) struct Pages<'a> {
    shard: &'a Shard,
    column: &'a Column,
    compression: Compression,
    at: u64,
    end: u64,
    /// Values to come.
    left: i64,
    /// Of the page read last: the compressed bytes, and what they unpack to. Empty where it is not compressed.
    pub packed: Vec<u8>,
    pub content: Vec<u8>,
}

impl<'a> Pages<'a> {
    /// Of this chunk.
    pub fn new(shard: &'a Shard, column: &'a Column, chunk: &Chunk) -> Result<Self, String> {
        let compression = match chunk.codec {
            0 => Compression::None,
            1 => Compression::Snappy,
            2 => Compression::Gzip,
            6 => Compression::Zstd,
            other => {
                let name = match other {
                    3 => "LZO",
                    4 => "Brotli",
                    5 | 7 => "LZ4",
                    _ => "an unknown codec",
                };
                return Err(format!(
                    "is compressed with {name}, which is not read; write it anew with snappy, zstd, gzip or none"
                ));
            }
        };
        // A dictionary stands before the pages that use it. Some writers say 0 where there is none.
        let first = match chunk.dictionary {
            Some(at) if at > 0 => at.min(chunk.first_page),
            _ => chunk.first_page,
        };
        let end = first
            .checked_add(chunk.bytes)
            .filter(|end| first > 0 && chunk.bytes >= 0 && *end as u64 <= shard.size());
        let Some(end) = end else {
            return Err("lies beyond the file's end: the file is truncated or damaged".into());
        };
        Ok(Self {
            shard,
            column,
            compression,
            at: first as u64,
            end: end as u64,
            left: chunk.values,
            packed: Vec::new(),
            content: Vec::new(),
        })
    }

    /// The next page with values or a dictionary.
    pub fn next_page(&mut self) -> Result<Option<Page>, Wrong> {
        while self.left > 0 {
            if self.at >= self.end {
                return Err("has fewer values than rows: the file is damaged"
                    .to_owned()
                    .into());
            }
            let header = self.header()?;
            let offset = self.at;
            let end = offset.checked_add(u64::try_from(header.packed).map_err(|_| damaged())?);
            self.at = end.filter(|end| *end <= self.end).ok_or_else(damaged)?;
            if !(0..=MAX_PAGE as i64).contains(&header.unpacked) {
                return Err(format!(
                    "has a page of {} bytes; pages of at most {MAX_PAGE} are read: write the file with smaller row groups",
                    header.unpacked
                )
                .into());
            }
            match header.kind {
                0 | 3 => {
                    if header.values > self.left {
                        return Err(damaged().into());
                    }
                    self.left -= header.values;
                    return self.data(&header, offset).map(Some);
                }
                2 => {
                    let mut page = self.page(&header, offset, 0)?;
                    page.dictionary = true;
                    return Ok(Some(page));
                }
                // Pages of an index, and what later versions may bring.
                _ => {}
            }
        }
        Ok(None)
    }

    fn header(&mut self) -> Result<Header, Wrong> {
        let mut bytes = Vec::new();
        let mut size = 1 << 10;
        loop {
            let most = size.min((self.end - self.at) as usize);
            self.shard.up_to(self.at, most, &mut bytes)?;
            let mut reader = Reader::new(&bytes);
            match Header::read(&mut reader) {
                Ok(header) => {
                    self.at += reader.at() as u64;
                    return Ok(header);
                }
                Err(Fault::Short) if most == size && size < MAX_HEADER => size *= 8,
                Err(_) => return Err(damaged().into()),
            }
        }
    }

    /// A page whose values begin after `before` bytes that are never compressed.
    fn page(&mut self, header: &Header, offset: u64, before: u64) -> Result<Page, Wrong> {
        let (packed, unpacked) = (header.packed as u64, header.unpacked as u64);
        let length = packed.checked_sub(before).ok_or_else(damaged)?;
        let unpacked = unpacked.checked_sub(before).ok_or_else(damaged)?;
        let compression = match header.compressed && length > 0 {
            true => self.compression,
            false => Compression::None,
        };
        self.packed.clear();
        self.content.clear();
        if compression == Compression::None {
            if length != unpacked {
                return Err(damaged().into());
            }
        } else {
            self.packed.resize(length as usize, 0);
            self.shard.read(offset + before, &mut self.packed)?;
            compression.unpack(&self.packed, unpacked as usize, &mut self.content)?;
        }
        Ok(Page {
            dictionary: false,
            encoding: Encoding::of(header.encoding),
            compression,
            count: usize::try_from(header.values).map_err(|_| damaged())?,
            missing: None,
            offset: offset + before,
            start: 0,
            unpacked,
        })
    }

    fn data(&mut self, header: &Header, offset: u64) -> Result<Page, Wrong> {
        let optional = self.column.optional;
        if header.kind == 3 {
            let [repeated, missing] = header.levels.map(|n| u64::try_from(n).unwrap_or(u64::MAX));
            let before = repeated
                .checked_add(missing)
                .filter(|n| *n <= header.packed as u64);
            let before = before.ok_or_else(damaged)?;
            let mut page = self.page(header, offset, before)?;
            let mut levels = vec![0; missing as usize];
            self.shard.read(offset + repeated, &mut levels)?;
            page.look_for_missing(&levels, optional)?;
            return Ok(page);
        }
        let mut page = self.page(header, offset, 0)?;
        if optional == 0 {
            return Ok(page);
        }
        if header.level_encoding != 3 {
            return Err(
                "has levels of an old kind (BIT_PACKED), which is not read; write it anew"
                    .to_owned()
                    .into(),
            );
        }
        let mut length = [0; 4];
        self.piece(&page, 0, &mut length)?;
        let length = u64::from(u32::from_le_bytes(length));
        if length > page.unpacked.saturating_sub(4) {
            return Err(damaged().into());
        }
        let mut levels = vec![0; length as usize];
        self.piece(&page, 4, &mut levels)?;
        page.start = 4 + length;
        page.look_for_missing(&levels, optional)?;
        Ok(page)
    }

    /// Fills `bytes` with what stands from `at` on in what the page read last unpacks to.
    pub fn piece(&self, page: &Page, at: u64, bytes: &mut [u8]) -> Result<(), Wrong> {
        let end = at
            .checked_add(bytes.len() as u64)
            .filter(|end| *end <= page.unpacked);
        let end = end.ok_or_else(damaged)?;
        match page.compression {
            Compression::None => self.shard.read(page.offset + at, bytes)?,
            _ => bytes.copy_from_slice(&self.content[at as usize..end as usize]),
        }
        Ok(())
    }

    /// All bytes of values of the page read last.
    pub fn values(&self, page: &Page) -> Result<Vec<u8>, Wrong> {
        let mut bytes =
            vec![0; page.unpacked.checked_sub(page.start).ok_or_else(damaged)? as usize];
        self.piece(page, page.start, &mut bytes)?;
        Ok(bytes)
    }
}

pub(super) fn damaged() -> String {
    "has a damaged page".into()
}

impl Page {
    /// Finds the first value that is missing by its level: one is there where its level is the highest.
    fn look_for_missing(&mut self, levels: &[u8], optional: u32) -> Result<(), String> {
        if optional > 0 {
            let levels = hybrid(levels, 32 - optional.leading_zeros(), self.count)?;
            self.missing = levels.iter().position(|level| *level != optional);
        }
        Ok(())
    }
}

impl Header {
    fn read(r: &mut Reader<'_>) -> Result<Self, Fault> {
        let mut header = Self {
            level_encoding: 3,
            compressed: true,
            ..Self::default()
        };
        r.fields(|r, id, kind| {
            match (id, kind) {
                (1, Kind::Integer) => header.kind = r.integer()?,
                (2, Kind::Integer) => header.unpacked = r.integer()?,
                (3, Kind::Integer) => header.packed = r.integer()?,
                (5 | 7, Kind::Struct) => r.fields(|r, id, kind| {
                    match (id, kind) {
                        (1, Kind::Integer) => header.values = r.integer()?,
                        (2, Kind::Integer) => header.encoding = r.integer()?,
                        (3, Kind::Integer) => header.level_encoding = r.integer()?,
                        _ => return Ok(false),
                    }
                    Ok(true)
                })?,
                (8, Kind::Struct) => r.fields(|r, id, kind| {
                    match (id, kind) {
                        (1, Kind::Integer) => header.values = r.integer()?,
                        (4, Kind::Integer) => header.encoding = r.integer()?,
                        (5, Kind::Integer) => header.levels[1] = r.integer()?,
                        (6, Kind::Integer) => header.levels[0] = r.integer()?,
                        (7, Kind::Bool(is)) => {
                            header.compressed = is;
                            return Ok(true);
                        }
                        _ => return Ok(false),
                    }
                    Ok(true)
                })?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(header)
    }
}
