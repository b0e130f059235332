//! The multi-scale residual quantizer (VAR paper, algorithms 1 and 2): token maps of a feature, coarse to fine, and what
//! they stand for.
//!
//! Shapes: f and f̂ \[B, h, w, C\], codebook \[V, C\], the tokens of a scale \[B, h·w of it\], the transformer's input
//! \[B, Σ tokens of scales 1.., C\]. At each scale what is left over is averaged to the scale's size, the nearest codes are
//! its tokens, and the codes, brought to full size and blended by φ, are added to f̂ and taken off the rest. The input of
//! a scale is f̂ after the scale before, averaged to its size.
//!
//! Composed of the operators for each step. On a GPU one kernel does all of it where an image fits a block's shared memory.
//! Everything is float32, and the GPU sums in the CPU's order. Not differentiable.

pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use super::{add, area, bicubic, concat_tokens, gather_rows, nearest_code, phi, sub};
use crate::{Cx, DType, Device, Error, Result, Tensor};

/// What a residual quantizer codes with.
#[derive(Clone, Copy, Debug)]
pub struct ResidualCodes<'a> {
    /// The codebook \[V, C\].
    pub codebook: &'a Tensor,
    /// Weight \[C, 3, 3, C\] and bias \[C\] of φ for every scale; empty where φ is the identity.
    pub phis: &'a [(Tensor, Tensor)],
    /// φ's share ρ of the convolution.
    pub rho: f32,
    /// Whether codes are chosen by angle instead of distance.
    pub by_angle: bool,
}

/// Is shown a scale's number and f̂ after it.
pub type Watch<'a> = dyn Fn(usize, &Tensor) + 'a;

/// Token maps and what they stand for.
#[derive(Clone, Debug)]
pub struct Residual {
    /// Code indices \[B, h·w\] of every scale.
    pub indices: Vec<Tensor>,
    /// f̂ after all scales.
    pub f_hat: Tensor,
    /// The transformer's input for the scales 1..active, where there are any.
    pub input: Option<Tensor>,
}

impl ResidualCodes<'_> {
    /// What the codes of scale `k` add to f̂ of size `full`.
    fn contribution(
        &self,
        tokens: &Tensor,
        (k, scale): (usize, (usize, usize)),
        full: (usize, usize),
    ) -> Result<Tensor> {
        let cx = Cx::off();
        let codes = gather_rows(&cx, self.codebook, tokens)?;
        let map = codes.reshape([tokens.dims()[0], scale.0, scale.1, codes.shape().last()])?;
        let map = bicubic(&cx, &map, full)?;
        match self.phis.get(k) {
            Some((w, b)) => phi(&cx, &map, w, b, self.rho),
            None => Ok(map),
        }
    }

    /// Checks shapes and returns the full size.
    fn check(&self, op: &'static str, scales: &[(usize, usize)]) -> Result<(usize, usize)> {
        let &[v, c] = self.codebook.dims() else {
            let detail = format!("codebook is {}, expected [V, C]", self.codebook.shape());
            return Err(Error::shape(op, detail));
        };
        if v * c == 0 {
            return Err(Error::shape(op, "there are no codes"));
        }
        let Some(&full) = scales.last() else {
            return Err(Error::shape(op, "there is no scale"));
        };
        if !self.phis.is_empty() && self.phis.len() != scales.len() {
            let detail = format!("{} φ for {} scales", self.phis.len(), scales.len());
            return Err(Error::shape(op, detail));
        }
        for (w, b) in self.phis {
            crate::expect_dims(op, "φ's weight", w, &[c, 3, 3, c])?;
            crate::expect_dims(op, "φ's bias", b, &[c])?;
        }
        Ok(full)
    }
}

/// Tokens of f \[B, h, w, C\] with f̂ and the input of scales 1..`active` (0 or 1: none). The last of `scales`, (height,
/// width) each, is the size of f. `see` is shown f̂ after every scale; with it nothing is fused.
///
/// # Errors
/// When shapes do not fit.
pub fn residual_quantize(
    f: &Tensor,
    codes: &ResidualCodes<'_>,
    scales: &[(usize, usize)],
    active: usize,
    see: Option<&Watch<'_>>,
) -> Result<Residual> {
    const OP: &str = "residual_quantize";
    let full = codes.check(OP, scales)?;
    let c = codes.codebook.shape().last();
    let &[b, h, w, _] = f.dims() else {
        let detail = format!("f is {}, expected [B, h, w, C]", f.shape());
        return Err(Error::shape(OP, detail));
    };
    crate::expect_dims(OP, "f", f, &[b, full.0, full.1, c])?;
    let active = active.min(scales.len());
    let cx = Cx::off();
    let mut rest = f.detach();
    if let Device::Cuda(_) = f.device() {
        rest = rest.cast(DType::F32)?;
        if see.is_none() && cuda::fits(&rest, codes, scales)? {
            return cuda::encode(&rest, codes, scales, active);
        }
    }
    let mut f_hat = Tensor::zeros_on(f.device(), f.shape(), DType::F32)?;
    let (mut indices, mut inputs) = (Vec::new(), Vec::new());
    for (k, &scale) in scales.iter().enumerate() {
        let z = area(&cx, &rest, scale)?.reshape([b * scale.0 * scale.1, c])?;
        let tokens = nearest_code(&z, codes.codebook, codes.by_angle)?;
        let tokens = tokens.reshape([b, scale.0 * scale.1])?;
        let add_on = codes.contribution(&tokens, (k, scale), (h, w))?;
        f_hat = add(&cx, &f_hat, &add_on)?;
        rest = sub(&cx, &rest, &add_on)?;
        if let Some(see) = see {
            see(k, &f_hat);
        }
        indices.push(tokens);
        if k + 1 < active {
            inputs.push(input_of(&f_hat, scales[k + 1])?);
        }
    }
    Ok(Residual {
        indices,
        f_hat,
        input: joined(&inputs)?,
    })
}

/// The input of scales 1..`active` from tokens \[B, h·w\] of at least the scales before: \[B, Σ tokens of these scales,
/// C\], or `None` when only the first is active. On a GPU a token outside the codebook stands for its nearest end.
///
/// # Errors
/// When shapes do not fit or, on the CPU, a token is out of range.
pub fn var_input_from_tokens(
    tokens: &[Tensor],
    codes: &ResidualCodes<'_>,
    scales: &[(usize, usize)],
    active: usize,
) -> Result<Option<Tensor>> {
    const OP: &str = "var_input_from_tokens";
    let full = codes.check(OP, scales)?;
    let given = active.min(scales.len()).min(tokens.len() + 1);
    let tokens = &tokens[..given.saturating_sub(1)];
    let Some(first) = tokens.first() else {
        return Ok(None);
    };
    let b = first.dims().first().copied().unwrap_or(0);
    for (t, s) in tokens.iter().zip(scales) {
        crate::expect_dims(OP, "tokens", t, &[b, s.0 * s.1])?;
    }
    if let Device::Cuda(_) = first.device()
        && cuda::fits(codes.codebook, codes, scales)?
    {
        return cuda::input(tokens, codes, scales, given).map(Some);
    }
    let mut f_hat: Option<Tensor> = None;
    let mut inputs = Vec::new();
    for (k, tokens) in tokens.iter().enumerate() {
        let add_on = codes.contribution(tokens, (k, scales[k]), full)?;
        let sum = match f_hat {
            Some(f) => add(&Cx::off(), &f, &add_on)?,
            None => add_on,
        };
        inputs.push(input_of(&sum, scales[k + 1])?);
        f_hat = Some(sum);
    }
    joined(&inputs)
}

/// f̂ averaged to a scale, as tokens of the input.
fn input_of(f_hat: &Tensor, scale: (usize, usize)) -> Result<Tensor> {
    let (b, c) = (f_hat.dims()[0], f_hat.shape().last());
    area(&Cx::off(), f_hat, scale)?.reshape([b, scale.0 * scale.1, c])
}

fn joined(parts: &[Tensor]) -> Result<Option<Tensor>> {
    match parts {
        [] => Ok(None),
        _ => concat_tokens(&parts.iter().collect::<Vec<_>>()).map(Some),
    }
}
