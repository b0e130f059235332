//! Tensors in host memory, as a checkpoint file holds them.

use half::{bf16, f16};

use crate::{Error, Result};

/// The element type of a [`HostTensor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostDType {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// 16-bit IEEE float.
    F16,
    /// 16-bit float with an 8-bit exponent.
    BF16,
    /// 64-bit signed integer.
    I64,
    /// 32-bit signed integer.
    I32,
    /// 16-bit signed integer.
    I16,
    /// 16-bit unsigned integer.
    U16,
    /// 8-bit signed integer.
    I8,
    /// 8-bit unsigned integer.
    U8,
    /// One byte, 0 or 1.
    Bool,
}

impl HostDType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// The name that the safetensors format uses, such as `F32`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::I16 => "I16",
            Self::U16 => "U16",
            Self::I8 => "I8",
            Self::U8 => "U8",
            Self::Bool => "BOOL",
        }
    }

    /// Whether elements are floating point numbers.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::BF16)
    }
}

impl std::fmt::Display for HostDType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How many of these elements are no finite numbers: NaN, or infinite where `infinite` counts too. Bytes after the last whole
/// element are passed over.
pub fn count_non_finite(dtype: HostDType, data: &[u8], infinite: bool) -> u64 {
    fn count<const N: usize>(
        data: &[u8],
        infinite: bool,
        of: impl Fn([u8; N]) -> (bool, bool),
    ) -> u64 {
        let counts = |&c: &[u8; N]| {
            let (nan, inf) = of(c);
            nan || infinite && inf
        };
        data.as_chunks::<N>()
            .0
            .iter()
            .map(|c| u64::from(counts(c)))
            .sum()
    }
    match dtype {
        HostDType::F64 => count(data, infinite, |b| {
            let x = f64::from_le_bytes(b);
            (x.is_nan(), x.is_infinite())
        }),
        HostDType::F32 => count(data, infinite, |b| {
            let x = f32::from_le_bytes(b);
            (x.is_nan(), x.is_infinite())
        }),
        HostDType::F16 => count(data, infinite, |b| {
            let x = f16::from_le_bytes(b);
            (x.is_nan(), x.is_infinite())
        }),
        HostDType::BF16 => count(data, infinite, |b| {
            let x = bf16::from_le_bytes(b);
            (x.is_nan(), x.is_infinite())
        }),
        _ => 0,
    }
}

/// A tensor in host memory: contiguous, row-major, little endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostTensor {
    /// Element type.
    pub dtype: HostDType,
    /// Sizes, slowest axis first; empty for a scalar.
    pub shape: Vec<usize>,
    /// `numel × dtype.size()` bytes.
    pub data: Vec<u8>,
}

/// The number of elements of a shape, or `None` where it does not fit a `usize`.
pub fn checked_numel(shape: &[usize]) -> Option<usize> {
    // A zero anywhere makes the product zero whatever the other sizes are.
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

impl HostTensor {
    /// A tensor from its parts.
    ///
    /// # Errors
    /// When `data` does not hold exactly the elements that `shape` asks for.
    pub fn new(dtype: HostDType, shape: Vec<usize>, data: Vec<u8>) -> Result<Self> {
        let want = checked_numel(&shape).and_then(|n| n.checked_mul(dtype.size()));
        if want != Some(data.len()) {
            return Err(Error::input(format!(
                "a {dtype} tensor of shape {shape:?} can't be made from {} bytes",
                data.len()
            )));
        }
        Ok(Self { dtype, shape, data })
    }

    /// A float32 tensor.
    ///
    /// # Errors
    /// When `values` does not have as many elements as `shape`.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Result<Self> {
        let data = to_bytes(values, f32::to_le_bytes);
        Self::new(HostDType::F32, shape.to_vec(), data)
    }

    /// An int64 tensor.
    ///
    /// # Errors
    /// When `values` does not have as many elements as `shape`.
    pub fn from_i64(shape: &[usize], values: &[i64]) -> Result<Self> {
        let data = to_bytes(values, i64::to_le_bytes);
        Self::new(HostDType::I64, shape.to_vec(), data)
    }

    /// A float32 tensor of zeros.
    ///
    /// # Errors
    /// When the shape is too large for the address space.
    pub fn zeros_f32(shape: &[usize]) -> Result<Self> {
        let bytes = checked_numel(shape)
            .and_then(|n| n.checked_mul(4))
            .ok_or_else(|| Error::input(format!("shape {shape:?} is too large")))?;
        Self::new(HostDType::F32, shape.to_vec(), vec![0; bytes])
    }

    /// The number of elements.
    pub fn numel(&self) -> usize {
        self.data.len() / self.dtype.size()
    }

    /// All elements as float32, in row-major order. Integers and float64 are rounded to the nearest
    /// float32; booleans become 0 and 1.
    pub fn to_f32_vec(&self) -> Vec<f32> {
        let d = &self.data;
        match self.dtype {
            HostDType::F32 => from_bytes(d, f32::from_le_bytes),
            HostDType::F64 => from_bytes(d, |b| f64::from_le_bytes(b) as f32),
            HostDType::F16 => from_bytes(d, |b| f16::from_le_bytes(b).to_f32()),
            HostDType::BF16 => from_bytes(d, |b| bf16::from_le_bytes(b).to_f32()),
            HostDType::I64 => from_bytes(d, |b| i64::from_le_bytes(b) as f32),
            HostDType::I32 => from_bytes(d, |b| i32::from_le_bytes(b) as f32),
            HostDType::I16 => from_bytes(d, |b| f32::from(i16::from_le_bytes(b))),
            HostDType::U16 => from_bytes(d, |b| f32::from(u16::from_le_bytes(b))),
            HostDType::I8 => from_bytes(d, |b| f32::from(i8::from_le_bytes(b))),
            HostDType::U8 => from_bytes(d, |[b]| f32::from(b)),
            HostDType::Bool => from_bytes(d, |[b]| f32::from(u8::from(b != 0))),
        }
    }

    /// All elements as int64, in row-major order; booleans become 0 and 1.
    ///
    /// # Errors
    /// For a floating point tensor: nothing is rounded silently.
    pub fn to_i64_vec(&self) -> Result<Vec<i64>> {
        let d = &self.data;
        Ok(match self.dtype {
            HostDType::I64 => from_bytes(d, i64::from_le_bytes),
            HostDType::I32 => from_bytes(d, |b| i64::from(i32::from_le_bytes(b))),
            HostDType::I16 => from_bytes(d, |b| i64::from(i16::from_le_bytes(b))),
            HostDType::U16 => from_bytes(d, |b| i64::from(u16::from_le_bytes(b))),
            HostDType::I8 => from_bytes(d, |b| i64::from(i8::from_le_bytes(b))),
            HostDType::U8 => from_bytes(d, |[b]| i64::from(b)),
            HostDType::Bool => from_bytes(d, |[b]| i64::from(b != 0)),
            float => {
                return Err(Error::input(format!(
                    "a {float} tensor is used where integers are expected"
                )));
            }
        })
    }
}

/// Values to little endian bytes.
fn to_bytes<T: Copy, const N: usize>(values: &[T], f: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    let mut out = vec![0u8; values.len() * N];
    for (chunk, &v) in out.as_chunks_mut::<N>().0.iter_mut().zip(values) {
        *chunk = f(v);
    }
    out
}

/// Little endian bytes to values.
fn from_bytes<T, const N: usize>(data: &[u8], f: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.as_chunks::<N>().0.iter().map(|&c| f(c)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f32_there_and_back_keeps_every_bit() {
        let v = [
            0.0f32,
            -0.0,
            1.5,
            f32::NAN,
            f32::NEG_INFINITY,
            f32::MIN_POSITIVE / 2.0,
        ];
        let t = HostTensor::from_f32(&[2, 3], &v).unwrap();
        assert_eq!((t.numel(), t.data.len()), (6, 24));
        let back = t.to_f32_vec();
        for (a, b) in v.iter().zip(&back) {
            assert_eq!(a.to_bits(), b.to_bits());
        }
    }

    #[test]
    fn every_dtype_converts() {
        let one = |dtype, data: &[u8]| HostTensor::new(dtype, vec![1], data.to_vec()).unwrap();
        assert_eq!(
            one(HostDType::F64, &2.5f64.to_le_bytes()).to_f32_vec(),
            [2.5]
        );
        assert_eq!(
            one(HostDType::F16, &f16::from_f32(-3.0).to_le_bytes()).to_f32_vec(),
            [-3.0]
        );
        assert_eq!(
            one(HostDType::BF16, &bf16::from_f32(0.5).to_le_bytes()).to_f32_vec(),
            [0.5]
        );
        for t in [
            one(HostDType::I64, &(-7i64).to_le_bytes()),
            one(HostDType::I32, &(-7i32).to_le_bytes()),
            one(HostDType::I16, &(-7i16).to_le_bytes()),
            one(HostDType::I8, &(-7i8).to_le_bytes()),
        ] {
            assert_eq!((t.to_f32_vec()[0], t.to_i64_vec().unwrap()[0]), (-7.0, -7));
        }
        let u16s = one(HostDType::U16, &65_000u16.to_le_bytes());
        assert_eq!(
            (u16s.to_f32_vec()[0], u16s.to_i64_vec().unwrap()[0]),
            (65_000.0, 65_000)
        );
        assert_eq!(one(HostDType::U8, &[200]).to_i64_vec().unwrap(), [200]);
        assert_eq!(one(HostDType::Bool, &[2]).to_f32_vec(), [1.0]);
        assert!(one(HostDType::F32, &[0; 4]).to_i64_vec().is_err());
    }

    #[test]
    fn values_that_are_no_numbers_are_counted_in_every_dtype() {
        let v = [
            1.0f32,
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            -0.0,
            f32::MAX,
        ];
        let halves = |f: fn(f32) -> [u8; 2]| v.map(f).concat();
        for (dtype, data) in [
            (
                HostDType::F64,
                v.map(|x| f64::from(x).to_le_bytes()).concat(),
            ),
            (HostDType::F32, v.map(f32::to_le_bytes).concat()),
            (
                HostDType::BF16,
                halves(|x| bf16::from_f32(if x == f32::MAX { 1e38 } else { x }).to_le_bytes()),
            ),
        ] {
            assert_eq!(count_non_finite(dtype, &data, true), 3, "{dtype}");
            assert_eq!(count_non_finite(dtype, &data, false), 1, "{dtype}");
        }
        // The largest float32 is infinite in 16 bits.
        let data = halves(|x| f16::from_f32(x).to_le_bytes());
        assert_eq!(count_non_finite(HostDType::F16, &data, true), 4);
        assert_eq!(count_non_finite(HostDType::I64, &[255; 16], true), 0);
    }

    #[test]
    fn wrong_lengths_and_overflow_are_errors() {
        assert!(HostTensor::from_f32(&[2, 2], &[0.0; 3]).is_err());
        assert!(HostTensor::new(HostDType::U8, vec![usize::MAX, 2], vec![]).is_err());
        assert!(HostTensor::zeros_f32(&[usize::MAX]).is_err());
        let empty = HostTensor::new(HostDType::F32, vec![0, usize::MAX], vec![]).unwrap();
        assert_eq!(empty.numel(), 0);
        assert_eq!(
            HostTensor::from_i64(&[], &[4])
                .unwrap()
                .to_i64_vec()
                .unwrap(),
            [4]
        );
    }
}
