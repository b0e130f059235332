//! PNG, row by row.

use std::io::Cursor;

use png::{BitDepth, ColorType, Decoder, DecodingError, InterlaceInfo, Limits, Transformations};

use super::room::Room;
use super::rows::{colors_of, gray_factor, packed_bytes, triples, unpack};
use super::{MAX_PIXELS, check_size};
use crate::data::RgbImage8;

/// The last chunk of every file.
const END: &[u8; 12] = b"\0\0\0\0IEND\xaeB`\x82";

/// Decodes into `image`; the text of an error says what is wrong with the file. The last chunk may be missing, as long as
/// all pixels are there.
pub(super) fn decode(bytes: &[u8], image: &mut RgbImage8, room: &mut Room) -> Result<(), String> {
    let ended;
    let bytes = if bytes.windows(END.len()).rev().any(|chunk| chunk == END) {
        bytes
    } else {
        // The decoder gives out the last rows only when it sees that no more data follows.
        ended = [bytes, END].concat();
        &ended
    };
    let limits = Limits {
        // Room for the decoder's own tables and for a row of 16-bit RGBA of the widest picture.
        bytes: MAX_PIXELS as usize * 8 + (64 << 20),
    };
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(Transformations::IDENTITY);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(|e| describe(&e))?;
    check_size(u64::from(header.width), u64::from(header.height))?;
    let mut reader = decoder.read_info().map_err(|e| describe(&e))?;
    let info = reader.info();
    let (width, height) = (info.width as usize, info.height as usize);
    let pixels = width as u64 * height as u64;
    let (color, depth) = (info.color_type, info.bit_depth);
    let bits_per_pixel = color.samples() * depth as usize;
    let interlaced = info.interlaced;
    let palette = triples(info.palette.as_deref().unwrap_or(&[]));
    if color == ColorType::Indexed && palette.is_empty() {
        return Err("it has no palette".to_owned());
    }
    let mut row_of = Row {
        color,
        depth,
        palette,
        samples: vec![0; width],
    };
    let row_bytes = packed_bytes(width, bits_per_pixel);
    if !interlaced {
        room.claim(pixels * 3);
        for rgb in image.reset(width, height).chunks_exact_mut(3 * width) {
            let row = reader.next_row().map_err(|e| describe(&e))?;
            let row = row.ok_or("rows are missing")?;
            row_of.write_rgb(row.data(), rgb);
        }
        return Ok(());
    }
    room.claim(pixels * 3 + (row_bytes * height) as u64);
    let mut stored = vec![0; row_bytes * height];
    while let Some(row) = reader.next_interlaced_row().map_err(|e| describe(&e))? {
        if let InterlaceInfo::Adam7(place) = row.interlace() {
            png::expand_interlaced_row(
                &mut stored,
                row_bytes,
                row.data(),
                place,
                bits_per_pixel as u8,
            );
        }
    }
    let rows = image.reset(width, height).chunks_exact_mut(3 * width);
    for (rgb, row) in rows.zip(stored.chunks_exact(row_bytes)) {
        row_of.write_rgb(row, rgb);
    }
    Ok(())
}

/// Turns stored rows into colours.
struct Row {
    color: ColorType,
    depth: BitDepth,
    palette: Vec<[u8; 3]>,
    samples: Vec<u8>,
}

impl Row {
    fn write_rgb(&mut self, row: &[u8], rgb: &mut [u8]) {
        let bits = self.depth as u8;
        match (self.color, self.depth) {
            (ColorType::Rgb, BitDepth::Eight) => rgb.copy_from_slice(row),
            (ColorType::Indexed, _) => {
                unpack(bits, row, &mut self.samples);
                colors_of(&self.palette, &self.samples, rgb);
            }
            (ColorType::Grayscale, BitDepth::One | BitDepth::Two | BitDepth::Four) => {
                unpack(bits, row, &mut self.samples);
                let factor = gray_factor(bits);
                for (rgb, &v) in rgb.chunks_exact_mut(3).zip(&self.samples) {
                    rgb.fill(v * factor);
                }
            }
            (color, depth) => {
                // Of two bytes the first is the high one.
                let step = if depth == BitDepth::Sixteen { 2 } else { 1 };
                let stored = row.chunks_exact(step * color.samples());
                for (rgb, stored) in rgb.chunks_exact_mut(3).zip(stored) {
                    match color {
                        ColorType::Grayscale | ColorType::GrayscaleAlpha => rgb.fill(stored[0]),
                        _ => rgb
                            .iter_mut()
                            .zip(stored.iter().step_by(step))
                            .for_each(|(to, &from)| *to = from),
                    }
                }
            }
        }
    }
}

fn describe(error: &DecodingError) -> String {
    match error {
        DecodingError::IoError(_) => "PNG: the file ends early".to_owned(),
        other => format!("PNG: {other}"),
    }
}
