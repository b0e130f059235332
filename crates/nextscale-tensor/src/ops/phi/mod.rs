//! The quantizer's φ blend: y = (1 − ρ)·x + ρ·(conv3×3(x) + b) (VAR paper, section 3.2: extra convolutions against the
//! loss of detail when codes are upsampled).
//!
//! Shapes: x and y \[B, H, W, C\], weight \[C, 3, 3, C\] (flat-buffer layout), bias \[C\]. Gradient: that of the
//! convolution for ρ·g, plus (1 − ρ)·g for x. Kept on the tape: x.

pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use super::arithmetic::times;
use super::conv2d::{Conv, cpu, sizes};
use crate::cpu::gemm::inline_epilogue;
use crate::{Cx, Device, Result, Tensor};

/// (1 − ρ)·x + ρ·(conv(x) + bias); see the module for shapes.
///
/// # Errors
/// When shapes do not fit.
pub fn phi(cx: &Cx<'_>, x: &Tensor, weight: &Tensor, bias: &Tensor, rho: f32) -> Result<Tensor> {
    const OP: &str = "phi";
    let conv = Conv::same(3);
    let s = sizes(OP, x, weight, bias, conv)?;
    crate::expect_dims(OP, "weight", weight, &[s.inputs, 3, 3, s.inputs])?;
    let mut y = match x.device() {
        Device::Cuda(_) => cuda::forward(s, x, weight, bias, rho)?,
        Device::Cpu => {
            let (xs, b, n) = (x.f32()?, bias.f32()?, s.inputs);
            cpu::forward_with(
                s,
                conv,
                x,
                weight,
                &inline_epilogue(
                    #[inline(always)]
                    |row: usize, y: &mut [f32]| {
                        let x = &xs[row * n..(row + 1) * n];
                        for ((y, b), x) in y.iter_mut().zip(b).zip(x) {
                            *y = x * (1.0 - rho) + (*y + b) * rho;
                        }
                    },
                ),
            )?
        }
    };
    if cx.records(&[x, weight, bias]) {
        let (x, weight, bias) = (x.clone(), weight.clone(), bias.clone());
        cx.record_one(&mut y, move |g, grads| match x.device() {
            Device::Cuda(_) => cuda::backward(s, &x, &weight, &bias, rho, &g, grads),
            Device::Cpu => {
                let scaled = times(&g, rho)?;
                cpu::backward(s, conv, &x, &weight, &bias, &scaled, grads)?;
                if grads.wants(&x) {
                    grads.add(&x, times(&g, 1.0 - rho)?)?;
                }
                Ok(())
            }
        });
    }
    Ok(y)
}
