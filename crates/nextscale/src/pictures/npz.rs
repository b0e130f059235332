//! Images as one `.npz` file, `arr_0` of type uint8 `[N, H, W, 3]`, as FID tools read them. Written batch by batch: memory
//! does not grow with the number of images.

use crate::format::atomic::Unfinished;
use crate::format::npy::{NpyHeader, NpyType};
use crate::{Error, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A file in the making; it appears under its name when it is whole.
pub struct NpzImages {
    zip: ZipWriter<BufWriter<File>>,
    file: Unfinished,
    missing: usize,
}

impl NpzImages {
    /// Starts a file for `n` images.
    ///
    /// # Errors
    /// When the folder can't be written to.
    pub fn create(path: &Path, n: usize, height: usize, width: usize) -> Result<Self> {
        let file = Unfinished::create(path)?;
        let mut zip = ZipWriter::new(BufWriter::new(file.writer()?));
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .large_file(n * height * width * 3 > 1 << 31);
        let failed = |e: zip::result::ZipError| Error::failed(format!("{}: {e}", path.display()));
        zip.start_file("arr_0.npy", options).map_err(failed)?;
        let header = NpyHeader::new(NpyType::U8, &[n, height, width, 3]);
        zip.write_all(&header.to_bytes()).map_err(Error::io(path))?;
        Ok(Self {
            zip,
            file,
            missing: n * height * width * 3,
        })
    }

    /// Adds images, `[…, H, W, 3]`.
    ///
    /// # Errors
    /// When there are more than announced, or writing fails.
    pub fn append(&mut self, pixels: &[u8]) -> Result<()> {
        self.missing = self
            .missing
            .checked_sub(pixels.len())
            .ok_or_else(|| Error::failed("more images than announced"))?;
        self.zip
            .write_all(pixels)
            .map_err(Error::io(self.file.path()))
    }

    /// Ends the file and gives it its name.
    ///
    /// # Errors
    /// When images are missing, or writing fails.
    pub fn finish(self) -> Result<PathBuf> {
        if self.missing > 0 {
            return Err(Error::failed("fewer images than announced"));
        }
        let path = self.file.path();
        let failed = |e: zip::result::ZipError| Error::failed(format!("{}: {e}", path.display()));
        let buffered = self.zip.finish().map_err(failed)?;
        buffered
            .into_inner()
            .map_err(|e| Error::io(path)(e.into_error()))?;
        self.file.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[cfg(unix)]
    #[test]
    fn has_the_mode_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (plain, path) = (dir.path().join("plain"), dir.path().join("x.npz"));
        File::create(&plain).unwrap();
        let mut f = NpzImages::create(&path, 1, 1, 1).unwrap();
        f.append(&[1, 2, 3]).unwrap();
        f.finish().unwrap();
        let mode = |p| std::fs::metadata(p).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&plain));
    }

    #[test]
    fn reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npz");
        let mut f = NpzImages::create(&path, 2, 1, 2).unwrap();
        f.append(&[1, 2, 3, 4, 5, 6]).unwrap();
        assert!(!path.exists());
        f.append(&[7, 8, 9, 10, 11, 12]).unwrap();
        assert!(f.append(&[0]).is_err());
        f.finish().unwrap();
        let mut zip = zip::ZipArchive::new(File::open(&path).unwrap()).unwrap();
        let mut bytes = Vec::new();
        zip.by_name("arr_0.npy")
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
        assert_eq!(&bytes[..6], b"\x93NUMPY");
        assert_eq!(bytes.len() % 64, 12);
        assert_eq!(
            &bytes[bytes.len() - 12..],
            [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
        );
        let few = NpzImages::create(&path, 2, 1, 2).unwrap();
        assert!(few.finish().is_err());
    }
}
