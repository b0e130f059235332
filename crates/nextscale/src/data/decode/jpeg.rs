//! JPEG of every usual kind; see [`nextscale_jpeg`].

pub(super) use nextscale_jpeg::{Colors, Frame};

use super::check_size;
use super::room::Room;
use crate::data::RgbImage8;

/// Decodes into `image`; the text of an error says what is wrong with the file.
pub(super) fn decode(bytes: &[u8], image: &mut RgbImage8, room: &mut Room) -> Result<(), String> {
    decode_as(Colors::Marked, bytes, image, |frame| {
        room.claim((frame.width * frame.height * 3) as u64 + frame.kept)
    })
}

/// The same where something else than the file's markers says what its components are. `allow` refuses before memory is
/// taken.
pub(super) fn decode_as(
    colors: Colors,
    bytes: &[u8],
    image: &mut RgbImage8,
    allow: impl FnOnce(Frame) -> Result<(), String>,
) -> Result<(), String> {
    nextscale_jpeg::decode(bytes, colors, |frame| {
        check_size(frame.width as u64, frame.height as u64)?;
        allow(frame)?;
        Ok(image.reset(frame.width, frame.height))
    })
}
