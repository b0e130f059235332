//! Pictures and files of many images that commands and runs write: grids, before/after pairs, labelled rows, animations, `.npz`, line plots.

mod animation;
mod grid_file;
mod labels;
mod npz;
mod plot;
mod png_text;
mod sheet;

pub use animation::save_gif;
pub use grid_file::GridFile;
pub use npz::NpzImages;
pub use plot::{Plot, Reference, Series};
pub use png_text::{PngText, read_png_text};
pub use sheet::{Sheet, labelled_rows};

use crate::format::write_atomic;
use crate::{Error, Result};
use image::codecs::{jpeg::JpegEncoder, webp::WebPEncoder};
use image::{ExtendedColorType, ImageEncoder};
use std::path::Path;

/// Quality of JPEG files, 1 to 100: beyond it they grow fast and look no better.
const JPEG_QUALITY: u8 = 95;

/// How a picture is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PictureFormat {
    /// PNG.
    Png,
    /// JPEG.
    Jpeg,
    /// WebP, without loss.
    WebP,
}

impl PictureFormat {
    /// The format that a file's ending (in any case) asks for.
    pub fn of(path: &Path) -> Option<Self> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        match ending.as_str() {
            "png" => Some(Self::Png),
            "jpg" | "jpeg" => Some(Self::Jpeg),
            "webp" => Some(Self::WebP),
            _ => None,
        }
    }

    /// Most pixels along a side.
    fn most_side(self) -> usize {
        match self {
            Self::Png => i32::MAX as usize,
            Self::Jpeg => 65_535,
            Self::WebP => 16_384,
        }
    }
}

/// Most pixels of a picture that is held whole in memory: those of the largest WebP file.
const MOST_HELD: usize = 16_384 * 16_384;

/// Checks, before anything is drawn, that a [`grid`] of `n` tiles can be held and written to `path`. `advice` ends the message.
///
/// # Errors
/// As [`Sheet::check`].
pub fn check_grid(path: &Path, n: usize, side: usize, columns: usize, advice: &str) -> Result<()> {
    Sheet::new(n, side, columns).check(path, advice)
}

/// An 8-bit RGB picture, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// `[height, width, 3]`.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// One colour all over.
    pub fn filled(width: usize, height: usize, color: [u8; 3]) -> Self {
        Self {
            width,
            height,
            rgb: color.repeat(width * height),
        }
    }

    /// Copies `tile` (`[h, w, 3]`) to (`x`, `y`); what does not fit is cut off.
    pub fn paste(&mut self, tile: &[u8], (w, h): (usize, usize), (x, y): (usize, usize)) {
        let cols = w.min(self.width.saturating_sub(x));
        for row in 0..h.min(self.height.saturating_sub(y)) {
            let to = ((y + row) * self.width + x) * 3;
            self.rgb[to..to + cols * 3].copy_from_slice(&tile[row * w * 3..][..cols * 3]);
        }
    }

    /// Writes a file of the format that its ending asks for (PNG, where that is none), whole or not at all.
    ///
    /// # Errors
    /// When the picture is too large for the format, or the file can't be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        self.save_with(path, &[])
    }

    /// The same with texts, which PNG files carry and others do not.
    ///
    /// # Errors
    /// As [`Picture::save`].
    pub fn save_with(&self, path: &Path, texts: &[PngText]) -> Result<()> {
        let mut bytes = Vec::new();
        let failed = |e: String| Error::failed(format!("{}: {e}", path.display()));
        let (width, height) = (self.width as u32, self.height as u32);
        let (rgb, color) = (&self.rgb, ExtendedColorType::Rgb8);
        match PictureFormat::of(path).unwrap_or(PictureFormat::Png) {
            PictureFormat::Png => self
                .write_png(&mut bytes, texts)
                .map_err(|e| failed(e.to_string()))?,
            PictureFormat::Jpeg => JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)
                .write_image(rgb, width, height, color)
                .map_err(|e| failed(e.to_string()))?,
            PictureFormat::WebP => WebPEncoder::new_lossless(&mut bytes)
                .write_image(rgb, width, height, color)
                .map_err(|e| failed(e.to_string()))?,
        }
        write_atomic(path, |w| w.write_all(&bytes))
    }

    fn write_png(&self, out: &mut Vec<u8>, texts: &[PngText]) -> Result<(), png::EncodingError> {
        let (width, height) = (self.width as u32, self.height as u32);
        let mut encoder = png::Encoder::new(out, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        encoder.set_filter(png::Filter::Adaptive);
        png_text::add(&mut encoder, texts)?;
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.rgb)?;
        writer.finish()
    }
}

/// Space between tiles.
const GAP: usize = 2;

/// Square tiles of side `side` (`[n, side, side, 3]`) in rows of `columns`.
pub fn grid(tiles: &[u8], side: usize, columns: usize) -> Picture {
    let count = tiles.len() / (side * side * 3).max(1);
    Sheet::new(count, side, columns).picture(tiles)
}

/// Originals above their reconstructions, in pairs of rows of `columns`.
pub fn before_after(before: &[u8], after: &[u8], side: usize, columns: usize) -> Picture {
    let bytes = (side * side * 3).max(1);
    let mut tiles = Vec::new();
    let blank = vec![255u8; bytes];
    for (b, a) in before
        .chunks(bytes * columns.max(1))
        .zip(after.chunks(bytes * columns.max(1)))
    {
        for half in [b, a] {
            tiles.extend_from_slice(half);
            for _ in half.len() / bytes..columns {
                tiles.extend_from_slice(&blank);
            }
        }
    }
    grid(&tiles, side, columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_land_where_they_should() {
        let tiles: Vec<u8> = (0..5u8).flat_map(|i| [i * 10; 12]).collect();
        let g = grid(&tiles, 2, 3);
        assert_eq!((g.width, g.height), (3 * 4 + 2, 2 * 4 + 2));
        let pixel = |x: usize, y: usize| g.rgb[(y * g.width + x) * 3];
        assert_eq!(
            (pixel(2, 2), pixel(6, 2), pixel(2, 6), pixel(0, 0)),
            (0, 10, 30, 255)
        );
        let p = before_after(&tiles, &tiles, 2, 3);
        assert_eq!(p.height, 4 * 4 + 2);
    }

    #[test]
    fn a_grid_too_large_for_its_file_is_refused_beforehand() {
        let check = |name: &str, n, columns| check_grid(Path::new(name), n, 256, columns, "less");
        // 63 images of 256 pixels and their gaps are 16,256 pixels, 64 are 16,514; 254 are 65,534.
        for (name, fits) in [("x.webp", 63), ("x.JPG", 254)] {
            check(name, fits, fits).unwrap();
            check(name, fits, 1).unwrap();
            let text = check(name, fits + 1, fits + 1).unwrap_err().to_string();
            assert!(text.contains("along a side; give less"), "{text}");
            assert!(check(name, 8 * fits + 8, 8).is_err());
        }
        let text = check("x.png", 5000, 70).unwrap_err().to_string();
        assert!(text.contains("18062 by 18578 pixels"), "{text}");
        assert!(text.contains("held in memory"), "{text}");
        assert!(check_grid(Path::new("x.webp"), usize::MAX, 256, 8, "less").is_err());
    }
}
