//! Cross entropy and accuracy by scale, for logs.
//!
//! Shapes: costs, predicted codes and right codes \[B, L\]; for each of K ranges of positions the sum of its costs over the
//! batch and the number of its right predictions, \[K, 2\]. Sums are taken in float64. Not differentiable.

mod cuda;
#[cfg(test)]
mod tests;

use crate::{Device, Error, Result, Tensor, expect_dims};
use std::ops::Range;

pub(crate) use cuda::MODULE;

const OP: &str = "token_measures";

/// See the module for shapes.
///
/// # Errors
/// When shapes do not fit or a range leaves the sequence.
pub fn token_measures(
    costs: &Tensor,
    predicted: &Tensor,
    targets: &Tensor,
    ranges: &[Range<usize>],
) -> Result<Tensor> {
    let &[b, l] = costs.dims() else {
        return Err(Error::shape(OP, format!("costs are {}", costs.shape())));
    };
    expect_dims(OP, "predicted", predicted, &[b, l])?;
    expect_dims(OP, "targets", targets, &[b, l])?;
    if let Some(bad) = ranges.iter().find(|r| r.start > r.end || r.end > l) {
        let detail = format!("positions {}..{} of {l}", bad.start, bad.end);
        return Err(Error::shape(OP, detail));
    }
    match costs.device() {
        Device::Cuda(_) => cuda::run(costs, predicted, targets, ranges),
        Device::Cpu => {
            let (costs, predicted, targets) = (costs.f32()?, predicted.i32()?, targets.i32()?);
            let mut out = Vec::with_capacity(2 * ranges.len());
            for range in ranges {
                let (mut sum, mut right) = (0.0f64, 0usize);
                for at in (0..b).flat_map(|i| range.clone().map(move |t| i * l + t)) {
                    sum += f64::from(costs[at]);
                    right += usize::from(predicted[at] == targets[at]);
                }
                out.extend([sum as f32, right as f32]);
            }
            Ok(Tensor::from_vec([ranges.len(), 2], out))
        }
    }
}
