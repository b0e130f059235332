//! The library's error type: what went wrong, with the file, flag or key named, and how the process ends.

use std::path::{Path, PathBuf};

/// Kinds of [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Something that was given can't be used.
    Input,
    /// A file or folder can't be read or written.
    File,
    /// The memory of a GPU or a machine is full.
    Memory,
    /// A GPU, its driver or a library of it failed.
    Device,
    /// A run failed.
    Run,
    /// A stop was asked for.
    Stopped,
}

/// Everything that can fail in the library. Options are named in backticks, as `bs`; the command shows them as flags.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something that the user gave can't be used. The text names the file, flag or key, says what was
    /// found and what to do. Exit code 2.
    #[error("{0}")]
    Input(String),
    /// A value of an option, such as a field of [`TransformerOptions`](crate::options::TransformerOptions), can't be used. Exit code 2.
    #[error("`{name}`={value}: {why}")]
    Field {
        /// The option's name, which is the flag's without dashes.
        name: String,
        /// The value that was given.
        value: String,
        /// What is wrong with it and what to do.
        why: String,
    },
    /// A file or folder could not be read or written. Exit code 1, or 2 where its name is to blame: nothing is there, or something that
    /// is no file.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A run failed for a reason that is not bad input. Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// A run's numbers are no numbers any more. Exit code 1.
    #[error("{0}")]
    Diverged(String),
    /// A stop was asked for, and work that may be left anywhere was left. Exit code 1.
    #[error("stopped on request")]
    Stopped,
    /// An operator or the memory behind it failed. Exit code 1.
    #[error(transparent)]
    Tensor(#[from] nextscale_tensor::Error),
}

impl From<nextscale_tensor::cuda::Error> for Error {
    fn from(e: nextscale_tensor::cuda::Error) -> Self {
        Self::Tensor(e.into())
    }
}

/// Whether an error says that a name is wrong, and not that a disk, its owner or its room is to blame.
fn is_of_the_name(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind::{InvalidFilename, IsADirectory, NotADirectory, NotFound};
    matches!(
        kind,
        NotFound | NotADirectory | IsADirectory | InvalidFilename
    )
}

/// The library's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// As an error of the tensor floor, for what runs within one of its operators.
    pub(crate) fn into_tensor(self) -> nextscale_tensor::Error {
        match self {
            Self::Tensor(e) => e,
            other => nextscale_tensor::Error::Params(other.to_string()),
        }
    }

    /// An [`Error::Field`].
    pub fn field(
        name: impl Into<String>,
        value: impl std::fmt::Display,
        why: impl Into<String>,
    ) -> Self {
        Self::Field {
            name: name.into(),
            value: value.to_string(),
            why: why.into(),
        }
    }

    /// An [`Error::Input`] from any text.
    pub fn input(text: impl Into<String>) -> Self {
        Self::Input(text.into())
    }

    /// An [`Error::Failed`] from any text.
    pub fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }

    /// An [`Error::Io`] that names `path`; made for `map_err(Error::io(path))`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, source }
    }

    /// The same error, exit code included, with more to tell at the line's end.
    #[must_use]
    pub fn and(self, more: &str) -> Self {
        let text = format!("{self}; {more}");
        match self.exit_code() {
            2 => Self::Input(text),
            _ => Self::Failed(text),
        }
    }

    /// Whether a GPU can't do so much at once: its memory is full, or kernels do not take so many.
    pub fn is_memory(&self) -> bool {
        use nextscale_tensor::Error as E;
        matches!(self, Self::Tensor(E::Memory(_) | E::TooMany(_)))
    }

    /// Names the file of weights, or whatever else they come from, where it says that results are no numbers.
    #[must_use]
    pub fn of_weights(self, source: impl std::fmt::Display) -> Self {
        match self {
            Self::Tensor(e @ nextscale_tensor::Error::NotNumbers { .. }) => {
                Self::Input(format!("{source}: {e}"))
            }
            other => other,
        }
    }

    /// As what it is in a run that trains the weights: the run has diverged.
    #[must_use]
    pub fn of_run(self) -> Self {
        match self {
            Self::Tensor(e @ nextscale_tensor::Error::NotNumbers { .. }) => {
                Self::Diverged(e.to_string())
            }
            other => other,
        }
    }

    /// What kind of thing went wrong, for a program that goes on by it.
    pub fn kind(&self) -> ErrorKind {
        use nextscale_tensor::Error as E;
        match self {
            Self::Input(_) | Self::Field { .. } | Self::Tensor(E::NotNumbers { .. }) => {
                ErrorKind::Input
            }
            Self::Io { .. } => ErrorKind::File,
            Self::Tensor(E::Memory(_) | E::TooMany(_)) => ErrorKind::Memory,
            Self::Tensor(E::Device(_)) => ErrorKind::Device,
            Self::Stopped => ErrorKind::Stopped,
            Self::Failed(_) | Self::Diverged(_) | Self::Tensor(_) => ErrorKind::Run,
        }
    }

    /// The process's exit code: 2 for bad input, weights that make no numbers among it, 1 for a failed run.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Input(_)
            | Self::Field { .. }
            | Self::Tensor(nextscale_tensor::Error::NotNumbers { .. }) => 2,
            Self::Io { source, .. } if is_of_the_name(source.kind()) => 2,
            _ => 1,
        }
    }
}
