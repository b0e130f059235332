//! The layers that models are built of: their parameters' names and shapes, and which operator they call.

use super::ForwardPass;
use crate::Result;
use nextscale_tensor::ops::{self, Activation, Bias, Conv, InputNorm};
use nextscale_tensor::params::Layout;
use nextscale_tensor::{Cx, ParamId, Params, ParamsBuilder, Tensor};

/// A linear layer: `NAME.weight` \[out, in\], `NAME.bias` \[out\].
pub struct Linear {
    weight: ParamId,
    bias: ParamId,
}

impl Linear {
    /// From `i` to `o` channels.
    pub fn new(b: &mut ParamsBuilder, name: &str, i: usize, o: usize) -> Self {
        Self {
            weight: b.add(format!("{name}.weight"), [o, i], Layout::Same),
            bias: b.add(format!("{name}.bias"), [o], Layout::Same),
        }
    }

    /// The same, only ever run in the precision that the model's products have, and never in float32 where that is half.
    pub fn in_products(b: &mut ParamsBuilder, name: &str, i: usize, o: usize) -> Self {
        Self {
            weight: b.add_operand(format!("{name}.weight"), [o, i]),
            bias: b.add(format!("{name}.bias"), [o], Layout::Same),
        }
    }

    /// x \[…, in\] to \[…, out\].
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn forward(&self, cx: &Cx<'_>, p: &Params, x: &Tensor) -> Result<Tensor> {
        let (w, b) = (p.get(self.weight), p.get(self.bias));
        Ok(ops::linear(cx, x, &w, Bias::Full(&b), Activation::None)?)
    }

    /// Its weight and bias, for operators that take a linear layer in.
    pub fn params(&self, p: &Params) -> (Tensor, Tensor) {
        (p.get(self.weight), p.get(self.bias))
    }
}

/// A convolution: `NAME.weight` \[out, in, size, size\], `NAME.bias` \[out\].
pub struct Conv2d {
    weight: ParamId,
    bias: ParamId,
    conv: Conv,
}

impl Conv2d {
    /// From `i` to `o` channels with a square kernel.
    pub fn new(
        b: &mut ParamsBuilder,
        name: &str,
        (i, o): (usize, usize),
        size: usize,
        conv: Conv,
    ) -> Self {
        Self::oblong(b, name, (i, o), (size, size), conv)
    }

    /// From `i` to `o` channels with a kernel of (height, width).
    pub fn oblong(
        b: &mut ParamsBuilder,
        name: &str,
        (i, o): (usize, usize),
        (kh, kw): (usize, usize),
        conv: Conv,
    ) -> Self {
        Self {
            weight: b.add(format!("{name}.weight"), [o, i, kh, kw], Layout::Conv),
            bias: b.add(format!("{name}.bias"), [o], Layout::Same),
            conv,
        }
    }

    /// One that keeps the sides.
    pub fn same(b: &mut ParamsBuilder, name: &str, io: (usize, usize), size: usize) -> Self {
        Self::new(b, name, io, size, Conv::same(size))
    }

    /// x \[B, H, W, in\] to \[B, H′, W′, out\].
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn forward(&self, pass: &ForwardPass<'_>, p: &Params, x: &Tensor) -> Result<Tensor> {
        self.forward_plus(pass, p, x, None)
    }

    /// The same with a residual added.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn forward_plus(
        &self,
        pass: &ForwardPass<'_>,
        p: &Params,
        x: &Tensor,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (w, b) = (p.get(self.weight), p.get(self.bias));
        Ok(ops::conv2d(&pass.cx, x, &w, &b, self.conv, residual)?)
    }

    /// The convolution of SiLU(norm(x)), with a residual added where there is one.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn behind(
        &self,
        norm: &GroupNorm,
        pass: &ForwardPass<'_>,
        p: &Params,
        x: &Tensor,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (gamma, beta) = (&p.get(norm.weight), &p.get(norm.bias));
        let norm = InputNorm {
            gamma,
            beta,
            groups: norm.groups,
            eps: norm.eps,
            silu: true,
        };
        let layer = (&p.get(self.weight), &p.get(self.bias));
        Ok(ops::normed_conv2d(
            &pass.cx, x, norm, layer, self.conv, residual,
        )?)
    }
}

/// A group normalisation: `NAME.weight` and `NAME.bias` \[channels\].
pub struct GroupNorm {
    weight: ParamId,
    bias: ParamId,
    groups: usize,
    eps: f32,
}

impl GroupNorm {
    /// Over so many channels, in groups; `eps` is added to variances.
    pub fn new(
        b: &mut ParamsBuilder,
        name: &str,
        channels: usize,
        groups: usize,
        eps: f32,
    ) -> Self {
        Self {
            weight: b.add(format!("{name}.weight"), [channels], Layout::Same),
            bias: b.add(format!("{name}.bias"), [channels], Layout::Same),
            groups,
            eps,
        }
    }

    /// x \[B, H, W, channels\] normalised, with or without SiLU after it.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn forward(
        &self,
        pass: &ForwardPass<'_>,
        p: &Params,
        x: &Tensor,
        silu: bool,
    ) -> Result<Tensor> {
        let (w, b) = (p.get(self.weight), p.get(self.bias));
        Ok(ops::group_norm(
            &pass.cx,
            x,
            &w,
            &b,
            self.groups,
            self.eps,
            silu,
        )?)
    }
}
