//! BMP: Windows and OS/2 headers, packed and 16-bit to 32-bit colours, run lengths.

use super::check_size;
use super::room::Room;
use super::rows::{colors_of, packed_bytes, unpack};
use crate::data::RgbImage8;

const RAW: u32 = 0;
const RLE8: u32 = 1;
const RLE4: u32 = 2;
const MASKS: u32 = 3;
const MASKS_WITH_ALPHA: u32 = 6;

/// What the headers say.
struct Header {
    width: usize,
    height: usize,
    from_the_top: bool,
    bits: u16,
    compression: u32,
    /// Where pixels begin.
    data: usize,
    palette: Vec<[u8; 3]>,
    /// Bits of red, green and blue in a pixel of 16 or 32 bits.
    masks: [u32; 3],
}

/// Decodes into `image`; the text of an error says what is wrong with the file.
pub(super) fn decode(bytes: &[u8], image: &mut RgbImage8, room: &mut Room) -> Result<(), String> {
    let header = Header::read(bytes)?;
    let (width, height) = (header.width, header.height);
    let runs = matches!(header.compression, RLE8 | RLE4);
    let pixels = (width * height) as u64;
    let data = bytes.get(header.data..).unwrap_or(&[]);
    let indices;
    let (needed, stride) = if runs {
        (width, width)
    } else {
        let needed = packed_bytes(width, usize::from(header.bits));
        (needed, needed.next_multiple_of(4))
    };
    let short = || "BMP: the file ends early".to_owned();
    if !runs && data.len() < (height - 1) * stride + needed {
        return Err(short());
    }
    room.claim(pixels * if runs { 4 } else { 3 })?;
    let stored = if runs {
        indices = run_lengths(data, &header)?;
        &indices[..]
    } else {
        data
    };
    let mut samples = vec![0; width];
    let rows = image.reset(width, height).chunks_exact_mut(3 * width);
    for (y, rgb) in rows.enumerate() {
        let line = if header.from_the_top {
            y
        } else {
            height - 1 - y
        };
        let row = stored
            .get(line * stride..line * stride + needed)
            .ok_or_else(short)?;
        match header.bits {
            _ if runs => colors_of(&header.palette, row, rgb),
            1..=8 => {
                unpack(header.bits as u8, row, &mut samples);
                colors_of(&header.palette, &samples, rgb);
            }
            24 => {
                for (rgb, bgr) in rgb.chunks_exact_mut(3).zip(row.chunks_exact(3)) {
                    rgb.copy_from_slice(&[bgr[2], bgr[1], bgr[0]]);
                }
            }
            bits => {
                let each = row.chunks_exact(usize::from(bits / 8));
                for (rgb, pixel) in rgb.chunks_exact_mut(3).zip(each) {
                    let mut value = [0; 4];
                    value[..pixel.len()].copy_from_slice(pixel);
                    let value = u32::from_le_bytes(value);
                    for (to, mask) in rgb.iter_mut().zip(header.masks) {
                        *to = channel(value, mask);
                    }
                }
            }
        }
    }
    Ok(())
}

/// The value under a mask, from 0 to 255.
fn channel(value: u32, mask: u32) -> u8 {
    if mask == 0 {
        return 0;
    }
    let shift = mask.trailing_zeros();
    let most = u64::from(mask >> shift);
    (u64::from((value & mask) >> shift) * 255 / most) as u8
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        let short = "BMP: the header ends early";
        let u16_at = |at: usize| {
            let two = bytes.get(at..at + 2).ok_or(short)?;
            Ok::<_, &str>(u16::from_le_bytes([two[0], two[1]]))
        };
        let u32_at = |at: usize| {
            let four = bytes.get(at..at + 4).ok_or(short)?;
            Ok::<_, &str>(u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
        };
        let size = u32_at(14)?;
        let old = size == 12;
        if !old && !matches!(size, 16..=64 | 108 | 124) {
            return Err(format!(
                "BMP: its header has {size} bytes, which no known version has"
            ));
        }
        let end = 14 + size as usize;
        let field = |at: usize| {
            // Short OS/2 headers leave out fields, which are 0 then.
            if at + 4 <= end { u32_at(at) } else { Ok(0) }
        };
        let (width, height, bits) = if old {
            (u32::from(u16_at(18)?), i64::from(u16_at(20)?), u16_at(24)?)
        } else {
            let height = u32_at(22)? as i32;
            (u32_at(18)?, i64::from(height), u16_at(28)?)
        };
        check_size(u64::from(width), height.unsigned_abs())?;
        let compression = if old { RAW } else { field(30)? };
        let os2 = size == 64;
        match compression {
            RAW | RLE8 | RLE4 => {}
            MASKS if os2 => {
                return Err(
                    "BMP with Huffman compression is not supported; convert it to PNG".into(),
                );
            }
            4 if os2 => {
                return Err(
                    "BMP with 24-bit run lengths is not supported; convert it to PNG".into(),
                );
            }
            MASKS | MASKS_WITH_ALPHA => {}
            4 => return Err("BMP that holds a JPEG is not supported; convert it to PNG".into()),
            5 => return Err("BMP that holds a PNG is not supported; convert it to PNG".into()),
            n => {
                return Err(format!(
                    "BMP with compression {n} is not supported; convert it to PNG"
                ));
            }
        }
        let fits = match compression {
            RAW => matches!(bits, 1 | 2 | 4 | 8 | 16 | 24 | 32),
            RLE8 => bits == 8,
            RLE4 => bits == 4,
            _ => matches!(bits, 16 | 24 | 32),
        };
        if !fits {
            return Err(format!(
                "BMP with {bits} bits a pixel is not supported here; convert it to PNG"
            ));
        }
        let mut after = end;
        let mut masks = if bits == 16 {
            [0x7c00, 0x3e0, 0x1f]
        } else {
            [0xff_0000, 0xff00, 0xff]
        };
        if matches!(compression, MASKS | MASKS_WITH_ALPHA) {
            let given = [u32_at(54)?, u32_at(58)?, u32_at(62)?];
            if given != [0; 3] {
                masks = given;
            }
            if size == 40 {
                after += if compression == MASKS { 12 } else { 16 };
            }
        }
        let mut data = u32_at(10)? as usize;
        let mut palette = Vec::new();
        if bits <= 8 {
            let each = if old { 3 } else { 4 };
            let colors = match field(46)? {
                _ if old => 1 << bits,
                0 => 1 << bits,
                n if n <= 1 << 16 => n as usize,
                n => return Err(format!("BMP: it claims a palette of {n} colours")),
            };
            let table = bytes.get(after..).unwrap_or(&[]);
            let entries = table.chunks_exact(each).take(colors.min(256));
            palette = entries.map(|c| [c[2], c[1], c[0]]).collect();
            check_grays(&palette, colors, bits)?;
            if data == end {
                // Some writers leave the palette out of account.
                data += colors * each;
            }
            after += colors * each;
        }
        if data == 0 {
            data = after;
        }
        Ok(Self {
            width: width as usize,
            height: height.unsigned_abs() as usize,
            from_the_top: height < 0,
            bits,
            compression,
            data,
            palette,
            masks,
        })
    }
}

/// Pillow leaves out a palette of black and white alone, or one whose colours are the gray levels 0, 1, 2 …, and then reads
/// pixels of the wrong size.
fn check_grays(palette: &[[u8; 3]], colors: usize, bits: u16) -> Result<(), String> {
    let level = |i: usize| if colors == 2 { 255 * i } else { i };
    let grays = palette.len() == colors
        && palette
            .iter()
            .enumerate()
            .all(|(i, color)| color.iter().all(|&v| usize::from(v) == level(i)));
    let read_as = if colors <= 2 { 1 } else { 8 };
    if grays && bits != read_as {
        return Err(format!(
            "BMP with {bits} bits a pixel and a palette of {colors} plain grays is not supported; convert it to PNG"
        ));
    }
    Ok(())
}

/// Undoes run lengths: an index a pixel, rows as they are stored. Pixels that are skipped or missing have index 0. What can be
/// read in two ways, and Pillow does in another than most, is refused.
fn run_lengths(data: &[u8], header: &Header) -> Result<Vec<u8>, String> {
    let (width, height) = (header.width, header.height);
    let nibbles = header.compression == RLE4;
    let strange = || "BMP: its run lengths do not fit its rows; convert it to PNG".to_owned();
    let mut out = vec![0; width * height];
    let (mut x, mut y) = (0, 0);
    let mut at = 0;
    while let (Some(&count), Some(&value)) = (data.get(at), data.get(at + 1)) {
        at += 2;
        let mut put = |x: usize, index: u8| {
            if x < width && y < height {
                out[y * width + x] = index;
            }
        };
        let half = |byte: u8, i: usize| match (nibbles, i % 2) {
            (false, _) => byte,
            (true, 0) => byte >> 4,
            (true, _) => byte & 15,
        };
        match (count, value) {
            // Pillow steps over the end of an empty row.
            (0, 0) if x == 0 => return Err(strange()),
            (0, 0) => (x, y) = (0, y + 1),
            (0, 1) => break,
            (0, 2) => {
                let (Some(&right), Some(&up)) = (data.get(at), data.get(at + 1)) else {
                    break;
                };
                at += 2;
                x += usize::from(right);
                y += usize::from(up);
                if x >= width {
                    return Err(strange());
                }
            }
            (0, n) => {
                let n = usize::from(n);
                // Pillow goes on with the next row.
                if x + n > width {
                    return Err(strange());
                }
                // Pillow counts from the beginning of the file to even places.
                if !header.data.is_multiple_of(2) {
                    return Err(
                        "BMP with run lengths at an odd place is not supported; convert it to PNG"
                            .into(),
                    );
                }
                for i in 0..n {
                    let byte = data.get(if nibbles { at + i / 2 } else { at + i });
                    let Some(&byte) = byte else { break };
                    put(x + i, half(byte, i));
                }
                x += n;
                let bytes = if nibbles { n.div_ceil(2) } else { n };
                at += bytes.next_multiple_of(2);
            }
            (n, _) => {
                for i in 0..usize::from(n) {
                    put(x + i, half(value, i));
                }
                x += usize::from(n);
            }
        }
        if y >= height {
            break;
        }
    }
    if y * width + x < width * height {
        return Err("BMP: the file ends early".to_owned());
    }
    Ok(out)
}
