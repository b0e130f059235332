//! A grid of images as one PNG file, written a row of images at a time: memory does not grow with the number of images.

use super::{GAP, grid_size};
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
    side: usize,
    columns: usize,
    missing: usize,
    /// The row of images being filled, with the gap above it, and how many it holds.
    row: Vec<u8>,
    held: usize,
}

impl GridFile {
    /// Starts a grid of `n` square images, `columns` a row, white between them.
    ///
    /// # Errors
    /// When the folder can't be written to or the picture would be too large for PNG.
    pub fn create(path: &Path, n: usize, side: usize, columns: usize) -> Result<Self> {
        let file = Unfinished::create(path)?;
        let columns = columns.clamp(1, n.max(1));
        let (width, height) = grid_size(n, side, columns);
        let extent = |pixels: usize| {
            u32::try_from(pixels).map_err(|_| {
                Error::input(format!(
                    "{}: a grid of {n} images is too large for one picture; write to a folder",
                    path.display()
                ))
            })
        };
        // Without a buffer of our own: what is left in one when it is dropped could fail unseen.
        let mut encoder = Encoder::new(file.writer()?, extent(width)?, extent(height)?);
        encoder.set_color(ColorType::Rgb);
        encoder.set_depth(BitDepth::Eight);
        let failed = |e: png::EncodingError| Error::failed(format!("{}: {e}", path.display()));
        let lines = encoder
            .write_header()
            .and_then(png::Writer::into_stream_writer)
            .map_err(failed)?;
        Ok(Self {
            lines,
            file,
            side,
            columns,
            missing: n,
            row: vec![255; width * 3 * (side + GAP)],
            held: 0,
        })
    }

    /// Adds images, `[…, side, side, 3]`.
    ///
    /// # Errors
    /// When there are more than announced, or writing fails.
    pub fn append(&mut self, pixels: &[u8]) -> Result<()> {
        let line = self.side * 3;
        let width = (self.columns * (self.side + GAP) + GAP) * 3;
        for image in pixels.chunks_exact(line * self.side) {
            self.missing = self
                .missing
                .checked_sub(1)
                .ok_or_else(|| Error::failed("more images than announced"))?;
            let left = (GAP + self.held * (self.side + GAP)) * 3;
            let rows = self.row.chunks_exact_mut(width).skip(GAP);
            for (to, from) in rows.zip(image.chunks_exact(line)) {
                to[left..left + line].copy_from_slice(from);
            }
            self.held += 1;
            if self.held == self.columns || self.missing == 0 {
                self.lines
                    .write_all(&self.row)
                    .map_err(Error::io(self.file.path()))?;
                self.row.fill(255);
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
        let gap = (self.columns * (self.side + GAP) + GAP) * 3 * GAP;
        self.lines
            .write_all(&self.row[..gap])
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
    use crate::pictures::grid;

    #[test]
    fn equals_the_grid_made_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let tiles: Vec<u8> = (0..7 * 4 * 4 * 3).map(|i| (i * 37 % 251) as u8).collect();
        for columns in [1, 3, 7, 20] {
            let path = dir.path().join(format!("{columns}.png"));
            let mut file = GridFile::create(&path, 7, 4, columns).unwrap();
            for part in tiles.chunks(2 * 4 * 4 * 3) {
                file.append(part).unwrap();
            }
            assert!(!path.exists());
            file.finish().unwrap();
            let got = image::open(&path).unwrap().into_rgb8();
            let want = grid(&tiles, 4, columns);
            assert_eq!(
                (got.width() as usize, got.height() as usize),
                (want.width, want.height)
            );
            assert_eq!(got.into_raw(), want.rgb);
        }
    }

    #[test]
    fn the_count_must_fit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.png");
        let mut file = GridFile::create(&path, 1, 4, 8).unwrap();
        assert!(file.append(&[0; 2 * 4 * 4 * 3]).is_err());
        let file = GridFile::create(&path, 1, 4, 8).unwrap();
        assert!(file.finish().is_err());
        assert!(!path.exists());
    }
}
