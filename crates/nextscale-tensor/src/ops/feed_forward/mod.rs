//! The feed-forward branch: y = GELU(x·W1ᵀ + b1)·W2ᵀ + b2, GELU in its tanh form.
//!
//! Shapes: x \[…, K\], W1 \[H, K\], b1 \[H\], W2 \[N, H\], b2 \[N\], y \[…, N\]. The same as two linear layers, which
//! it is on the CPU. On a GPU only x and the product z = x·W1ᵀ are kept on the tape; a = GELU(z + b1) is computed again in
//! the backward pass: dz = (g·W2)·GELU′(z + b1), dW2 = gᵀ·a, db2 and db1 = column sums of g and dz, dW1 = dzᵀ·x,
//! dx = dz·W1.

mod cuda;
#[cfg(test)]
mod tests;

use super::linear::{Activation, Bias, linear};
use crate::{Cx, Device, Error, Result, Tensor, expect_dims};

/// The weights of the two layers.
#[derive(Clone, Copy, Debug)]
pub struct FeedForward<'a> {
    /// Of the first layer.
    pub w1: &'a Tensor,
    /// Its bias.
    pub b1: &'a Tensor,
    /// Of the second layer.
    pub w2: &'a Tensor,
    /// Its bias.
    pub b2: &'a Tensor,
}

/// GELU(x·W1ᵀ + b1)·W2ᵀ + b2; see the module for shapes.
///
/// # Errors
/// When shapes do not fit.
pub fn feed_forward(cx: &Cx<'_>, x: &Tensor, f: &FeedForward<'_>) -> Result<Tensor> {
    const OP: &str = "feed_forward";
    let (&[h, k], &[n, inner]) = (f.w1.dims(), f.w2.dims()) else {
        let detail = format!("W1 is {}, W2 is {}", f.w1.shape(), f.w2.shape());
        return Err(Error::shape(OP, detail));
    };
    if inner != h || x.shape().last() != k {
        let detail = format!(
            "x is {}, W1 {}, W2 {}",
            x.shape(),
            f.w1.shape(),
            f.w2.shape()
        );
        return Err(Error::shape(OP, detail));
    }
    expect_dims(OP, "first bias", f.b1, &[h])?;
    expect_dims(OP, "second bias", f.b2, &[n])?;
    match x.device() {
        Device::Cuda(_) => cuda::feed_forward(cx, x, f),
        Device::Cpu => {
            let a = linear(cx, x, f.w1, Bias::Full(f.b1), Activation::Gelu)?;
            linear(cx, &a, f.w2, Bias::Full(f.b2), Activation::None)
        }
    }
}
