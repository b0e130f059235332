//! Parquet files as the Hugging Face hub has image sets: a column of pictures as files, and one of labels.
//!
//! What is read here is where pictures lie; they are never decoded together with a whole group of rows. Where pages are not compressed the
//! index points at the picture itself, else at a part of its page that can be unpacked alone (`codec.rs`). Crates that read Parquet hand
//! out whole pages, and their places to nobody, so the few structures that lead there are read here.

mod columns;
mod footer;
mod pages;
#[cfg(test)]
mod tests;
mod thrift;
mod values;

use super::build::{Found, Label, Labels, ShardContent, in_range};
use super::codec::{Codec, Compression, Piece, Place};
use super::entry::Entry;
use super::files::Shard;
use crate::data::MAX_FILE_BYTES;
use crate::{Error, Result};
use columns::Columns;
use footer::{Chunk, Column, Footer, Physical};
use pages::{Encoding, Page, Pages, damaged};
use thrift::Fault;
use values::{deltas, hybrid, plain_numbers};

/// The longest footer.
const MAX_FOOTER: u64 = 256 << 20;

/// Rows of a file at most.
const MAX_ROWS: i64 = 1 << 24;

/// Indexes a Parquet file.
///
/// # Errors
/// One line that names the file, and the row where one is at fault.
pub(super) fn index(shard: &Shard) -> Result<ShardContent> {
    let footer = footer_of(shard)?;
    let rows: i64 = footer
        .groups
        .iter()
        .map(|group| group.rows.max(0))
        .fold(0, i64::saturating_add);
    if rows != footer.rows || rows > MAX_ROWS {
        return Err(match rows > MAX_ROWS {
            true => shard.bad(format!(
                "it has {rows} rows; files of at most {MAX_ROWS} are read"
            )),
            false => shard.bad("it is damaged: its groups have other rows than the whole"),
        });
    }
    let columns = Columns::of(&footer).map_err(|what| shard.bad(what))?;
    let mut found = Found::default();
    let mut first = 0;
    for group in &footer.groups {
        let rows = group.rows.max(0) as usize;
        let chunk = |place: usize| (&footer.columns[place], &group.chunks[place]);
        let (column, labels) = chunk(columns.label);
        let labels =
            numbers(shard, column, labels, rows, first).map_err(|wrong| wrong.of(shard, column))?;
        let (column, images) = chunk(columns.image);
        let places = pictures(shard, column, images, rows, first)
            .map_err(|wrong| wrong.of(shard, column))?;
        for (row, (entry, label)) in places.into_iter().zip(labels).enumerate() {
            let at = |what: String| row_error(shard, first + row, what);
            let label = in_range(label).map_err(at)?;
            if let Some(names) = &columns.names
                && label as usize >= names.len()
            {
                return Err(at(format!(
                    "has label {label}, and the file names {} classes",
                    names.len()
                )));
            }
            found.add(entry, Label::Number(label.into())).map_err(at)?;
        }
        first += rows;
    }
    Ok(ShardContent {
        labels: Labels::Numbers(columns.names),
        ..found.finish()
    })
}

/// Why a column can't be read.
enum Wrong {
    /// Its content: what completes a sentence that begins with the column.
    Content(String),
    /// All is said.
    Other(Error),
}

impl From<String> for Wrong {
    fn from(what: String) -> Self {
        Self::Content(what)
    }
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl Wrong {
    fn of(self, shard: &Shard, column: &Column) -> Error {
        match self {
            Self::Content(what) => shard.bad(format!("column {:?} {what}", column.path.join("."))),
            Self::Other(error) => error,
        }
    }
}

/// Bad input: the file, the row, and what is wrong with it.
fn row_error(shard: &Shard, row: usize, what: impl std::fmt::Display) -> Error {
    Error::input(format!("{}:row {row}: {what}", shard.path().display()))
}

fn footer_of(shard: &Shard) -> Result<Footer> {
    let mut ends = [[0; 4]; 2];
    if shard.size() < 12 {
        return Err(shard.bad("it is truncated: it is too short for a Parquet file"));
    }
    shard.read(0, &mut ends[0])?;
    let mut tail = [0; 8];
    shard.read(shard.size() - 8, &mut tail)?;
    ends[1].copy_from_slice(&tail[4..]);
    match ends {
        [[b'P', b'A', b'R', b'1'], [b'P', b'A', b'R', b'1']] => {}
        [_, [b'P', b'A', b'R', b'E']] => {
            return Err(shard.bad("it is encrypted, which is not read"));
        }
        [[b'P', b'A', b'R', b'1'], _] => {
            return Err(
                shard.bad("it is truncated: a Parquet file ends with PAR1, and this one does not")
            );
        }
        _ if ends[0].starts_with(b"vers") => {
            return Err(shard.bad(
                "it is the pointer of a file in Git LFS; fetch the file itself (git lfs pull)",
            ));
        }
        _ => return Err(shard.bad("it is no Parquet file")),
    }
    let length = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
    if length > MAX_FOOTER || length + 12 > shard.size() {
        return Err(shard.bad("it is damaged: its footer can't be as long as it says"));
    }
    let mut bytes = vec![0; length as usize];
    shard.read(shard.size() - 8 - length, &mut bytes)?;
    Footer::read(&bytes).map_err(|fault| match fault {
        Fault::Short | Fault::Damaged => shard.bad("it is damaged: its footer can't be read"),
    })
}

fn pages<'a>(
    shard: &'a Shard,
    column: &'a Column,
    chunk: &Chunk,
    rows: usize,
) -> Result<Pages<'a>, Wrong> {
    if chunk.elsewhere || !chunk.described {
        return Err("is encrypted or in another file, which is not read"
            .to_owned()
            .into());
    }
    if chunk.values != rows as i64 {
        return Err(format!("has {} values for {rows} rows", chunk.values).into());
    }
    Ok(Pages::new(shard, column, chunk)?)
}

/// The numbers of a column's chunk, whose first row has number `first`.
fn numbers(
    shard: &Shard,
    column: &Column,
    chunk: &Chunk,
    rows: usize,
    first: usize,
) -> Result<Vec<i64>, Wrong> {
    let size = if column.kind == Physical::Int32 { 4 } else { 8 };
    let mut pages = pages(shard, column, chunk, rows)?;
    let mut dictionary = Vec::new();
    let mut found = Vec::new();
    while let Some(page) = pages.next_page()? {
        let bytes = pages.values(&page)?;
        if page.dictionary {
            dictionary = plain_numbers(&bytes, size, page.count)?;
            continue;
        }
        missing(shard, &page, first + found.len(), "has no label")?;
        match page.encoding {
            Encoding::Plain => found.extend(plain_numbers(&bytes, size, page.count)?),
            Encoding::Deltas => found.extend(deltas(&bytes, page.count)?.0),
            Encoding::Dictionary => {
                for place in places(&bytes, page.count)? {
                    found.push(*dictionary.get(place as usize).ok_or_else(damaged)?);
                }
            }
            other => return Err(not_read(other).into()),
        }
    }
    match found.len() == rows {
        true => Ok(found),
        false => Err(damaged().into()),
    }
}

fn not_read(encoding: Encoding) -> String {
    format!(
        "is encoded as {encoding}, which is not read for it; write it anew with the usual encodings"
    )
}

fn missing(shard: &Shard, page: &Page, first: usize, what: &str) -> Result<(), Wrong> {
    match page.missing {
        Some(row) => Err(row_error(shard, first + row, what).into()),
        None => Ok(()),
    }
}

/// Places in a dictionary.
fn places(bytes: &[u8], count: usize) -> Result<Vec<u32>, String> {
    match bytes.split_first() {
        Some((width, rest)) => hybrid(rest, u32::from(*width), count),
        None if count == 0 => Ok(Vec::new()),
        None => Err(damaged()),
    }
}

/// Where the pictures of a column's chunk lie.
fn pictures(
    shard: &Shard,
    column: &Column,
    chunk: &Chunk,
    rows: usize,
    first: usize,
) -> Result<Vec<Entry>, Wrong> {
    let mut pages = pages(shard, column, chunk, rows)?;
    let mut dictionary: Vec<Entry> = Vec::new();
    let mut found: Vec<Entry> = Vec::new();
    while let Some(page) = pages.next_page()? {
        if !page.dictionary {
            missing(
                shard,
                &page,
                first + found.len(),
                "has no picture (its bytes are missing)",
            )?;
        }
        if !page.dictionary && page.encoding == Encoding::Dictionary {
            let bytes = pages.values(&page)?;
            for place in places(&bytes, page.count)? {
                found.push(*dictionary.get(place as usize).ok_or_else(damaged)?);
            }
            continue;
        }
        let pieces = match page.encoding {
            Encoding::Plain => plain_pieces(&pages, &page),
            // Older writers name a dictionary's own encoding so.
            Encoding::Dictionary if page.dictionary => plain_pieces(&pages, &page),
            Encoding::Lengths => length_pieces(&pages, &page),
            other => return Err(not_read(other).into()),
        };
        let entries = entries(&pages, &page, &pieces?)?;
        match page.dictionary {
            true => dictionary = entries,
            false => found.extend(entries),
        }
    }
    if found.len() != rows {
        return Err(damaged().into());
    }
    for (row, entry) in found.iter().enumerate() {
        let length = u64::from(entry.length);
        if length == 0 {
            return Err(row_error(shard, first + row, "has an empty picture").into());
        }
        if length > MAX_FILE_BYTES {
            let text = format!(
                "has a picture of {length} bytes; images of at most {MAX_FILE_BYTES} bytes are read"
            );
            return Err(row_error(shard, first + row, text).into());
        }
    }
    Ok(found)
}

/// Values that each follow their length.
fn plain_pieces(pages: &Pages<'_>, page: &Page) -> Result<Vec<Piece>, Wrong> {
    let mut pieces = Vec::new();
    let mut at = page.start;
    for _ in 0..page.count {
        let mut length = [0; 4];
        pages.piece(page, at, &mut length)?;
        let length = u32::from_le_bytes(length);
        pieces.push((at + 4, length));
        at += 4 + u64::from(length);
    }
    match at <= page.unpacked {
        true => Ok(pieces),
        false => Err(damaged().into()),
    }
}

/// Values after all their lengths.
fn length_pieces(pages: &Pages<'_>, page: &Page) -> Result<Vec<Piece>, Wrong> {
    let bytes = pages.values(page)?;
    let (lengths, rest) = deltas(&bytes, page.count)?;
    let mut at = page.unpacked - rest.len() as u64;
    let mut pieces = Vec::with_capacity(lengths.len());
    for length in lengths {
        let length = u32::try_from(length).map_err(|_| damaged())?;
        pieces.push((at, length));
        at += u64::from(length);
    }
    match at <= page.unpacked {
        true => Ok(pieces),
        false => Err(damaged().into()),
    }
}

fn entries(pages: &Pages<'_>, page: &Page, pieces: &[Piece]) -> Result<Vec<Entry>, String> {
    let entry = |&(_, length): &Piece, place: Place| Entry {
        codec: place.codec,
        offset: page.offset + place.from,
        stored: place.stored,
        skip: place.skip,
        length,
        label: 0,
    };
    if page.compression == Compression::None {
        let here = |piece: &Piece| {
            let place = Place {
                codec: Codec::Stored,
                from: piece.0,
                stored: piece.1,
                skip: 0,
            };
            entry(piece, place)
        };
        return Ok(pieces.iter().map(here).collect());
    }
    let places = page
        .compression
        .place(&pages.packed, &pages.content, pieces)?;
    Ok(pieces
        .iter()
        .zip(places)
        .map(|(piece, place)| entry(piece, place))
        .collect())
}
