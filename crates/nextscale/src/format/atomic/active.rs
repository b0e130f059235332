//! The temporary files that this process is writing right now.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// Files are made, renamed and removed while this is held, so that [`leave`] sees each either under its temporary name
/// or whole.
static ACTIVE: LazyLock<Mutex<HashSet<PathBuf>>> = LazyLock::new(Mutex::default);

fn active() -> MutexGuard<'static, HashSet<PathBuf>> {
    ACTIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A temporary file's name; the file is removed when this is dropped, unless it was renamed.
#[derive(Debug)]
pub(crate) struct Temporary(PathBuf);

/// Makes a temporary file.
pub(crate) fn create(path: PathBuf) -> io::Result<(File, Temporary)> {
    let mut active = active();
    let make = || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
    };
    let file = match make() {
        // Names hold this process's number: the remains of a dead process that had it too.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&path)?;
            make()?
        }
        other => other?,
    };
    active.insert(path.clone());
    Ok((file, Temporary(path)))
}

impl Temporary {
    /// Gives the file its final name.
    pub(crate) fn rename(self, target: &Path) -> io::Result<()> {
        let mut active = active();
        let renamed = fs::rename(&self.0, target);
        if renamed.is_ok() {
            active.remove(&self.0);
        }
        drop(active);
        renamed
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let mut active = active();
        if active.remove(&self.0) {
            // Nothing to tell the caller here: the error that brought us here is the one that matters.
            let _ = fs::remove_file(&self.0);
        }
    }
}

/// Whether this process is writing a temporary file of that name. Names differ by a counter, whatever the folder.
pub(crate) fn is_active(name: &OsStr) -> bool {
    active().iter().any(|path| path.file_name() == Some(name))
}

/// Removes what this process has not finished writing, and ends it with `code`. Files that have their names stay.
#[cfg(feature = "cli")]
pub fn leave(code: i32) -> ! {
    // Held to the end: no file is begun or renamed any more.
    let active = active();
    for path in active.iter() {
        let _ = fs::remove_file(path);
    }
    signal_hook::low_level::exit(code)
}
