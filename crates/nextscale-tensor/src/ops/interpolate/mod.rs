//! Resizing feature maps: area (adaptive average pooling), bicubic and bilinear.
//!
//! Shapes: x \[B, H, W, C\] to \[B, h, w, C\]. Area: output i averages the inputs ⌊i·a/b⌋ … ⌈(i+1)·a/b⌉. Bicubic: Keys'
//! kernel with a = −0.75, half-pixel centres, border pixels repeated, no antialiasing. Bilinear: half-pixel centres, or
//! asymmetric as in TensorFlow 1 (output i at i·H/h), border pixels repeated, no antialiasing. All are the usual framework ones
//! and separable: an axis at a time, each output a weighted sum of a few inputs. Gradient: the transposed sums. Nothing is
//! kept on the tape. A map that has the size already is shared, not copied.

pub(super) mod axis;
mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use crate::{Cx, Device, Error, Result, Tensor};
use axis::{Axis, Kind};

/// Average pooling to `size` (height, width).
///
/// # Errors
/// When x is no feature map or a size is zero.
pub fn area(cx: &Cx<'_>, x: &Tensor, size: (usize, usize)) -> Result<Tensor> {
    resize("area", cx, x, size, Kind::Area)
}

/// Bicubic interpolation to `size` (height, width).
///
/// # Errors
/// When x is no feature map or a size is zero.
pub fn bicubic(cx: &Cx<'_>, x: &Tensor, size: (usize, usize)) -> Result<Tensor> {
    resize("bicubic", cx, x, size, Kind::Bicubic)
}

/// Bilinear interpolation to `size` (height, width) between half-pixel centres.
///
/// # Errors
/// When x is no feature map or a size is zero.
pub fn bilinear(cx: &Cx<'_>, x: &Tensor, size: (usize, usize)) -> Result<Tensor> {
    resize("bilinear", cx, x, size, Kind::Bilinear)
}

/// Asymmetric bilinear interpolation to `size` (height, width): output i is at i·H/h, as TensorFlow 1 resizes
/// (`align_corners=False`, no half-pixel centres).
///
/// # Errors
/// When x is no feature map or a size is zero.
pub fn asymmetric_bilinear(cx: &Cx<'_>, x: &Tensor, size: (usize, usize)) -> Result<Tensor> {
    resize("asymmetric_bilinear", cx, x, size, Kind::AsymmetricBilinear)
}

fn resize(
    op: &'static str,
    cx: &Cx<'_>,
    x: &Tensor,
    (h, w): (usize, usize),
    kind: Kind,
) -> Result<Tensor> {
    if x.dims().len() == 4 && x.dims()[1..3] == [h, w] && h * w > 0 {
        return Ok(x.clone());
    }
    by_axes(op, cx, x, (h, w), kind)
}

/// Each axis by its own weighted sums, also where the size stays.
pub(in crate::ops) fn by_axes(
    op: &'static str,
    cx: &Cx<'_>,
    x: &Tensor,
    (h, w): (usize, usize),
    kind: Kind,
) -> Result<Tensor> {
    let &[_, from_h, from_w, _] = x.dims() else {
        return Err(Error::shape(
            op,
            format!("x is {}, expected [B, H, W, C]", x.shape()),
        ));
    };
    if h * w * from_h * from_w == 0 {
        return Err(Error::shape(op, format!("{} to {h}×{w}", x.shape())));
    }
    let (rows, cols) = ((from_h, h), (from_w, w));
    let axis = move |(from, to)| Axis::new(kind, from, to);
    let mut y = match x.device() {
        Device::Cuda(_) => cuda::apply(x, kind, rows, cols, false)?,
        Device::Cpu => cpu::apply(x, &axis(rows), &axis(cols))?,
    };
    if cx.records(&[x]) {
        let x = x.without_data();
        let shape = y.shape();
        cx.record_one(&mut y, move |g, grads| {
            // A gradient comes by element, whatever shape the result went on in.
            let g = g.reshape(shape)?;
            let dx = match g.device() {
                Device::Cuda(_) => cuda::apply(&g, kind, rows, cols, true)?,
                Device::Cpu => cpu::apply(&g, &axis(rows).transposed(), &axis(cols).transposed())?,
            };
            grads.add(&x, dx)
        });
    }
    Ok(y)
}
