//! From samples to red, green and blue.

use super::layout::{Colors, Compression, Layout, SampleKind};
use super::tags::Tags;
use crate::data::decode::rows::{colors_of, gray_factor, unpack};

/// Brings a row of packed samples to 8 bits each: those of all channels, or of `plane` alone.
pub(super) fn to_bytes(layout: &Layout, row: &[u8], plane: usize, values: &mut [u8]) {
    let kept = layout.kept();
    let stored = layout.chunk_samples();
    let (taken, step) = if layout.planar {
        (1, kept)
    } else {
        (kept, kept)
    };
    let inverted = layout.colors == Colors::WhiteIsZero && layout.bits <= 8;
    if layout.bits < 8 {
        unpack(layout.bits as u8, row, values);
        let factor = match layout.colors {
            Colors::Palette => 1,
            _ => gray_factor(layout.bits as u8),
        };
        for value in values {
            *value *= factor;
            if inverted {
                *value = !*value;
            }
        }
        return;
    }
    if layout.bits == 12 {
        for (i, value) in values.iter_mut().enumerate() {
            // The upper 8 of 12 bits.
            let at = i * 3 / 2;
            *value = if i % 2 == 0 {
                row[at]
            } else {
                row[at] << 4 | row[at + 1] >> 4
            };
        }
        return;
    }
    let size = layout.bits / 8;
    for (pixel, values) in row
        .chunks_exact(stored * size)
        .zip(values.chunks_exact_mut(step))
    {
        let samples = pixel.chunks_exact(size).take(taken);
        for (sample, value) in samples.zip(&mut values[plane..]) {
            *value = match (layout.kind, size) {
                (_, 1) if inverted => !sample[0],
                (_, 1) => sample[0],
                (SampleKind::Unsigned, 2) => (layout.u16(sample) >> 8) as u8,
                (SampleKind::Signed, 2) => (layout.u16(sample) as i16).clamp(0, 255) as u8,
                (SampleKind::Float, _) => f32::from_bits(layout.u32(sample)) as u8,
                _ => (layout.u32(sample) as i32).clamp(0, 255) as u8,
            };
        }
    }
}

/// Turns rows of 8-bit samples into colours.
pub(super) struct ToRgb {
    palette: Vec<[u8; 3]>,
    ycbcr: Option<YCbCr>,
}

impl ToRgb {
    pub fn new(tags: &Tags, layout: &Layout) -> Result<Self, String> {
        let mut palette = Vec::new();
        if layout.colors == Colors::Palette {
            let map = tags.numbers(320)?.ok_or("TIFF: its palette is missing")?;
            let n = map.len() / 3;
            let level = |i: usize| (map[i] / 256) as u8;
            palette = (0..n)
                .map(|i| [level(i), level(n + i), level(2 * n + i)])
                .collect();
        }
        let ycbcr = match layout.colors {
            Colors::YCbCr if layout.compression != Compression::Jpeg || layout.planar => {
                Some(if layout.compression == Compression::None {
                    YCbCr::coarse()
                } else {
                    YCbCr::new(tags)?
                })
            }
            _ => None,
        };
        Ok(Self { palette, ycbcr })
    }

    /// One row; `n` samples a pixel.
    pub fn row(&mut self, layout: &Layout, n: usize, samples: &[u8], rgb: &mut [u8]) {
        let pixels = rgb.chunks_exact_mut(3).zip(samples.chunks_exact(n));
        match layout.colors {
            _ if layout.compression == Compression::Jpeg
                && !layout.planar
                && !layout.jpeg_components() =>
            {
                rgb.copy_from_slice(&samples[..rgb.len()]);
                if layout.colors == Colors::WhiteIsZero {
                    rgb.iter_mut().for_each(|v| *v = !*v);
                }
            }
            Colors::Palette if n == 1 => colors_of(&self.palette, samples, rgb),
            Colors::Palette => {
                for (rgb, s) in pixels {
                    colors_of(&self.palette, &s[..1], rgb);
                }
            }
            Colors::WhiteIsZero | Colors::BlackIsZero => {
                for (rgb, s) in pixels {
                    rgb.fill(match s {
                        [v] => *v,
                        _ => divided(s[0], s[1]),
                    });
                }
            }
            Colors::Rgb => {
                for (rgb, s) in pixels {
                    match s {
                        [r, g, b, a] => {
                            rgb.copy_from_slice(&[*r, *g, *b].map(|v| divided(v, *a)));
                        }
                        _ => rgb.copy_from_slice(&s[..3]),
                    }
                }
            }
            Colors::Cmyk => {
                for (rgb, s) in pixels {
                    let light = 255 - u32::from(s[3]);
                    for (to, &ink) in rgb.iter_mut().zip(&s[..3]) {
                        // ink · light / 255, rounded.
                        let product = u32::from(ink) * light + 128;
                        let covered = (product + (product >> 8)) >> 8;
                        *to = light.saturating_sub(covered) as u8;
                    }
                }
            }
            Colors::YCbCr => {
                if let Some(rule) = &self.ycbcr {
                    for (rgb, s) in pixels {
                        rgb.copy_from_slice(&rule.rgb(s[0], s[1], s[2]));
                    }
                }
            }
        }
    }
}

/// A colour before it was multiplied by alpha.
fn divided(value: u8, alpha: u8) -> u8 {
    match alpha {
        0 => 0,
        255 => value,
        _ => (u32::from(value) * 255 / u32::from(alpha)).min(255) as u8,
    }
}

/// From luma and colour differences to colours, in fixed point.
struct YCbCr {
    /// Bits after the point.
    shift: u32,
    luma: Vec<i32>,
    red: Vec<i32>,
    green_by_red: Vec<i32>,
    green_by_blue: Vec<i32>,
    blue: Vec<i32>,
}

impl YCbCr {
    /// With 6 bits after the point, as Pillow reads what is not compressed.
    fn coarse() -> Self {
        let table = |weight: f64, shift: u32| {
            let value = |v: i32| ((weight * f64::from(v - 128) * 64.0 + 0.5) as i32) >> shift;
            (0..256).map(value).collect()
        };
        Self {
            shift: 6,
            luma: (0..256).collect(),
            red: table(1.402, 6),
            green_by_red: table(-0.71414, 0),
            green_by_blue: table(-0.34414, 0),
            blue: table(1.772, 6),
        }
    }

    /// With 16 bits and the file's coefficients, as libtiff has it.
    fn new(tags: &Tags) -> Result<Self, String> {
        let given = |tag, n: usize, default: &[f64]| {
            let values = tags.fractions(tag)?.filter(|v| v.len() == n);
            Ok::<_, String>(values.unwrap_or_else(|| default.to_vec()))
        };
        let weights = given(529, 3, &[0.299, 0.587, 0.114])?;
        let range = given(532, 6, &[0.0, 255.0, 128.0, 255.0, 128.0, 255.0])?;
        let ok = weights.iter().chain(&range).all(|v| v.is_finite());
        if !ok || weights[1] == 0.0 {
            return Err("TIFF: its YCbCr coefficients are no numbers".to_owned());
        }
        let fixed = |v: f64| (v * 65536.0 + 0.5) as i64;
        let to_red = 2.0 - 2.0 * weights[0];
        let to_blue = 2.0 - 2.0 * weights[2];
        let red_to_green = -fixed(weights[0] * to_red / weights[1]);
        let blue_to_green = -fixed(weights[2] * to_blue / weights[1]);
        let span = |low: f64, high: f64| if high == low { 1.0 } else { high - low };
        let level = |v: i32, low: f64, high: f64, full: f64| {
            ((f64::from(v) - low.trunc()) * full / span(low, high)) as i64
        };
        let narrow = |v: i64| v.clamp(-(1 << 24), 1 << 24);
        let table = |f: &dyn Fn(i32) -> i64| (0..256).map(|v| f(v) as i32).collect();
        let cb = |v: i32| narrow(level(v - 128, range[2] - 128.0, range[3] - 128.0, 127.0));
        let cr = |v: i32| narrow(level(v - 128, range[4] - 128.0, range[5] - 128.0, 127.0));
        Ok(Self {
            shift: 16,
            luma: table(&|v| narrow(level(v, range[0], range[1], 255.0))),
            red: table(&|v| (fixed(to_red) * cr(v) + 32768) >> 16),
            blue: table(&|v| (fixed(to_blue) * cb(v) + 32768) >> 16),
            green_by_red: table(&|v| (red_to_green * cr(v)).clamp(-(1 << 29), 1 << 29)),
            green_by_blue: table(&|v| (blue_to_green * cb(v) + 32768).clamp(-(1 << 29), 1 << 29)),
        })
    }

    fn rgb(&self, y: u8, cb: u8, cr: u8) -> [u8; 3] {
        let (y, cb, cr) = (usize::from(y), usize::from(cb), usize::from(cr));
        let y = self.luma[y];
        let green = (self.green_by_blue[cb] + self.green_by_red[cr]) >> self.shift;
        [y + self.red[cr], y + green, y + self.blue[cb]].map(|v| v.clamp(0, 255) as u8)
    }
}
