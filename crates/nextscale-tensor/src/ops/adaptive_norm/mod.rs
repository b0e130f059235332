//! Adaptive layer norm: y = LN(x)·(1 + scale) + shift, LN without weights (Peebles and Xie 2022).
//!
//! Shapes: x and y \[B, L, C\]; scale and shift are rows of a modulation table \[B, n, C\]. Gradient, with x̂ the
//! normalised row and u = g·(1 + scale): dx = (u − mean(u) − x̂·mean(u·x̂))/σ; dscale = Σ g·x̂ and dshift = Σ g over the
//! sample's tokens. Kept on the tape: x, and mean and 1/σ of every row.
//!
//! On a GPU x and the table are float32 and y has the type of products' operands.

pub(crate) mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::naive as tests_naive;

use crate::{Cx, Device, Error, Result, Tensor};

/// Which rows of a table \[B, n, C\] scale and shift a norm.
#[derive(Clone, Copy, Debug)]
pub struct Modulation<'a> {
    /// The table.
    pub table: &'a Tensor,
    /// Row that is added to 1 and multiplies.
    pub scale: usize,
    /// Row that is added.
    pub shift: usize,
}

/// Sizes of \[B, L, C\] with tables of n rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) b: usize,
    pub(crate) l: usize,
    pub(crate) c: usize,
}

/// Checks x \[B, L, C\].
pub(crate) fn sizes(op: &'static str, x: &Tensor) -> Result<Sizes> {
    match x.dims() {
        &[b, l, c] if c > 0 => Ok(Sizes { b, l, c }),
        _ => Err(Error::shape(
            op,
            format!("x is {}, expected [B, L, C]", x.shape()),
        )),
    }
}

/// Checks a table \[B, n, C\] and that it has the rows `slots`.
pub(crate) fn check_table(
    op: &'static str,
    s: Sizes,
    table: &Tensor,
    slots: &[usize],
) -> Result<()> {
    match table.dims() {
        &[b, n, c] if b == s.b && c == s.c && slots.iter().all(|&i| i < n) => Ok(()),
        _ => Err(Error::shape(
            op,
            format!(
                "table is {}, expected [{}, n, {}] with rows {slots:?}",
                table.shape(),
                s.b,
                s.c
            ),
        )),
    }
}

/// LN(x)·(1 + scale) + shift; `eps` is added to the variance. See the module for shapes.
///
/// # Errors
/// When shapes do not fit.
pub fn adaptive_norm(cx: &Cx<'_>, x: &Tensor, m: &Modulation<'_>, eps: f32) -> Result<Tensor> {
    const OP: &str = "adaptive_norm";
    let s = sizes(OP, x)?;
    check_table(OP, s, m.table, &[m.scale, m.shift])?;
    let records = cx.records(&[x, m.table]);
    let (kept, table) = (x.clone(), m.table.clone());
    let slots = (m.scale, m.shift);
    match x.device() {
        Device::Cuda(_) => {
            let (mut y, stats) = cuda::forward(s, x, m, eps, cx.math().operands)?;
            if records {
                cx.record_one(&mut y, move |g, grads| {
                    cuda::backward(s, &kept, &table, slots, &stats, &g, grads)
                });
            }
            Ok(y)
        }
        Device::Cpu => {
            let (mut y, stats) = cpu::forward(s, x, m, eps)?;
            if records {
                cx.record_one(&mut y, move |g, grads| {
                    cpu::backward(s, &kept, &table, slots, &stats, &g, grads)
                });
            }
            Ok(y)
        }
    }
}
