//! Resizing on the CPU: along the width, then along the height.

use super::axis::Axis;
use crate::cpu::pool::PoolVec;
use crate::cpu::simd;
use crate::{Result, Tensor};
use rayon::prelude::*;

pub(super) fn apply(x: &Tensor, rows: &Axis, cols: &Axis) -> Result<Tensor> {
    let &[b, h, w, c] = x.dims() else {
        unreachable!("the operator checked the shape")
    };
    let (to_h, to_w) = (rows.rows.len(), cols.rows.len());
    let middle = along(x.f32()?, b * h, w, c, cols);
    let out = along(&middle, b, h, to_w * c, rows);
    Ok(Tensor::from_buf([b, to_h, to_w, c], out))
}

/// Sums along the middle axis of \[outer, n, inner\].
fn along(x: &[f32], outer: usize, n: usize, inner: usize, axis: &Axis) -> PoolVec {
    let to = axis.rows.len();
    let mut out = PoolVec::scratch(outer * to * inner);
    if axis.is_identity() {
        out.copy_from_slice(x);
        return out;
    }
    out.par_chunks_mut(inner.max(1))
        .with_min_len((1 << 13) / inner.max(1) + 1)
        .enumerate()
        .for_each(|(i, out)| {
            let (o, row) = (i / to, &axis.rows[i % to]);
            let source = |j: usize| &x[(o * n + j) * inner..][..inner];
            simd::run(
                #[inline(always)]
                || {
                    out.fill(0.0);
                    for &(j, w) in row {
                        for (o, x) in out.iter_mut().zip(source(j)) {
                            *o += w * x;
                        }
                    }
                },
            );
        });
    out
}
