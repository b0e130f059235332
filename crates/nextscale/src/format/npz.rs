//! Reading `.npz` archives: zip files of numpy arrays.

use super::npy::NpyHeader;
use crate::input::open_input;
use crate::{Error, Result};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use zip::ZipArchive;

/// An archive.
pub struct Npz {
    path: PathBuf,
    zip: ZipArchive<BufReader<File>>,
}

impl Npz {
    /// Opens it.
    ///
    /// # Errors
    /// One line when it can't be read or is no archive.
    pub fn open(path: &Path) -> Result<Self> {
        let (file, _) = open_input(path)?;
        let zip = ZipArchive::new(BufReader::new(file))
            .map_err(|e| Error::input(format!("{}: is no .npz archive: {e}", path.display())))?;
        Ok(Self {
            path: path.to_owned(),
            zip,
        })
    }

    /// The names of its arrays, without `.npy`.
    pub fn names(&self) -> Vec<String> {
        let names = self.zip.file_names().filter_map(Result::ok);
        let mut names: Vec<String> = names
            .map(|name| name.trim_end_matches(".npy").to_owned())
            .collect();
        names.sort();
        names
    }

    /// Whether there is such an array.
    pub fn has(&self, name: &str) -> bool {
        self.zip.index_for_name(&format!("{name}.npy")).is_some()
    }

    /// An array's header, and what its numbers are read from.
    ///
    /// # Errors
    /// One line when there is no such array, or it is of a kind that is not read.
    pub fn array(&mut self, name: &str) -> Result<(NpyHeader, impl Read + '_)> {
        let source = self.source(name);
        let entry = self.zip.by_name(&format!("{name}.npy"));
        let mut entry = entry.map_err(|e| Error::input(format!("{source}: can't be read: {e}")))?;
        let held = entry.size();
        let header = NpyHeader::read(&mut entry, &source)?;
        // Before anybody makes room for what a header says.
        let needed = header.numel() as u64 * header.dtype.size() as u64;
        if needed > held {
            return Err(Error::input(format!(
                "{source}: is of shape {:?}, which takes {needed} bytes, and holds {held}; get or make the file again",
                header.shape
            )));
        }
        Ok((header, entry))
    }

    /// A text that is no array; `None` where there is none of that name.
    ///
    /// # Errors
    /// One line when it can't be read, or is longer than texts here are.
    pub fn text(&mut self, name: &str) -> Result<Option<String>> {
        let source = self.source(name);
        if self.zip.index_for_name(name).is_none() {
            return Ok(None);
        }
        let bad = |e: &dyn std::fmt::Display| Error::input(format!("{source}: can't be read: {e}"));
        let entry = self.zip.by_name(name).map_err(|e| bad(&e))?;
        let mut text = String::new();
        let most = 1 << 16;
        entry
            .take(most)
            .read_to_string(&mut text)
            .map_err(|e| bad(&e))?;
        Ok(Some(text))
    }

    /// An array in messages.
    pub fn source(&self, name: &str) -> String {
        format!("{}: {name}", self.path.display())
    }

    /// All of an array of a shape that fits, as float64.
    ///
    /// # Errors
    /// As [`Npz::array`], and where the shape is another.
    pub fn numbers(
        &mut self,
        name: &str,
        fits: impl Fn(&[usize]) -> bool,
    ) -> Result<(Vec<usize>, Vec<f64>)> {
        let source = self.source(name);
        let (header, mut from) = self.array(name)?;
        if !fits(&header.shape) {
            let found = &header.shape;
            return Err(Error::input(format!(
                "{source}: is of shape {found:?}, which does not fit"
            )));
        }
        let values = header.read_f64(&mut from, header.numel(), &source)?;
        Ok((header.shape, values))
    }
}
