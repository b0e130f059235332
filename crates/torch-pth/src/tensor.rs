//! Tensors as bytes.

use std::fmt;

/// The element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// `torch.float64`
    F64,
    /// `torch.float32`
    F32,
    /// `torch.float16`
    F16,
    /// `torch.bfloat16`
    BF16,
    /// `torch.int64`
    I64,
    /// `torch.int32`
    I32,
    /// `torch.int16`
    I16,
    /// `torch.int8`
    I8,
    /// `torch.uint8`
    U8,
    /// `torch.bool`: a byte, 0 or 1
    Bool,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// PyTorch's name, such as `float32`.
    pub const fn torch_name(self) -> &'static str {
        match self {
            Self::F64 => "float64",
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
            Self::I64 => "int64",
            Self::I32 => "int32",
            Self::I16 => "int16",
            Self::I8 => "int8",
            Self::U8 => "uint8",
            Self::Bool => "bool",
        }
    }
}

/// The short name that the safetensors format uses, such as `F32`.
impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::I16 => "I16",
            Self::I8 => "I8",
            Self::U8 => "U8",
            Self::Bool => "BOOL",
        })
    }
}

/// The number of elements of a shape, or `None` where it does not fit a `usize`.
pub(crate) fn checked_numel(shape: &[usize]) -> Option<usize> {
    // A zero anywhere makes the product zero whatever the other sizes are.
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

/// Whether `bytes` is what a tensor of that shape takes.
fn fits(dtype: DType, shape: &[usize], bytes: usize) -> bool {
    checked_numel(shape).and_then(|n| n.checked_mul(dtype.size())) == Some(bytes)
}

/// A tensor that was read: contiguous, row-major, little endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl Tensor {
    /// A tensor from its parts; `None` where `data` does not hold exactly the elements that `shape` asks for.
    pub fn new(dtype: DType, shape: Vec<usize>, data: Vec<u8>) -> Option<Self> {
        fits(dtype, &shape, data.len()).then_some(Self { dtype, shape, data })
    }

    /// Its element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Its sizes, slowest axis first; empty for a single number.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its elements' bytes.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Type, shape and bytes, without a copy.
    pub fn into_parts(self) -> (DType, Vec<usize>, Vec<u8>) {
        (self.dtype, self.shape, self.data)
    }

    /// The same tensor to be written.
    pub fn view(&self) -> TensorView<'_> {
        TensorView {
            dtype: self.dtype,
            shape: &self.shape,
            data: &self.data,
        }
    }
}

/// A tensor to be written, whose bytes stay where they are: contiguous, row-major, little endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorView<'a> {
    dtype: DType,
    shape: &'a [usize],
    data: &'a [u8],
}

impl<'a> TensorView<'a> {
    /// A view on a tensor's bytes; `None` where `data` does not hold exactly the elements that `shape` asks for.
    pub fn new(dtype: DType, shape: &'a [usize], data: &'a [u8]) -> Option<Self> {
        fits(dtype, shape, data.len()).then_some(Self { dtype, shape, data })
    }

    /// Its element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Its sizes, slowest axis first.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// Its elements' bytes.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_do_not_fit_the_shape_make_no_tensor() {
        let of = |dtype, shape: &[usize], bytes| {
            let data = vec![0; bytes];
            let view = TensorView::new(dtype, shape, &data).is_some();
            let tensor = Tensor::new(dtype, shape.to_vec(), data.clone());
            assert_eq!(view, tensor.is_some());
            assert!(tensor.is_none_or(|t| t.view().data().len() == bytes));
            view
        };
        assert!(of(DType::F32, &[2, 3], 24));
        assert!(of(DType::BF16, &[], 2));
        assert!(of(DType::F64, &[0, usize::MAX], 0));
        assert!(!of(DType::F32, &[2, 3], 23));
        assert!(!of(DType::U8, &[usize::MAX, 2], 0));
        assert!(!of(DType::I64, &[usize::MAX / 4], 0));
    }
}
