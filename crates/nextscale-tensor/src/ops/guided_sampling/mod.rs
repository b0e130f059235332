//! Drawing tokens: guidance, top-k, top-p, one draw a token; or a soft blend of codes.
//!
//! Not differentiable. Guidance (Ho and Salimans 2022) takes logits \[2B, l, V\], conditional half first, to
//! (1 + t)·cond − t·uncond \[B, l, V\]. Top-k keeps every logit not below the k-th largest (ties stay); top-p then sorts
//! what is left ascending and removes while the running probability is at most 1 − p, never the largest. Removed codes
//! are −∞. A draw from probabilities p with unit-exponential noise e is argmax(p/e). A row with a logit that is no number or +∞, or
//! with nothing but −∞, has no probabilities: it is filtered to not-a-numbers, and what is drawn of it is [`NO_CODE`].

mod cuda;
mod filter;
mod noise;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_cuda;

use crate::cpu::gemm::pack::Rows;
use crate::cpu::gemm::{Plain, gemm};
use crate::cpu::pool::PoolVec;
use crate::cpu::simd;
use crate::rng::Purpose;
use crate::{Device, Error, Result, Tensor};
use rayon::prelude::*;

pub(crate) use cuda::MODULE;
pub use filter::filter_logits;
use noise::RowNoise;
pub use noise::{Draw, draw_params};

/// What is drawn where logits are no numbers. [`gather_rows`](crate::ops::gather_rows()) on a GPU makes not-a-numbers of it.
pub const NO_CODE: i32 = -1;

/// Whether a row of logits has probabilities.
fn has_shares(x: &[f32]) -> bool {
    x.iter().all(|x| *x < f32::INFINITY) && x.iter().any(|x| *x > f32::NEG_INFINITY)
}

/// Rows and codes of logits \[B, l, V\].
fn dims(op: &'static str, x: &Tensor) -> Result<(usize, usize, usize)> {
    match x.dims() {
        &[b, l, v] if v > 0 => Ok((b, l, v)),
        _ => Err(Error::shape(
            op,
            format!("logits are {}, expected [B, l, V]", x.shape()),
        )),
    }
}

/// (1 + t)·cond − t·uncond of logits \[2B, l, V\]; without `t` the logits as they are.
///
/// # Errors
/// When the batch is odd.
pub fn guide(logits: &Tensor, t: Option<f32>) -> Result<Tensor> {
    const OP: &str = "guide";
    let (b, l, v) = dims(OP, logits)?;
    let Some(t) = t else {
        return Ok(logits.detach());
    };
    if b % 2 != 0 {
        return Err(Error::shape(
            OP,
            format!("a batch of {b} has no two halves"),
        ));
    }
    match logits.device() {
        Device::Cuda(_) => cuda::guide(logits, t),
        Device::Cpu => {
            let (cond, uncond) = logits.f32()?.split_at(b / 2 * l * v);
            let mut out = PoolVec::scratch(cond.len());
            out.par_chunks_mut(crate::cpu::CHUNK)
                .zip(cond.par_chunks(crate::cpu::CHUNK))
                .zip(uncond.par_chunks(crate::cpu::CHUNK))
                .for_each(|((o, c), u)| {
                    for ((o, c), u) in o.iter_mut().zip(c).zip(u) {
                        // +∞ without class would make −∞, and be taken for a removed code.
                        *o = if u.is_finite() {
                            (1.0 + t) * c - t * u
                        } else {
                            f32::NAN
                        };
                    }
                });
            Ok(Tensor::from_buf([b / 2, l, v], out))
        }
    }
}

/// One code for every token of filtered logits \[B, l, V\]: indices \[B, l\].
///
/// # Errors
/// When given noise does not fit.
pub fn draw_tokens(filtered: &Tensor, noise: &Draw<'_>) -> Result<Tensor> {
    const OP: &str = "draw_tokens";
    let (b, l, v) = dims(OP, filtered)?;
    noise.check(OP, filtered.numel(), l * v)?;
    match filtered.device() {
        Device::Cuda(_) => {
            let most = cuda::most_shared(filtered)?;
            cuda::sample_tokens(OP, filtered, None, (0, 0.0), noise, most)
        }
        Device::Cpu => {
            let noise = noise.here()?;
            let mut out = vec![0i32; b * l];
            out.par_iter_mut()
                .zip(filtered.f32()?.par_chunks(v))
                .with_min_len((1 << 12) / v + 1)
                .enumerate()
                .for_each(|(row, (out, x))| {
                    let noise = RowNoise::new(&noise, Purpose::Sample, row, l, v);
                    *out = draw(x, &noise);
                });
            Ok(Tensor::from_i32([b, l], out))
        }
    }
}

/// Guidance, both filters and a draw in one: [`draw_tokens`] of [`filter_logits`] of [`guide`] for logits \[2B, l, V\], or
/// \[B, l, V\] without `t`. On a GPU one pass, which leaves nothing but the indices \[B, l\].
///
/// # Errors
/// As those three.
pub fn sample_tokens(
    logits: &Tensor,
    t: Option<f32>,
    top_k: usize,
    top_p: f32,
    noise: &Draw<'_>,
) -> Result<Tensor> {
    const OP: &str = "sample_tokens";
    let (b, l, v) = dims(OP, logits)?;
    if logits.device() == Device::Cpu {
        return draw_tokens(&filter_logits(&guide(logits, t)?, top_k, top_p)?, noise);
    }
    filter::check_top_p(OP, top_p)?;
    if t.is_some() && b % 2 != 0 {
        return Err(Error::shape(
            OP,
            format!("a batch of {b} has no two halves"),
        ));
    }
    let copies = if t.is_some() { 2 } else { 1 };
    noise.check(OP, b / copies * l * v, l * v)?;
    let most = cuda::most_shared(logits)?;
    cuda::sample_tokens(OP, logits, t, (top_k, top_p), noise, most)
}

/// argmax(softmax(x)/e); the first where several are.
fn draw(x: &[f32], noise: &RowNoise<'_>) -> i32 {
    if !has_shares(x) {
        return NO_CODE;
    }
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut p = PoolVec::scratch(x.len());
    let sum = simd::run(
        #[inline(always)]
        || {
            for (p, x) in p.iter_mut().zip(x) {
                *p = simd::exp(x - max);
            }
            simd::sum_of(
                &p,
                #[inline(always)]
                |p| p,
            )
        },
    );
    let (mut best, mut at) = (f32::NEG_INFINITY, 0);
    for (i, &p) in p.iter().enumerate() {
        if p == 0.0 {
            continue;
        }
        let score = (p / sum) / noise.exponential(i);
        if score > best {
            (best, at) = (score, i);
        }
    }
    at as i32
}

/// The temperature of smooth drawing at relative position `ratio` of the scales.
pub fn smooth_temperature(ratio: f64) -> f64 {
    (0.27 * (1.0 - 0.95 * ratio)).max(0.005)
}

/// Blends codes instead of drawing one: softmax(((1 + ratio)·x + gumbel)/τ)·codebook, \[B, l, Cvae\], for filtered logits
/// x \[B, l, V\] and a codebook \[V, Cvae\].
///
/// # Errors
/// When shapes or given noise do not fit.
pub fn smooth_codes(
    filtered: &Tensor,
    ratio: f32,
    noise: &Draw<'_>,
    codebook: &Tensor,
) -> Result<Tensor> {
    const OP: &str = "smooth_codes";
    let (b, l, v) = dims(OP, filtered)?;
    noise.check(OP, filtered.numel(), l * v)?;
    let &[rows, c] = codebook.dims() else {
        return Err(Error::shape(
            OP,
            format!("codebook is {}", codebook.shape()),
        ));
    };
    if rows != v {
        return Err(Error::shape(OP, format!("{rows} codes for {v} logits")));
    }
    let tau = smooth_temperature(f64::from(ratio)) as f32;
    match filtered.device() {
        Device::Cuda(_) => cuda::smooth_codes(filtered, (ratio, tau), noise, codebook),
        Device::Cpu => {
            let noise = noise.here()?;
            let mut p = PoolVec::scratch(filtered.numel());
            p.par_chunks_mut(v)
                .zip(filtered.f32()?.par_chunks(v))
                .enumerate()
                .for_each(|(row, (p, x))| {
                    let noise = RowNoise::new(&noise, Purpose::Gumbel, row, l, v);
                    for (i, (p, &x)) in p.iter_mut().zip(x).enumerate() {
                        // A removed code stays removed whatever its noise.
                        *p = if x == f32::NEG_INFINITY {
                            x
                        } else {
                            (x * (1.0 + ratio) + noise.gumbel(i)) / tau
                        };
                    }
                    softmax(p);
                });
            let mut out = PoolVec::scratch(b * l * c);
            let table = Rows::new(codebook.f32()?, c);
            gemm(
                (b * l, c, v),
                &Rows::new(&p, v),
                &table,
                &mut out,
                false,
                &Plain,
            );
            Ok(Tensor::from_buf([b, l, c], out))
        }
    }
}

fn softmax(x: &mut [f32]) {
    simd::run(
        #[inline(always)]
        || {
            let max = simd::max(x);
            for x in x.iter_mut() {
                *x = simd::exp(*x - max);
            }
            let sum = simd::sum_of(
                x,
                #[inline(always)]
                |x| x,
            );
            for x in x.iter_mut() {
                *x /= sum;
            }
        },
    );
}
