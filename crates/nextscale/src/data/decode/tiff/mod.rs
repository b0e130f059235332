//! TIFF and BigTIFF: the first picture, strip by strip or tile by tile, turned as its orientation says.

mod codecs;
mod colors;
mod fax;
mod layout;
mod tags;

use super::room::Room;
use super::rows::packed_bytes;
use super::{check_size, jpeg};
use crate::data::RgbImage8;
use colors::ToRgb;
use layout::{Colors, Compression, Layout};
use tags::Tags;

/// Decodes into `image`; the text of an error says what is wrong with the file.
pub(super) fn decode(bytes: &[u8], image: &mut RgbImage8, room: &mut Room) -> Result<(), String> {
    let tags = Tags::read(bytes)?;
    let layout = Layout::read(&tags)?;
    let pixels = (layout.width * layout.height) as u64;
    let turned = (2..=8).contains(&layout.orientation);
    // What one chunk takes, packed and as bytes.
    let chunk = (layout.chunk.0 * layout.chunk.1) as u64;
    let of_chunk = chunk * (layout.samples * (layout.bits.div_ceil(8) + 1)) as u64;
    room.claim(pixels * if turned { 6 } else { 3 } + of_chunk);
    let mut to_rgb = ToRgb::new(&tags, &layout)?;
    let (width, height) = (layout.width, layout.height);
    let out = image.reset(width, height);
    let (across, down) = layout.chunks();
    let mut place = Chunk::default();
    for number in 0..across * down {
        let left = number % across * layout.chunk.0;
        let top = number / across * layout.chunk.1;
        let cols = layout.chunk.0.min(width - left);
        let rows = layout.chunk.1.min(height - top);
        if layout.jpeg_components() {
            place.read_components(&tags, &layout, number, (cols, rows))?;
        } else if layout.compression == Compression::Jpeg {
            place.read_jpeg(&tags, &layout, number, (cols, rows))?;
        } else {
            place.read(&tags, &layout, number, rows)?;
        }
        let lines = out.chunks_exact_mut(3 * width).skip(top).take(rows);
        let stride = layout.chunk.0 * place.samples;
        for (line, samples) in lines.zip(place.values.chunks_exact(stride)) {
            let rgb = &mut line[3 * left..3 * (left + cols)];
            to_rgb.row(&layout, place.samples, samples, rgb);
        }
    }
    if turned {
        turn(image, layout.orientation);
    }
    Ok(())
}

/// The samples of one strip or tile, 8 bits each.
#[derive(Default)]
struct Chunk {
    packed: Vec<u8>,
    values: Vec<u8>,
    samples: usize,
    jpeg: RgbImage8,
}

impl Chunk {
    /// The stored bytes of chunk `number` in `plane`.
    fn stored<'a>(tags: &Tags<'a>, layout: &Layout, number: usize, plane: usize) -> &'a [u8] {
        let (across, down) = layout.chunks();
        let number = plane * across * down + number;
        // Writers are known to give wrong lengths where there is no compression.
        let count = layout.counts.as_ref().map(|c| c[number]);
        let count = count.filter(|_| layout.compression != Compression::None);
        tags.slice(layout.offsets[number], count)
    }

    fn read(
        &mut self,
        tags: &Tags,
        layout: &Layout,
        number: usize,
        rows: usize,
    ) -> Result<(), String> {
        let across = layout.chunk.0;
        // Tiles are stored whole, the last strip is as short as the picture.
        let stored_rows = if layout.tiled { layout.chunk.1 } else { rows };
        // What stands beyond colours and the alpha that they were multiplied by is left out.
        let kept = layout.kept();
        self.samples = kept;
        self.values.resize(across * stored_rows * kept, 0);
        let (by_x, by_y) = layout.subsampling;
        if (by_x, by_y) != (1, 1) {
            let blocks = across.div_ceil(by_x);
            let row_bytes = blocks * (by_x * by_y + 2);
            self.packed
                .resize(row_bytes * stored_rows.div_ceil(by_y), 0);
            let data = Self::stored(tags, layout, number, 0);
            codecs::unpack(layout, data, across, row_bytes, &mut self.packed)?;
            self.spread(layout, stored_rows, row_bytes);
            return Ok(());
        }
        let row_samples = across * layout.chunk_samples();
        let row_bytes = packed_bytes(row_samples, layout.bits);
        self.packed.resize(row_bytes * stored_rows, 0);
        let planes = if layout.planar { kept } else { 1 };
        for plane in 0..planes {
            let data = Self::stored(tags, layout, number, plane);
            codecs::unpack(layout, data, across, row_bytes, &mut self.packed)?;
            let rows = self.packed.chunks_exact(row_bytes);
            for (row, values) in rows.zip(self.values.chunks_exact_mut(across * kept)) {
                colors::to_bytes(layout, row, plane, values);
            }
        }
        Ok(())
    }

    /// Gives each pixel the colour that it shares with its neighbours.
    fn spread(&mut self, layout: &Layout, rows: usize, row_bytes: usize) {
        let (by_x, by_y) = layout.subsampling;
        let (across, each) = (layout.chunk.0, by_x * by_y + 2);
        for y in 0..rows {
            let line = &self.packed[y / by_y * row_bytes..][..row_bytes];
            for x in 0..across {
                let block = &line[x / by_x * each..][..each];
                let luma = block[y % by_y * by_x + x % by_x];
                let to = (y * across + x) * 3;
                self.values[to..to + 3].copy_from_slice(&[luma, block[each - 2], block[each - 1]]);
            }
        }
    }

    /// JPEG data of CMYK or with alpha.
    fn read_components(
        &mut self,
        tags: &Tags,
        layout: &Layout,
        number: usize,
        (cols, rows): (usize, usize),
    ) -> Result<(), String> {
        let (stored, kept, across) = (layout.samples, layout.kept(), layout.chunk.0);
        let tables = tags.bytes(347)?.unwrap_or(&[]);
        let whole = whole_jpeg(tables, Self::stored(tags, layout, number, 0))?;
        let mut width = 0;
        let packed = &mut self.packed;
        nextscale_jpeg::decode_components(&whole, |w, h, n| {
            if w < cols || h < rows || w > across || n != stored {
                return Err(WRONG_SIZE.to_owned());
            }
            check_size(w as u64, h as u64)?;
            width = w;
            packed.clear();
            packed.resize(w * h * n, 0);
            Ok(packed)
        })
        .map_err(|e| format!("TIFF: {e}"))?;
        self.samples = kept;
        self.values.resize(across * layout.chunk.1 * kept, 0);
        let lines = self.packed.chunks_exact(width * stored).take(rows);
        for (from, to) in lines.zip(self.values.chunks_exact_mut(across * kept)) {
            let pixels = from.chunks_exact(stored);
            for (from, to) in pixels.zip(to.chunks_exact_mut(kept)) {
                to.copy_from_slice(&from[..kept]);
            }
        }
        Ok(())
    }

    fn read_jpeg(
        &mut self,
        tags: &Tags,
        layout: &Layout,
        number: usize,
        (cols, rows): (usize, usize),
    ) -> Result<(), String> {
        let planes = if layout.planar { layout.kept() } else { 1 };
        let kept = if layout.planar { planes } else { 3 };
        let across = layout.chunk.0;
        self.samples = kept;
        self.values.resize(across * layout.chunk.1 * kept, 0);
        // The tags decide what the components are, not what else stands in the stream.
        let stored_as = match layout.colors {
            Colors::YCbCr if !layout.planar => jpeg::Colors::YCbCr,
            _ => jpeg::Colors::Stored,
        };
        let tables = tags.bytes(347)?.unwrap_or(&[]);
        for plane in 0..planes {
            let data = Self::stored(tags, layout, number, plane);
            let whole = whole_jpeg(tables, data)?;
            jpeg::decode_as(stored_as, &whole, &mut self.jpeg).map_err(|e| format!("TIFF: {e}"))?;
            if self.jpeg.width() < cols || self.jpeg.height() < rows || self.jpeg.width() > across {
                return Err(WRONG_SIZE.to_owned());
            }
            for y in 0..rows {
                let from = self.jpeg.row(y);
                let to = &mut self.values[y * across * kept..];
                if layout.planar {
                    for (to, from) in to.chunks_exact_mut(kept).zip(from.chunks_exact(3)) {
                        to[plane] = from[0];
                    }
                } else {
                    to[..from.len()].copy_from_slice(from);
                }
            }
        }
        Ok(())
    }
}

const WRONG_SIZE: &str = "TIFF: the size of its JPEG data does not fit";

/// A JPEG stream that stands by itself: with the tables that all strips share.
fn whole_jpeg(tables: &[u8], data: &[u8]) -> Result<Vec<u8>, String> {
    let body = data
        .strip_prefix(&[0xff, 0xd8])
        .ok_or("TIFF: there is no JPEG data where it must be")?;
    let shared = tables.strip_prefix(&[0xff, 0xd8]).unwrap_or(&[]);
    let shared = shared.strip_suffix(&[0xff, 0xd9]).unwrap_or(shared);
    let mut whole = vec![0xff, 0xd8];
    whole.extend_from_slice(shared);
    whole.extend_from_slice(body);
    Ok(whole)
}

/// Turns and mirrors a picture as its orientation, 2 to 8, says.
fn turn(image: &mut RgbImage8, orientation: u64) {
    let stored = std::mem::take(image);
    let (w, h) = (stored.width(), stored.height());
    let (width, height) = if orientation >= 5 { (h, w) } else { (w, h) };
    let out = image.reset(width, height);
    for (y, row) in out.chunks_exact_mut(3 * width).enumerate() {
        for (x, rgb) in row.chunks_exact_mut(3).enumerate() {
            let (from_x, from_y) = match orientation {
                2 => (w - 1 - x, y),
                3 => (w - 1 - x, h - 1 - y),
                4 => (x, h - 1 - y),
                5 => (y, x),
                6 => (y, h - 1 - x),
                7 => (w - 1 - y, h - 1 - x),
                _ => (w - 1 - y, x),
            };
            rgb.copy_from_slice(&stored.row(from_y)[3 * from_x..3 * from_x + 3]);
        }
    }
}
