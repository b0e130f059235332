//! TIFF and BigTIFF: the first picture, strip by strip or tile by tile, turned as its orientation says.

mod codecs;
mod colors;
mod fax;
mod layout;
mod tags;

use super::room::Room;
use super::{check_size, jpeg};
use crate::data::RgbImage8;
use codecs::Packed;
use colors::ToRgb;
use layout::{Colors, Compression, Layout};
use tags::Tags;

/// Decodes into `image`; the text of an error says what is wrong with the file.
pub(super) fn decode(bytes: &[u8], image: &mut RgbImage8, room: &mut Room) -> Result<(), String> {
    let tags = Tags::read(bytes)?;
    let layout = Layout::read(&tags)?;
    let (across, down) = layout.chunks();
    if layout.compression == Compression::None {
        // What the file can't hold is refused before anything is paid for.
        for number in 0..across * down {
            let top = number / across * layout.chunk.1;
            Chunk::open(
                &tags,
                &layout,
                number,
                layout.chunk.1.min(layout.height - top),
            )?;
        }
    }
    let mut to_rgb = ToRgb::new(&tags, &layout)?;
    let (width, height) = (layout.width, layout.height);
    let turned = (2..=8).contains(&layout.orientation);
    let pixels = (width * height) as u64;
    let need = pixels * 3 + (layout.chunk.0 * 3) as u64 + layout.scratch();
    room.claim(need)?;
    let (out_width, out_height) = if turned && layout.orientation >= 5 {
        (height, width)
    } else {
        (width, height)
    };
    let out = image.reset(out_width, out_height);
    let mut turned_row = vec![0; if turned { 3 * layout.chunk.0 } else { 0 }];
    let mut place = Chunk::default();
    for number in 0..across * down {
        let left = number % across * layout.chunk.0;
        let top = number / across * layout.chunk.1;
        let cols = layout.chunk.0.min(width - left);
        let rows = layout.chunk.1.min(height - top);
        let mut planes = Vec::new();
        if layout.jpeg_components() {
            place.read_components(&tags, &layout, number, (cols, rows), &mut |n| {
                room.claim(need + n)
            })?;
        } else if layout.compression == Compression::Jpeg {
            place.read_jpeg(&tags, &layout, number, (cols, rows), &mut |n| {
                room.claim(need + n)
            })?;
        } else {
            planes = Chunk::open(&tags, &layout, number, rows)?;
        }
        let mut done = 0;
        while done < rows {
            let band = if planes.is_empty() {
                rows
            } else {
                layout.band().min(rows - done)
            };
            if !planes.is_empty() {
                place.read(&layout, &mut planes, band)?;
            }
            let stride = layout.chunk.0 * place.samples;
            for (i, samples) in place.values.chunks_exact(stride).take(band).enumerate() {
                let y = top + done + i;
                if turned {
                    let rgb = &mut turned_row[..3 * cols];
                    to_rgb.row(&layout, place.samples, samples, rgb);
                    let (start, step) = way(layout.orientation, (left, y), (width, height));
                    for (i, rgb) in rgb.chunks_exact(3).enumerate() {
                        let at = 3 * start.wrapping_add_signed(i as isize * step);
                        out[at..at + 3].copy_from_slice(rgb);
                    }
                } else {
                    let at = 3 * (y * width + left);
                    to_rgb.row(&layout, place.samples, samples, &mut out[at..at + 3 * cols]);
                }
            }
            done += band;
        }
    }
    Ok(())
}

/// Where the pixel at `(x, y)` of a stored picture goes in one that is turned and mirrored as its orientation, 2 to 8, says,
/// and the step from there to the next one of its row.
fn way(orientation: u64, (x, y): (usize, usize), (w, h): (usize, usize)) -> (usize, isize) {
    let (w_step, h_step) = (w as isize, h as isize);
    debug_assert!(w_step > 0 && h_step > 0);
    match orientation {
        2 => (y * w + w - 1 - x, -1),
        3 => ((h - 1 - y) * w + w - 1 - x, -1),
        4 => ((h - 1 - y) * w + x, 1),
        5 => (x * h + y, h_step),
        6 => (x * h + h - 1 - y, h_step),
        7 => ((w - 1 - x) * h + h - 1 - y, -h_step),
        _ => ((w - 1 - x) * h + y, -h_step),
    }
}

/// The samples of one strip or tile, or of some rows of it, 8 bits each.
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

    /// The planes of chunk `number`, of which `rows` rows belong to the picture.
    fn open<'a>(
        tags: &Tags<'a>,
        layout: &'a Layout,
        number: usize,
        rows: usize,
    ) -> Result<Vec<Packed<'a>>, String> {
        // Tiles are stored whole, the last strip is as short as the picture.
        let rows = if layout.tiled { layout.chunk.1 } else { rows };
        let rows = rows.div_ceil(layout.subsampling.1);
        let planes = if layout.planar { layout.kept() } else { 1 };
        (0..planes)
            .map(|plane| {
                let data = Self::stored(tags, layout, number, plane);
                Packed::new(layout, data, layout.chunk.0, layout.row_bytes(), rows)
            })
            .collect()
    }

    /// The next `rows` rows.
    fn read(
        &mut self,
        layout: &Layout,
        planes: &mut [Packed<'_>],
        rows: usize,
    ) -> Result<(), String> {
        let across = layout.chunk.0;
        // What stands beyond colours and the alpha that they were multiplied by is left out.
        let kept = layout.kept();
        self.samples = kept;
        self.values.resize(across * rows * kept, 0);
        let row_bytes = layout.row_bytes();
        let stored_rows = rows.div_ceil(layout.subsampling.1);
        self.packed.resize(row_bytes * stored_rows, 0);
        for (number, plane) in planes.iter_mut().enumerate() {
            plane.read(&mut self.packed)?;
            if layout.subsampling != (1, 1) {
                self.spread(layout, rows, row_bytes);
                continue;
            }
            let rows = self.packed.chunks_exact(row_bytes);
            for (row, values) in rows.zip(self.values.chunks_exact_mut(across * kept)) {
                colors::to_bytes(layout, row, number, values);
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
        claim: &mut dyn FnMut(u64) -> Result<(), String>,
    ) -> Result<(), String> {
        let (stored, kept, across) = (layout.samples, layout.kept(), layout.chunk.0);
        let tables = tags.bytes(347)?.unwrap_or(&[]);
        let whole = whole_jpeg(tables, Self::stored(tags, layout, number, 0))?;
        let mut width = 0;
        let packed = &mut self.packed;
        nextscale_jpeg::decode_components(&whole, |frame| {
            let (w, h, n) = (frame.width, frame.height, frame.components);
            if w < cols || h < rows || w > across || n != stored {
                return Err(WRONG_SIZE.to_owned());
            }
            check_size(w as u64, h as u64)?;
            claim((w * h * n + across * layout.chunk.1 * kept) as u64 + frame.kept)?;
            width = w;
            drop(std::mem::take(packed));
            *packed = vec![0; w * h * n];
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
        claim: &mut dyn FnMut(u64) -> Result<(), String>,
    ) -> Result<(), String> {
        let planes = if layout.planar { layout.kept() } else { 1 };
        let kept = if layout.planar { planes } else { 3 };
        let across = layout.chunk.0;
        self.samples = kept;
        // The tags decide what the components are, not what else stands in the stream.
        let stored_as = match layout.colors {
            Colors::YCbCr if !layout.planar => jpeg::Colors::YCbCr,
            _ => jpeg::Colors::Stored,
        };
        let tables = tags.bytes(347)?.unwrap_or(&[]);
        for plane in 0..planes {
            let data = Self::stored(tags, layout, number, plane);
            let whole = whole_jpeg(tables, data)?;
            jpeg::decode_as(stored_as, &whole, &mut self.jpeg, |frame| {
                let (w, h) = (frame.width, frame.height);
                if w < cols || h < rows || w > across {
                    return Err(WRONG_SIZE.to_owned());
                }
                claim((w * h * 3 + across * layout.chunk.1 * kept) as u64 + frame.kept)
            })
            .map_err(|e| format!("TIFF: {e}"))?;
            self.values.resize(across * layout.chunk.1 * kept, 0);
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

const WRONG_SIZE: &str = "the size of its JPEG data does not fit";

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
