//! A file that is written bit by bit and takes its name only when it is whole.

use crate::{Error, Result};
use std::fs::File;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// A file in the making, beside its final place; removed when dropped before [`Unfinished::finish`].
pub(super) struct Unfinished {
    file: NamedTempFile,
    path: PathBuf,
}

impl Unfinished {
    /// Starts the file that is to be `path`.
    ///
    /// # Errors
    /// When the folder can't be written to.
    pub fn create(path: &Path) -> Result<Self> {
        let folder = match path.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
        let file = tempfile::Builder::new()
            .prefix(".unfinished-")
            .suffix(".tmp")
            .tempfile_in(folder)
            .map_err(Error::io(folder))?;
        let path = path.to_owned();
        Ok(Self { file, path })
    }

    /// Where it will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A handle to write through.
    ///
    /// # Errors
    /// When the system has no more handles.
    pub fn writer(&self) -> Result<File> {
        self.file
            .as_file()
            .try_clone()
            .map_err(Error::io(&self.path))
    }

    /// Forces everything to disk and gives the file its name. Whoever wrote has flushed before.
    ///
    /// # Errors
    /// When the disk or the folder refuses.
    pub fn finish(self) -> Result<PathBuf> {
        let path = self.path;
        self.file.as_file().sync_all().map_err(Error::io(&path))?;
        self.file
            .persist(&path)
            .map_err(|e| Error::io(&path)(e.error))?;
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            File::open(folder)
                .and_then(|d| d.sync_all())
                .map_err(Error::io(folder))?;
        }
        Ok(path)
    }
}
