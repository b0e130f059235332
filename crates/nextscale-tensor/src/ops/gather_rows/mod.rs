//! Rows of a table by index: class embeddings, codes.
//!
//! Shapes: table \[N, C\], indices of any shape, y \[…, C\]. Gradient: every row of g is added to the table's row that it
//! came from, in the order of the indices. Kept on the tape: the indices.

pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use crate::cpu::pool::PoolVec;
use crate::ops::NO_CODE;
use crate::{Cx, Device, Error, Result, Shape, Tensor};
use rayon::prelude::*;

/// table\[indices\]. [`NO_CODE`] gives a row of not-a-numbers. On a GPU the table is float32; indices that are
/// there already are not checked, and any that is out of range gives such a row.
///
/// # Errors
/// When the table is no matrix or an index is out of range.
pub fn gather_rows(cx: &Cx<'_>, table: &Tensor, indices: &Tensor) -> Result<Tensor> {
    const OP: &str = "gather_rows";
    let &[n, c] = table.dims() else {
        return Err(Error::shape(OP, format!("table is {}", table.shape())));
    };
    let mut dims = indices.dims().to_vec();
    dims.push(c);
    let there = table.device() != Device::Cpu;
    if there && indices.device() != Device::Cpu {
        return on_gpu(cx, table, indices, &dims);
    }
    let idx = indices.i32()?;
    let row_of = |i: i32| usize::try_from(i).ok().filter(|i| *i < n);
    if let Some(bad) = (idx.iter()).find(|&&i| i != NO_CODE && row_of(i).is_none()) {
        return Err(Error::shape(
            OP,
            format!("index {bad} in a table of {n} rows"),
        ));
    }
    if there {
        return on_gpu(cx, table, &indices.to(table.device())?, &dims);
    }
    let rows = table.f32()?;
    let mut out = PoolVec::scratch(idx.len() * c);
    out.par_chunks_mut(c.max(1))
        .with_min_len(256)
        .zip(idx)
        .for_each(|(out, &i)| match row_of(i) {
            Some(i) => out.copy_from_slice(&rows[i * c..][..c]),
            None => out.fill(f32::NAN),
        });
    let mut y = Tensor::from_buf(Shape::from(dims.as_slice()), out);
    if cx.records(&[table]) {
        let (table, indices) = (table.clone(), indices.clone());
        cx.record_one(&mut y, move |g, grads| {
            let (g, idx) = (g.f32()?, indices.i32()?);
            grads.accumulate(&table, |slot| {
                for (g, &i) in g.chunks_exact(c.max(1)).zip(idx) {
                    let Ok(i) = usize::try_from(i) else { continue };
                    let row = &mut slot[i * c..][..c];
                    row.iter_mut().zip(g).for_each(|(s, g)| *s += g);
                }
                Ok(())
            })
        });
    }
    Ok(y)
}

/// The same with everything on a GPU.
fn on_gpu(cx: &Cx<'_>, table: &Tensor, indices: &Tensor, dims: &[usize]) -> Result<Tensor> {
    let mut y = cuda::forward(table, indices, Shape::from(dims))?;
    if cx.records(&[table]) {
        let (table, indices) = (table.clone(), indices.clone());
        cx.record_one(&mut y, move |g, grads| {
            cuda::backward(&table, &indices, &g, grads)
        });
    }
    Ok(y)
}
