//! Takes rows of tokens apart, scale by scale: \[B, L\] to \[B, l1\], \[B, l2\], … with Σl = L. What
//! [`concat_tokens`](super::concat_tokens()) joins. Indices have no gradient.

pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use crate::{Device, Error, Result, Tensor};

/// The parts of the widths `lengths` of rows of integers \[B, L\]. They lie one after the other in memory.
///
/// # Errors
/// When `x` is not of that shape or holds no integers.
pub fn split_tokens(x: &Tensor, lengths: &[usize]) -> Result<Vec<Tensor>> {
    const OP: &str = "split_tokens";
    let row: usize = lengths.iter().sum();
    let batch = x.dims().first().copied().unwrap_or(0);
    crate::expect_dims(OP, "tokens", x, &[batch, row])?;
    let all = match x.device() {
        Device::Cuda(_) => cuda::split(x, lengths, (batch, row))?,
        Device::Cpu => {
            let values = x.i32()?;
            let mut out = Vec::with_capacity(values.len());
            let mut from = 0;
            for &l in lengths {
                if row > 0 {
                    let rows = values.chunks_exact(row);
                    out.extend(rows.flat_map(|r| &r[from..from + l]));
                }
                from += l;
            }
            Tensor::from_i32([batch * row], out)
        }
    };
    let mut from = 0;
    lengths
        .iter()
        .map(|&l| {
            let part = all.narrow(batch * from, batch * l)?;
            from += l;
            part.reshape([batch, l])
        })
        .collect::<Result<Vec<_>, Error>>()
}
