//! GIF: the first frame on its canvas.

use std::io::Cursor;

use gif::{ColorOutput, DecodeOptions, MemoryLimit};

use super::check_size;
use super::room::Room;
use super::rows::{colors_of, triples};
use crate::data::RgbImage8;

/// Decodes into `image`; the text of an error says what is wrong with the file.
///
/// The canvas is enlarged for a frame that does not fit on it. Outside the frame there is the transparent colour where the
/// frame has one, else the palette's first.
pub(super) fn decode(bytes: &[u8], image: &mut RgbImage8, room: &mut Room) -> Result<(), String> {
    let describe = |e: gif::DecodingError| match e.to_string() {
        text if text.contains("no color table") => {
            "GIF without a colour table is not supported; convert it to PNG".to_owned()
        }
        text => format!("GIF: {text}"),
    };
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.set_memory_limit(MemoryLimit::Unlimited);
    options.allow_unknown_blocks(true);
    let mut decoder = options.read_info(Cursor::new(bytes)).map_err(describe)?;
    let screen = (usize::from(decoder.width()), usize::from(decoder.height()));
    let global = triples(decoder.global_palette().unwrap_or(&[]));
    let frame = decoder
        .next_frame_info()
        .map_err(describe)?
        .ok_or("GIF: there is no frame in it")?;
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (across, down) = (usize::from(frame.width), usize::from(frame.height));
    let palette = frame.palette.as_deref().map_or(global, triples);
    let outside = frame.transparent.unwrap_or(0);
    let width = screen.0.max(left + across);
    let height = screen.1.max(top + down);
    check_size(width as u64, height as u64)?;
    room.claim((width * height * 3 + across * down) as u64);
    let mut indices = vec![0; across * down];
    decoder.read_into_buffer(&mut indices).map_err(describe)?;
    let pixels = image.reset(width, height);
    if (across, down) != (width, height) {
        let mut color = [0; 3];
        colors_of(&palette, &[outside], &mut color);
        pixels
            .chunks_exact_mut(3)
            .for_each(|rgb| rgb.copy_from_slice(&color));
    }
    let rows = pixels.chunks_exact_mut(3 * width).skip(top);
    for (rgb, row) in rows.zip(indices.chunks_exact(across.max(1))) {
        colors_of(&palette, row, &mut rgb[3 * left..3 * (left + across)]);
    }
    Ok(())
}
