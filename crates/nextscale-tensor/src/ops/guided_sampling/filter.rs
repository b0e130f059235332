//! Top-k and top-p.

use super::{cuda, dims};
use crate::cpu::pool::PoolVec;
use crate::{Device, Error, Result, Tensor};
use rayon::prelude::*;

/// Logits \[B, l, V\] with removed codes set to −∞. `top_k` 0 and `top_p` 0 switch a filter off.
///
/// # Errors
/// When `top_p` is not in \[0, 1\].
pub fn filter_logits(logits: &Tensor, top_k: usize, top_p: f32) -> Result<Tensor> {
    const OP: &str = "filter_logits";
    let (_, _, v) = dims(OP, logits)?;
    check_top_p(OP, top_p)?;
    match logits.device() {
        Device::Cuda(_) => cuda::filter_logits(logits, top_k, top_p, cuda::most_shared(logits)?),
        Device::Cpu => {
            let mut out = PoolVec::scratch(logits.numel());
            out.par_chunks_mut(v)
                .zip(logits.f32()?.par_chunks(v))
                .with_min_len((1 << 12) / v + 1)
                .for_each(|(out, x)| {
                    if !super::has_shares(x) {
                        out.fill(f32::NAN);
                        return;
                    }
                    out.copy_from_slice(x);
                    if top_k > 0 && top_k < v {
                        keep_top_k(out, top_k);
                    }
                    if top_p > 0.0 {
                        keep_top_p(out, top_p);
                    }
                });
            Ok(Tensor::from_buf(logits.shape(), out))
        }
    }
}

pub(super) fn check_top_p(op: &'static str, top_p: f32) -> Result<()> {
    if (0.0..=1.0).contains(&top_p) {
        return Ok(());
    }
    Err(Error::shape(
        op,
        format!("top_p is {top_p}, expected 0 to 1"),
    ))
}

/// The running probability up to which top-p removes.
pub(super) fn removed_share(top_p: f32) -> f32 {
    (1.0 - f64::from(top_p)) as f32
}

fn keep_top_k(x: &mut [f32], k: usize) {
    let mut copy = x.to_vec();
    let (_, kth, _) = copy.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    let kth = *kth;
    for x in x.iter_mut() {
        if *x < kth {
            *x = f32::NEG_INFINITY;
        }
    }
}

fn keep_top_p(x: &mut [f32], p: f32) {
    // What is removed already has no probability; only the rest needs sorting.
    let mut order: Vec<u32> = (0..x.len() as u32)
        .filter(|&i| x[i as usize] > f32::NEG_INFINITY)
        .collect();
    order.sort_by(|&a, &b| x[a as usize].total_cmp(&x[b as usize]));
    let Some(&largest) = order.last() else {
        return;
    };
    let max = x[largest as usize];
    let weights: Vec<f32> = order.iter().map(|&i| (x[i as usize] - max).exp()).collect();
    let sum: f32 = weights.iter().map(|&w| f64::from(w)).sum::<f64>() as f32;
    let limit = removed_share(p);
    // The framework sums running probabilities in float64 and stores them in float32.
    let mut running = 0.0f64;
    for (&i, w) in order.iter().zip(&weights) {
        running += f64::from(w / sum);
        if running as f32 > limit || i == largest {
            break;
        }
        x[i as usize] = f32::NEG_INFINITY;
    }
}
