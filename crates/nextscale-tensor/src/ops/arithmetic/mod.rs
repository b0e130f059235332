//! Sums and differences of tensors of one shape, and weighted sums of scalars: the little arithmetic around the large
//! operators. Gradients: g, −g, and the weight times g.

#[cfg(test)]
mod tests;

use crate::cpu::CHUNK;
use crate::cpu::pool::PoolVec;
use crate::{Cx, Device, Error, Result, Tensor, expect_dims};
use rayon::prelude::*;

/// f(a, b) element by element.
pub(crate) fn zip_map(
    op: &'static str,
    a: &Tensor,
    b: &Tensor,
    f: impl Fn(f32, f32) -> f32 + Sync,
) -> Result<Tensor> {
    expect_dims(op, "the second operand", b, a.dims())?;
    match a.device() {
        Device::Cuda(_) => return Err(crate::Error::not_on_gpu("arithmetic")),
        Device::Cpu => {
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
    }
}

/// x·f.
pub(crate) fn times(x: &Tensor, f: f32) -> Result<Tensor> {
    zip_map("scale", x, x, |x, _| x * f)
}

/// a + b.
///
/// # Errors
/// When shapes differ.
pub fn add(cx: &Cx<'_>, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let mut y = zip_map("add", a, b, |a, b| a + b)?;
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
    let mut y = zip_map("sub", a, b, |a, b| a - b)?;
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
    let mut sum = 0.0f64;
    for (t, w) in terms {
        if t.numel() != 1 {
            return Err(Error::shape(
                "weighted_sum",
                format!("a term is {}", t.shape()),
            ));
        }
        sum += f64::from(t.scalar()?) * f64::from(*w);
    }
    let mut y = Tensor::from_vec([1], vec![sum as f32]);
    let inputs: Vec<&Tensor> = terms.iter().map(|(t, _)| t).collect();
    if cx.records(&inputs) {
        let terms = terms.to_vec();
        cx.record_one(&mut y, move |g, grads| {
            let g = g.scalar()?;
            terms
                .iter()
                .try_for_each(|(t, w)| grads.add(t, Tensor::from_vec([1], vec![g * w])))
        });
    }
    Ok(y)
}
