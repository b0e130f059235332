//! Shapes: the extents of a contiguous row-major tensor.

use std::fmt;

/// Most axes a tensor has here (NHWC feature maps and B×L×3×H×D projections fit).
pub const MAX_RANK: usize = 6;

/// Extents of a contiguous row-major tensor, at most 6 axes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; MAX_RANK],
    rank: usize,
}

impl Shape {
    /// The extents, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    /// The number of elements; where there are more than a number can tell, the largest, of which no memory is had.
    pub fn numel(&self) -> usize {
        let dims = self.dims();
        if dims.contains(&0) {
            return 0;
        }
        dims.iter().fold(1, |n, d| n.saturating_mul(*d))
    }

    /// The innermost extent; 1 for a scalar.
    pub fn last(&self) -> usize {
        self.dims().last().copied().unwrap_or(1)
    }

    /// The number of rows when the tensor is seen as a matrix of `last()` columns.
    pub fn rows(&self) -> usize {
        let n = self.dims().len().saturating_sub(1);
        self.dims()[..n].iter().product()
    }

    /// The same shape with another innermost extent.
    pub fn with_last(&self, last: usize) -> Self {
        let mut s = *self;
        if s.rank == 0 {
            s.rank = 1;
        }
        s.dims[s.rank - 1] = last;
        s
    }
}

impl From<&[usize]> for Shape {
    /// # Panics
    /// When there are more than 6 axes: a programming error, shapes from files are checked before.
    fn from(d: &[usize]) -> Self {
        assert!(
            d.len() <= MAX_RANK,
            "a tensor has at most {MAX_RANK} axes, not {}",
            d.len()
        );
        let mut dims = [1; MAX_RANK];
        dims[..d.len()].copy_from_slice(d);
        Self {
            dims,
            rank: d.len(),
        }
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(d: [usize; N]) -> Self {
        Self::from(d.as_slice())
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}
