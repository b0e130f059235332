//! The linear layer on the CPU.

use super::{Activation, Bias};
use crate::cpu::gemm::pack::{Rows, Transposed};
use crate::cpu::gemm::{Plain, SMALL_ROWS, dot_rows, gemm, inline_epilogue};
use crate::cpu::pool::PoolVec;
use crate::cpu::simd;
use crate::{Grads, Result, Tensor};
use rayon::prelude::*;

/// y and, when asked for, the sum before the activation.
pub(super) fn forward(
    x: &Tensor,
    w: &Tensor,
    bias: Bias<'_>,
    activation: Activation,
    keep_sum: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    let (m, k) = (x.shape().rows(), x.shape().last());
    let n = w.dims()[0];
    let (x_mk, w_nk) = (x.f32()?, w.f32()?);
    let parts: Vec<(usize, &[f32])> = match bias {
        Bias::None => vec![],
        Bias::Full(b) => vec![(0, b.f32()?)],
        Bias::QkV { q, v } => vec![(0, q.f32()?), (2 * n / 3, v.f32()?)],
    };
    let act_at_once = activation == Activation::Gelu && !keep_sum;
    let epilogue = inline_epilogue(
        #[inline(always)]
        |_row: usize, c: &mut [f32]| {
            for (at, b) in &parts {
                c[*at..].iter_mut().zip(*b).for_each(|(c, b)| *c += b);
            }
            if act_at_once {
                c.iter_mut().for_each(|c| *c = gelu(*c));
            }
        },
    );
    let mut out = PoolVec::scratch(m * n);
    if m <= SMALL_ROWS {
        dot_rows((m, n, k), x_mk, w_nk, &mut out);
        out.chunks_exact_mut(n.max(1)).for_each(|c| {
            simd::run(
                #[inline(always)]
                || epilogue(0, c),
            )
        });
    } else {
        gemm(
            (m, n, k),
            &Rows::new(x_mk, k),
            &Transposed::new(w_nk, k),
            &mut out,
            false,
            &epilogue,
        );
    }
    let shape = x.shape().with_last(n);
    if activation == Activation::None || !keep_sum {
        return Ok((Tensor::from_buf(shape, out), None));
    }
    let mut y = PoolVec::scratch(m * n);
    y.par_chunks_mut(crate::cpu::CHUNK)
        .zip(out.par_chunks(crate::cpu::CHUNK))
        .for_each(|(y, z)| {
            simd::run(
                #[inline(always)]
                || y.iter_mut().zip(z).for_each(|(y, z)| *y = gelu(*z)),
            );
        });
    Ok((
        Tensor::from_buf(shape, y),
        Some(Tensor::from_buf(shape, out)),
    ))
}

/// Adds to the gradients of x, W and the biases. `sum` is what was kept where there is an activation.
pub(super) fn backward(
    x: &Tensor,
    w: &Tensor,
    biases: &[(Tensor, usize)],
    sum: Option<Tensor>,
    g: Tensor,
    grads: &mut Grads<'_>,
) -> Result<()> {
    let (m, k) = (x.shape().rows(), x.shape().last());
    let n = w.dims()[0];
    let mut g = g;
    if let Some(z) = sum {
        let z = z.f32()?;
        g.make_mut()?
            .par_chunks_mut(crate::cpu::CHUNK)
            .zip(z.par_chunks(crate::cpu::CHUNK))
            .for_each(|(g, z)| {
                simd::run(
                    #[inline(always)]
                    || g.iter_mut().zip(z).for_each(|(g, z)| *g *= gelu_slope(*z)),
                );
            });
    }
    let dz = g.f32()?;
    for (b, at) in biases {
        grads.accumulate(b, |slot| {
            column_sums(dz, n, *at, slot);
            Ok(())
        })?;
    }
    grads.accumulate(w, |slot| {
        gemm(
            (n, k, m),
            &Transposed::new(dz, n),
            &Rows::new(x.f32()?, k),
            slot,
            true,
            &Plain,
        );
        Ok(())
    })?;
    if grads.wants(x) {
        let mut dx = PoolVec::scratch(m * k);
        gemm(
            (m, k, n),
            &Rows::new(dz, n),
            &Rows::new(w.f32()?, k),
            &mut dx,
            false,
            &Plain,
        );
        grads.add(x, Tensor::from_buf(x.shape(), dx))?;
    }
    Ok(())
}

/// Adds the sums of the columns `at..at + out.len()` of a row-major matrix with `n` columns. Blocks of rows are summed
/// apart and then in order: quick, accurate, and the same on any number of threads.
pub(crate) fn column_sums(data: &[f32], n: usize, at: usize, out: &mut [f32]) {
    const ROWS: usize = 64;
    if n == 0 {
        return;
    }
    let width = out.len();
    let partial: Vec<Vec<f32>> = data
        .par_chunks(ROWS * n)
        .map(|block| {
            let mut sums = vec![0.0; width];
            simd::run(
                #[inline(always)]
                || {
                    for row in block.chunks_exact(n) {
                        sums.iter_mut()
                            .zip(&row[at..at + width])
                            .for_each(|(s, x)| *s += x);
                    }
                },
            );
            sums
        })
        .collect();
    let mut total = vec![0.0f64; width];
    for sums in &partial {
        total
            .iter_mut()
            .zip(sums)
            .for_each(|(t, s)| *t += f64::from(*s));
    }
    out.iter_mut()
        .zip(&total)
        .for_each(|(o, t)| *o += *t as f32);
}

const ROOT_2_OVER_PI: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;

/// GELU in its tanh form.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    let t = simd::tanh(ROOT_2_OVER_PI * (CUBIC * x * x).mul_add(x, x));
    0.5 * x * (1.0 + t)
}

/// The derivative of [`gelu`].
#[inline(always)]
fn gelu_slope(x: f32) -> f32 {
    let t = simd::tanh(ROOT_2_OVER_PI * (CUBIC * x * x).mul_add(x, x));
    let inner = ROOT_2_OVER_PI * (3.0 * CUBIC * x).mul_add(x, 1.0);
    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner
}
