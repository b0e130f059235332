//! Group norm on the CPU.
//!
//! A sample is passed over as a flat run of numbers against coefficients that repeat with the channels; the
//! repetition is laid out over a few pixels (the period), so that loops are long whatever the number of channels.

use crate::cpu::CHUNK;
use crate::cpu::pool::PoolVec;
use crate::cpu::simd;
use crate::{Grads, Result, Tensor};
use rayon::prelude::*;

/// Least length of the repeated coefficients.
const PERIOD: usize = 512;

/// Extents of one call.
#[derive(Clone, Copy)]
pub(super) struct Norm {
    /// Numbers in a sample.
    plane: usize,
    samples: usize,
    c: usize,
    groups: usize,
    silu: bool,
    /// Length of the repeated coefficients, a multiple of `c`.
    period: usize,
    /// Numbers in a task, a multiple of `period`.
    chunk: usize,
}

/// Mean and 1/√(var + eps) of every group of every sample.
pub(super) type Moments = Vec<(f64, f64)>;

impl Norm {
    pub(super) fn new(samples: usize, numel: usize, c: usize, groups: usize, silu: bool) -> Self {
        let period = c * PERIOD.div_ceil(c.max(1));
        Self {
            plane: numel / samples.max(1),
            samples,
            c,
            groups,
            silu,
            period,
            chunk: period * (CHUNK / period.max(1)).max(1),
        }
    }

    /// A value per channel, repeated over the period.
    fn repeat(&self, value: impl Fn(usize) -> f64) -> Vec<f32> {
        let one: Vec<f32> = (0..self.c).map(|c| value(c) as f32).collect();
        one.repeat(self.period / self.c)
    }

    /// Runs `f` on every chunk of every sample and adds what it returns, numbers per channel, over the chunks of a
    /// sample in order.
    fn sums(&self, f: impl Fn(usize, std::ops::Range<usize>) -> Vec<f64> + Sync) -> Vec<Vec<f64>> {
        let per_sample = self.plane.div_ceil(self.chunk);
        let parts: Vec<Vec<f64>> = (0..self.samples * per_sample)
            .into_par_iter()
            .map(|task| {
                let (sample, part) = (task / per_sample, task % per_sample);
                let start = part * self.chunk;
                let end = (start + self.chunk).min(self.plane);
                let base = sample * self.plane;
                f(sample, base + start..base + end)
            })
            .collect();
        let add = |mut sum: Vec<f64>, part: &Vec<f64>| {
            sum.iter_mut().zip(part).for_each(|(s, p)| *s += p);
            sum
        };
        parts
            .chunks(per_sample)
            .map(|p| p.iter().fold(vec![0.0; 2 * self.c], add))
            .collect()
    }

    /// Slope and offset of the affine map that the norm is, for the channels of a sample.
    fn affine(&self, moments: &[(f64, f64)], gamma: &[f32], beta: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let per_group = self.c / self.groups;
        let slope = |c: usize| moments[c / per_group].1 * f64::from(gamma[c]);
        let offset = |c: usize| f64::from(beta[c]) - moments[c / per_group].0 * slope(c);
        (self.repeat(slope), self.repeat(offset))
    }
}

/// y, and what the gradient needs.
pub(super) fn forward(
    norm: &Norm,
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    eps: f32,
) -> Result<(Tensor, Moments)> {
    let (x_flat, gamma, beta) = (x.f32()?, gamma.f32()?, beta.f32()?);
    if x_flat.is_empty() {
        return Ok((Tensor::zeros(x.shape()), Vec::new()));
    }
    let moments = moments(norm, x_flat, eps);
    let mut y = PoolVec::scratch(x_flat.len());
    y.par_chunks_mut(norm.plane)
        .zip(x_flat.par_chunks(norm.plane))
        .zip(moments.par_chunks(norm.groups))
        .for_each(|((y, x), moments)| {
            let (a, b) = norm.affine(moments, gamma, beta);
            y.par_chunks_mut(norm.chunk)
                .zip(x.par_chunks(norm.chunk))
                .for_each(|(y, x)| {
                    if norm.silu {
                        apply(y, x, &a, &b, silu);
                    } else {
                        apply(y, x, &a, &b, |z| z);
                    }
                });
        });
    Ok((Tensor::from_buf(x.shape(), y), moments))
}

fn apply(y: &mut [f32], x: &[f32], a: &[f32], b: &[f32], act: impl Fn(f32) -> f32) {
    simd::run(
        #[inline(always)]
        || {
            for (y, x) in y.chunks_mut(a.len()).zip(x.chunks(a.len())) {
                let line = y.iter_mut().zip(x).zip(a).zip(b);
                line.for_each(|(((y, x), a), b)| *y = act(x.mul_add(*a, *b)));
            }
        },
    );
}

#[inline(always)]
fn silu(z: f32) -> f32 {
    z / (1.0 + simd::exp(-z))
}

/// dy times the derivative of [`silu`].
#[inline(always)]
fn silu_back(z: f32, dy: f32) -> f32 {
    let s = simd::sigmoid(z);
    dy * (s * (1.0 - s)).mul_add(z, s)
}

fn moments(norm: &Norm, x: &[f32], eps: f32) -> Moments {
    let sums = norm.sums(|_, range| {
        let x = &x[range];
        let first: Vec<f32> = x[..norm.c].repeat(norm.period / norm.c);
        chunk_moments(x, &first, norm.c)
    });
    let per_group = norm.c / norm.groups;
    let count = (norm.plane / norm.c * per_group) as f64;
    sums.iter()
        .flat_map(|s| {
            let (sum, squares) = s.split_at(norm.c);
            sum.chunks(per_group).zip(squares.chunks(per_group))
        })
        .map(|(sum, squares)| {
            let mean = sum.iter().sum::<f64>() / count;
            let var = squares.iter().sum::<f64>() / count - mean * mean;
            // Rounded below zero it is zero; what is no number or infinite makes not-a-numbers, not zeros.
            let var = if var < 0.0 { 0.0 } else { var };
            (mean, 1.0 / (var + f64::from(eps)).sqrt() + 0.0 * var)
        })
        .collect()
}

/// Per channel Σ x, then per channel Σ x². Summed in float32 around the chunk's first pixel, so that little is lost
/// when the mean is far from zero, then moved back to zero in float64.
fn chunk_moments(x: &[f32], shift: &[f32], c: usize) -> Vec<f64> {
    let period = shift.len();
    let (mut sum, mut squares) = (vec![0.0f32; period], vec![0.0f32; period]);
    simd::run(
        #[inline(always)]
        || {
            // Four periods at once: the sums are loaded and stored a quarter as often, and are more accurate.
            let mut quads = x.chunks_exact(4 * period);
            for quad in &mut quads {
                let (p, rest) = quad.split_at(period);
                let (q, rest) = rest.split_at(period);
                let (r, s) = rest.split_at(period);
                let values = p.iter().zip(q).zip(r).zip(s).zip(shift);
                let sums = sum.iter_mut().zip(&mut squares);
                for (((((p, q), r), s), at), (sum, sq)) in values.zip(sums) {
                    let (p, q, r, s) = (p - at, q - at, r - at, s - at);
                    *sum += (p + q) + (r + s);
                    *sq += q.mul_add(q, p * p) + s.mul_add(s, r * r);
                }
            }
            for line in quads.remainder().chunks(period) {
                let sums = sum.iter_mut().zip(&mut squares);
                for ((x, at), (sum, sq)) in line.iter().zip(shift).zip(sums) {
                    let d = x - at;
                    *sum += d;
                    *sq = d.mul_add(d, *sq);
                }
            }
        },
    );
    let mut out = fold(&sum, &squares, c);
    let n = (x.len() / c) as f64;
    let (s1, s2) = out.split_at_mut(c);
    for ((s1, s2), at) in s1.iter_mut().zip(s2).zip(shift) {
        let at = f64::from(*at);
        *s2 += at * (2.0 * *s1 + n * at);
        *s1 += n * at;
    }
    out
}

/// Two sums over the repeated channels, folded to one number a channel each.
fn fold(a: &[f32], b: &[f32], c: usize) -> Vec<f64> {
    let mut out = vec![0.0f64; 2 * c];
    let (s, t) = out.split_at_mut(c);
    for (a, b) in a.chunks(c).zip(b.chunks(c)) {
        s.iter_mut().zip(a).for_each(|(s, a)| *s += f64::from(*a));
        t.iter_mut().zip(b).for_each(|(t, b)| *t += f64::from(*b));
    }
    out
}

/// Adds to the gradients of x, γ and β.
pub(super) fn backward(
    norm: &Norm,
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    moments: &[(f64, f64)],
    g: Tensor,
    grads: &mut Grads<'_>,
) -> Result<()> {
    let x_flat = x.f32()?;
    if x_flat.is_empty() {
        return Ok(());
    }
    let (c, per_group) = (norm.c, norm.c / norm.groups);
    let (gamma_c, beta_c) = (gamma.f32()?, beta.f32()?);
    let of_sample = |s: usize| &moments[s * norm.groups..][..norm.groups];
    let coefficients: Vec<_> = (0..norm.samples)
        .map(|s| {
            let (a, b) = norm.affine(of_sample(s), gamma_c, beta_c);
            (a, b, norm.repeat(|c| of_sample(s)[c / per_group].0))
        })
        .collect();
    let mut g = g;
    // Per channel Σ dz and Σ dz·x̂.
    let dy = g.f32()?;
    let mut sums = norm.sums(|sample, range| {
        let (a, b, mean) = &coefficients[sample];
        let (x, dy) = (&x_flat[range.clone()], &dy[range]);
        if norm.silu {
            chunk_sums(x, dy, a, b, mean, c, silu_back)
        } else {
            chunk_sums(x, dy, a, b, mean, c, |_, dy| dy)
        }
    });
    for (sample, s) in sums.iter_mut().enumerate() {
        let moments = of_sample(sample);
        for (c, v) in s[c..].iter_mut().enumerate() {
            *v *= moments[c / per_group].1;
        }
    }
    for (param, half) in [(beta, 0..c), (gamma, c..2 * c)] {
        grads.accumulate(param, |slot| {
            for (slot, i) in slot.iter_mut().zip(half) {
                *slot += sums.iter().map(|s| s[i]).sum::<f64>() as f32;
            }
            Ok(())
        })?;
    }
    if !grads.wants(x) {
        return Ok(());
    }
    let count = (norm.plane / c * per_group) as f64;
    g.make_mut()?
        .par_chunks_mut(norm.plane)
        .zip(x_flat.par_chunks(norm.plane))
        .zip(&sums)
        .zip(&coefficients)
        .enumerate()
        .for_each(|(sample, (((g, x), sums), (a, b, _)))| {
            // dx = a·dz + u·x + v with u and v of the group.
            let uv: Vec<(f64, f64)> = (0..norm.groups)
                .map(|group| {
                    let (mean, rstd) = of_sample(sample)[group];
                    let channels = group * per_group..(group + 1) * per_group;
                    let average = |at: usize| {
                        let weighted = |c: usize| f64::from(gamma_c[c]) * sums[at + c];
                        channels.clone().map(weighted).sum::<f64>() / count
                    };
                    let u = -rstd * rstd * average(norm.c);
                    (u, -rstd * average(0) - u * mean)
                })
                .collect();
            let u = norm.repeat(|c| uv[c / per_group].0);
            let v = norm.repeat(|c| uv[c / per_group].1);
            g.par_chunks_mut(norm.chunk)
                .zip(x.par_chunks(norm.chunk))
                .for_each(|(g, x)| {
                    if norm.silu {
                        input_gradient(g, x, [a, b, &u, &v], silu_back);
                    } else {
                        input_gradient(g, x, [a, b, &u, &v], |_, dy| dy);
                    }
                });
        });
    grads.add(x, g)
}

/// Per channel Σ dz, then per channel Σ dz·(x − mean).
fn chunk_sums(
    x: &[f32],
    dy: &[f32],
    a: &[f32],
    b: &[f32],
    mean: &[f32],
    c: usize,
    act: impl Fn(f32, f32) -> f32,
) -> Vec<f64> {
    let period = a.len();
    let (mut sum, mut products) = (vec![0.0f32; period], vec![0.0f32; period]);
    simd::run(
        #[inline(always)]
        || {
            for (x, dy) in x.chunks(period).zip(dy.chunks(period)) {
                let line = x.iter().zip(dy).zip(a).zip(b).zip(mean);
                let sums = sum.iter_mut().zip(&mut products);
                for (((((x, dy), a), b), mean), (sum, product)) in line.zip(sums) {
                    let dz = act(x.mul_add(*a, *b), *dy);
                    *sum += dz;
                    *product = dz.mul_add(x - mean, *product);
                }
            }
        },
    );
    fold(&sum, &products, c)
}

/// Turns dy into dx in place.
fn input_gradient(
    g: &mut [f32],
    x: &[f32],
    [a, b, u, v]: [&[f32]; 4],
    act: impl Fn(f32, f32) -> f32,
) {
    simd::run(
        #[inline(always)]
        || {
            for (g, x) in g.chunks_mut(a.len()).zip(x.chunks(a.len())) {
                let line = g.iter_mut().zip(x).zip(a).zip(b).zip(u).zip(v);
                for (((((g, x), a), b), u), v) in line {
                    let dz = act(x.mul_add(*a, *b), *g);
                    *g = dz.mul_add(*a, x.mul_add(*u, *v));
                }
            }
        },
    );
}
