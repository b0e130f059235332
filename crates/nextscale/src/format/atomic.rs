//! Writing a file whole or not at all.
//!
//! The content goes to a temporary file in the same folder, is forced to disk, and only then takes the
//! final name. Whatever goes wrong before (a full disk, a kill, a power cut), the file of that name stays
//! what it was. What an interrupted process leaves goes at its end ([`leave`]); what a killed one leaves goes
//! when the next process writes into that folder ([`clean_stale`]).

mod active;
mod stale;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Once;

#[cfg(feature = "cli")]
pub use active::leave;
pub use stale::clean_stale;

use crate::remark::remark;
use crate::{Error, Result};

/// What [`write_atomic`] hands out: somewhere to write, with seeking (archives need it).
pub trait WriteSeek: Write + Seek {}
impl<T: Write + Seek + ?Sized> WriteSeek for T {}

/// Writes the file at `path` by calling `write`, so that the name shows either the old or the whole new content.
/// A symbolic link is followed: the file that it points to is replaced. A replaced file's mode is kept.
///
/// # Errors
/// Any error of `write`, of the disk or of the folder; the old file is then unchanged and the temporary one removed.
pub fn write_atomic<F>(path: impl AsRef<Path>, write: F) -> Result<()>
where
    F: FnOnce(&mut dyn WriteSeek) -> io::Result<()>,
{
    let path = path.as_ref();
    let file = Unfinished::create(path)?;
    let mut out = BufWriter::with_capacity(1 << 20, file.writer()?);
    write(&mut out)
        .and_then(|()| out.flush())
        .map_err(Error::io(path))?;
    file.finish()?;
    Ok(())
}

/// A file in the making, beside its final place; removed when dropped before [`Unfinished::finish`].
#[derive(Debug)]
pub(crate) struct Unfinished {
    file: File,
    temporary: active::Temporary,
    /// The file to replace, links followed.
    target: PathBuf,
    /// The name that the caller gave.
    path: PathBuf,
}

impl Unfinished {
    /// Starts the file that is to be `path`.
    ///
    /// # Errors
    /// When `path` is a folder or the folder that it names can't be written to.
    pub fn create(path: &Path) -> Result<Self> {
        Self::try_create(path).map_err(Error::io(path))
    }

    fn try_create(path: &Path) -> io::Result<Self> {
        let target = match fs::symlink_metadata(path) {
            Ok(m) if m.is_symlink() => fs::canonicalize(path)?,
            _ => path.to_path_buf(),
        };
        let old = fs::metadata(&target).ok();
        if let Some(kind) = old.as_ref().map(fs::Metadata::file_type)
            && !kind.is_file()
        {
            let (error, what) = match kind.is_dir() {
                true => (io::ErrorKind::IsADirectory, "folder"),
                false => (io::ErrorKind::InvalidInput, "device or pipe"),
            };
            let text = format!("is a {what}, a file is to be written here");
            return Err(io::Error::new(error, text));
        }
        let name = target.file_name().ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "is not the name of a file")
        })?;
        let folder = folder_of(&target);
        stale::clean_once(folder);
        let (file, temporary) = active::create(folder.join(stale::name_for(name)))?;
        if let Some(old) = old.filter(|_| cfg!(unix)) {
            // Where a file system has no modes there is none to keep.
            let _ = file.set_permissions(old.permissions());
        }
        Ok(Self {
            file,
            temporary,
            target,
            path: path.to_path_buf(),
        })
    }

    /// Where it will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A handle to write through, and to read what was written.
    ///
    /// # Errors
    /// When the system has no more handles.
    pub fn writer(&self) -> Result<File> {
        self.file.try_clone().map_err(Error::io(&self.path))
    }

    /// Forces everything to disk and gives the file its name. Whoever wrote has flushed before.
    ///
    /// # Errors
    /// When the disk or the folder refuses.
    pub fn finish(self) -> Result<PathBuf> {
        let placed =
            synced(self.file.sync_all()).and_then(|()| self.temporary.rename(&self.target));
        placed.map_err(Error::io(&self.path))?;
        sync_folder(folder_of(&self.target));
        Ok(self.path)
    }
}

/// The folder that a file lies in.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// What came of forcing a file or a folder to disk; nothing is wrong where its file system has no way to do that.
pub(crate) fn synced(outcome: io::Result<()>) -> io::Result<()> {
    use io::ErrorKind::{InvalidInput, Unsupported};
    match outcome {
        Err(e) if matches!(e.kind(), InvalidInput | Unsupported) => Ok(()),
        other => other,
    }
}

/// Makes a rename in `folder` survive a power cut. The file has its name already: what goes wrong here is only told.
fn sync_folder(folder: &Path) {
    static TOLD: Once = Once::new();
    if cfg!(unix)
        && let Err(e) = File::open(folder).and_then(|folder| synced(folder.sync_all()))
    {
        TOLD.call_once(|| {
            remark(&format!(
                "{}: the folder can't be forced to disk ({e}); files are written, but a power cut within seconds could lose the last one",
                folder.display()
            ));
        });
    }
}
