//! From a file to 8-bit RGB pixels.
//!
//! What comes out is what the reference's loader (Pillow's `convert("RGB")`) sees: alpha is dropped without
//! compositing, palette colours are looked up (a transparent colour keeps its RGB), gray is repeated, CMYK JPEG
//! is read as Adobe writes it (inverted), and the EXIF orientation is not applied. Of 16-bit samples the high
//! byte is taken. The format is told from the content; the file's extension does not matter.

mod jpeg;
mod raster;

use std::fmt::Display;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::RgbImage8;
use crate::{Error, Result};

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
    pub(super) bytes: Vec<u8>,
}

/// Reads and decodes `path` into `buffers.image`.
///
/// # Errors
/// [`Error::Io`] where the file can't be read; [`Error::Input`] that names the file where it can't be decoded:
/// not a known format, damaged, truncated, or beyond [`MAX_PIXELS`] or [`MAX_FILE_BYTES`].
pub fn decode_file(path: &Path, buffers: &mut LoadBuffers) -> Result<()> {
    let mut file = std::fs::File::open(path).map_err(Error::io(path))?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    if length > MAX_FILE_BYTES {
        return Err(Error::input(format!(
            "{}: the file has {length} bytes; images of at most {MAX_FILE_BYTES} bytes are read",
            path.display()
        )));
    }
    buffers.bytes.clear();
    buffers.bytes.shrink_to(8 << 20);
    buffers.bytes.reserve(length as usize + 1);
    // Limited once more: a pipe or a growing file reports no honest length.
    (&mut file)
        .take(MAX_FILE_BYTES)
        .read_to_end(&mut buffers.bytes)
        .map_err(Error::io(path))?;
    decode_bytes(&buffers.bytes, &path.display(), &mut buffers.image)
}

/// Decodes the content of an image file into `image`. `name` stands in messages.
///
/// # Errors
/// As [`decode_file`].
pub fn decode_bytes(bytes: &[u8], name: &dyn Display, image: &mut RgbImage8) -> Result<()> {
    let is_jpeg = bytes.starts_with(&[0xff, 0xd8]);
    // The decoders are other people's code: should one panic on a hostile file, the run must go on.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        if is_jpeg {
            jpeg::decode(bytes, image)
        } else {
            raster::decode(bytes, image)
        }
    }))
    .unwrap_or_else(|_| Err("the decoder gave up on its content".to_owned()));
    outcome.map_err(|cause| {
        // What was half written must not be taken for a picture.
        *image = RgbImage8::default();
        let cause = cause.split_whitespace().collect::<Vec<_>>().join(" ");
        Error::input(format!(
            "{name}: can't be decoded: {cause}; replace or remove the file"
        ))
    })
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
