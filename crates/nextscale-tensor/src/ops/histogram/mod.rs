//! How often each index occurs: code usage.
//!
//! Shapes: indices of any shape, counts \[bins\], both integers. Not differentiable.

pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use crate::ops::NO_CODE;
use crate::{Device, Error, Result, Tensor};

/// Counts \[bins\] of the indices 0 … bins − 1, [`NO_CODE`] left out. A GPU leaves out whatever is not among
/// them: nobody is there to be told.
///
/// # Errors
/// When the indices are floats or, on the CPU, one is out of range.
pub fn histogram(indices: &Tensor, bins: usize) -> Result<Tensor> {
    match indices.device() {
        Device::Cuda(_) => cuda::histogram(indices, bins),
        Device::Cpu => {
            let mut counts = vec![0i32; bins];
            for &i in indices.i32()?.iter().filter(|i| **i != NO_CODE) {
                let slot = usize::try_from(i).ok().and_then(|i| counts.get_mut(i));
                let slot = slot.ok_or_else(|| {
                    Error::shape("histogram", format!("index {i} among {bins} bins"))
                })?;
                *slot += 1;
            }
            Ok(Tensor::from_i32([bins], counts))
        }
    }
}
