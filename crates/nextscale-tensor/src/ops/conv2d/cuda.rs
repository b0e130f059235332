//! The convolution on a GPU: operands in the type of the context's products, bias and sums of parameters in float32.

use super::{Conv, Sizes};
use crate::cuda::conv::Convolution;
use crate::tape::Grads;
use crate::{DType, Math, Result, Tensor};

fn kind(s: Sizes, conv: Conv, math: Math) -> Result<Convolution> {
    Ok(Convolution {
        batch: s.batch,
        h: s.h,
        w: s.w,
        inputs: s.inputs,
        outputs: s.outputs,
        kh: s.kh,
        kw: s.kw,
        stride: conv.stride,
        pad: conv.pad,
        element: math.operands.element()?,
        tf32: math.tf32 && math.operands == DType::F32,
    })
}

pub(crate) fn forward(
    math: Math,
    s: Sizes,
    conv: Conv,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let (gpu, dtype) = (x.gpu()?, math.operands);
    let (x, w) = (x.operand(dtype)?, weight.operand(dtype)?);
    let bias = bias.cast(DType::F32)?;
    let residual = residual.map(|r| r.cast(dtype)).transpose()?;
    let y = Tensor::scratch(gpu, [s.batch, s.oh, s.ow, s.outputs], dtype)?;
    gpu.conv_forward(
        &kind(s, conv, math)?,
        x.place()?,
        w.place()?,
        Some(bias.place()?),
        residual.as_ref().map(Tensor::place).transpose()?,
        y.place()?,
    )?;
    Ok(y)
}

/// Hands on the gradients of x, weight and bias for that of y.
#[expect(clippy::too_many_arguments, reason = "as the processor's version")]
pub(crate) fn backward(
    math: Math,
    s: Sizes,
    conv: Conv,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    g: &Tensor,
    grads: &mut Grads<'_>,
) -> Result<()> {
    let (gpu, dtype) = (g.gpu()?, math.operands);
    let kind = kind(s, conv, math)?;
    let g = g.cast(dtype)?;
    if let Some(db) = grads.sums(bias)? {
        let rows = g.numel() / s.outputs;
        gpu.add_row_sums(g.place()?, kind.element, rows, s.outputs, db.place()?)?;
    }
    if let Some(dw) = grads.sums(weight)? {
        let x = x.operand(dtype)?;
        gpu.conv_weight_gradient(&kind, x.place()?, g.place()?, dw.place()?)?;
    }
    if grads.wants(x) {
        let w = weight.operand(dtype)?;
        let dx = Tensor::scratch(gpu, x.shape(), dtype)?;
        gpu.conv_data_gradient(&kind, g.place()?, w.place()?, dx.place()?)?;
        grads.add(x, dx)?;
    }
    Ok(())
}
