//! Types of elements, and how precisely products are computed.

use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

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

/// How precisely products are computed, from a command line's flag down to the kernels. Sums are float32 in all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Float32 throughout.
    #[default]
    Fp32,
    /// Float32 rounded to TF32 in products.
    Tf32,
    /// bfloat16.
    Bf16,
    /// float16.
    Fp16,
}

impl Precision {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Fp32, Self::Tf32, Self::Bf16, Self::Fp16];

    /// Short, as flags and tables have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
            Self::Fp16 => "fp16",
        }
    }

    /// In words.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Fp32 => "float32",
            Self::Tf32 => "TF32",
            Self::Bf16 => "bfloat16",
            Self::Fp16 => "float16",
        }
    }

    /// Whether operands have 16 bits.
    pub fn is_half(self) -> bool {
        matches!(self, Self::Bf16 | Self::Fp16)
    }

    /// As operators take it. What stays in float32 beside half precision needs no more than TF32.
    pub fn math(self) -> Math {
        self.beside(self != Self::Fp32)
    }

    /// The same, where `tf32` says how products are computed that stay in float32.
    pub fn beside(self, tf32: bool) -> Math {
        let (operands, tf32) = match self {
            Self::Fp32 => (DType::F32, false),
            Self::Tf32 => (DType::F32, true),
            Self::Bf16 => (DType::Bf16, tf32),
            Self::Fp16 => (DType::F16, tf32),
        };
        Math { operands, tf32 }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|p| p.name() == text);
        named.ok_or_else(|| format!("'{text}' is no precision; use fp32, tf32, bf16 or fp16"))
    }
}

/// How matrix products, convolutions and attention compute on a GPU. Sums are float32 in every case; a CPU
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

    /// That of the products with these operands.
    pub fn precision(self) -> Precision {
        match (self.operands, self.tf32) {
            (DType::Bf16, _) => Precision::Bf16,
            (DType::F16, _) => Precision::Fp16,
            (_, true) => Precision::Tf32,
            (_, false) => Precision::Fp32,
        }
    }
}

impl Default for Math {
    fn default() -> Self {
        Self::FULL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precision_reads_back_and_becomes_arithmetic() {
        for p in Precision::ALL {
            assert_eq!(p.name().parse::<Precision>(), Ok(p));
            assert_eq!(p.math().precision(), p);
            assert_eq!(p.beside(false).operands, p.math().operands);
        }
        assert!("half".parse::<Precision>().is_err());
        assert_eq!(Precision::Fp32.beside(true), Math::FULL);
        assert!(!Precision::Fp16.beside(false).tf32 && Precision::Bf16.math().tf32);
    }
}
