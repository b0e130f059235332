//! Max pooling on the CPU.

use super::{Sizes, Window};
use crate::cpu::pool::PoolVec;
use crate::{Result, Tensor};
use rayon::prelude::*;

/// y, and the pixel (line · W + column) of every winner where it is wanted.
pub(super) fn forward(
    s: Sizes,
    window: Window,
    x: &Tensor,
    records: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    let xs = x.f32()?;
    let (c, row) = (s.channels, (s.ow * s.channels).max(1));
    let mut y = PoolVec::scratch(s.batch * s.oh * s.ow * c);
    let mut winners = vec![0i32; if records { y.len() } else { 0 }];
    // Without winners each row of y has an empty one.
    let mut kept: Vec<&mut [i32]> = match records {
        true => winners.chunks_mut(row).collect(),
        false => (0..s.batch * s.oh).map(|_| &mut [][..]).collect(),
    };
    y.par_chunks_mut(row)
        .zip(&mut kept)
        .enumerate()
        .for_each(|(line, (y, kept))| {
            let (b, i) = (line / s.oh, line % s.oh);
            let image = &xs[b * s.h * s.w * c..][..s.h * s.w * c];
            for (j, y) in y.chunks_exact_mut(c.max(1)).enumerate() {
                let pixels = window
                    .pixels(i, s.h)
                    .flat_map(|p| window.pixels(j, s.w).map(move |q| p * s.w + q));
                for (nth, pixel) in pixels.enumerate() {
                    let x = &image[pixel * c..][..c];
                    if kept.is_empty() {
                        if nth == 0 {
                            y.copy_from_slice(x);
                        } else {
                            let larger =
                                |(y, x): (&mut f32, &f32)| *y = if wins(*x, *y) { *x } else { *y };
                            y.iter_mut().zip(x).for_each(larger);
                        }
                        continue;
                    }
                    let kept = &mut kept[j * c..][..c];
                    for ((y, x), k) in y.iter_mut().zip(x).zip(kept) {
                        if nth == 0 || wins(*x, *y) {
                            (*y, *k) = (*x, pixel as i32);
                        }
                    }
                }
            }
        });
    let shape = [s.batch, s.oh, s.ow, c];
    let winners = records.then(|| Tensor::from_i32(shape, winners));
    Ok((Tensor::from_buf(shape, y), winners))
}

/// Whether x is larger than the largest so far.
#[inline(always)]
fn wins(x: f32, y: f32) -> bool {
    x > y || (x.is_nan() && !y.is_nan())
}

/// The gradient of x.
pub(super) fn backward(s: Sizes, winners: &Tensor, g: &Tensor) -> Result<Tensor> {
    let (winners, g, c) = (winners.i32()?, g.f32()?, s.channels);
    let (large, small) = (s.h * s.w * c, (s.oh * s.ow * c).max(1));
    let mut dx = PoolVec::zeros(s.batch * large);
    dx.par_chunks_mut(large.max(1))
        .zip(winners.par_chunks(small).zip(g.par_chunks(small)))
        .for_each(|(dx, (winners, g))| {
            for (i, (pixel, g)) in winners.iter().zip(g).enumerate() {
                dx[*pixel as usize * c + i % c] += g;
            }
        });
    Ok(Tensor::from_buf([s.batch, s.h, s.w, c], dx))
}
