//! 2-D convolution, channels last: y = conv(x, W) + b (+ residual).
//!
//! Shapes: x \[B, H, W, I\], weight \[O, kh, kw, I\] (the flat buffer's layout; checkpoints hold \[O, I, kh, kw\]),
//! bias \[O\], residual and y \[B, H′, W′, O\]. Padding is zeros, given for each side.
//!
//! Computed as a matrix product whose left operand, the patches, is gathered while it is packed; 3×3 kernels on narrow
//! maps read their pixels in place (`direct`). Gradient: dx is the
//! convolution of g with the turned weights (for stride s, one such product for each of the s² phases of x), dW is gᵀ
//! times the patches, db the sums of g over positions. Kept on the tape: x.
//!
//! On a GPU y has the type of the context's products, to which x, W and the residual are cast, and b too where the fastest
//! engine takes it so; sums are float32.

pub(crate) mod cpu;
pub(crate) mod cuda;
mod direct;
mod direct_weights;
mod patches;
#[cfg(test)]
mod tests;

use crate::{Cx, Device, Error, Result, Tensor};

/// Kernel geometry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Step between output positions, on both axes.
    pub stride: usize,
    /// Zeros added: top, left, bottom, right.
    pub pad: [usize; 4],
}

impl Conv {
    /// Stride 1, output as large as the input, for an odd kernel of `size`.
    pub fn same(size: usize) -> Self {
        Self {
            stride: 1,
            pad: [size / 2; 4],
        }
    }

    /// The tokenizer's downsampling: 3×3, stride 2, one zero right and below.
    pub fn halve() -> Self {
        Self {
            stride: 2,
            pad: [0, 0, 1, 1],
        }
    }
}

/// Sizes of one convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) batch: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) kh: usize,
    pub(crate) kw: usize,
    pub(crate) oh: usize,
    pub(crate) ow: usize,
}

/// Checks shapes and works out the output's extents.
pub(crate) fn sizes(
    op: &'static str,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    conv: Conv,
) -> Result<Sizes> {
    let (&[batch, h, w, c], &[outputs, kh, kw, inputs]) = (x.dims(), weight.dims()) else {
        let detail = format!(
            "x is {}, expected [B, H, W, I]; weight is {}, expected [O, kh, kw, I]",
            x.shape(),
            weight.shape()
        );
        return Err(Error::shape(op, detail));
    };
    if c != inputs {
        return Err(Error::shape(
            op,
            format!("x has {c} channels, the weight takes {inputs}"),
        ));
    }
    crate::expect_dims(op, "bias", bias, &[outputs])?;
    let [top, left, bottom, right] = conv.pad;
    let (hp, wp) = (h + top + bottom, w + left + right);
    if conv.stride == 0 || kh == 0 || kw == 0 || hp < kh || wp < kw {
        return Err(Error::shape(
            op,
            format!(
                "a {kh}×{kw} kernel with stride {} does not fit {}",
                conv.stride,
                x.shape()
            ),
        ));
    }
    Ok(Sizes {
        batch,
        h,
        w,
        inputs,
        outputs,
        kh,
        kw,
        oh: (hp - kh) / conv.stride + 1,
        ow: (wp - kw) / conv.stride + 1,
    })
}

/// conv(x, weight) + bias (+ residual); see the module for shapes.
///
/// # Errors
/// When shapes do not fit.
pub fn conv2d(
    cx: &Cx<'_>,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    conv: Conv,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    const OP: &str = "conv2d";
    let s = sizes(OP, x, weight, bias, conv)?;
    if let Some(r) = residual {
        crate::expect_dims(OP, "residual", r, &[s.batch, s.oh, s.ow, s.outputs])?;
    }
    let mut y = match x.device() {
        Device::Cuda(_) => cuda::forward(cx.math(), s, conv, x, weight, bias, residual)?,
        Device::Cpu => cpu::forward(s, conv, x, weight, bias, residual)?,
    };
    let mut inputs = vec![x, weight, bias];
    inputs.extend(residual);
    if cx.records(&inputs) {
        let (x, weight, bias, math) = (x.clone(), weight.clone(), bias.clone(), cx.math());
        // Only the residual's place on the tape is needed, not its values.
        let residual = residual.map(Tensor::without_data);
        cx.record_one(&mut y, move |g, grads| {
            match x.device() {
                Device::Cuda(_) => {
                    cuda::backward(math, s, conv, &x, &weight, &bias, &g, grads)?;
                }
                Device::Cpu => cpu::backward(s, conv, &x, &weight, &bias, &g, grads)?,
            }
            match residual {
                Some(r) if grads.wants(&r) => grads.add(&r, g),
                _ => Ok(()),
            }
        });
    }
    Ok(y)
}
