//! How much an operator has to do, whatever its kernels do: the floor of its time on a GPU.

use crate::dtype::Precision;

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
    pub rate: Precision,
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
    pub fn products(mut self, rate: Precision, flops: f64) -> Self {
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
