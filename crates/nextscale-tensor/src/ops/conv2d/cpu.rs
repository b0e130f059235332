//! Convolution on the CPU.

use super::patches::{Patches, Turned};
use super::{Conv, Sizes};
use super::{direct, direct_weights};
use crate::cpu::gemm::pack::Transposed;
use crate::cpu::gemm::{Epilogue, Plain, gemm, gemm_long, inline_epilogue};
use crate::cpu::pool::PoolVec;
use crate::ops::linear::column_sums;
use crate::{Grads, Result, Tensor};
use rayon::prelude::*;

/// conv + bias (+ residual).
pub(crate) fn forward(
    s: Sizes,
    conv: Conv,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let b = bias.f32()?;
    let r = residual.map(Tensor::f32).transpose()?;
    let n = s.outputs;
    forward_with(
        s,
        conv,
        x,
        weight,
        &inline_epilogue(
            #[inline(always)]
            |row: usize, y: &mut [f32]| {
                y.iter_mut().zip(b).for_each(|(y, b)| *y += b);
                if let Some(r) = r {
                    y.iter_mut()
                        .zip(&r[row * n..(row + 1) * n])
                        .for_each(|(y, r)| *y += r);
                }
            },
        ),
    )
}

/// conv, then `epilogue` on every output position.
pub(crate) fn forward_with<F: Epilogue>(
    s: Sizes,
    conv: Conv,
    x: &Tensor,
    weight: &Tensor,
    epilogue: &F,
) -> Result<Tensor> {
    let m = s.batch * s.oh * s.ow;
    let k = s.kh * s.kw * s.inputs;
    let mut y = PoolVec::scratch(m * s.outputs);
    let w = Transposed::new(weight.f32()?, k);
    if direct::keeps_size(s, conv) && direct::serves(s.w, s.inputs) {
        let (map, x) = ((s.h, s.w, s.inputs), x.f32()?);
        direct::product(map, s.outputs, x, &w, around(1), &mut y, epilogue);
        return Ok(Tensor::from_buf([s.batch, s.oh, s.ow, s.outputs], y));
    }
    let patches = input_patches(s, conv, x.f32()?);
    gemm((m, s.outputs, k), &patches, &w, &mut y, false, epilogue);
    Ok(Tensor::from_buf([s.batch, s.oh, s.ow, s.outputs], y))
}

/// Offsets of the taps of a 3×3 kernel from its middle, in the weight's order; `sign` −1 turns the kernel.
fn around(sign: isize) -> [(isize, isize); 9] {
    std::array::from_fn(|t| (sign * (t as isize / 3 - 1), sign * (t as isize % 3 - 1)))
}

/// Every tap of the kernel with its offset from a position's pixel.
fn input_patches(s: Sizes, conv: Conv, data: &[f32]) -> Patches<'_> {
    let [top, left, ..] = conv.pad;
    let taps = (0..s.kh * s.kw)
        .map(|t| {
            (
                (t / s.kw) as isize - top as isize,
                (t % s.kw) as isize - left as isize,
            )
        })
        .collect();
    Patches {
        data,
        map: (s.h, s.w, s.inputs),
        grid: (s.oh, s.ow),
        stride: conv.stride,
        taps,
    }
}

/// Adds to the gradients of x, weight and bias.
pub(crate) fn backward(
    s: Sizes,
    conv: Conv,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    g: &Tensor,
    grads: &mut Grads<'_>,
) -> Result<()> {
    let dy = g.f32()?;
    grads.accumulate(bias, |slot| {
        column_sums(dy, s.outputs, 0, slot);
        Ok(())
    })?;
    grads.accumulate(weight, |slot| {
        if direct::keeps_size(s, conv) && direct_weights::serves(s) {
            direct_weights::add(s, x.f32()?, dy, slot);
            return Ok(());
        }
        let m = s.batch * s.oh * s.ow;
        let k = s.kh * s.kw * s.inputs;
        let patches = input_patches(s, conv, x.f32()?);
        gemm_long(
            (s.outputs, k, m),
            &Transposed::new(dy, s.outputs),
            &patches,
            slot,
        );
        Ok(())
    })?;
    if grads.wants(x) {
        let dx = input_gradient(s, conv, weight.f32()?, dy);
        grads.add(x, Tensor::from_buf(x.shape(), dx))?;
    }
    Ok(())
}

/// The input's gradient. Pixels of the input fall into stride² phases; each phase meets its own subset of the taps, so
/// that no product with a structural zero is ever made.
fn input_gradient(s: Sizes, conv: Conv, weight: &[f32], dy: &[f32]) -> PoolVec {
    let stride = conv.stride;
    let [top, left, ..] = conv.pad;
    if stride == 1 {
        let mut dx = PoolVec::scratch(s.batch * s.h * s.w * s.inputs);
        if direct::keeps_size(s, conv) && direct::serves(s.w, s.outputs) {
            let turned = Turned {
                weight,
                outputs: s.outputs,
                inputs: s.inputs,
                all: 9,
                taps: (0..9).collect(),
            };
            let map = (s.h, s.w, s.outputs);
            direct::product(map, s.inputs, dy, &turned, around(-1), &mut dx, &Plain);
            return dx;
        }
        phase_gradient(s, (top, left), 1, weight, dy, (s.h, s.w), &mut dx);
        return dx;
    }
    let mut dx = PoolVec::zeros(s.batch * s.h * s.w * s.inputs);
    for py in 0..stride.min(s.h) {
        for px in 0..stride.min(s.w) {
            let grid = ((s.h - py).div_ceil(stride), (s.w - px).div_ceil(stride));
            let mut part = PoolVec::scratch(s.batch * grid.0 * grid.1 * s.inputs);
            phase_gradient(
                s,
                (py + top, px + left),
                stride,
                weight,
                dy,
                grid,
                &mut part,
            );
            // Rows of the phase go to every stride-th row and column of dx.
            let (row, c) = (s.w * s.inputs, s.inputs);
            dx.par_chunks_mut(row)
                .enumerate()
                .filter(|(i, _)| i % s.h % stride == py)
                .for_each(|(i, out)| {
                    let (b, y) = (i / s.h, i % s.h / stride);
                    let src = &part[(b * grid.0 + y) * grid.1 * c..][..grid.1 * c];
                    for (p, src) in src.chunks_exact(c).enumerate() {
                        out[(p * stride + px) * c..][..c].copy_from_slice(src);
                    }
                });
        }
    }
    dx
}

/// The gradient at the input pixels `stride·(a, b) + origin − pad` for all (a, b) of `grid`.
fn phase_gradient(
    s: Sizes,
    (oy, ox): (usize, usize),
    stride: usize,
    weight: &[f32],
    dy: &[f32],
    grid: (usize, usize),
    out: &mut [f32],
) {
    // Tap (ty, tx) links output position (p, q) with padded pixel stride·(p, q) + (ty, tx); pixel stride·a + oy is met
    // by taps with the same remainder, at output a + (oy − ty)/stride.
    let (mut taps, mut offsets) = (Vec::new(), Vec::new());
    for ty in 0..s.kh {
        for tx in 0..s.kw {
            let (dy, dx) = (oy as isize - ty as isize, ox as isize - tx as isize);
            let st = stride as isize;
            if dy.rem_euclid(st) == 0 && dx.rem_euclid(st) == 0 {
                taps.push(ty * s.kw + tx);
                offsets.push((dy.div_euclid(st), dx.div_euclid(st)));
            }
        }
    }
    let m = s.batch * grid.0 * grid.1;
    let k = taps.len() * s.outputs;
    let patches = Patches {
        data: dy,
        map: (s.oh, s.ow, s.outputs),
        grid,
        stride: 1,
        taps: offsets,
    };
    let turned = Turned {
        weight,
        outputs: s.outputs,
        inputs: s.inputs,
        all: s.kh * s.kw,
        taps,
    };
    gemm((m, s.inputs, k), &patches, &turned, out, false, &Plain);
}
