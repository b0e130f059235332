//! How much an operator has to do, whatever its kernels do: the floor of its time on a GPU.

use crate::dtype::{DType, Math};

/// The arithmetic of an operator's products, which decides how fast they can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rate {
    /// bf16 or fp16 operands.
    Half,
    /// Float32 operands rounded to TF32.
    Tf32,
    /// Float32 throughout; also of operators without products.
    #[default]
    F32,
}

impl Rate {
    /// Of products in this arithmetic.
    pub fn of(math: Math) -> Self {
        match (math.operands, math.tf32) {
            (DType::Bf16 | DType::F16, _) => Self::Half,
            (_, true) => Self::Tf32,
            (_, false) => Self::F32,
        }
    }

    /// Short, for a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Half => "half",
            Self::Tf32 => "tf32",
            Self::F32 => "f32",
        }
    }
}

/// What lies in memory, such as a tensor.
pub trait Stored {
    /// The bytes of its elements.
    fn bytes(&self) -> usize;
}

/// The useful work of one call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Work {
    /// Multiplications and additions of its products; attention counts only pairs that see each other. 0 for operators
    /// without products.
    pub flops: f64,
    /// The least bytes of memory that it must move: every input read once, every output written once.
    pub bytes: f64,
    /// The products' arithmetic.
    pub rate: Rate,
    /// The sizes, where calls of different sizes are worth telling apart.
    pub note: String,
}

impl Work {
    /// That of reading or writing these once.
    pub fn moving<T: Stored>(these: &[&T]) -> Self {
        Self::default().and(these)
    }

    /// That of moving so many bytes.
    pub fn of_bytes(bytes: usize) -> Self {
        Self::default().and_bytes(bytes)
    }

    /// These too.
    pub fn and<T: Stored>(self, these: &[&T]) -> Self {
        self.and_bytes(these.iter().map(|t| t.bytes()).sum())
    }

    /// So many bytes too.
    pub fn and_bytes(mut self, bytes: usize) -> Self {
        self.bytes += bytes as f64;
        self
    }

    /// So many multiplications and additions in products of this arithmetic.
    pub fn products(mut self, rate: Rate, flops: f64) -> Self {
        self.rate = rate;
        self.flops += flops;
        self
    }

    /// With sizes to tell it apart by.
    pub fn sized(mut self, note: String) -> Self {
        self.note = note;
        self
    }
}

impl From<Math> for Rate {
    fn from(math: Math) -> Self {
        Self::of(math)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_has_a_rate() {
        let math = |operands, tf32| Rate::of(Math { operands, tf32 });
        assert_eq!(math(DType::F16, true), Rate::Half);
        assert_eq!(math(DType::F32, true), Rate::Tf32);
        assert_eq!(math(DType::F32, false), Rate::F32);
    }
}
