//! PNM: P1 to P6, and PFM in gray.

use super::check_size;
use super::room::Room;
use super::rows::{packed_bytes, unpack};
use crate::data::RgbImage8;

/// Decodes into `image`; the text of an error says what is wrong with the file.
pub(super) fn decode(bytes: &[u8], image: &mut RgbImage8, room: &mut Room) -> Result<(), String> {
    let kind = bytes.get(1).copied().unwrap_or(0) - b'0';
    let (plain, bilevel) = (kind <= 3, kind % 3 == 1);
    let channels = if kind.is_multiple_of(3) { 3 } else { 1 };
    let mut text = Text { bytes, at: 2 };
    let width = text.number()?;
    let height = text.number()?;
    let most = if bilevel { 1 } else { text.number()? };
    if !(1..=65535).contains(&most) {
        return Err(format!("PNM: its largest value is given as {most}"));
    }
    check_size(width.into(), height.into())?;
    let (width, height) = (width as usize, height as usize);
    let per_row = width * channels;
    let wide = most > 255;
    // One white character ends the header.
    let mut data = bytes.get(text.at + 1..).unwrap_or(&[]);
    let least = match (plain, bilevel, wide) {
        (true, true, _) => per_row * height,
        // A digit each, with something between them.
        (true, false, _) => 2 * per_row * height - 1,
        (false, true, _) => packed_bytes(per_row, 1) * height,
        (false, false, false) => per_row * height,
        (false, false, true) => 2 * per_row * height,
    };
    if data.len() < least {
        return Err("PNM: the file ends early".to_owned());
    }
    room.claim((width * height * 3 + per_row) as u64)?;
    let mut samples = vec![0; per_row];
    let scale = |value: u32| match wide {
        // 16 bits: the high byte of what fills them, as everywhere; colours are brought to 8 bits at once.
        true if channels == 1 => (scaled(value, most, 65535) >> 8) as u8,
        _ => scaled(value, most, 255) as u8,
    };
    for rgb in image.reset(width, height).chunks_exact_mut(3 * width) {
        if plain {
            for sample in &mut samples {
                let value = if bilevel { text.bit()? } else { text.number()? };
                if value > most {
                    return Err(format!(
                        "PNM: a value of {value} is above the largest, {most}"
                    ));
                }
                *sample = if bilevel {
                    255 * (1 - value as u8)
                } else {
                    scale(value)
                };
            }
        } else {
            let bits = match (bilevel, wide) {
                (true, _) => 1,
                (false, false) => 8,
                (false, true) => 16,
            };
            let row;
            (row, data) = data
                .split_at_checked(packed_bytes(per_row, bits))
                .ok_or("PNM: the file ends early")?;
            if bilevel {
                unpack(1, row, &mut samples);
                samples.iter_mut().for_each(|s| *s = 255 * (1 - *s));
            } else if wide {
                for (to, from) in samples.iter_mut().zip(row.chunks_exact(2)) {
                    *to = scale(u32::from(u16::from_be_bytes([from[0], from[1]])));
                }
            } else {
                for (to, &from) in samples.iter_mut().zip(row) {
                    *to = scale(u32::from(from));
                }
            }
        }
        if channels == 3 {
            rgb.copy_from_slice(&samples);
        } else {
            for (rgb, &sample) in rgb.chunks_exact_mut(3).zip(&samples) {
                rgb.fill(sample);
            }
        }
    }
    Ok(())
}

/// Decodes gray levels that are floating-point numbers, 0 to 255, the lowest row first.
pub(super) fn decode_floats(
    bytes: &[u8],
    image: &mut RgbImage8,
    room: &mut Room,
) -> Result<(), String> {
    let mut text = Text { bytes, at: 2 };
    let (width, height) = (text.number()?, text.number()?);
    text.skip();
    let rest = bytes.get(text.at..).unwrap_or(&[]);
    let length = rest.iter().position(u8::is_ascii_whitespace);
    let (scale, data) = rest.split_at(length.ok_or("PFM: the file ends early")?);
    let scale: f64 = std::str::from_utf8(scale)
        .ok()
        .and_then(|t| t.parse().ok())
        .filter(|s: &f64| s.is_finite() && *s != 0.0)
        .ok_or("PFM: its scale is no number")?;
    check_size(width.into(), height.into())?;
    let (width, height) = (width as usize, height as usize);
    // The sign of the scale tells the order of bytes; its size is not regarded.
    let value = |four: &[u8]| {
        let four = [four[0], four[1], four[2], four[3]];
        if scale < 0.0 {
            f32::from_le_bytes(four)
        } else {
            f32::from_be_bytes(four)
        }
    };
    let rows = data[1..].chunks_exact(4 * width).take(height);
    if rows.len() < height {
        return Err("PFM: the file ends early".to_owned());
    }
    room.claim((width * height * 3) as u64)?;
    let lines = image.reset(width, height).chunks_exact_mut(3 * width);
    for (row, line) in rows.zip(lines.rev()) {
        for (four, rgb) in row.chunks_exact(4).zip(line.chunks_exact_mut(3)) {
            rgb.fill(value(four) as u8);
        }
    }
    Ok(())
}

/// value / most · full, rounded, ties to even.
fn scaled(value: u32, most: u32, full: u32) -> u32 {
    if most == full {
        return value;
    }
    let exact = f64::from(value) / f64::from(most) * f64::from(full);
    (exact.round_ties_even() as u32).min(full)
}

/// Numbers with white space and comments between them.
struct Text<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Text<'_> {
    /// Steps over white space and comments.
    fn skip(&mut self) {
        while let Some(&byte) = self.bytes.get(self.at) {
            if byte == b'#' {
                let rest = &self.bytes[self.at..];
                let line = rest.iter().position(|b| matches!(b, b'\n' | b'\r'));
                self.at += line.unwrap_or(rest.len());
            } else if byte.is_ascii_whitespace() || byte == 0x0b {
                self.at += 1;
            } else {
                break;
            }
        }
    }

    fn number(&mut self) -> Result<u32, String> {
        self.skip();
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        if rest.is_empty() {
            return Err("PNM: the file ends early".to_owned());
        }
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let number = std::str::from_utf8(&rest[..digits])
            .ok()
            .and_then(|t| t.parse().ok())
            .ok_or("PNM: there is no number where one must be")?;
        self.at += digits;
        Ok(number)
    }

    /// A 0 or 1, which need no space between them.
    fn bit(&mut self) -> Result<u32, String> {
        self.skip();
        let bit = match self.bytes.get(self.at) {
            Some(b'0') => 0,
            Some(b'1') => 1,
            Some(_) => return Err("PNM: there is something else than 0 and 1".to_owned()),
            None => return Err("PNM: the file ends early".to_owned()),
        };
        self.at += 1;
        Ok(bit)
    }
}
