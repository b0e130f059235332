//! Joins token sequences: \[B, l1, C\], \[B, l2, C\], … to \[B, Σl, C\]. Indices \[B, l\] join the same way.
//!
//! No gradient: what is joined are inputs of a model (teacher-forcing features, target indices).

pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use crate::cpu::pool::PoolVec;
use crate::{Device, Error, Result, Shape, Tensor};

/// The parts one after the other along the token axis, floats \[B, l, C\] or indices \[B, l\], in their type.
///
/// # Errors
/// When there is no part, or batch, width or element type differ.
pub fn concat_tokens(parts: &[&Tensor]) -> Result<Tensor> {
    const OP: &str = "concat_tokens";
    let first = parts
        .first()
        .ok_or_else(|| Error::shape(OP, "nothing to join"))?;
    let batch = first.dims().first().copied().unwrap_or(0);
    let width: usize = first.dims().iter().skip(2).product();
    let mut total = 0;
    for p in parts {
        let d = p.dims();
        if d.len() != first.dims().len()
            || d.len() < 2
            || d[0] != batch
            || d[2..] != first.dims()[2..]
        {
            let detail = format!("{} does not go with {}", p.shape(), first.shape());
            return Err(Error::shape(OP, detail));
        }
        total += d[1];
    }
    let mut dims = first.dims().to_vec();
    dims[1] = total;
    let shape = Shape::from(dims.as_slice());
    match first.device() {
        Device::Cuda(_) => cuda::concat(parts, batch, shape),
        Device::Cpu if first.f32().is_ok() => {
            let parts = parts.iter().map(|p| p.f32()).collect::<Result<Vec<_>>>()?;
            let mut out = PoolVec::scratch(shape.numel());
            join(&parts, batch, total * width, &mut out);
            Ok(Tensor::from_buf(shape, out))
        }
        Device::Cpu => {
            let parts = parts.iter().map(|p| p.i32()).collect::<Result<Vec<_>>>()?;
            let mut out = vec![0; shape.numel()];
            join(&parts, batch, total * width, &mut out);
            Ok(Tensor::from_i32(shape, out))
        }
    }
}

fn join<T: Copy>(parts: &[&[T]], batch: usize, row: usize, out: &mut [T]) {
    if row == 0 {
        return;
    }
    for (b, out) in out.chunks_exact_mut(row).enumerate() {
        let mut at = 0;
        for part in parts {
            let n = part.len() / batch;
            out[at..at + n].copy_from_slice(&part[b * n..(b + 1) * n]);
            at += n;
        }
    }
}
