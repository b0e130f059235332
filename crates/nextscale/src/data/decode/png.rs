//! PNG, row by row.

use std::borrow::Cow;
use std::io::Cursor;

use flate2::Crc;
use png::{
    BitDepth, ColorType, DecodeOptions, Decoder, DecodingError, Limits, Reader, Transformations,
};

use super::room::Room;
use super::rows::{colors_of, gray_factor, packed_bytes, triples, unpack};
use super::{MAX_PIXELS, check_size};
use crate::data::RgbImage8;

/// The last chunk of every file.
const END: &[u8; 12] = b"\0\0\0\0IEND\xaeB`\x82";

/// The most bytes that deflate makes of one.
const DEFLATE: u64 = 1032;

/// The passes of interlaced files: first column, first row, steps across and down.
const PASSES: [[usize; 4]; 7] = [
    [0, 0, 8, 8],
    [4, 0, 8, 8],
    [0, 4, 4, 8],
    [2, 0, 4, 4],
    [0, 2, 2, 4],
    [1, 0, 2, 2],
    [0, 1, 1, 2],
];

/// Decodes into `image`; the text of an error says what is wrong with the file. The last chunk may be missing, as long as
/// all pixels are there.
pub(super) fn decode(bytes: &[u8], image: &mut RgbImage8, room: &mut Room) -> Result<(), String> {
    let bytes = &*ended(bytes);
    let limits = Limits {
        // Room for the decoder's own tables and for a row of 16-bit RGBA of the widest picture.
        bytes: MAX_PIXELS as usize * 8 + (64 << 20),
    };
    let mut options = DecodeOptions::default();
    options.set_ignore_adler32(false);
    let mut decoder = Decoder::new_with_options(Cursor::new(bytes), options);
    decoder.set_limits(limits);
    decoder.set_transformations(Transformations::IDENTITY);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(|e| describe(&e))?;
    check_size(u64::from(header.width), u64::from(header.height))?;
    let mut reader = decoder.read_info().map_err(|e| describe(&e))?;
    let info = reader.info();
    let (width, height) = (info.width as usize, info.height as usize);
    let (color, depth) = (info.color_type, info.bit_depth);
    let interlaced = info.interlaced;
    let palette = triples(info.palette.as_deref().unwrap_or(&[]));
    if color == ColorType::Indexed && palette.is_empty() {
        return Err("it has no palette".to_owned());
    }
    let row_bytes = packed_bytes(width, color.samples() * depth as usize) as u64;
    if row_bytes * height as u64 > bytes.len() as u64 * DEFLATE {
        return Err("PNG: the file ends early".to_owned());
    }
    // The decoder keeps some rows.
    let rows = 2 + height.min(6) as u64;
    room.claim((width * height * 3 + width) as u64 + row_bytes * rows)?;
    let mut row_of = Row {
        color,
        depth,
        palette,
        samples: vec![0; width],
    };
    let mut next = |reader: &mut Reader<_>, rgb: &mut [u8]| {
        let row = reader.next_row().map_err(|e| describe(&e))?;
        row_of.write_rgb(row.ok_or("rows are missing")?.data(), rgb);
        Ok::<_, String>(())
    };
    let pixels = image.reset(width, height);
    if interlaced {
        let mut line = Vec::new();
        for [left, top, across, down] in PASSES {
            let count = width.saturating_sub(left).div_ceil(across);
            if count == 0 {
                continue;
            }
            line.resize(3 * count, 0);
            let rows = pixels.chunks_exact_mut(3 * width);
            for rgb in rows.skip(top).step_by(down) {
                next(&mut reader, &mut line)?;
                let places = rgb.chunks_exact_mut(3).skip(left).step_by(across);
                for (to, from) in places.zip(line.chunks_exact(3)) {
                    to.copy_from_slice(from);
                }
            }
        }
    } else {
        for rgb in pixels.chunks_exact_mut(3 * width) {
            next(&mut reader, rgb)?;
        }
    }
    // On to the end of the data: its checksums come after the last row.
    match reader.read_row(&mut []) {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err("PNG: it has more rows than its header says".to_owned()),
        Err(e) => Err(describe(&e)),
    }
}

/// The file with its last chunk. A part of a chunk at its end is left out, but of pixel data what is there is taken: all
/// pixels may be in it.
pub(super) fn ended(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut at = 8;
    while let Some(head) = bytes.get(at..at + 8) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let name = &head[4..];
        let end = at.saturating_add(12).saturating_add(length);
        if end <= bytes.len() {
            if name == b"IEND" {
                return Cow::Borrowed(bytes);
            }
            at = end;
            continue;
        }
        let mut whole = bytes[..at].to_vec();
        if name == b"IDAT" {
            let data = &bytes[at + 8..];
            let data = &data[..length.min(data.len())];
            let mut crc = Crc::new();
            crc.update(name);
            crc.update(data);
            whole.extend((data.len() as u32).to_be_bytes());
            whole.extend(name);
            whole.extend(data);
            whole.extend(crc.sum().to_be_bytes());
        }
        whole.extend(END);
        return Cow::Owned(whole);
    }
    // The decoder gives out the last rows only when it sees that no more data follows.
    Cow::Owned([&bytes[..at.min(bytes.len())], END].concat())
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
        other => match format!("PNG: {other}") {
            text if text.contains("CRC error") => "PNG: the checksum of a part is wrong".to_owned(),
            text if text.contains("deflate stream") => {
                "PNG: its compressed data is damaged".to_owned()
            }
            text => text,
        },
    }
}
