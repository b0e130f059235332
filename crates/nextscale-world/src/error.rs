//! What can go wrong among processes.

use std::io;
use std::sync::Arc;

/// Why a collective, a rendezvous or a launch failed. Every message is one line.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Flags or variables that can't be right, or that differ between processes. Starting the same once more won't help.
    #[error("{0}")]
    Input(String),
    /// A member is gone, silent, or has left with an error of its own.
    #[error("rank {rank} on {host}: {why}")]
    Lost {
        /// Who it was.
        rank: usize,
        /// The host on which it ran.
        host: String,
        /// What became of it.
        why: String,
    },
    /// Members asked for different collectives.
    #[error("{0}")]
    Mismatch(String),
    /// A deadline has passed: the rendezvous or a collective did not come to its end.
    #[error("{0}")]
    Late(String),
    /// The process that started this one is gone.
    #[error("the process that started this one is gone")]
    Orphaned,
    /// The system refused something.
    #[error("{what}: {why}")]
    Io {
        /// What was attempted.
        what: String,
        /// The system's word.
        why: Arc<io::Error>,
    },
}

impl Error {
    /// Whether what the user gave is at fault, for which commands end with exit code 2.
    pub fn is_input(&self) -> bool {
        matches!(self, Self::Input(_))
    }

    pub(crate) fn io(what: impl Into<String>, why: io::Error) -> Self {
        Self::Io {
            what: what.into(),
            why: Arc::new(why),
        }
    }
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
