//! Drawing tokens: guidance, top-k, top-p, one draw a token; or a soft blend of codes.
//!
//! Not differentiable. Guidance (Ho and Salimans 2022) takes logits \[2B, l, V\], conditional half first, to
//! (1 + t)·cond − t·uncond \[B, l, V\]. Top-k keeps every logit not below the k-th largest (ties stay); top-p then sorts
//! what is left ascending and removes while the running probability is at most 1 − p, never the largest. Removed codes
//! are −∞. A draw from probabilities p with unit-exponential noise e is argmax(p/e).

mod filter;
#[cfg(test)]
mod tests;

use crate::cpu::gemm::pack::Rows;
use crate::cpu::gemm::{Plain, gemm};
use crate::cpu::pool::PoolVec;
use crate::cpu::simd;
use crate::rng::{Purpose, Stream};
use crate::{Device, Error, Result, Tensor};
use rayon::prelude::*;

pub use filter::filter_logits;

/// Where a draw's noise comes from.
#[derive(Clone, Copy, Debug)]
pub enum Draw<'a> {
    /// From counters: a token's noise depends on the seed, the scale and its image's number alone.
    Seed {
        /// Seed of the whole drawing.
        seed: u64,
        /// The scale.
        scale: u64,
        /// Number of the batch's first image.
        first: u64,
    },
    /// Given numbers \[B, l, V\].
    Given(&'a [f32]),
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

fn check_draw(op: &'static str, noise: &Draw<'_>, n: usize) -> Result<()> {
    match noise {
        Draw::Given(e) if e.len() != n => Err(Error::shape(
            op,
            format!("{} noise numbers for {n} logits", e.len()),
        )),
        _ => Ok(()),
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
        Device::Cuda(_) => return Err(crate::Error::not_on_gpu("guided_sampling")),
        Device::Cpu => {
            let (cond, uncond) = logits.f32()?.split_at(b / 2 * l * v);
            let mut out = PoolVec::scratch(cond.len());
            out.par_chunks_mut(crate::cpu::CHUNK)
                .zip(cond.par_chunks(crate::cpu::CHUNK))
                .zip(uncond.par_chunks(crate::cpu::CHUNK))
                .for_each(|((o, c), u)| {
                    for ((o, c), u) in o.iter_mut().zip(c).zip(u) {
                        *o = (1.0 + t) * c - t * u;
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
    check_draw(OP, noise, filtered.numel())?;
    match filtered.device() {
        Device::Cuda(_) => return Err(crate::Error::not_on_gpu("guided_sampling")),
        Device::Cpu => {
            let mut out = vec![0i32; b * l];
            out.par_iter_mut()
                .zip(filtered.f32()?.par_chunks(v))
                .with_min_len((1 << 12) / v + 1)
                .enumerate()
                .for_each(|(row, (out, x))| {
                    let noise = RowNoise::new(noise, Purpose::Sample, row, l, v);
                    *out = draw(x, &noise);
                });
            Ok(Tensor::from_i32([b, l], out))
        }
    }
}

/// The noise of one row.
enum RowNoise<'a> {
    Stream(Stream, u64),
    Given(&'a [f32]),
}

impl<'a> RowNoise<'a> {
    fn new(noise: &Draw<'a>, purpose: Purpose, row: usize, l: usize, v: usize) -> Self {
        match noise {
            Draw::Seed { seed, scale, first } => {
                let image = first + (row / l) as u64;
                Self::Stream(
                    Stream::new(*seed, purpose, *scale, image),
                    (row % l * v) as u64,
                )
            }
            Draw::Given(all) => Self::Given(&all[row * v..(row + 1) * v]),
        }
    }
}

/// argmax(softmax(x)/e); the first where several are.
fn draw(x: &[f32], noise: &RowNoise<'_>) -> i32 {
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
        let e = match noise {
            RowNoise::Stream(s, base) => s.exponential_at(base + i as u64),
            RowNoise::Given(e) => e[i],
        };
        let score = (p / sum) / e;
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
    check_draw(OP, noise, filtered.numel())?;
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
        Device::Cuda(_) => return Err(crate::Error::not_on_gpu("guided_sampling")),
        Device::Cpu => {
            let mut p = PoolVec::scratch(filtered.numel());
            p.par_chunks_mut(v)
                .zip(filtered.f32()?.par_chunks(v))
                .enumerate()
                .for_each(|(row, (p, x))| {
                    let noise = RowNoise::new(noise, Purpose::Gumbel, row, l, v);
                    for (i, (p, &x)) in p.iter_mut().zip(x).enumerate() {
                        // A removed code stays removed whatever its noise.
                        *p = if x == f32::NEG_INFINITY {
                            x
                        } else {
                            let g = match &noise {
                                RowNoise::Stream(s, at) => -s.exponential_at(at + i as u64).ln(),
                                RowNoise::Given(g) => g[i],
                            };
                            (x * (1.0 + ratio) + g) / tau
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
