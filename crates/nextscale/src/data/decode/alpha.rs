//! The alpha channel of a picture, which images do not have but masks may.

use std::io::BufReader;
use std::path::Path;

use image::{ColorType, DynamicImage, ImageDecoder, ImageReader};

use super::check_size;
use crate::data::RgbImage8;
use crate::input::open_input;
use crate::{Error, Result};

/// The alpha channel of a PNG or WebP file as gray; `None` where it has none, or is of another format.
///
/// # Errors
/// Where the file can't be read.
pub fn alpha_of(path: &Path) -> Result<Option<RgbImage8>> {
    let (file, _) = open_input(path)?;
    let reader = ImageReader::new(BufReader::new(file))
        .with_guessed_format()
        .map_err(Error::io(path))?;
    let Ok(decoder) = reader.into_decoder() else {
        return Ok(None);
    };
    let (width, height) = decoder.dimensions();
    let small = check_size(u64::from(width), u64::from(height)).is_ok();
    let has_alpha = matches!(
        decoder.color_type(),
        ColorType::La8 | ColorType::Rgba8 | ColorType::La16 | ColorType::Rgba16
    );
    if !small || !has_alpha {
        return Ok(None);
    }
    let image = DynamicImage::from_decoder(decoder)
        .map_err(|e| Error::input(format!("{}: can't be decoded: {e}", path.display())))?;
    let gray = image
        .into_rgba8()
        .pixels()
        .flat_map(|p| [p.0[3]; 3])
        .collect();
    RgbImage8::new(width as usize, height as usize, gray).map(Some)
}
