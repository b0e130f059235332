//! Where tensors live.

use crate::Result;
use nextscale_cuda::Gpu;
use std::fmt;

/// A place that holds tensors and runs operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Device {
    /// The CPU, in float32, on the threads of rayon's pool.
    Cpu,
    /// The NVIDIA GPU of this number.
    Cuda(usize),
}

impl Device {
    /// The GPU, taken into use at the first call; `None` for the CPU.
    ///
    /// # Errors
    /// When the GPU is not there or can't be used.
    pub fn gpu(self) -> Result<Option<&'static Gpu>> {
        match self {
            Self::Cpu => Ok(None),
            Self::Cuda(ordinal) => Ok(Gpu::get(ordinal).map(Some)?),
        }
    }

    /// Whether operators return before their results are there, so that values are better asked for late.
    pub fn is_async(self) -> bool {
        matches!(self, Self::Cuda(_))
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}
