//! How much an operator has to do, whatever its kernels do: the floor of its time on a GPU.

use super::matmul::Element;
use crate::{DType, Math, Tensor};

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
    /// That of reading or writing these tensors once.
    pub fn moving(tensors: &[&Tensor]) -> Self {
        Self::default().and(tensors)
    }

    /// That of moving so many bytes.
    pub fn of_bytes(bytes: usize) -> Self {
        Self::default().and_bytes(bytes)
    }

    /// These tensors too.
    pub fn and(self, tensors: &[&Tensor]) -> Self {
        let bytes = tensors.iter().map(|t| t.numel() * t.dtype().bytes()).sum();
        self.and_bytes(bytes)
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

    /// y = x·Wᵀ for x \[…, K\] and W \[N, K\], y in `result`.
    pub fn linear(math: Math, x: &Tensor, w: &Tensor, result: DType) -> Self {
        let [m, n, k] = layer(x, w);
        let moved = n * k * math.operands.bytes() + m * n * result.bytes();
        Self::moving(&[x])
            .and_bytes(moved)
            .products(Rate::of(math), 2.0 * m as f64 * (n * k) as f64)
            .sized(format!("{m}×{n}×{k}"))
    }

    /// The gradient of [`Work::linear`] for that of y, `g`: dW in float32, and dx in x's type where it is wanted.
    pub fn linear_gradient(math: Math, x: &Tensor, w: &Tensor, g: &Tensor, input: bool) -> Self {
        let [m, n, k] = layer(x, w);
        let mut work = Self::moving(&[x, g]).and_bytes(n * k * DType::F32.bytes());
        let one = 2.0 * m as f64 * (n * k) as f64;
        let mut flops = one;
        if input {
            work = work.and(&[x]).and_bytes(n * k * math.operands.bytes());
            flops += one;
        }
        work.products(Rate::of(math), flops)
            .sized(format!("{m}×{n}×{k}"))
    }
}

/// Rows, columns and terms of a layer's product.
fn layer(x: &Tensor, w: &Tensor) -> [usize; 3] {
    [x.shape().rows(), w.dims()[0], x.shape().last()]
}

impl From<Math> for Rate {
    fn from(math: Math) -> Self {
        Self::of(math)
    }
}

impl From<(Element, bool)> for Rate {
    /// Of operands of this type, with TF32 where that is allowed.
    fn from((element, tf32): (Element, bool)) -> Self {
        match (element, tf32) {
            (Element::Bf16 | Element::F16, _) => Self::Half,
            (Element::F32, true) => Self::Tf32,
            (Element::F32, false) => Self::F32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_counts_its_products_and_what_it_moves() {
        let bf16 = Math {
            operands: DType::Bf16,
            tf32: true,
        };
        let (x, w) = (Tensor::zeros([2, 3, 5]), Tensor::zeros([7, 5]));
        let forward = Work::linear(bf16, &x, &w, DType::Bf16);
        assert_eq!(forward.flops, 2.0 * 6.0 * 7.0 * 5.0);
        assert_eq!(forward.bytes, (6 * 5 * 4 + 7 * 5 * 2 + 6 * 7 * 2) as f64);
        assert_eq!((forward.rate, forward.note.as_str()), (Rate::Half, "6×7×5"));
        let g = Tensor::zeros([2, 3, 7]);
        let weights = Work::linear_gradient(Math::FULL, &x, &w, &g, false);
        assert_eq!(weights.flops, forward.flops);
        assert_eq!(weights.bytes, (4 * (6 * 5 + 6 * 7 + 7 * 5)) as f64);
        let both = Work::linear_gradient(Math::FULL, &x, &w, &g, true);
        assert_eq!(both.flops, 2.0 * forward.flops);
        assert_eq!(both.bytes, weights.bytes + (4 * (6 * 5 + 7 * 5)) as f64);
        assert_eq!(both.rate, Rate::F32);
    }

    #[test]
    fn arithmetic_has_a_rate() {
        let math = |operands, tf32| Rate::of(Math { operands, tf32 });
        assert_eq!(math(DType::F16, true), Rate::Half);
        assert_eq!(math(DType::F32, true), Rate::Tf32);
        assert_eq!(math(DType::F32, false), Rate::F32);
        assert_eq!(Rate::from((Element::Bf16, true)), Rate::Half);
        assert_eq!(Rate::from((Element::F32, true)), Rate::Tf32);
    }
}
