//! Every format but JPEG: PNG, GIF (first frame), BMP, TIFF, WebP and PNM.

use std::io::Cursor;

use image::{ColorType, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::{MAX_PIXELS, check_size};
use crate::data::RgbImage8;

/// Decodes into `image`; the text of an error says what is wrong with the file.
pub(super) fn decode(bytes: &[u8], image: &mut RgbImage8) -> Result<(), String> {
    let format = image::guess_format(bytes)
        .map_err(|_| "its content is none of JPEG, PNG, WebP, GIF, BMP, TIFF and PNM".to_owned())?;
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    // Room for the decoder's own tables and for 16-bit RGBA of the largest picture.
    limits.max_alloc = Some(MAX_PIXELS * 8 + (64 << 20));
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|e| describe(format, &e))?;
    let (width, height) = decoder.dimensions();
    check_size(u64::from(width), u64::from(height))?;
    let (width, height) = (width as usize, height as usize);
    let color = decoder.color_type();
    if color == ColorType::Rgb8 {
        let pixels = image.reset(width, height);
        return decoder.read_image(pixels).map_err(|e| describe(format, &e));
    }
    // The samples that make red, green and blue out of one stored pixel.
    let (channels, wide) = match color {
        ColorType::L8 => (1, false),
        ColorType::La8 => (2, false),
        ColorType::Rgba8 => (4, false),
        ColorType::L16 => (1, true),
        ColorType::La16 => (2, true),
        ColorType::Rgb16 => (3, true),
        ColorType::Rgba16 => (4, true),
        other => {
            return Err(format!(
                "its pixels are stored as {other:?}; 8-bit and 16-bit integer pixels are read"
            ));
        }
    };
    let size = usize::try_from(decoder.total_bytes()).map_err(|e| e.to_string())?;
    let mut samples = vec![0; size];
    decoder
        .read_image(&mut samples)
        .map_err(|e| describe(format, &e))?;
    if wide {
        for i in 0..size / 2 {
            let sample = u16::from_ne_bytes([samples[2 * i], samples[2 * i + 1]]);
            samples[i] = (sample >> 8) as u8;
        }
    }
    let pixels = image.reset(width, height);
    let colored = channels >= 3;
    for (rgb, stored) in pixels
        .chunks_exact_mut(3)
        .zip(samples.chunks_exact(channels))
    {
        if colored {
            rgb.copy_from_slice(&stored[..3]);
        } else {
            rgb.fill(stored[0]);
        }
    }
    Ok(())
}

fn describe(format: ImageFormat, error: &ImageError) -> String {
    format!("{format:?}: {error}")
}
