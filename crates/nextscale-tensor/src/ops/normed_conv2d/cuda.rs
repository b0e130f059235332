//! Norm and convolution in one kernel, on GPUs that have it and where that is the faster way.

use super::InputNorm;
use crate::ops::conv2d::{self, Conv, Sizes, conv2d};
use crate::ops::group_norm::cuda as group_norm;
use crate::{Cx, DType, Device, Error, Math, Result, Tensor, expect_dims};
use nextscale_cuda::Gpu;
use nextscale_cuda::conv::{Convolution, tiles};

const OP: &str = "normed conv2d";

/// A call that the kernel takes.
pub(super) struct Call<'a> {
    gpu: &'static Gpu,
    math: Math,
    kind: Convolution,
    s: Sizes,
    conv: Conv,
    x: &'a Tensor,
    norm: InputNorm<'a>,
    weight: Tensor,
    bias: Tensor,
    residual: Option<Tensor>,
}

/// y, or `None` where there is no kernel for it or the parts are faster.
pub(super) fn forward(
    math: Math,
    x: &Tensor,
    norm: InputNorm<'_>,
    layer: (&Tensor, &Tensor),
    conv: Conv,
    residual: Option<&Tensor>,
) -> Result<Option<Tensor>> {
    let Some(call) = Call::new(math, x, norm, layer, conv, residual)? else {
        return Ok(None);
    };
    let added = call.residual.is_some();
    let together = || call.together().map(drop);
    if !tiles::norm_pays(call.gpu, &call.kind, added, together, || call.apart())? {
        return Ok(None);
    }
    let _scope = (call.gpu).scope("normed conv2d", || call.s.work(math, added));
    call.together().map(Some)
}

impl<'a> Call<'a> {
    /// `None` where the kernel does not take it.
    pub(super) fn new(
        math: Math,
        x: &'a Tensor,
        norm: InputNorm<'a>,
        (weight, bias): (&Tensor, &Tensor),
        conv: Conv,
        residual: Option<&Tensor>,
    ) -> Result<Option<Self>> {
        let dtype = math.operands;
        if x.device() == Device::Cpu || x.dtype() != dtype || dtype == DType::F32 || !norm.silu {
            return Ok(None);
        }
        let s = conv2d::sizes(OP, x, weight, bias, conv)?;
        let (gpu, kind) = (x.gpu()?, conv2d::cuda::kind(s, conv, math));
        let divides = norm.groups > 0 && s.inputs.is_multiple_of(norm.groups);
        if !gpu.conv_takes_norm(&kind) || !divides || x.numel() == 0 {
            return Ok(None);
        }
        expect_dims(OP, "gamma", norm.gamma, &[s.inputs])?;
        expect_dims(OP, "beta", norm.beta, &[s.inputs])?;
        if let Some(r) = residual {
            expect_dims(OP, "residual", r, &[s.batch, s.oh, s.ow, s.outputs])?;
        }
        let (weight, bias) = (weight.operand(dtype)?, bias.cast(DType::F32)?);
        let residual = residual.map(|r| r.cast(dtype)).transpose()?;
        // Parts of larger tensors may begin where vector loads can't.
        let all = [Some(x), Some(&weight), Some(&bias), residual.as_ref()];
        let even = |t: &Tensor| Ok::<_, Error>(t.device_ptr()?.alignment() >= 16);
        for t in all.into_iter().flatten() {
            if !even(t)? {
                return Ok(None);
            }
        }
        Ok(Some(Self {
            gpu,
            math,
            kind,
            s,
            conv,
            x,
            norm,
            weight,
            bias,
            residual,
        }))
    }

    /// y by the kernel.
    pub(super) fn together(&self) -> Result<Tensor> {
        let Self {
            gpu, s, x, norm, ..
        } = self;
        let of = group_norm::Norm::new(s.batch, x.numel(), s.inputs, norm.groups, norm.silu);
        let moments = group_norm::moments(&of, x, norm.eps)?;
        let parameters = (
            norm.gamma.arg_of(OP, DType::F32)?,
            norm.beta.arg_of(OP, DType::F32)?,
        );
        let extents = [s.batch, s.inputs, norm.groups];
        let norm = tiles::TileNorm::new(gpu, &moments, parameters, extents)?;
        let y = [s.batch, s.oh, s.ow, s.outputs];
        let y = Tensor::scratch(gpu, y, self.math.operands)?;
        gpu.conv_forward_normed(
            &self.kind,
            &norm,
            (x.device_ptr()?, self.weight.device_ptr()?),
            self.bias.device_ptr()?,
            self.residual.as_ref().map(Tensor::device_ptr).transpose()?,
            y.device_ptr()?,
        )?;
        Ok(y)
    }

    /// One after the other, to be timed.
    fn apart(&self) -> Result<()> {
        let cx = Cx::off().with(self.math);
        let (y, residual) = (self.norm.apply(&cx, self.x)?, self.residual.as_ref());
        conv2d(&cx, &y, &self.weight, &self.bias, self.conv, residual).map(drop)
    }
}
