//! Tensors as a pickle describes them: a view on a storage that lies outside the pickle.

use std::sync::Arc;

use super::{Result, err, short};
use crate::DType;
use crate::tensor::checked_numel;

/// More axes than any model uses; bounds what one tensor record can cost.
const MAX_RANK: usize = 16;

/// A run of elements that lies in a file of its own inside the archive (`data/KEY`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// Element type.
    pub dtype: DType,
    /// The name inside the archive.
    pub key: Arc<str>,
    /// Number of elements.
    pub numel: u64,
}

impl Storage {
    /// Bytes that the storage must have; `None` where that overflows.
    pub fn num_bytes(&self) -> Option<u64> {
        self.numel.checked_mul(self.dtype.size() as u64)
    }
}

/// A strided view on a storage; every element that it can reach lies inside (checked when it is made).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorRef {
    storage: Arc<Storage>,
    offset: u64,
    shape: Vec<usize>,
    stride: Vec<usize>,
}

impl TensorRef {
    /// A view of some sizes, slowest axis first, with steps in elements for every axis.
    ///
    /// # Errors
    /// When it has more than 16 axes, negative numbers, or reaches beyond its storage.
    pub fn new(storage: Arc<Storage>, offset: i64, shape: &[i64], stride: &[i64]) -> Result<Self> {
        let key = short(&storage.key);
        if shape.len() > MAX_RANK || shape.len() != stride.len() {
            return err(format!(
                "a tensor on storage {key:?} has {} sizes and {} strides (at most {MAX_RANK} each)",
                shape.len(),
                stride.len()
            ));
        }
        let all_usize = |v: &[i64]| {
            v.iter()
                .map(|&x| usize::try_from(x).ok())
                .collect::<Option<Vec<_>>>()
        };
        let (Some(shape), Some(stride), Ok(offset)) =
            (all_usize(shape), all_usize(stride), u64::try_from(offset))
        else {
            return err(format!(
                "a tensor on storage {key:?} has a negative size, stride or offset"
            ));
        };
        let bytes = checked_numel(&shape).and_then(|n| n.checked_mul(storage.dtype.size()));
        let (Some(_), Some(_)) = (bytes, storage.num_bytes()) else {
            return err(format!(
                "a tensor on storage {key:?} is too large: shape {shape:?}"
            ));
        };
        let end = if shape.contains(&0) {
            Some(offset)
        } else {
            shape
                .iter()
                .zip(&stride)
                .try_fold(offset.checked_add(1), |end, (&n, &s)| {
                    let reach = (n as u64 - 1).checked_mul(s as u64)?;
                    Some(end.and_then(|e| e.checked_add(reach)))
                })
                .flatten()
        };
        if end.is_none_or(|e| e > storage.numel) {
            return err(format!(
                "a tensor of shape {shape:?}, stride {stride:?} and offset {offset} reaches beyond its storage \
                 {key:?} of {} elements",
                storage.numel
            ));
        }
        Ok(Self {
            storage,
            offset,
            shape,
            stride,
        })
    }

    /// The whole of a storage, row by row: the shape is taken at its word.
    pub(crate) fn whole(storage: Storage, shape: &[usize]) -> Self {
        let mut stride = vec![1usize; shape.len()];
        for i in (1..shape.len()).rev() {
            stride[i - 1] = stride[i].saturating_mul(shape[i].max(1));
        }
        Self {
            storage: Arc::new(storage),
            offset: 0,
            shape: shape.to_vec(),
            stride,
        }
    }

    /// The storage that it looks at.
    pub fn storage(&self) -> &Arc<Storage> {
        &self.storage
    }

    /// Its element type.
    pub fn dtype(&self) -> DType {
        self.storage.dtype
    }

    /// Its first element's position in the storage.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Sizes, slowest axis first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Steps in elements, one for every axis.
    pub fn stride(&self) -> &[usize] {
        &self.stride
    }

    /// The number of elements.
    pub fn numel(&self) -> usize {
        // No overflow: checked when the view was made.
        self.shape.iter().product()
    }

    /// Whether the elements lie in row-major order without gaps.
    pub fn is_contiguous(&self) -> bool {
        let mut step = 1usize;
        for (&n, &s) in self.shape.iter().zip(&self.stride).rev() {
            if n != 1 && s != step && !self.shape.contains(&0) {
                return false;
            }
            step = step.saturating_mul(n);
        }
        true
    }

    /// The elements in row-major order, taken out of the storage's bytes, which must be all that it has.
    pub(crate) fn gather(&self, storage: &[u8]) -> Vec<u8> {
        let size = self.storage.dtype.size();
        let (numel, start) = (self.numel(), self.offset as usize);
        if self.is_contiguous() {
            return storage
                .get(start * size..(start + numel) * size)
                .unwrap_or_default()
                .to_vec();
        }
        let mut out = Vec::with_capacity(numel * size);
        let mut index = vec![0usize; self.shape.len()];
        let mut at = start;
        for _ in 0..numel {
            out.extend_from_slice(storage.get(at * size..(at + 1) * size).unwrap_or_default());
            // Count up like an odometer, the last axis fastest.
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                at += self.stride[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                at -= self.stride[axis] * self.shape[axis];
                index[axis] = 0;
            }
        }
        out
    }
}
