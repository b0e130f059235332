//! Dropout: each element is zeroed with probability p, the rest scaled by 1/(1 − p) (Srivastava et al. 2014).
//!
//! The mask is a function of the stream and the element's position: the backward pass draws it again, nothing is kept. Positions begin at
//! `from`, so that a part of a batch is masked as it would be within the whole.

pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use crate::cpu::CHUNK;
use crate::cpu::pool::PoolVec;
use crate::rng::Stream;
use crate::{Cx, Device, Error, Result, Tensor};
use rayon::prelude::*;

/// x with dropped elements; `p` in \[0, 1). The first element stands at position `from` of the stream.
///
/// # Errors
/// When `p` is out of range.
pub fn dropout(cx: &Cx<'_>, x: &Tensor, p: f32, stream: &Stream, from: u64) -> Result<Tensor> {
    if !(0.0..1.0).contains(&p) {
        return Err(Error::shape(
            "dropout",
            format!("p is {p}, expected [0, 1)"),
        ));
    }
    let mut y = masked(x, p, stream, from)?;
    if cx.records(&[x]) {
        let (x, stream) = (x.without_data(), stream.clone());
        cx.record_one(&mut y, move |g, grads| {
            grads.add(&x, masked(&g, p, &stream, from)?)
        });
    }
    Ok(y)
}

fn masked(x: &Tensor, p: f32, stream: &Stream, from: u64) -> Result<Tensor> {
    match x.device() {
        Device::Cuda(_) => cuda::masked(x, p, stream, from),
        Device::Cpu => {
            let xs = x.f32()?;
            let scale = 1.0 / (1.0 - p);
            let mut y = PoolVec::scratch(xs.len());
            y.par_chunks_mut(CHUNK)
                .zip(xs.par_chunks(CHUNK))
                .enumerate()
                .for_each(|(i, (y, x))| {
                    let base = from + (i * CHUNK) as u64;
                    for (j, (y, x)) in y.iter_mut().zip(x).enumerate() {
                        let kept = stream.uniform_at(base + j as u64) >= p;
                        *y = if kept { x * scale } else { 0.0 };
                    }
                });
            Ok(Tensor::from_buf(x.shape(), y))
        }
    }
}
