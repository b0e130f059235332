//! Sums and differences of tensors of one shape, and weighted sums of scalars: the little arithmetic around the large
//! operators. Gradients: g, −g, and the weight times g.

pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use crate::cpu::CHUNK;
use crate::cpu::pool::PoolVec;
use crate::{Cx, Device, Error, Result, Tensor, expect_dims};
use rayon::prelude::*;

/// What is done element by element.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Map {
    /// a + b.
    Add,
    /// a − b.
    Sub,
    /// a·f.
    Times(f32),
    /// (b − a) + a.
    StraightThrough,
    /// (a + 1)·½.
    ToUnitRange,
    /// a limited to a range; what is no number or infinite becomes not-a-number.
    Clamp(f32, f32),
    /// a·scale + shift.
    Affine(f32, f32),
    /// a where it is positive or not a number, else 0.
    Relu,
    /// b where a is positive, else 0.
    WherePositive,
}

/// f(a, b) element by element; `None` for functions of one operand.
pub(crate) fn zip_map(
    op: &'static str,
    map: Map,
    a: &Tensor,
    b: Option<&Tensor>,
) -> Result<Tensor> {
    if let Some(b) = b {
        expect_dims(op, "the second operand", b, a.dims())?;
    }
    match a.device() {
        Device::Cuda(_) => cuda::map(map, a, b),
        Device::Cpu => {
            let b = b.unwrap_or(a);
            match map {
                Map::Add => zip_on_cpu(a, b, |a, b| a + b),
                Map::Sub => zip_on_cpu(a, b, |a, b| a - b),
                Map::Times(f) => zip_on_cpu(a, b, |a, _| a * f),
                Map::StraightThrough => zip_on_cpu(a, b, |a, b| (b - a) + a),
                Map::ToUnitRange => zip_on_cpu(a, b, |a, _| (a + 1.0) * 0.5),
                Map::Clamp(lo, hi) => zip_on_cpu(a, b, |a, _| clamped(a, lo, hi)),
                Map::Affine(scale, shift) => zip_on_cpu(a, b, |a, _| a * scale + shift),
                Map::Relu => zip_on_cpu(a, b, |a, _| if a <= 0.0 { 0.0 } else { a }),
                Map::WherePositive => zip_on_cpu(a, b, |a, b| if a > 0.0 { b } else { 0.0 }),
            }
        }
    }
}

fn clamped(a: f32, lo: f32, hi: f32) -> f32 {
    if a.is_finite() {
        a.max(lo).min(hi)
    } else {
        f32::NAN
    }
}

/// f(a, b) on the CPU, two tensors of one shape.
pub(crate) fn zip_on_cpu(
    a: &Tensor,
    b: &Tensor,
    f: impl Fn(f32, f32) -> f32 + Sync,
) -> Result<Tensor> {
    let (x, y) = (a.f32()?, b.f32()?);
    let mut out = PoolVec::scratch(x.len());
    out.par_chunks_mut(CHUNK)
        .zip(x.par_chunks(CHUNK).zip(y.par_chunks(CHUNK)))
        .for_each(|(o, (x, y))| {
            for ((o, x), y) in o.iter_mut().zip(x).zip(y) {
                *o = f(*x, *y);
            }
        });
    Ok(Tensor::from_buf(a.shape(), out))
}

/// x·f.
pub(crate) fn times(x: &Tensor, f: f32) -> Result<Tensor> {
    zip_map("scale", Map::Times(f), x, None)
}

/// a + b.
///
/// # Errors
/// When shapes differ.
pub fn add(cx: &Cx<'_>, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let mut y = zip_map("add", Map::Add, a, Some(b))?;
    if cx.records(&[a, b]) {
        let (a, b) = (a.without_data(), b.without_data());
        cx.record_one(&mut y, move |g, grads| {
            if grads.wants(&a) {
                grads.add(&a, g.clone().reshape(a.shape())?)?;
            }
            grads.add(&b, g)
        });
    }
    Ok(y)
}

/// a − b.
///
/// # Errors
/// When shapes differ.
pub fn sub(cx: &Cx<'_>, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let mut y = zip_map("sub", Map::Sub, a, Some(b))?;
    if cx.records(&[a, b]) {
        let (a, b) = (a.without_data(), b.without_data());
        cx.record_one(&mut y, move |g, grads| {
            if grads.wants(&b) {
                grads.add(&b, times(&g, -1.0)?)?;
            }
            grads.add(&a, g)
        });
    }
    Ok(y)
}

/// Σ weight·scalar, \[1\].
///
/// # Errors
/// When a term is not one number.
pub fn weighted_sum(cx: &Cx<'_>, terms: &[(Tensor, f32)]) -> Result<Tensor> {
    if let Some((t, _)) = terms.iter().find(|(t, _)| t.numel() != 1) {
        return Err(Error::shape(
            "weighted_sum",
            format!("a term is {}", t.shape()),
        ));
    }
    let on_gpu = terms.iter().any(|(t, _)| t.device() != Device::Cpu);
    let mut y = if on_gpu {
        cuda::weighted_sum(terms)?
    } else {
        let mut sum = 0.0f64;
        for (t, w) in terms {
            sum += f64::from(t.scalar()?) * f64::from(*w);
        }
        Tensor::from_vec([1], vec![sum as f32])
    };
    let inputs: Vec<&Tensor> = terms.iter().map(|(t, _)| t).collect();
    if cx.records(&inputs) {
        let terms: Vec<(Tensor, f32)> = terms.iter().map(|(t, w)| (t.without_data(), *w)).collect();
        cx.record_one(&mut y, move |g, grads| {
            if on_gpu {
                let all = cuda::weighted_gradients(&g, &terms)?;
                return terms
                    .iter()
                    .enumerate()
                    .try_for_each(|(i, (t, _))| grads.add(t, all.narrow(i, 1)?));
            }
            let g = g.scalar()?;
            terms
                .iter()
                .try_for_each(|(t, w)| grads.add(t, Tensor::from_vec([1], vec![g * w])))
        });
    }
    Ok(y)
}
