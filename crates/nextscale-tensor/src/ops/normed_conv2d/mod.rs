//! Group norm, SiLU where wanted and a convolution: y = conv(silu(norm(x)), W) + b (+ residual).
//!
//! Shapes: x \[B, H, W, I\], γ and β \[I\], weight \[O, kh, kw, I\], bias \[O\], residual and y \[B, H′, W′, O\]; see
//! [`group_norm()`] and [`conv2d()`], which it is made of.
//!
//! With a gradient, and on a CPU, it is these two operators. On a GPU that has a kernel for it, and where that is measured to be
//! faster, the normalised map is never stored: the norm is applied while the convolution fetches x, rounded to the products' type
//! as a stored map would be.

mod cuda;
#[cfg(test)]
mod tests;

use super::{Conv, conv2d, group_norm};
use crate::{Cx, Result, Tensor};

/// The norm in front.
#[derive(Clone, Copy, Debug)]
pub struct InputNorm<'a> {
    /// Factors \[I\].
    pub gamma: &'a Tensor,
    /// Summands \[I\].
    pub beta: &'a Tensor,
    /// Groups of channels.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
    /// Whether SiLU is behind it.
    pub silu: bool,
}

impl InputNorm<'_> {
    fn apply(&self, cx: &Cx<'_>, x: &Tensor) -> Result<Tensor> {
        let Self {
            gamma,
            beta,
            groups,
            eps,
            silu,
        } = *self;
        group_norm(cx, x, gamma, beta, groups, eps, silu)
    }
}

/// conv(norm(x), weight) + bias (+ residual); see the module for shapes.
///
/// # Errors
/// When shapes do not fit or `groups` does not divide the channels.
pub fn normed_conv2d(
    cx: &Cx<'_>,
    x: &Tensor,
    norm: InputNorm<'_>,
    (weight, bias): (&Tensor, &Tensor),
    conv: Conv,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let mut inputs = vec![x, norm.gamma, norm.beta, weight, bias];
    inputs.extend(residual);
    if !cx.records(&inputs)
        && let Some(y) = cuda::forward(cx.math(), x, norm, (weight, bias), conv, residual)?
    {
        return Ok(y);
    }
    let normed = norm.apply(cx, x)?;
    conv2d(cx, &normed, weight, bias, conv, residual)
}
