//! Errors of the tensor floor.

/// What an operator, a buffer or a parameter store can refuse.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Shapes that do not fit an operator.
    #[error("{op}: {detail}")]
    Shape {
        /// The operator.
        op: &'static str,
        /// What was expected and what was found.
        detail: String,
    },
    /// A tensor of another element type than the operator takes.
    #[error("{op}: expected {expected}, found {found}")]
    DType {
        /// The operator.
        op: &'static str,
        /// The element type it takes.
        expected: &'static str,
        /// The element type it was given.
        found: &'static str,
    },
    /// A parameter store was asked for something it can't do.
    #[error("parameters: {0}")]
    Params(String),
    /// The device asked for is not there or can't be used.
    #[error("device: {0}")]
    Device(String),
    /// A GPU's memory is full.
    #[error("device: {0}")]
    Memory(String),
    /// More at once than kernels take, whatever the memory.
    #[error("device: {0}")]
    TooMany(String),
    /// Numbers that could not be exchanged with other processes.
    #[error("{0}")]
    Exchange(String),
    /// Results whose values are no numbers.
    #[error(
        "{bad} of {of} {what} are no numbers (NaN or infinite): weights are too large for the precision or spoilt; nextscale info tells \
         whether they are numbers, and where half precision was too narrow float32 may do"
    )]
    NotNumbers {
        /// What they are, in the plural.
        what: &'static str,
        /// Values that are no numbers, or infinite.
        bad: usize,
        /// Of so many.
        of: usize,
    },
}

/// The tensor floor's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<nextscale_cuda::Error> for Error {
    fn from(e: nextscale_cuda::Error) -> Self {
        use nextscale_cuda::Error as E;
        match e {
            E::Memory(text) => Self::Memory(text),
            E::TooMany(text) => Self::TooMany(text),
            E::DType {
                op,
                expected,
                found,
            } => Self::DType {
                op,
                expected,
                found,
            },
            E::Device(text) => Self::Device(text),
            other => Self::Device(other.to_string()),
        }
    }
}

impl Error {
    /// A shape error of `op`.
    pub fn shape(op: &'static str, detail: impl Into<String>) -> Self {
        Self::Shape {
            op,
            detail: detail.into(),
        }
    }
}
