//! WebP: the first frame.

use std::io::Cursor;

use image::codecs::webp::WebPDecoder;
use image::{ColorType, ImageDecoder, ImageError, Limits};

use super::room::Room;
use super::{MAX_PIXELS, check_size};
use crate::data::RgbImage8;

/// Decodes into `image`; the text of an error says what is wrong with the file.
pub(super) fn decode(bytes: &[u8], image: &mut RgbImage8, room: &mut Room) -> Result<(), String> {
    let describe = |e: ImageError| format!("WebP: {e}");
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(describe)?;
    let (width, height) = decoder.dimensions();
    check_size(u64::from(width), u64::from(height))?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_PIXELS * 8 + (64 << 20));
    decoder.set_limits(limits).map_err(describe)?;
    let (width, height) = (width as usize, height as usize);
    // The decoder keeps a copy of its own beside what it hands out.
    room.claim((width * height * 11) as u64);
    if decoder.color_type() == ColorType::Rgb8 {
        let pixels = image.reset(width, height);
        return decoder.read_image(pixels).map_err(describe);
    }
    let mut samples = vec![0; width * height * 4];
    decoder.read_image(&mut samples).map_err(describe)?;
    let pixels = image.reset(width, height);
    for (rgb, rgba) in pixels.chunks_exact_mut(3).zip(samples.chunks_exact(4)) {
        rgb.copy_from_slice(&rgba[..3]);
    }
    Ok(())
}
