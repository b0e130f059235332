//! WebP: the first frame.

use std::borrow::Cow;
use std::io::Cursor;

use image::codecs::webp::WebPDecoder;
use image::{ColorType, ImageDecoder, ImageError, Limits};

use super::room::Room;
use super::{MAX_PIXELS, check_size};
use crate::data::RgbImage8;

/// Decodes into `image`; the text of an error says what is wrong with the file.
pub(super) fn decode(bytes: &[u8], image: &mut RgbImage8, room: &mut Room) -> Result<(), String> {
    let describe = |e: ImageError| format!("WebP: {e}");
    let first = first_picture(bytes)?;
    let mut changed = Cow::Borrowed(bytes);
    if let Some(at) = first.flags.filter(|&at| bytes[at] & NO_BLENDING == 0) {
        // The first frame has nothing below it to be blended with; the decoder would mix it with the background.
        changed.to_mut()[at] |= NO_BLENDING;
    }
    if let Some(at) = first.alpha.filter(|&at| bytes[at] & ALPHA == 0) {
        // Where there is no alpha the decoder makes a copy without it, which takes more memory than leaving it out here.
        changed.to_mut()[at] |= ALPHA;
    }
    let mut decoder = WebPDecoder::new(Cursor::new(&*changed)).map_err(describe)?;
    let (width, height) = decoder.dimensions();
    check_size(u64::from(width), u64::from(height))?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_PIXELS * 8 + (64 << 20));
    decoder.set_limits(limits).map_err(describe)?;
    let (width, height) = (width as usize, height as usize);
    let opaque = decoder.color_type() == ColorType::Rgb8;
    // The decoder's own: luma and colours, or alpha and tables; of animations a frame and a canvas too.
    let each = match (first.flags, opaque) {
        (Some(_), _) => 14,
        (None, true) => 5,
        (None, false) => 7,
    };
    room.claim((width * height * each) as u64)?;
    if opaque {
        let pixels = image.reset(width, height);
        return decoder.read_image(pixels).map_err(describe);
    }
    *image = RgbImage8::default();
    let mut samples = vec![0; width * height * 4];
    decoder.read_image(&mut samples).map_err(describe)?;
    // Alpha is left out in place: another buffer would take as much once more.
    for pixel in 1..width * height {
        samples.copy_within(4 * pixel..4 * pixel + 3, 3 * pixel);
    }
    samples.truncate(3 * width * height);
    *image = RgbImage8::new(width, height, samples).map_err(|e| e.to_string())?;
    Ok(())
}

/// The flag of a frame that replaces what is below it.
const NO_BLENDING: u8 = 2;

/// The flag of a lossless picture that has alpha, in the last byte of its header.
const ALPHA: u8 = 0x10;

/// The first, or only, picture of a file.
#[derive(Default)]
struct First {
    /// Where the flags of an animation's frame stand.
    flags: Option<usize>,
    /// Where it says whether it has alpha, in the simple kind of lossless file.
    alpha: Option<usize>,
}

/// Finds the first picture. A frame that is not within its canvas, or of another size than its data, is refused: the
/// decoder takes sizes for granted.
fn first_picture(bytes: &[u8]) -> Result<First, String> {
    let mut first = First::default();
    let mut canvas = None;
    let mut at = 12;
    while let Some((name, length, data)) = chunk(bytes, at) {
        match name {
            b"VP8L" if at == 12 && data.len() > 4 => {
                first.alpha = Some(at + 8 + 4);
                break;
            }
            b"VP8X" if at == 12 && data.len() >= 10 => {
                canvas = Some((u24(data, 4) + 1, u24(data, 7) + 1));
            }
            b"ANMF" if data.len() >= 16 => {
                let (width, height) = (u24(data, 6) + 1, u24(data, 9) + 1);
                let (right, below) = (2 * u24(data, 0) + width, 2 * u24(data, 3) + height);
                if canvas.is_some_and(|(across, down)| right > across || below > down) {
                    return Err("WebP: its first frame is not within the picture".to_owned());
                }
                let stored = frame_size(&data[16..])?;
                if stored.is_some_and(|stored| stored != (width, height)) {
                    return Err("WebP: its first frame has another size than its data".to_owned());
                }
                first.flags = Some(at + 8 + 15);
                break;
            }
            _ => {}
        }
        at = at.saturating_add(8 + length.next_multiple_of(2));
    }
    Ok(first)
}

/// The size that a frame's data tells. Alpha comes before the colours: the decoder takes whatever chunk follows for them, so one of
/// another name is refused.
fn frame_size(frame: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let Some((name, length, data)) = chunk(frame, 0) else {
        return Ok(None);
    };
    let lossy = |data: &[u8]| {
        let side = |at: usize| {
            let two = data.get(at..at + 2)?;
            Some(usize::from(u16::from_le_bytes([two[0], two[1]]) & 0x3fff))
        };
        Some((side(6)?, side(8)?))
    };
    Ok(match name {
        b"VP8 " => lossy(data),
        b"VP8L" => data.get(1..5).map(|four| {
            let both = u32::from_le_bytes([four[0], four[1], four[2], four[3]]) as usize;
            ((both & 0x3fff) + 1, (both >> 14 & 0x3fff) + 1)
        }),
        b"ALPH" => match chunk(frame, 8 + length.next_multiple_of(2)) {
            Some((b"VP8 ", _, data)) => lossy(data),
            _ => return Err("WebP: its first frame has alpha and no colours".to_owned()),
        },
        _ => None,
    })
}

/// Name, length and data of the chunk at `at`, as much as there is of it.
fn chunk(bytes: &[u8], at: usize) -> Option<(&[u8; 4], usize, &[u8])> {
    let (name, rest) = bytes.get(at..)?.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    Some((name, length, &rest[..length.min(rest.len())]))
}

/// The number in three bytes.
fn u24(bytes: &[u8], at: usize) -> usize {
    usize::from(bytes[at]) | usize::from(bytes[at + 1]) << 8 | usize::from(bytes[at + 2]) << 16
}
