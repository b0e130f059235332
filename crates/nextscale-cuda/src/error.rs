//! Errors of the GPU side.

/// What a GPU, its memory or its libraries can refuse.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device asked for is not there, can't be used, or went wrong.
    #[error("device: {0}")]
    Device(String),
    /// A GPU's memory is full.
    #[error("device: {0}")]
    Memory(String),
    /// More at once than kernels take, whatever the memory.
    #[error("device: {0}")]
    TooMany(String),
    /// Another element type than is taken.
    #[error("{op}: expected {expected}, found {found}")]
    DType {
        /// Who takes it.
        op: &'static str,
        /// The element type that is taken.
        expected: &'static str,
        /// The element type that was given.
        found: &'static str,
    },
}

/// The crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;
