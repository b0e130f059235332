//! What can go wrong with a file.

use std::io;
use std::path::{Path, PathBuf};

/// Why a file can't be read or written: one line that names it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system could not open, read or write it, or has no memory for what it holds ([`io::ErrorKind::OutOfMemory`]).
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It is no `.pth` file, is damaged, contradicts itself, or asks for more than its size can be worth, as hostile files do.
    #[error("{path}: {message}", path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What was found, and what to do where something can be done.
        message: String,
    },
    /// It is sound as far as can be told, and of a kind that is not read: tar archives from before PyTorch 0.1.10,
    /// TorchScript where weights are asked for, compressed members,
    /// Python names outside the list.
    #[error("{path}: {message}", path = path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What was found, and what to do where something can be done.
        message: String,
    },
}

/// The result of everything that touches a file.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Io { path, .. } | Self::Invalid { path, .. } | Self::Unsupported { path, .. } => {
                path
            }
        }
    }

    /// An [`Error::Io`]; made for `map_err(Error::io(path))`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }
}
