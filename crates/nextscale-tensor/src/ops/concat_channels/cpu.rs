//! Joining channels on the CPU.

use crate::cpu::pool::PoolVec;
use crate::{Result, Shape, Tensor};
use rayon::prelude::*;

/// Pixels that one task copies.
const PIXELS: usize = 64;

pub(super) fn join(parts: &[&Tensor], widths: &[usize], shape: [usize; 4]) -> Result<Tensor> {
    let parts: Vec<&[f32]> = parts.iter().map(|p| p.f32()).collect::<Result<_>>()?;
    let all = shape[3];
    let mut y = PoolVec::scratch(shape.iter().product());
    y.par_chunks_mut((PIXELS * all).max(1))
        .enumerate()
        .for_each(|(task, y)| {
            for (i, y) in y.chunks_exact_mut(all.max(1)).enumerate() {
                let (pixel, mut at) = (task * PIXELS + i, 0);
                for (part, &c) in parts.iter().zip(widths) {
                    y[at..at + c].copy_from_slice(&part[pixel * c..][..c]);
                    at += c;
                }
            }
        });
    Ok(Tensor::from_buf(shape, y))
}

/// The channels of y from `first` on, as many as `shape` has.
pub(super) fn part(y: &Tensor, first: usize, shape: Shape) -> Result<Tensor> {
    let (all, c) = (y.dims()[3], shape.dims()[3]);
    let ys = y.f32()?;
    let mut x = PoolVec::scratch(shape.numel());
    x.par_chunks_mut((PIXELS * c).max(1))
        .enumerate()
        .for_each(|(task, x)| {
            for (i, x) in x.chunks_exact_mut(c.max(1)).enumerate() {
                x.copy_from_slice(&ys[(task * PIXELS + i) * all + first..][..c]);
            }
        });
    Ok(Tensor::from_buf(shape, x))
}
