//! Adds one block's own modulation table to the shared one: y\[b\] = shared\[b\] + own.
//!
//! Shapes: shared and y \[B, n, C\], own \[1, 1, n, C\]. Gradient: g for shared, the sum of g over the batch for own.

pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use crate::ops::linear::column_sums;
use crate::{Cx, Device, Error, Result, Tensor};

/// shared + own, own repeated over the batch.
///
/// # Errors
/// When shapes do not fit.
pub fn add_table(cx: &Cx<'_>, shared: &Tensor, own: &Tensor) -> Result<Tensor> {
    let n = own.numel();
    let fits =
        matches!((shared.dims(), own.dims()), (&[_, a, b], &[1, 1, c, d]) if a == c && b == d);
    if !fits {
        let detail = format!("shared is {}, own is {}", shared.shape(), own.shape());
        return Err(Error::shape("add_table", detail));
    }
    let mut y = match shared.device() {
        Device::Cuda(_) => cuda::forward(shared, own)?,
        Device::Cpu => {
            let mut y = Tensor::from_slice(shared.shape(), shared.f32()?);
            let own = own.f32()?;
            for row in y.make_mut()?.chunks_exact_mut(n.max(1)) {
                row.iter_mut().zip(own).for_each(|(y, o)| *y += o);
            }
            y
        }
    };
    if cx.records(&[shared, own]) {
        let (shared, own) = (shared.clone(), own.clone());
        cx.record_one(&mut y, move |g, grads| match g.device() {
            Device::Cuda(_) => cuda::backward(&shared, &own, g, grads),
            Device::Cpu => {
                grads.accumulate(&own, |slot| {
                    column_sums(g.f32()?, n, 0, slot);
                    Ok(())
                })?;
                grads.add(&shared, g)
            }
        });
    }
    Ok(y)
}
