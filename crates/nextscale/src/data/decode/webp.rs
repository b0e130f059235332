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
    let drawn_over;
    let bytes = match first_frame_flags(bytes) {
        // The first frame has nothing below it to be blended with; the decoder would mix it with the background.
        Some(at) if bytes[at] & NO_BLENDING == 0 => {
            let mut copy = bytes.to_vec();
            copy[at] |= NO_BLENDING;
            drawn_over = copy;
            &drawn_over
        }
        _ => bytes,
    };
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

/// The flag of a frame that replaces what is below it.
const NO_BLENDING: u8 = 2;

/// Where the flags of an animation's first frame stand.
fn first_frame_flags(bytes: &[u8]) -> Option<usize> {
    let mut at = 12;
    loop {
        let head = bytes.get(at..at + 8)?;
        if head.starts_with(b"ANMF") {
            let flags = at + 8 + 15;
            return (flags < bytes.len()).then_some(flags);
        }
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        at = at
            .checked_add(8)?
            .checked_add(length)?
            .checked_add(length % 2)?;
    }
}
