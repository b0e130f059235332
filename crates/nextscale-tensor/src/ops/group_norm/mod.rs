//! Group norm (Wu and He 2018), with SiLU behind it where wanted: y = silu(γ·(x − mean)/√(var + eps) + β).
//!
//! Shapes: x and y \[B, …, C\] channels last, γ and β \[C\]. Mean and variance (that of the population) are taken
//! for every sample over all positions and the C/groups neighbouring channels of a group.
//!
//! Gradient, with z the value before SiLU, dz = dy·silu′(z), x̂ = (x − mean)·rstd and averages over the group:
//! dβ = Σ dz, dγ = Σ dz·x̂, dx = rstd·(γ·dz − avg(γ·dz) − x̂·avg(γ·dz·x̂)). Kept on the tape: x and the group's
//! mean and rstd; z is computed again.

mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use crate::{Cx, Device, Error, Result, Tensor, expect_dims};

/// Group norm of x, followed by SiLU when `silu`; see the module for shapes.
///
/// # Errors
/// When shapes do not fit or `groups` does not divide the channels.
pub fn group_norm(
    cx: &Cx<'_>,
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    groups: usize,
    eps: f32,
    silu: bool,
) -> Result<Tensor> {
    const OP: &str = "group norm";
    let (&[samples, ..], c) = (x.dims(), x.shape().last()) else {
        return Err(Error::shape(
            OP,
            format!("x is {}, expected [B, …, C]", x.shape()),
        ));
    };
    if x.dims().len() < 2 || groups == 0 || c % groups != 0 {
        return Err(Error::shape(
            OP,
            format!(
                "x is {}, not [B, …, C] with C in {groups} groups",
                x.shape()
            ),
        ));
    }
    expect_dims(OP, "gamma", gamma, &[c])?;
    expect_dims(OP, "beta", beta, &[c])?;
    match x.device() {
        Device::Cpu => {
            let norm = cpu::Norm::new(samples, x.numel(), c, groups, silu);
            let (mut y, moments) = cpu::forward(&norm, x, gamma, beta, eps)?;
            if cx.records(&[x, gamma, beta]) {
                let (x, gamma, beta) = (x.clone(), gamma.clone(), beta.clone());
                cx.record_one(&mut y, move |g, grads| {
                    cpu::backward(&norm, &x, &gamma, &beta, &moments, g, grads)
                });
            }
            Ok(y)
        }
        Device::Cuda(_) => {
            let norm = cuda::Norm::new(samples, x.numel(), c, groups, silu);
            let (mut y, moments) = cuda::forward(&norm, x, gamma, beta, eps)?;
            if cx.records(&[x, gamma, beta]) {
                let (x, gamma, beta) = (x.clone(), gamma.clone(), beta.clone());
                cx.record_one(&mut y, move |g, grads| {
                    cuda::backward(&norm, &x, &gamma, &beta, &moments, &g, grads)
                });
            }
            Ok(y)
        }
    }
}
