//! What is done to a picture once it is decoded: transparent parts are laid over a colour, a square is set around it.

use std::io::Cursor;

use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::{ColorType, ImageDecoder};

use super::room::Room;
use super::{MAX_PIXELS, check_size, png};
use crate::data::RgbImage8;

/// What is done; nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::data) struct Finish {
    /// The colour behind transparent parts; without it transparency is left away.
    pub over: Option<[u8; 3]>,
    /// The colour of what is set around a picture that is no square.
    pub around: Option<[u8; 3]>,
}

/// Lays the decoded picture of a PNG or WebP file over a colour; whether any of it was transparent.
pub(super) fn lay_over(
    bytes: &[u8],
    color: [u8; 3],
    image: &mut RgbImage8,
    room: &mut Room,
) -> Result<bool, String> {
    let read = match bytes {
        [0x89, b'P', b'N', b'G', ..] => {
            let whole = png::ended(bytes);
            let decoder = PngDecoder::new(Cursor::new(&*whole)).map_err(|e| e.to_string())?;
            alpha(decoder, 0, image, room)?
        }
        [b'R', b'I', b'F', b'F', ..] => {
            let decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(|e| e.to_string())?;
            alpha(decoder, 7, image, room)?
        }
        _ => None,
    };
    let Some((samples, step, is_wide)) = read else {
        return Ok(false);
    };
    let (width, height) = (image.width(), image.height());
    let mut all = image.take();
    let mut is_transparent = false;
    for (rgb, sample) in all.chunks_exact_mut(3).zip(samples.chunks_exact(step)) {
        // Of 16 bits the high byte, as everywhere.
        let a = match is_wide {
            true => u32::from(u16::from_ne_bytes([sample[step - 2], sample[step - 1]]) >> 8),
            false => u32::from(sample[step - 1]),
        };
        if a == 255 {
            continue;
        }
        is_transparent = true;
        for (value, below) in rgb.iter_mut().zip(color) {
            let sum = u32::from(*value) * a + u32::from(below) * (255 - a);
            *value = ((sum + 127) / 255) as u8;
        }
    }
    *image = RgbImage8::new(width, height, all).map_err(|e| e.to_string())?;
    Ok(is_transparent)
}

/// The samples of a file that has alpha, how many bytes a pixel takes of them, and whether they have 16 bits; alpha comes last. The decoder
/// keeps `each` bytes a pixel.
fn alpha(
    decoder: impl ImageDecoder,
    each: u64,
    image: &RgbImage8,
    room: &mut Room,
) -> Result<Option<(Vec<u8>, usize, bool)>, String> {
    let (step, is_wide) = match decoder.color_type() {
        ColorType::La8 => (2, false),
        ColorType::Rgba8 => (4, false),
        ColorType::La16 => (4, true),
        ColorType::Rgba16 => (8, true),
        _ => return Ok(None),
    };
    let (width, height) = decoder.dimensions();
    if (width as usize, height as usize) != (image.width(), image.height()) {
        return Ok(None);
    }
    let pixels = u64::from(width) * u64::from(height);
    // Beside the picture: these samples, and what the decoder keeps of all and of some rows.
    let rows = 8 * u64::from(width) * step as u64;
    room.claim(pixels * (3 + step as u64 + each) + rows)?;
    let mut samples = vec![0; pixels as usize * step];
    decoder
        .read_image(&mut samples)
        .map_err(|e| e.to_string())?;
    Ok(Some((samples, step, is_wide)))
}

/// Sets a picture into the middle of a square.
pub(super) fn set_in_square(
    color: [u8; 3],
    image: &mut RgbImage8,
    room: &mut Room,
) -> Result<(), String> {
    let (width, height) = (image.width(), image.height());
    let side = width.max(height);
    if width == height {
        return Ok(());
    }
    check_size(side as u64, side as u64)
        .map_err(|_| format!("a square around its {width}x{height} pixels would have more than {MAX_PIXELS}; cut the picture, or use `aspect`=crop"))?;
    room.claim(3 * (side * side + width * height) as u64)?;
    *image = image.in_square(color).map_err(|e| e.to_string())?;
    Ok(())
}
