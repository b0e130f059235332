//! The convolution on a GPU: operands in the type of the context's products, bias and sums of parameters in float32.

use super::{Conv, Sizes};
use crate::tape::Grads;
use crate::{DType, Math, Result, Tensor};
use nextscale_cuda::Work;
use nextscale_cuda::conv::Convolution;

pub(crate) fn kind(s: Sizes, conv: Conv, math: Math) -> Convolution {
    Convolution {
        batch: s.batch,
        h: s.h,
        w: s.w,
        inputs: s.inputs,
        outputs: s.outputs,
        kh: s.kh,
        kw: s.kw,
        stride: conv.stride,
        pad: conv.pad,
        element: math.operands,
        tf32: math.tf32 && math.operands == DType::F32,
    }
}

impl Sizes {
    /// Multiplications and additions of one pass.
    fn flops(self) -> f64 {
        2.0 * (self.outputs * self.kh * self.kw * self.inputs) as f64
            * (self.batch * self.oh * self.ow) as f64
    }

    /// Elements of x, the weight and y.
    fn elements(self) -> [usize; 3] {
        [
            self.batch * self.h * self.w * self.inputs,
            self.outputs * self.kh * self.kw * self.inputs,
            self.batch * self.oh * self.ow * self.outputs,
        ]
    }

    fn sized(self, work: Work) -> Work {
        let Self {
            h,
            w,
            inputs,
            outputs,
            kh,
            kw,
            ..
        } = self;
        work.sized(format!("{h}×{w} {inputs}→{outputs} {kh}×{kw}"))
    }

    /// That of the forward pass.
    pub(crate) fn work(self, math: Math, residual: bool) -> Work {
        let [x, w, y] = self.elements();
        let moved = x + w + if residual { 2 * y } else { y };
        let work = Work::of_bytes(moved * math.operands.bytes());
        self.sized(work.products(math.precision(), self.flops()))
    }

    /// That of the gradients of the weight and, where it is wanted, of x.
    pub(crate) fn gradient_work(self, math: Math, input: bool) -> Work {
        let ([x, w, y], e) = (self.elements(), math.operands.bytes());
        let (moved, passes) = if input {
            (2 * x + w + y, 2.0)
        } else {
            (x + y, 1.0)
        };
        let work = Work::of_bytes(moved * e + w * DType::F32.bytes());
        self.sized(work.products(math.precision(), passes * self.flops()))
    }
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
    let _scope = gpu.scope("conv2d", || s.work(math, residual.is_some()));
    let (x, w) = (x.operand(dtype)?, weight.operand(dtype)?);
    let bias = bias.cast(DType::F32)?;
    let residual = residual.map(|r| r.cast(dtype)).transpose()?;
    let y = Tensor::scratch(gpu, [s.batch, s.oh, s.ow, s.outputs], dtype)?;
    gpu.conv_forward(
        &kind(s, conv, math),
        x.device_ptr()?,
        w.device_ptr()?,
        Some(bias.device_ptr()?),
        residual.as_ref().map(Tensor::device_ptr).transpose()?,
        y.device_ptr()?,
    )?;
    Ok(y)
}

/// Hands on the gradients of x, weight and bias for that of y.
#[expect(clippy::too_many_arguments, reason = "as the CPU's version")]
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
    let _scope = gpu.scope("conv2d gradient", || s.gradient_work(math, grads.wants(x)));
    let kind = kind(s, conv, math);
    let g = g.cast(dtype)?;
    if let Some(db) = grads.sums(bias)? {
        let rows = g.numel() / s.outputs;
        gpu.add_row_sums(
            g.device_ptr()?,
            kind.element,
            rows,
            s.outputs,
            db.device_ptr()?,
        )?;
    }
    if let Some(dw) = grads.sums(weight)? {
        let x = x.operand(dtype)?;
        gpu.conv_weight_gradient(&kind, x.device_ptr()?, g.device_ptr()?, dw.device_ptr()?)?;
    }
    if grads.wants(x) {
        let w = weight.operand(dtype)?;
        let dx = Tensor::scratch(gpu, x.shape(), dtype)?;
        gpu.conv_data_gradient(&kind, g.device_ptr()?, w.device_ptr()?, dx.device_ptr()?)?;
        grads.add(x, dx)?;
    }
    Ok(())
}
