//! What the tags say about how pixels are stored, as far as it is supported.

use super::fax::Scheme;
use super::tags::Tags;
use crate::data::decode::check_size;
use crate::data::decode::rows::packed_bytes;

/// Bytes of packed samples that are unpacked at a time, where a row is not longer.
/// (Tests have small pictures.)
const BAND: usize = if cfg!(test) { 200 } else { 1 << 20 };

/// What samples mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colors {
    WhiteIsZero,
    BlackIsZero,
    Rgb,
    Palette,
    Cmyk,
    YCbCr,
}

/// What kind of number a sample is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SampleKind {
    Unsigned,
    Signed,
    Float,
}

/// How strips and tiles are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Lzw,
    Deflate,
    PackBits,
    Jpeg,
    Fax(Scheme),
}

/// How pixels are stored.
pub(super) struct Layout {
    pub width: usize,
    pub height: usize,
    pub colors: Colors,
    pub kind: SampleKind,
    pub bits: usize,
    /// Samples of a pixel, those of alpha and unknown meaning included.
    pub samples: usize,
    /// The place of an alpha channel that colours were multiplied by.
    pub premultiplied_by: Option<usize>,
    /// Whether each channel has chunks of its own.
    pub planar: bool,
    pub compression: Compression,
    pub predictor: u64,
    pub reversed_bits: bool,
    pub big_endian: bool,
    pub orientation: u64,
    /// Size of a strip or tile, and whether it is a tile.
    pub chunk: (usize, usize),
    pub tiled: bool,
    pub offsets: Vec<u64>,
    pub counts: Option<Vec<u64>>,
    /// Pixels that share a colour: across and down.
    pub subsampling: (usize, usize),
}

fn unsupported(what: &str) -> String {
    format!("TIFF with {what} is not supported; convert it to PNG")
}

impl Layout {
    pub fn read(tags: &Tags) -> Result<Self, String> {
        let side = |tag| {
            tags.numbers(tag)?
                .and_then(|v| v.first().copied())
                .ok_or_else(|| "TIFF: it does not tell its size".to_owned())
        };
        let (width, height) = (side(256)?, side(257)?);
        check_size(width, height)?;
        let (width, height) = (width as usize, height as usize);
        let t4 = tags.number(292, 0)?;
        let compression = match tags.number(259, 1)? {
            1 => Compression::None,
            2 => Compression::Fax(Scheme::Rows),
            3 => Compression::Fax(Scheme::Group3 {
                two_dimensional: t4 & 1 != 0,
            }),
            4 => Compression::Fax(Scheme::Group4),
            5 => Compression::Lzw,
            7 => Compression::Jpeg,
            8 | 32946 => Compression::Deflate,
            32773 => Compression::PackBits,
            other => return Err(unsupported(&compression_name(other))),
        };
        let samples = tags.number(277, 1)?;
        if !(1..=64).contains(&samples) {
            return Err(unsupported(&format!("{samples} samples a pixel")));
        }
        let samples = samples as usize;
        let mut bits = tags.numbers(258)?.unwrap_or_else(|| vec![1]);
        bits.truncate(samples);
        if bits.is_empty() || bits.iter().any(|b| *b != bits[0]) {
            return Err(unsupported("samples of different sizes"));
        }
        let bits = bits[0] as usize;
        let mut formats = tags.numbers(339)?.unwrap_or_else(|| vec![1]);
        formats.dedup();
        let kind = match formats[..] {
            [] | [1 | 4] => SampleKind::Unsigned,
            [2] => SampleKind::Signed,
            [3] => SampleKind::Float,
            _ => return Err(unsupported("samples of an unknown kind")),
        };
        let colors = match tags.number(262, 0)? {
            0 => Colors::WhiteIsZero,
            1 => Colors::BlackIsZero,
            2 => Colors::Rgb,
            3 => Colors::Palette,
            5 => Colors::Cmyk,
            6 if samples == 1 => Colors::BlackIsZero,
            6 => Colors::YCbCr,
            other => return Err(unsupported(&colors_name(other))),
        };
        let of_color = colors.samples();
        if samples < of_color {
            return Err(format!(
                "TIFF: {samples} samples a pixel do not make its colours"
            ));
        }
        if colors == Colors::Cmyk && tags.number(332, 1)? != 1 {
            return Err(unsupported("inks other than CMYK"));
        }
        let planar = samples > 1 && tags.number(284, 1)? == 2;
        // 1 says that colours were multiplied by alpha. Where nothing is said of it, Pillow takes it for that in this case.
        let extra = tags.numbers(338)?;
        let taken_for_alpha = extra.is_none()
            && planar
            && compression != Compression::None
            && colors == Colors::Rgb
            && samples == 4;
        let premultiplied = match extra.as_deref() {
            Some(extra) => extra.first() == Some(&1),
            None => taken_for_alpha,
        };
        let premultiplied_by = (samples > of_color && premultiplied).then_some(of_color);
        let mut layout = Self {
            width,
            height,
            colors,
            kind,
            bits,
            samples,
            premultiplied_by,
            planar,
            compression,
            predictor: tags.number(317, 1)?,
            reversed_bits: tags.number(266, 1)? == 2 && compression != Compression::Jpeg,
            big_endian: tags.big_endian,
            orientation: tags.number(274, 1)?,
            chunk: (width, height),
            tiled: false,
            offsets: Vec::new(),
            counts: None,
            subsampling: (1, 1),
        };
        layout.check_samples()?;
        layout.find_chunks(tags)?;
        layout.check_as_pillow(extra.is_some())?;
        if colors == Colors::YCbCr && compression != Compression::Jpeg {
            let by = tags.numbers(530)?;
            if compression == Compression::None {
                layout.check_raw_ycbcr(by.as_deref())?;
                return Ok(layout);
            }
            let by = by.unwrap_or_else(|| vec![2, 2]);
            match by[..] {
                [across @ (1 | 2 | 4), down @ (1 | 2 | 4)] => {
                    layout.subsampling = (across as usize, down as usize);
                }
                _ => return Err(unsupported("this subsampling of YCbCr")),
            }
            if layout.subsampling != (1, 1) && (layout.planar || layout.predictor != 1) {
                return Err(unsupported("subsampled YCbCr in this order"));
            }
        }
        Ok(layout)
    }

    /// Refuses samples that no rule is known for.
    fn check_samples(&self) -> Result<(), String> {
        let gray = matches!(self.colors, Colors::WhiteIsZero | Colors::BlackIsZero);
        let name = match self.kind {
            SampleKind::Unsigned => "",
            SampleKind::Signed => "signed ",
            SampleKind::Float => "floating-point ",
        };
        let fits = match (self.kind, self.bits) {
            (SampleKind::Unsigned, 1 | 2 | 4) => self.samples == 1,
            (SampleKind::Unsigned, 8) => true,
            (SampleKind::Unsigned, 12) => gray && self.samples == 1,
            (SampleKind::Unsigned, 16) => gray || matches!(self.colors, Colors::Rgb | Colors::Cmyk),
            (SampleKind::Signed, 8 | 16) | (_, 32) => gray && self.samples == 1,
            _ => false,
        };
        if !fits {
            let (n, bits) = (self.samples, self.bits);
            return Err(unsupported(&format!(
                "{n} {name}sample{} of {bits} bits a pixel in {}",
                if n == 1 { "" } else { "s" },
                self.colors.name()
            )));
        }
        let one_bit = self.bits == 1 && self.samples == 1;
        if matches!(self.compression, Compression::Fax(_)) && !one_bit {
            return Err("TIFF: fax compression is for one bit a pixel".to_owned());
        }
        if self.compression == Compression::Jpeg {
            if self.bits != 8 {
                return Err(unsupported("JPEG data of more than 8 bits"));
            }
            let odd = match self.colors {
                Colors::Palette => true,
                Colors::YCbCr => self.samples > 3,
                Colors::WhiteIsZero => self.samples > 1,
                Colors::BlackIsZero => self.samples > 2,
                Colors::Rgb | Colors::Cmyk => self.samples > 4,
            };
            if odd {
                let (n, name) = (self.samples, self.colors.name());
                return Err(unsupported(&format!(
                    "JPEG data of {n} samples a pixel in {name}"
                )));
            }
        } else {
            let fits = match self.predictor {
                1 => true,
                2 => matches!(self.bits, 8 | 16 | 32),
                3 => self.kind == SampleKind::Float && self.bits == 32,
                _ => false,
            };
            let predicts = matches!(self.compression, Compression::Lzw | Compression::Deflate);
            if predicts && !fits {
                return Err(unsupported(&format!(
                    "predictor {} and {} bits a sample",
                    self.predictor, self.bits
                )));
            }
        }
        Ok(())
    }

    /// Refuses what Pillow takes for something else than the file says: neither its pixels nor others would be right.
    fn check_as_pillow(&self, extra_told: bool) -> Result<(), String> {
        let raw = self.compression == Compression::None;
        let kind = match self.kind {
            SampleKind::Unsigned => "",
            SampleKind::Signed => "signed ",
            SampleKind::Float => "floating-point ",
        };
        let bits = self.bits;
        // It shows a negative of them.
        if self.colors == Colors::WhiteIsZero && (bits > 8 || self.kind != SampleKind::Unsigned) {
            return Err(unsupported(&format!(
                "white as zero in {kind}samples of {bits} bits"
            )));
        }
        // It turns their bytes round twice.
        if !raw && self.big_endian && bits > 8 && self.kind != SampleKind::Unsigned {
            return Err(unsupported(&format!(
                "compressed big-endian {kind}samples of {bits} bits"
            )));
        }
        // It takes each byte for a sample.
        if raw && self.planar && bits == 16 {
            return Err(unsupported("uncompressed planes of 16 bits"));
        }
        // It counts one plane less and so finds no row's end where the tile is wider than what is left of the picture.
        let more = self.samples > self.colors.samples() && !extra_told;
        if raw && self.planar && more && !self.width.is_multiple_of(self.chunk.0) {
            return Err(unsupported(
                "uncompressed planes in tiles and a channel that no tag explains",
            ));
        }
        Ok(())
    }

    /// Pillow takes YCbCr that is not compressed for having all its colours, whatever the tag `by` says.
    fn check_raw_ycbcr(&self, by: Option<&[u64]>) -> Result<(), String> {
        let rows = self.chunk.1;
        let bytes = (self.chunk.0 * rows * self.chunk_samples()) as u64;
        let whole = match by {
            Some(by) => by == [1, 1],
            // By the standard it would be 2 and 2, but some writers leave it out.
            None => self.counts.as_ref().is_some_and(|c| c[0] == bytes),
        };
        if whole {
            Ok(())
        } else {
            Err(unsupported("subsampled YCbCr that is not compressed"))
        }
    }

    /// Finds strips or tiles.
    fn find_chunks(&mut self, tags: &Tags) -> Result<(), String> {
        if !matches!(self.compression, Compression::Lzw | Compression::Deflate) {
            self.predictor = 1;
        }
        let strips = tags.numbers(273)?;
        self.tiled = strips.is_none();
        let (offsets, counts) = if let Some(offsets) = strips {
            let rows = tags.number(278, self.height as u64)?;
            let rows = usize::try_from(rows).unwrap_or(usize::MAX);
            if rows == 0 {
                return Err("TIFF: its strips have no rows".to_owned());
            }
            self.chunk = (self.width, rows.min(self.height));
            (offsets, tags.numbers(279)?)
        } else {
            let (w, h) = (tags.number(322, 0)?, tags.number(323, 0)?);
            if w == 0 || h == 0 {
                return Err("TIFF: there are neither strips nor tiles in it".to_owned());
            }
            check_size(w, h)?;
            self.chunk = (w as usize, h as usize);
            let offsets = tags.numbers(324)?.ok_or("TIFF: its tiles are missing")?;
            (offsets, tags.numbers(325)?)
        };
        let planes = if self.planar { self.samples } else { 1 };
        let (across, down) = self.chunks();
        if offsets.len() < across * down * planes {
            return Err("TIFF: strips or tiles are missing".to_owned());
        }
        self.offsets = offsets;
        self.counts = counts.filter(|c| c.len() >= across * down * planes);
        Ok(())
    }

    /// Chunks across and down.
    pub fn chunks(&self) -> (usize, usize) {
        (
            self.width.div_ceil(self.chunk.0),
            self.height.div_ceil(self.chunk.1),
        )
    }

    /// Samples of a pixel that are used: those of the colour and the alpha that they were multiplied by.
    pub fn kept(&self) -> usize {
        let of_color = self.colors.samples();
        self.premultiplied_by.map_or(of_color, |at| at + 1)
    }

    /// Whether a pixel's JPEG components are no colour that the JPEG decoder knows.
    pub fn jpeg_components(&self) -> bool {
        self.compression == Compression::Jpeg && !self.planar && !matches!(self.samples, 1 | 3)
    }

    /// Bytes of a stored row of a chunk; of subsampled colours, of a row of blocks.
    pub fn row_bytes(&self) -> usize {
        let across = self.chunk.0;
        match self.subsampling {
            (1, 1) => packed_bytes(across * self.chunk_samples(), self.bits),
            (by_x, by_y) => across.div_ceil(by_x) * (by_x * by_y + 2),
        }
    }

    /// Rows that are unpacked at a time.
    pub fn band(&self) -> usize {
        let blocks = (BAND / self.row_bytes()).clamp(1, self.chunk.1);
        blocks * self.subsampling.1
    }

    /// Bytes that unpacking takes beside the picture, but for JPEG.
    pub fn scratch(&self) -> u64 {
        if self.compression == Compression::Jpeg {
            return 0;
        }
        let (across, rows) = (self.chunk.0, self.chunk.1);
        let fax = match self.compression {
            Compression::Fax(_) => self.row_bytes() * rows,
            _ => 0,
        };
        // Values, and what a predictor needs of one row.
        let packed = (self.band() + 1) * self.row_bytes();
        (packed + self.band() * across * self.kept() + fax) as u64
    }

    /// Samples of a pixel within one chunk.
    pub fn chunk_samples(&self) -> usize {
        if self.planar { 1 } else { self.samples }
    }

    pub fn u16(&self, bytes: &[u8]) -> u16 {
        let two = [bytes[0], bytes[1]];
        if self.big_endian {
            u16::from_be_bytes(two)
        } else {
            u16::from_le_bytes(two)
        }
    }

    pub fn u32(&self, bytes: &[u8]) -> u32 {
        let four = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if self.big_endian {
            u32::from_be_bytes(four)
        } else {
            u32::from_le_bytes(four)
        }
    }

    pub fn bytes_of_u16(&self, value: u16) -> [u8; 2] {
        if self.big_endian {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }

    pub fn bytes_of_u32(&self, value: u32) -> [u8; 4] {
        if self.big_endian {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        }
    }
}

impl Colors {
    /// Samples that make the colour.
    pub fn samples(self) -> usize {
        match self {
            Self::WhiteIsZero | Self::BlackIsZero | Self::Palette => 1,
            Self::Rgb | Self::YCbCr => 3,
            Self::Cmyk => 4,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::WhiteIsZero | Self::BlackIsZero => "gray",
            Self::Palette => "a palette",
            Self::Rgb => "RGB",
            Self::Cmyk => "CMYK",
            Self::YCbCr => "YCbCr",
        }
    }
}

fn compression_name(code: u64) -> String {
    let name = match code {
        6 => "old-style JPEG compression",
        9 | 10 => "JBIG compression",
        32766 => "NeXT compression",
        32771 => "word-aligned CCITT compression",
        32809 => "ThunderScan compression",
        32908 | 32909 => "Pixar compression",
        33003 | 33005 | 34712 => "JPEG 2000 compression",
        34661 => "JBIG compression",
        34676 | 34677 => "SGI LogLuv compression",
        34887 => "LERC compression",
        34925 => "LZMA compression",
        34892 => "lossy JPEG (DNG) compression",
        50000 => "Zstandard compression",
        50001 => "WebP compression",
        50002 | 52546 => "JPEG XL compression",
        _ => return format!("compression number {code}"),
    };
    name.to_owned()
}

fn colors_name(code: u64) -> String {
    let name = match code {
        4 => "a transparency mask alone",
        8..=10 => "Lab colours",
        32803 | 34892 => "raw sensor data",
        32844 | 32845 => "LogLuv colours",
        _ => return format!("colours of unknown kind {code}"),
    };
    name.to_owned()
}
