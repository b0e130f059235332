//! Linear layer: y = act(x·Wᵀ + b).
//!
//! Shapes: x \[…, K\], W \[N, K\] (as checkpoints store it), b \[N\], y \[…, N\]. The activation is none or GELU in its
//! tanh form (Hendrycks and Gimpel 2016, the approximation that the reference's feed-forward uses).
//!
//! Gradient, with z the sum before the activation and g the gradient of y: dz = g·act′(z), dx = dz·W, dW = dzᵀ·x,
//! db = column sums of dz. Kept on the tape: x, and z where there is an activation.

mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

pub(crate) use cpu::column_sums;

use crate::{Cx, Device, Error, Result, Tensor};

/// What follows the sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// x·½(1 + tanh(√(2/π)(x + 0.044715x³))).
    Gelu,
}

/// What is added to x·Wᵀ.
#[derive(Clone, Copy, Debug)]
pub enum Bias<'a> {
    /// Nothing.
    None,
    /// One number a column, \[N\].
    Full(&'a Tensor),
    /// The bias of a query/key/value projection: q \[N/3\], zeros, v \[N/3\].
    QkV {
        /// Of the queries.
        q: &'a Tensor,
        /// Of the values.
        v: &'a Tensor,
    },
}

/// y = act(x·Wᵀ + b); see the module for shapes.
///
/// # Errors
/// When shapes do not fit.
pub fn linear(
    cx: &Cx<'_>,
    x: &Tensor,
    w: &Tensor,
    bias: Bias<'_>,
    activation: Activation,
) -> Result<Tensor> {
    const OP: &str = "linear";
    let &[n, k] = w.dims() else {
        return Err(Error::shape(
            OP,
            format!("W is {}, expected [N, K]", w.shape()),
        ));
    };
    if x.shape().last() != k {
        return Err(Error::shape(
            OP,
            format!(
                "x is {} and W is {}: inner extents differ",
                x.shape(),
                w.shape()
            ),
        ));
    }
    match bias {
        Bias::None => {}
        Bias::Full(b) => crate::expect_dims(OP, "bias", b, &[n])?,
        Bias::QkV { q, v } => {
            if n % 3 != 0 {
                return Err(Error::shape(
                    OP,
                    format!(
                        "a bias of q and v is for three outputs side by side, and there are {n}"
                    ),
                ));
            }
            crate::expect_dims(OP, "q bias", q, &[n / 3])?;
            crate::expect_dims(OP, "v bias", v, &[n / 3])?;
        }
    }
    let keep_sum = activation != Activation::None && cx.records(&[x, w]);
    let (mut y, sum) = match x.device() {
        Device::Cuda(_) => cuda::forward(cx, x, w, bias, activation, keep_sum)?,
        Device::Cpu => cpu::forward(x, w, bias, activation, keep_sum)?,
    };
    let biases: Vec<(Tensor, usize)> = match bias {
        Bias::None => vec![],
        Bias::Full(b) => vec![(b.clone(), 0)],
        Bias::QkV { q, v } => vec![(q.clone(), 0), (v.clone(), 2 * n / 3)],
    };
    let mut inputs = vec![x, w];
    inputs.extend(biases.iter().map(|(b, _)| b));
    if cx.records(&inputs) {
        let (x, w, math) = (x.clone(), w.clone(), cx.math());
        cx.record_one(&mut y, move |g, grads| match x.device() {
            Device::Cuda(_) => cuda::backward(math, (&x, &w), &biases, sum, g, grads),
            Device::Cpu => cpu::backward(&x, &w, &biases, sum, g, grads),
        });
    }
    Ok(y)
}
