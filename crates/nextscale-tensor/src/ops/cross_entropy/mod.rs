//! Cross entropy of token logits with label smoothing and a weight for every position.
//!
//! Shapes: logits \[B, L, V\], targets \[B, L\], weights \[L\]. With lse the log-sum-exp of a row x and t its target, a
//! token costs (1 − s)·(lse − x\[t\]) + s·(lse − mean(x)); the loss is the mean over the batch of the weighted sum over
//! positions. Gradient: weight/B·(softmax(x) − (1 − s)·onehot(t) − s/V), written over the logits where nobody else holds
//! them. Kept on the tape: logits, targets, lse.

mod cuda;
#[cfg(test)]
mod tests;

use crate::cpu::simd;
use crate::ops::NO_CODE;
use crate::{Cx, Device, Error, Result, Tensor, expect_dims};
use rayon::prelude::*;

pub(crate) use cuda::MODULE;

/// What the operator gives, on the device of the logits.
#[derive(Debug)]
pub struct CrossEntropy {
    /// The loss, \[1\].
    pub loss: Tensor,
    /// Cost of every token, with smoothing, without weight: \[B, L\].
    pub smoothed: Tensor,
    /// Cost of every token without smoothing: \[B, L\].
    pub plain: Tensor,
    /// The likeliest code of every token, the first where several are: integers \[B, L\].
    pub predicted: Tensor,
}

const OP: &str = "cross_entropy";

/// One row's figures.
#[derive(Clone, Copy, Default)]
struct Row {
    lse: f32,
    plain: f32,
    smoothed: f32,
    predicted: i32,
}

/// See the module for shapes and formulas.
///
/// # Errors
/// When shapes do not fit or, on the CPU, a target is out of range. The costs of a token whose target is
/// [`NO_CODE`] are no numbers, and so is the loss. On a GPU, where nobody waits to look, so are those of any target
/// out of range.
pub fn cross_entropy(
    cx: &Cx<'_>,
    logits: Tensor,
    targets: &Tensor,
    weights: &[f32],
    smoothing: f32,
) -> Result<CrossEntropy> {
    let &[b, l, v] = logits.dims() else {
        return Err(Error::shape(OP, format!("logits are {}", logits.shape())));
    };
    expect_dims(OP, "targets", targets, &[b, l])?;
    if weights.len() != l || v == 0 {
        let detail = format!("{} weights for {}", weights.len(), logits.shape());
        return Err(Error::shape(OP, detail));
    }
    match logits.device() {
        Device::Cuda(_) => cuda::run(cx, logits, targets, weights, smoothing),
        Device::Cpu => on_cpu(cx, logits, targets, weights, smoothing),
    }
}

fn on_cpu(
    cx: &Cx<'_>,
    logits: Tensor,
    targets: &Tensor,
    weights: &[f32],
    smoothing: f32,
) -> Result<CrossEntropy> {
    let (shape, l, v) = (targets.shape(), weights.len(), logits.shape().last());
    let b = logits.dims()[0];
    let wanted = targets.i32()?;
    let there = |t: i32| t == NO_CODE || usize::try_from(t).is_ok_and(|t| t < v);
    if let Some(bad) = wanted.iter().find(|&&t| !there(t)) {
        return Err(Error::shape(OP, format!("target {bad} among {v} codes")));
    }
    let rows = forward(logits.f32()?, wanted, v, smoothing);
    let mut total = 0.0f64;
    for (i, row) in rows.iter().enumerate() {
        total += f64::from(row.smoothed) * f64::from(weights[i % l]);
    }
    let mut loss = Tensor::from_vec([1], vec![(total / b.max(1) as f64) as f32]);
    if cx.records(&[&logits]) {
        let targets = targets.clone();
        let lse: Vec<f32> = rows.iter().map(|r| r.lse).collect();
        let scale: Vec<f32> = weights.iter().map(|w| w / b as f32).collect();
        cx.record_one(&mut loss, move |g, grads| {
            let seed = g.scalar()?;
            // A second handle on the values would force a copy of them.
            let place = logits.without_data();
            let d = gradient(logits, targets.i32()?, &lse, &scale, seed, smoothing)?;
            grads.add(&place, d.detach())
        });
    }
    let floats = |of: fn(&Row) -> f32| Tensor::from_vec(shape, rows.iter().map(of).collect());
    Ok(CrossEntropy {
        loss,
        smoothed: floats(|r| r.smoothed),
        plain: floats(|r| r.plain),
        predicted: Tensor::from_i32(shape, rows.iter().map(|r| r.predicted).collect()),
    })
}

fn forward(logits: &[f32], targets: &[i32], v: usize, smoothing: f32) -> Vec<Row> {
    let mut rows = vec![Row::default(); targets.len()];
    rows.par_iter_mut()
        .zip(logits.par_chunks(v).zip(targets))
        .with_min_len((1 << 14) / v + 1)
        .for_each(|(row, (x, &t))| {
            simd::run(
                #[inline(always)]
                || {
                    let max = simd::max(x);
                    let sum = simd::sum_of(
                        x,
                        #[inline(always)]
                        |x| simd::exp(x - max),
                    );
                    // No code: what comes out is no number rather than a wrong one.
                    let (lse, hit) = match usize::try_from(t) {
                        Ok(t) => (max + sum.ln(), x[t]),
                        Err(_) => (f32::NAN, 0.0),
                    };
                    let plain = lse - hit;
                    let smoothed = if smoothing > 0.0 {
                        let mean = simd::sum_of(
                            x,
                            #[inline(always)]
                            |x| x,
                        ) / v as f32;
                        (1.0 - smoothing) * plain + smoothing * (lse - mean)
                    } else {
                        plain
                    };
                    let predicted = x.iter().position(|&x| x == max).unwrap_or(0);
                    *row = Row {
                        lse,
                        plain,
                        smoothed,
                        predicted: predicted as i32,
                    };
                },
            );
        });
    rows
}

fn gradient(
    mut logits: Tensor,
    targets: &[i32],
    lse: &[f32],
    scale: &[f32],
    seed: f32,
    smoothing: f32,
) -> Result<Tensor> {
    let v = logits.shape().last();
    let even = smoothing / v as f32;
    logits
        .make_mut()?
        .par_chunks_mut(v)
        .with_min_len((1 << 14) / v + 1)
        .enumerate()
        .for_each(|(i, x)| {
            let (w, lse) = (scale[i % scale.len()] * seed, lse[i]);
            simd::run(
                #[inline(always)]
                || {
                    for x in x.iter_mut() {
                        *x = w * (simd::exp(*x - lse) - even);
                    }
                },
            );
            if let Ok(t) = usize::try_from(targets[i]) {
                x[t] -= w * (1.0 - smoothing);
            }
        });
    Ok(logits)
}
