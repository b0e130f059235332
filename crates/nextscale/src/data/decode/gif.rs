//! GIF: the first frame on its canvas.

use std::io::Cursor;

use gif::{ColorOutput, DecodeOptions, MemoryLimit};

use super::check_size;
use super::room::Room;
use super::rows::{colors_of, triples};
use crate::data::RgbImage8;

/// The flag of a table of colours for all frames.
const TABLE: u8 = 0x80;

/// Decodes into `image`; the text of an error says what is wrong with the file.
///
/// The canvas is enlarged for a frame that does not fit on it. Outside the frame there is the transparent colour where the
/// frame has one, else the palette's first. With `over` the transparent colour is that one; whether it is seen anywhere.
pub(super) fn decode(
    bytes: &[u8],
    over: Option<[u8; 3]>,
    image: &mut RgbImage8,
    room: &mut Room,
) -> Result<bool, String> {
    let describe = |e: gif::DecodingError| format!("GIF: {e}");
    let with_grays;
    let bytes = match bytes.get(10) {
        // Without a table numbers are gray levels.
        Some(flags) if flags & TABLE == 0 && bytes.len() > 13 => {
            let mut head = bytes[..13].to_vec();
            head[10] |= TABLE | 7;
            let grays = (0..=255).flat_map(|level| [level; 3]).collect();
            with_grays = [head, grays, bytes[13..].to_vec()].concat();
            &with_grays
        }
        _ => bytes,
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
    let mut palette = frame.palette.as_deref().map_or(global, triples);
    let through = frame.transparent.filter(|_| over.is_some());
    if let (Some(index), Some(color)) = (through, over) {
        let index = usize::from(index);
        palette.resize(palette.len().max(index + 1), [0; 3]);
        palette[index] = color;
    }
    let outside = frame.transparent.unwrap_or(0);
    let interlaced = frame.interlaced;
    let width = screen.0.max(left + across);
    let height = screen.1.max(top + down);
    check_size(width as u64, height as u64)?;
    room.claim((width * height * 3 + across * down) as u64)?;
    let mut indices = vec![0; across * down];
    // The decoder's own way to order interlaced rows gives up where a row of a narrow frame begins with a control code.
    let filled = indices.is_empty() || decoder.fill_buffer(&mut indices).map_err(describe)?;
    if !filled {
        return Err("GIF: the picture data ends early".to_owned());
    }
    let pixels = image.reset(width, height);
    if (across, down) != (width, height) {
        let mut color = [0; 3];
        colors_of(&palette, &[outside], &mut color);
        pixels
            .chunks_exact_mut(3)
            .for_each(|rgb| rgb.copy_from_slice(&color));
    }
    let stored = indices.chunks_exact(across.max(1));
    for (y, row) in row_order(down, interlaced).zip(stored) {
        let at = 3 * ((top + y) * width + left);
        colors_of(&palette, row, &mut pixels[at..at + 3 * across]);
    }
    let is_seen = |index| (across, down) != (width, height) || indices.contains(&index);
    Ok(through.is_some_and(is_seen))
}

/// The rows of a frame in the order in which they are stored.
fn row_order(rows: usize, interlaced: bool) -> impl Iterator<Item = usize> {
    let passes: &[_] = if interlaced {
        &[(0, 8), (4, 8), (2, 4), (1, 2)]
    } else {
        &[(0, 1)]
    };
    passes
        .iter()
        .flat_map(move |&(first, step)| (first..rows).step_by(step))
}
