//! From a file to 8-bit RGB pixels.
//!
//! What comes out is what the reference's loader (Pillow's `convert("RGB")`) sees: alpha is dropped without
//! compositing, palette colours are looked up (a transparent colour keeps its RGB), gray is repeated, CMYK JPEG
//! is read as Adobe writes it (inverted), and the orientation tag is applied to TIFF alone. Of 16-bit samples the
//! high byte is taken. The format is told from the content; the file's extension does not matter.

mod alpha;
mod bmp;
mod finish;
mod gif;
mod jpeg;
mod png;
mod pnm;
mod quiet;
mod room;
mod rows;
mod tiff;
mod webp;

pub use alpha::alpha_of;
pub(super) use finish::Finish;

use std::fmt::Display;
use std::io::{Read, Seek};
use std::ops::Range;
use std::path::Path;

use super::RgbImage8;
use crate::input::open_input;
use crate::{Error, Result};
use room::Room;

/// The most pixels that an image may have (the limit at which Pillow refuses, about 13,377 × 13,377). A file
/// that claims more is refused before memory is taken.
pub const MAX_PIXELS: u64 = 178_956_970;

/// The longest file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 30;

/// What a loading thread keeps from one file to the next, so that it does not allocate for each.
#[derive(Debug, Default)]
pub struct LoadBuffers {
    /// The picture loaded last.
    pub image: RgbImage8,
    /// Whether it had transparent parts that were laid over a colour ([`Canvas`](super::Canvas)).
    pub is_transparent: bool,
    pub(super) finish: Finish,
    pub(super) bytes: Vec<u8>,
    /// The picture's share of what large ones may take.
    room: Room,
}

impl LoadBuffers {
    /// Gives back what a large picture took. A thread that is done with one calls this before it waits for anything, as
    /// others may wait for the memory.
    pub fn let_go(&mut self) {
        self.image.shrink();
        self.bytes.clear();
        self.bytes.shrink_to(8 << 20);
        self.room.release();
    }
}

/// Reads and decodes `path` into `buffers.image`.
///
/// # Errors
/// [`Error::Io`] where the file can't be read; [`Error::Input`] that names the file where it can't be decoded:
/// not a known format, damaged, truncated, or beyond [`MAX_PIXELS`] or [`MAX_FILE_BYTES`].
pub fn decode_file(path: &Path, buffers: &mut LoadBuffers) -> Result<()> {
    // Nothing is kept while a disk that is slow to answer is waited for.
    buffers.let_go();
    let (mut file, length) = open_input(path)?;
    if length > MAX_FILE_BYTES {
        return Err(Error::input(format!(
            "{}: the file has {length} bytes; images of at most {MAX_FILE_BYTES} bytes are read",
            path.display()
        )));
    }
    decode_read(&path.display(), length, buffers, |bytes| {
        file.rewind().map_err(Error::io(path))?;
        bytes.reserve(length as usize + 1);
        // Limited once more: a file that grows, or tells no length, was not paid for.
        let mut rest = (&mut file).take(length.max(8 << 20));
        rest.read_to_end(bytes).map_err(Error::io(path))?;
        Ok(0..bytes.len())
    })
}

/// Decodes what `read` puts into the bytes that it is given, from where it says, into `buffers.image`. Reading takes `length` bytes. It is
/// done again where decoding had to wait for memory. `name` stands in messages.
///
/// # Errors
/// As [`decode_file`], and those of `read`.
pub(super) fn decode_read(
    name: &dyn Display,
    length: u64,
    buffers: &mut LoadBuffers,
    mut read: impl FnMut(&mut Vec<u8>) -> Result<Range<usize>>,
) -> Result<()> {
    buffers.let_go();
    buffers.room.claim_file(length);
    loop {
        buffers.bytes.clear();
        let file = match read(&mut buffers.bytes) {
            Ok(file) => file,
            Err(error) => {
                buffers.let_go();
                return Err(error);
            }
        };
        let LoadBuffers {
            image,
            is_transparent,
            finish,
            bytes,
            room,
        } = buffers;
        let outcome = decode_into(&bytes[file], *finish, name, image, room);
        *is_transparent = matches!(outcome, Ok(true));
        if room.wanted().is_some() {
            // Nothing is kept while others need the memory.
            *bytes = Vec::new();
            *image = RgbImage8::default();
            room.waited();
            continue;
        }
        if outcome.is_err() {
            buffers.let_go();
        }
        return outcome.map(drop);
    }
}

/// Decodes the content of an image file into `image`. `name` stands in messages.
///
/// # Errors
/// As [`decode_file`].
pub fn decode_bytes(bytes: &[u8], name: &dyn Display, image: &mut RgbImage8) -> Result<()> {
    decode_within(u64::MAX, bytes, name, image)
}

/// [`decode_bytes`] for pictures from strangers: one is refused, before memory is taken, where decoding it would take more than
/// `most` bytes (its pixels and what the decoder keeps beside them, without the file itself).
///
/// # Errors
/// As [`decode_file`].
pub fn decode_within(
    most: u64,
    bytes: &[u8],
    name: &dyn Display,
    image: &mut RgbImage8,
) -> Result<()> {
    let mut room = Room::within(most);
    loop {
        let outcome = decode_into(bytes, Finish::default(), name, image, &mut room);
        if !room.waited() {
            return outcome.map(drop);
        }
    }
}

/// Decodes and finishes; whether transparent parts were laid over a colour.
fn decode_into(
    bytes: &[u8],
    finish: Finish,
    name: &dyn Display,
    image: &mut RgbImage8,
    room: &mut Room,
) -> Result<bool> {
    // The decoders are other people's code: should one panic on a hostile file, the run must go on.
    let outcome = quiet::caught(|| {
        let in_palette = decode_as(bytes, finish, image, room)?;
        let over = match finish.over {
            Some(color) => finish::lay_over(bytes, color, image, room)?,
            None => false,
        };
        if let Some(color) = finish.around {
            finish::set_in_square(color, image, room)?;
        }
        Ok(in_palette || over)
    })
    .unwrap_or_else(|| Err("the decoder gave up on its content".to_owned()));
    outcome.map_err(|cause| {
        // What was half written must not be taken for a picture.
        *image = RgbImage8::default();
        let cause = cause.split_whitespace().collect::<Vec<_>>().join(" ");
        Error::input(format!(
            "{name}: can't be decoded: {cause}; replace or remove the file"
        ))
    })
}

/// Decodes by the format that the content begins with; whether transparent parts were laid over a colour already.
fn decode_as(
    bytes: &[u8],
    finish: Finish,
    image: &mut RgbImage8,
    room: &mut Room,
) -> Result<bool, String> {
    match bytes {
        [b'G', b'I', b'F', b'8', ..] => return gif::decode(bytes, finish.over, image, room),
        [0xff, 0xd8, ..] => jpeg::decode(bytes, image, room),
        [0x89, b'P', b'N', b'G', ..] => png::decode(bytes, image, room),
        [b'B', b'M', ..] => bmp::decode(bytes, image, room),
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => {
            tiff::decode(bytes, image, room)
        }
        [
            b'R',
            b'I',
            b'F',
            b'F',
            _,
            _,
            _,
            _,
            b'W',
            b'E',
            b'B',
            b'P',
            ..,
        ] => webp::decode(bytes, image, room),
        [b'P', b'1'..=b'6', ..] => pnm::decode(bytes, image, room),
        [b'P', b'f', ..] => pnm::decode_floats(bytes, image, room),
        _ => Err("its content is none of JPEG, PNG, WebP, GIF, BMP, TIFF and PNM".to_owned()),
    }?;
    Ok(false)
}

/// Refuses an empty picture and one that needs too much memory.
fn check_size(width: u64, height: u64) -> Result<(), String> {
    if width == 0 || height == 0 {
        return Err(format!("it has {width}x{height} pixels"));
    }
    match width.checked_mul(height) {
        Some(pixels) if pixels <= MAX_PIXELS => Ok(()),
        _ => Err(format!(
            "it has {width}x{height} pixels, more than the limit of {MAX_PIXELS}"
        )),
    }
}

#[cfg(test)]
mod tests;
