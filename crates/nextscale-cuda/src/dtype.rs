//! Types of elements, and how precisely products are computed.

use crate::{Error, Result};

/// Element types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// 32-bit float.
    F32,
    /// The upper half of a 32-bit float; on a GPU only.
    Bf16,
    /// IEEE half precision; on a GPU only.
    F16,
    /// 32-bit signed integer (token indices, labels).
    I32,
}

impl DType {
    /// The type's name as messages print it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::I32 => "i32",
        }
    }

    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// Refuses integers; `op` is who does.
    ///
    /// # Errors
    /// For integers.
    pub fn float(self, op: &'static str) -> Result<()> {
        match self {
            Self::F32 | Self::Bf16 | Self::F16 => Ok(()),
            Self::I32 => Err(Error::DType {
                op,
                expected: "a float",
                found: "i32",
            }),
        }
    }

    /// Whether it is one of the two 16-bit floats.
    pub fn is_half(self) -> bool {
        matches!(self, Self::Bf16 | Self::F16)
    }
}

/// How matrix products, convolutions and attention compute on a GPU. Sums are float32 in every case; a processor
/// computes in float32 whatever is said here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Math {
    /// Type that operands are rounded to: float32, bf16 or fp16.
    pub operands: DType,
    /// Whether float32 operands may be rounded to TF32.
    pub tf32: bool,
}

impl Math {
    /// Float32 throughout.
    pub const FULL: Self = Self {
        operands: DType::F32,
        tf32: false,
    };
}

impl Default for Math {
    fn default() -> Self {
        Self::FULL
    }
}
