//! A grid of images as one PNG file, written a row of images at a time: memory does not grow with the number of images.

use super::png_text::{self, PngText};
use super::{GAP, Picture, Sheet};
use crate::format::atomic::Unfinished;
use crate::{Error, Result};
use png::{BitDepth, ColorType, Encoder, StreamWriter};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A file in the making; it appears under its name when it is whole.
pub struct GridFile {
    lines: StreamWriter<'static, File>,
    file: Unfinished,
    sheet: Sheet,
    missing: usize,
    /// The row of images being filled, its number, and how many it holds.
    band: Picture,
    row: usize,
    held: usize,
}

impl GridFile {
    /// Starts the grid that `sheet` describes, with texts.
    ///
    /// # Errors
    /// When the folder can't be written to or the picture would be too large for PNG.
    pub fn create(path: &Path, sheet: Sheet, texts: &[PngText]) -> Result<Self> {
        let file = Unfinished::create(path)?;
        let (width, height) = sheet.size();
        let extent = |pixels: usize| {
            u32::try_from(pixels).map_err(|_| {
                Error::input(format!(
                    "{}: a grid of {} images is too large for one picture; write to a folder",
                    path.display(),
                    sheet.count()
                ))
            })
        };
        // Without a buffer of our own: what is left in one when it is dropped could fail unseen.
        let mut encoder = Encoder::new(file.writer()?, extent(width)?, extent(height)?);
        encoder.set_color(ColorType::Rgb);
        encoder.set_depth(BitDepth::Eight);
        let failed = |e: png::EncodingError| Error::failed(format!("{}: {e}", path.display()));
        png_text::add(&mut encoder, texts).map_err(failed)?;
        let mut lines = encoder
            .write_header()
            .and_then(png::Writer::into_stream_writer)
            .map_err(failed)?;
        lines
            .write_all(&sheet.head().rgb)
            .map_err(Error::io(path))?;
        Ok(Self {
            lines,
            file,
            missing: sheet.count(),
            band: sheet.band(0),
            sheet,
            row: 0,
            held: 0,
        })
    }

    /// Adds images, `[…, side, side, 3]`.
    ///
    /// # Errors
    /// When there are more than announced, or writing fails.
    pub fn append(&mut self, pixels: &[u8]) -> Result<()> {
        let side = self.sheet.side();
        for image in pixels.chunks_exact(side * side * 3) {
            self.missing = self
                .missing
                .checked_sub(1)
                .ok_or_else(|| Error::failed("more images than announced"))?;
            self.sheet.set(&mut self.band, self.held, image);
            self.held += 1;
            if self.held == self.sheet.columns() || self.missing == 0 {
                self.lines
                    .write_all(&self.band.rgb)
                    .map_err(Error::io(self.file.path()))?;
                self.row += 1;
                self.band = self.sheet.band(self.row);
                self.held = 0;
            }
        }
        Ok(())
    }

    /// Ends the file and gives it its name.
    ///
    /// # Errors
    /// When images are missing, or writing fails.
    pub fn finish(mut self) -> Result<PathBuf> {
        if self.missing > 0 {
            return Err(Error::failed("fewer images than announced"));
        }
        let gap = vec![255; self.sheet.size().0 * 3 * GAP];
        self.lines
            .write_all(&gap)
            .map_err(Error::io(self.file.path()))?;
        self.lines
            .finish()
            .map_err(|e| Error::failed(format!("{}: {e}", self.file.path().display())))?;
        // The encoder writes the last chunk as it is dropped and says nothing when that fails.
        let mut end = [0; 8];
        let mut written = self.file.writer()?;
        written
            .seek(SeekFrom::End(-8))
            .and_then(|_| written.read_exact(&mut end))
            .map_err(Error::io(self.file.path()))?;
        if end != *b"IEND\xaeB`\x82" {
            let path = self.file.path().display();
            return Err(Error::failed(format!(
                "{path}: the end could not be written; is the disk full?"
            )));
        }
        self.file.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pictures::{grid, read_png_text};

    fn written(path: &Path, sheet: Sheet, tiles: &[u8]) -> Picture {
        let texts = [("k".to_owned(), "text".to_owned())];
        let mut file = GridFile::create(path, sheet, &texts).unwrap();
        for part in tiles.chunks(2 * 4 * 4 * 3) {
            file.append(part).unwrap();
        }
        assert!(!path.exists());
        file.finish().unwrap();
        assert_eq!(read_png_text(path, "k").unwrap().as_deref(), Some("text"));
        let got = image::open(path).unwrap().into_rgb8();
        Picture {
            width: got.width() as usize,
            height: got.height() as usize,
            rgb: got.into_raw(),
        }
    }

    #[test]
    fn equals_the_grid_made_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let tiles: Vec<u8> = (0..7 * 4 * 4 * 3).map(|i| (i * 37 % 251) as u8).collect();
        for columns in [1, 3, 7, 20] {
            let sheet = Sheet::new(7, 4, columns);
            let path = dir.path().join(format!("{columns}.png"));
            assert_eq!(
                written(&path, sheet.clone(), &tiles),
                grid(&tiles, 4, columns)
            );
            let names: Vec<String> = ["a", "bc", "d"].map(str::to_owned).into();
            let sheet = sheet.with_rows(&names).with_heads(&names, 1);
            let path = dir.path().join(format!("{columns}-named.png"));
            assert_eq!(written(&path, sheet.clone(), &tiles), sheet.picture(&tiles));
        }
    }

    #[test]
    fn the_count_must_fit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.png");
        let create = || GridFile::create(&path, Sheet::new(1, 4, 8), &[]).unwrap();
        assert!(create().append(&[0; 2 * 4 * 4 * 3]).is_err());
        assert!(create().finish().is_err());
        assert!(!path.exists());
    }
}
