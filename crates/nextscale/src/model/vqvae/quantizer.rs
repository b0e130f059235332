//! The multi-scale residual quantizer (`VectorQuantizer2` in the reference; VAR paper, algorithms 1 and 2).
//!
//! Coarse to fine, each scale names the codes nearest to what the scales before left over; the codes are brought to
//! full size, blended by φ and taken off the rest. Everything is float32.

use super::VqvaeConfig;
use crate::model::{ForwardPass, Pyramid};
use crate::{Error, Result};
use nextscale_tensor::ops::{self, ResidualCodes};
use nextscale_tensor::params::Layout;
use nextscale_tensor::{Cx, ParamId, Params, ParamsBuilder, Tensor};

/// `quantize.*` of the reference.
pub struct Quantizer {
    codebook: ParamId,
    /// (weight, bias) of every φ; empty when ρ = 0 and φ is the identity.
    phis: Vec<(ParamId, ParamId)>,
    ticks: Vec<f64>,
    rho: f32,
    beta: f32,
    znorm: bool,
    vocab: usize,
    pyramid: Pyramid,
}

/// Token maps and what they stand for.
pub struct Code {
    /// Code indices \[B, h·w\] of every scale.
    pub indices: Vec<Tensor>,
    /// The accumulated feature f̂ \[B, h, w, Cvae\] after all scales.
    pub f_hat: Tensor,
    /// The transformer's teacher-forcing input, where it was asked for (see [`Quantizer::encode_with_input`]).
    pub var_input: Option<Tensor>,
}

/// What the training pass of the quantizer gives.
pub struct Quantized {
    /// f̂ with the straight-through gradient to f.
    pub f_hat: Tensor,
    /// Mean over scales of β·MSE(sg\[f̂\], f) + MSE(f̂, sg\[f\]), \[1\].
    pub vq_loss: Tensor,
    /// How often each code was hit, by scale: integers \[V\].
    pub hits: Vec<Tensor>,
}

/// The positions of `n` shared φ on \[0, 1\], as float64 of the reference's recipe: start + i·step, the last set to the end.
pub fn ticks(n: usize) -> Vec<f64> {
    let inset = if n == 4 { 1.0 / 3.0 } else { 1.0 / 2.0 } / n as f64;
    let (start, end) = (inset, 1.0 - inset);
    if n == 1 {
        return vec![start];
    }
    let step = (end - start) / (n - 1) as f64;
    (0..n)
        .map(|i| {
            if i + 1 == n {
                end
            } else {
                start + i as f64 * step
            }
        })
        .collect()
}

/// Which tick is nearest to the position of scale `k` among `count`; the first wins a tie.
pub fn nearest_tick(ticks: &[f64], k: usize, count: usize) -> usize {
    // A single scale has no position in the reference (0/0 there); the last scale's is the natural one.
    let at = if count > 1 {
        k as f64 / (count - 1) as f64
    } else {
        1.0
    };
    let mut best = 0;
    for (i, t) in ticks.iter().enumerate() {
        if (t - at).abs() < (ticks[best] - at).abs() {
            best = i;
        }
    }
    best
}

impl Quantizer {
    pub(super) fn new(b: &mut ParamsBuilder, c: &VqvaeConfig) -> Self {
        let (count, name): (usize, Box<dyn Fn(usize) -> String>) = match c.share_quant_resi {
            0 => {
                let own = c.default_qresi_counts;
                let n = if own == 0 { c.pyramid.count() } else { own };
                (n, Box::new(|i| format!("quantize.quant_resi.{i}")))
            }
            1 => (1, Box::new(|_| "quantize.quant_resi.qresi".into())),
            n => (n, Box::new(|i| format!("quantize.quant_resi.qresi_ls.{i}"))),
        };
        let rho = c.quant_resi.abs();
        let phis = (0..if rho > 1e-6 { count } else { 0 })
            .map(|i| {
                let name = name(i);
                (
                    b.add(
                        format!("{name}.weight"),
                        [c.cvae, c.cvae, 3, 3],
                        Layout::Conv,
                    ),
                    b.add(format!("{name}.bias"), [c.cvae], Layout::Same),
                )
            })
            .collect();
        Self {
            codebook: b.add(super::CODEBOOK, [c.vocab, c.cvae], Layout::Same),
            phis,
            ticks: ticks(count),
            rho,
            beta: c.beta,
            znorm: c.using_znorm,
            vocab: c.vocab,
            pyramid: c.pyramid.clone(),
        }
    }

    /// The codebook \[V, Cvae\].
    pub fn codebook(&self, p: &Params) -> Tensor {
        p.get(self.codebook)
    }

    /// φ of scale `k` among `count`.
    fn phi(
        &self,
        pass: &ForwardPass<'_>,
        p: &Params,
        h: &Tensor,
        k: usize,
        count: usize,
    ) -> Result<Tensor> {
        if self.phis.is_empty() {
            return Ok(h.clone());
        }
        let (w, b) = self.phis[nearest_tick(&self.ticks, k, count)];
        Ok(ops::phi(&pass.cx, h, &p.get(w), &p.get(b), self.rho)?)
    }

    /// Codes \[B, h·w, Cvae\] of scale `k`, brought to `full` size and blended: what the scale adds to f̂.
    fn contribution(
        &self,
        pass: &ForwardPass<'_>,
        p: &Params,
        codes: &Tensor,
        (k, pyramid): (usize, &Pyramid),
        full: (usize, usize),
    ) -> Result<Tensor> {
        let (ph, pw) = pyramid.scales()[k];
        let &[b, _, c] = codes.dims() else {
            return Err(Error::failed(format!(
                "codes are {}, expected [B, l, C]",
                codes.shape()
            )));
        };
        let map = codes.reshape([b, ph, pw, c])?;
        let map = ops::bicubic(&pass.cx, &map, full)?;
        self.phi(pass, p, &map, k, pyramid.count())
    }

    /// Weight and bias of φ for every scale of `pyramid`; none where φ is the identity.
    fn phis_of(&self, p: &Params, pyramid: &Pyramid) -> Vec<(Tensor, Tensor)> {
        if self.phis.is_empty() {
            return Vec::new();
        }
        let count = pyramid.count();
        let of = |k| self.phis[nearest_tick(&self.ticks, k, count)];
        (0..count)
            .map(of)
            .map(|(w, b)| (p.get(w).detach(), p.get(b).detach()))
            .collect()
    }

    /// Token maps of the feature f \[B, h, w, Cvae\], with f̂ (`f_to_idxBl_or_fhat`). The probe sees `f_hat.K`.
    ///
    /// # Errors
    /// When the finest scale is not the size of f.
    pub fn encode(
        &self,
        pass: &ForwardPass<'_>,
        p: &Params,
        f: &Tensor,
        pyramid: &Pyramid,
    ) -> Result<Code> {
        self.encode_with_input(pass, p, f, pyramid, 0)
    }

    /// [`Quantizer::encode`] together with what [`Quantizer::var_input`] makes of the tokens, in one pass over the scales.
    ///
    /// # Errors
    /// When the finest scale is not the size of f.
    pub fn encode_with_input(
        &self,
        pass: &ForwardPass<'_>,
        p: &Params,
        f: &Tensor,
        pyramid: &Pyramid,
        active: usize,
    ) -> Result<Code> {
        let (_, full, _) = dims(f)?;
        if pyramid.finest() != full {
            return Err(Error::input(format!(
                "pn ends at {}x{} patches but the image has {}x{}: the last scale must be the image's size",
                pyramid.finest().0,
                pyramid.finest().1,
                full.0,
                full.1
            )));
        }
        let (codebook, phis) = (self.codebook(p).detach(), self.phis_of(p, pyramid));
        let codes = self.codes(&codebook, &phis);
        let see = |k: usize, f_hat: &Tensor| pass.see(|| format!("f_hat.{k}"), f_hat);
        let see: Option<&ops::Watch<'_>> = pass.probe.is_some().then_some(&see);
        let made = ops::residual_quantize(f, &codes, pyramid.scales(), active, see)?;
        Ok(Code {
            indices: made.indices,
            f_hat: made.f_hat,
            var_input: made.input,
        })
    }

    fn codes<'a>(&self, codebook: &'a Tensor, phis: &'a [(Tensor, Tensor)]) -> ResidualCodes<'a> {
        ResidualCodes {
            codebook,
            phis,
            rho: self.rho,
            by_angle: self.znorm,
        }
    }

    /// The transformer's teacher-forcing input (`idxBl_to_var_input`) for the scales 1..`active`:
    /// \[B, Σ tokens of these scales, Cvae\], or `None` when only the first scale is active.
    ///
    /// # Errors
    /// When token maps do not fit the pyramid.
    pub fn var_input(
        &self,
        p: &Params,
        indices: &[Tensor],
        pyramid: &Pyramid,
        active: usize,
    ) -> Result<Option<Tensor>> {
        let (codebook, phis) = (self.codebook(p).detach(), self.phis_of(p, pyramid));
        let codes = self.codes(&codebook, &phis);
        let scales = pyramid.scales();
        Ok(ops::var_input_from_tokens(indices, &codes, scales, active)?)
    }

    /// f̂ after each scale from token maps, every scale at full size (`embed_to_fhat`).
    ///
    /// # Errors
    /// When token maps do not fit the pyramid.
    pub fn f_hats(&self, p: &Params, indices: &[Tensor], pyramid: &Pyramid) -> Result<Vec<Tensor>> {
        let pass = ForwardPass::off();
        let codebook = self.codebook(p).detach();
        let mut out: Vec<Tensor> = Vec::new();
        for (k, idx) in indices.iter().enumerate() {
            let codes = ops::gather_rows(&pass.cx, &codebook, idx)?;
            let h = self.contribution(&pass, p, &codes, (k, pyramid), pyramid.finest())?;
            out.push(match out.last() {
                Some(f) => ops::add(&pass.cx, f, &h)?,
                None => h,
            });
        }
        Ok(out)
    }

    /// The reference's experimental variant of [`Quantizer::f_hats`]: f̂ itself grows from scale to scale
    /// (`all_to_max_scale=False`).
    ///
    /// # Errors
    /// When token maps do not fit the pyramid.
    pub fn f_hats_growing(
        &self,
        p: &Params,
        indices: &[Tensor],
        pyramid: &Pyramid,
    ) -> Result<Vec<Tensor>> {
        let pass = ForwardPass::off();
        let codebook = self.codebook(p).detach();
        let mut out: Vec<Tensor> = Vec::new();
        for (k, idx) in indices.iter().enumerate() {
            let size = pyramid.scales()[k];
            let codes = ops::gather_rows(&pass.cx, &codebook, idx)?;
            let h = self.contribution(&pass, p, &codes, (k, pyramid), size)?;
            out.push(match out.last() {
                Some(f) => {
                    let grown = ops::bicubic(&pass.cx, f, size)?;
                    ops::add(&pass.cx, &grown, &h)?
                }
                None => h,
            });
        }
        Ok(out)
    }

    /// One step of sampling (`get_next_autoregressive_input`): adds the codes \[B, l, Cvae\] of scale `k` to f̂ and
    /// returns it with the next scale's input \[B, l′, Cvae\] (`None` after the last).
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn advance(
        &self,
        p: &Params,
        f_hat: Option<&Tensor>,
        codes: &Tensor,
        k: usize,
        pyramid: &Pyramid,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let pass = ForwardPass::off();
        let h = self.contribution(&pass, p, codes, (k, pyramid), pyramid.finest())?;
        let f_hat = match f_hat {
            Some(f) => ops::add(&pass.cx, f, &h)?,
            None => h,
        };
        let Some(&next) = pyramid.scales().get(k + 1) else {
            return Ok((f_hat, None));
        };
        let (b, _, c) = dims(&f_hat)?;
        let z = ops::area(&pass.cx, &f_hat, next)?.reshape([b, next.0 * next.1, c])?;
        Ok((f_hat, Some(z)))
    }

    /// What each scale has to code of f \[B, h, w, Cvae\]: the residual before it, as vectors \[B·h·w, Cvae\], when
    /// the scales before it are coded with the codebook's first `codes` rows.
    ///
    /// # Errors
    /// When f is not of the finest scale's size.
    pub fn residuals(&self, p: &Params, f: &Tensor, codes: usize) -> Result<Vec<Tensor>> {
        let pass = ForwardPass::off();
        let pyramid = &self.pyramid;
        let (b, full, c) = dims(f)?;
        let codebook = self.codebook(p).detach().narrow(0, codes)?;
        let mut rest = f.detach();
        let mut out = Vec::new();
        for (k, &(ph, pw)) in pyramid.scales().iter().enumerate() {
            let z = ops::area(&pass.cx, &rest, (ph, pw))?.reshape([b * ph * pw, c])?;
            if k + 1 < pyramid.count() && codes > 0 {
                let idx = ops::nearest_code(&z, &codebook, self.znorm)?.reshape([b, ph * pw])?;
                let chosen = ops::gather_rows(&pass.cx, &codebook, &idx)?;
                let h = self.contribution(&pass, p, &chosen, (k, pyramid), full)?;
                rest = ops::sub(&pass.cx, &rest, &h)?;
            }
            out.push(z);
        }
        Ok(out)
    }

    /// The training pass over f \[B, h, w, Cvae\].
    ///
    /// # Errors
    /// When f is not of the finest scale's size.
    pub fn train_forward(
        &self,
        pass: &ForwardPass<'_>,
        p: &Params,
        f: &Tensor,
    ) -> Result<Quantized> {
        let pass = &pass.exact();
        let cx = &pass.cx;
        let pyramid = &self.pyramid;
        let (b, full, c) = dims(f)?;
        if pyramid.finest() != full {
            return Err(Error::input(format!(
                "pn ends at {}x{} patches but the image has {}x{}",
                pyramid.finest().0,
                pyramid.finest().1,
                full.0,
                full.1
            )));
        }
        let off = Cx::off();
        let codebook = self.codebook(p);
        let frozen = codebook.detach();
        let constant = f.detach();
        let mut rest = f.detach();
        let mut f_hat: Option<Tensor> = None;
        let mut losses = Vec::new();
        let mut hits = Vec::new();
        let share = 1.0 / pyramid.count() as f32;
        for (k, &(ph, pw)) in pyramid.scales().iter().enumerate() {
            let z = ops::area(&off, &rest, (ph, pw))?.reshape([b * ph * pw, c])?;
            let idx = ops::nearest_code(&z, &frozen, self.znorm)?.reshape([b, ph * pw])?;
            hits.push(ops::histogram(&idx, self.vocab)?);
            let codes = ops::gather_rows(cx, &codebook, &idx)?;
            let h = self.contribution(pass, p, &codes, (k, pyramid), full)?;
            rest = ops::sub(&off, &rest, &h.detach())?;
            let sum = match f_hat {
                Some(s) => ops::add(cx, &s, &h)?,
                None => h,
            };
            losses.push((ops::mse(cx, &sum.detach(), f)?, self.beta * share));
            losses.push((ops::mse(cx, &sum, &constant)?, share));
            f_hat = Some(sum);
        }
        let vq_loss = ops::weighted_sum(cx, &losses)?;
        let Some(sum) = f_hat else {
            return Err(Error::failed("a pyramid has at least one scale"));
        };
        Ok(Quantized {
            f_hat: ops::straight_through(cx, f, &sum.detach())?,
            vq_loss,
            hits,
        })
    }
}

/// Batch, extents and channels of a feature map.
fn dims(f: &Tensor) -> Result<(usize, (usize, usize), usize)> {
    match f.dims() {
        &[b, h, w, c] => Ok((b, (h, w), c)),
        d => Err(Error::failed(format!(
            "a feature map is {d:?}, expected [B, h, w, C]"
        ))),
    }
}
