//! JPEG of every usual kind; see [`nextscale_jpeg`].

pub(super) use nextscale_jpeg::Colors;

use super::check_size;
use crate::data::RgbImage8;

/// Decodes into `image`; the text of an error says what is wrong with the file.
pub(super) fn decode(bytes: &[u8], image: &mut RgbImage8) -> Result<(), String> {
    decode_as(Colors::Marked, bytes, image)
}

/// The same where something else than the file's markers says what its components are.
pub(super) fn decode_as(colors: Colors, bytes: &[u8], image: &mut RgbImage8) -> Result<(), String> {
    nextscale_jpeg::decode(bytes, colors, |width, height| {
        check_size(width as u64, height as u64)?;
        Ok(image.reset(width, height))
    })
}
