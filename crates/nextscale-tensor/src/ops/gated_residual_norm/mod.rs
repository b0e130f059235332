//! A branch joins the stream, and the stream is normed for the next branch: x′ = x + keep·γ·h and
//! y = LN(x′)·(1 + scale) + shift, in one pass each way.
//!
//! Shapes: x, h, x′, y \[B, L, C\]; γ, scale, shift rows of modulation tables \[B, n, C\], the gate's and the norm's tables
//! may be different tensors. `keep` \[B\] are the factors of stochastic depth, one a sample, on the device of x.
//!
//! Gradient, with d the gradient of x′ plus what comes through the norm (see `adaptive_norm`):
//! dx = d, dh = keep·γ·d, dγ = Σ keep·h·d over the sample's tokens. Kept on the tape: x′, h, the rows' statistics.
//!
//! On a GPU x, x′ and the tables are float32, y has the type of products' operands, and h that type or float32. Where h is in
//! half precision, x′ is kept by the last of consecutive operators only: each rule makes its x again for the rule before.

mod cpu;
mod cuda;
#[cfg(test)]
mod tests;

use super::adaptive_norm::{Modulation, check_table, sizes};
use crate::{Cx, Device, Result, Tensor, expect_dims};

/// Which row of a table \[B, n, C\] gates a branch.
#[derive(Clone, Copy, Debug)]
pub struct Gate<'a> {
    /// The table.
    pub table: &'a Tensor,
    /// The row.
    pub slot: usize,
}

/// (x′, y); see the module for shapes. `eps` is added to the variance.
///
/// # Errors
/// When shapes do not fit.
pub fn gated_residual_norm(
    cx: &Cx<'_>,
    x: &Tensor,
    h: &Tensor,
    gate: &Gate<'_>,
    keep: Option<&Tensor>,
    next: &Modulation<'_>,
    eps: f32,
) -> Result<(Tensor, Tensor)> {
    const OP: &str = "gated_residual_norm";
    let s = sizes(OP, x)?;
    expect_dims(OP, "h", h, x.dims())?;
    check_table(OP, s, gate.table, &[gate.slot])?;
    check_table(OP, s, next.table, &[next.scale, next.shift])?;
    if let Some(keep) = keep {
        expect_dims(OP, "keep", keep, &[s.b])?;
    }
    if let Device::Cuda(_) = x.device() {
        return cuda::gated_residual_norm(cx, s, (x, h), gate, keep, next, eps);
    }
    let (mut sum, mut y, stats) = cpu::forward(s, x, h, gate, keep, next, eps)?;
    if cx.records(&[x, h, gate.table, next.table]) {
        let (sum_key, y_key) = (cx.output(&mut sum), cx.output(&mut y));
        let saved = cpu::Saved {
            x: x.clone(),
            h: h.clone(),
            gate: (gate.table.clone(), gate.slot),
            next: (next.table.clone(), next.scale, next.shift),
            keep: keep.cloned(),
            sum: sum.detach(),
            stats,
        };
        cx.record(move |grads| {
            let (d_sum, d_y) = (grads.take(sum_key), grads.take(y_key));
            match (d_sum, d_y) {
                (None, None) => Ok(()),
                (d_sum, d_y) => cpu::backward(s, saved, d_sum, d_y, grads),
            }
        });
    }
    Ok((sum, y))
}
