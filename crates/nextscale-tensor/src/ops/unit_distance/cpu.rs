//! The distance on the CPU.

use super::{EPSILON, Sizes};
use crate::cpu::pool::PoolVec;
use crate::cpu::simd;
use crate::{Result, Tensor};
use rayon::prelude::*;

/// Pixels that one piece of work sums.
const PIECE: usize = 256;

/// The length of a pixel's channels.
fn length(x: &[f32]) -> f32 {
    simd::sum_of(
        x,
        #[inline(always)]
        |x| x * x,
    )
    .sqrt()
}

/// y.
pub(super) fn forward(s: Sizes, a: &Tensor, b: &Tensor, w: &Tensor) -> Result<Tensor> {
    let (xs, ys, w, c) = (a.f32()?, b.f32()?, w.f32()?, s.channels);
    let image = s.pixels * c;
    let mut out = Vec::with_capacity(s.batch);
    for (x, y) in xs.chunks_exact(image).zip(ys.chunks_exact(image)) {
        let pieces: Vec<f64> = x
            .par_chunks(PIECE * c)
            .zip(y.par_chunks(PIECE * c))
            .map(|(x, y)| {
                let pixels = x.chunks_exact(c).zip(y.chunks_exact(c));
                pixels
                    .map(|(x, y)| {
                        let (i, j) = (length(x) + EPSILON, length(y) + EPSILON);
                        f64::from(simd::sum_of3(
                            x,
                            y,
                            w,
                            #[inline(always)]
                            |x, y, w| {
                                let d = x / i - y / j;
                                w * d * d
                            },
                        ))
                    })
                    .sum()
            })
            .collect();
        out.push((pieces.iter().sum::<f64>() / s.pixels as f64) as f32);
    }
    Ok(Tensor::from_vec([s.batch], out))
}

/// The gradients of a and b, those that are wanted.
pub(super) fn backward(
    s: Sizes,
    a: &Tensor,
    b: &Tensor,
    w: &Tensor,
    g: &Tensor,
    wanted: (bool, bool),
) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let of = |x: &Tensor, other: &Tensor, wanted: bool| match wanted {
        true => one_side(s, x, other, w, g).map(Some),
        false => Ok(None),
    };
    Ok((of(a, b, wanted.0)?, of(b, a, wanted.1)?))
}

/// The gradient of one side: both have the same, with the sides exchanged.
fn one_side(s: Sizes, x: &Tensor, other: &Tensor, w: &Tensor, g: &Tensor) -> Result<Tensor> {
    let (xs, ys, w, g, c) = (x.f32()?, other.f32()?, w.f32()?, g.f32()?, s.channels);
    let mut out = PoolVec::scratch(xs.len());
    out.par_chunks_mut(c)
        .zip(xs.par_chunks(c).zip(ys.par_chunks(c)))
        .enumerate()
        .for_each(|(pixel, (out, (x, y)))| {
            let f = 2.0 * g[pixel / s.pixels] / s.pixels as f32;
            let (norm, j) = (length(x), length(y) + EPSILON);
            let i = norm + EPSILON;
            if norm == 0.0 {
                out.fill(0.0);
                return;
            }
            for (((out, x), y), w) in out.iter_mut().zip(x).zip(y).zip(w) {
                *out = f * w * (x / i - y / j);
            }
            let along = simd::sum_of2(
                out,
                x,
                #[inline(always)]
                |u, x| u * x,
            );
            // Divided twice, since i² may have no float32.
            let back = along / norm / i;
            for (out, x) in out.iter_mut().zip(x) {
                *out = (*out - back * x) / i;
            }
        });
    Ok(Tensor::from_buf(x.shape(), out))
}
