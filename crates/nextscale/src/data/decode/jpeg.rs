//! JPEG of every usual kind; see [`nextscale_jpeg`].

use nextscale_jpeg::Colors;

use super::check_size;
use crate::data::RgbImage8;

/// Decodes into `image`; the text of an error says what is wrong with the file.
pub(super) fn decode(bytes: &[u8], image: &mut RgbImage8) -> Result<(), String> {
    nextscale_jpeg::decode(bytes, Colors::Marked, |width, height| {
        check_size(width as u64, height as u64)?;
        Ok(image.reset(width, height))
    })
}
