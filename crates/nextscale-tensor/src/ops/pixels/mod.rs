//! Between 8-bit pictures and the network's range, and clamping. Not differentiable.

#[cfg(test)]
mod tests;

use crate::cpu::CHUNK;
use crate::cpu::pool::PoolVec;
use crate::{Device, Error, Result, Shape, Tensor};
use rayon::prelude::*;

/// 8-bit images, channels last, as floats in \[−1, 1\]: v = u/255, then v + v − 1, as the reference rounds it.
///
/// # Errors
/// When the count does not fit the shape.
pub fn from_pixels(shape: impl Into<Shape>, pixels: &[u8]) -> Result<Tensor> {
    let shape = shape.into();
    if shape.numel() != pixels.len() {
        let detail = format!("{} bytes do not fit {shape}", pixels.len());
        return Err(Error::shape("from_pixels", detail));
    }
    let mut out = PoolVec::scratch(pixels.len());
    out.par_chunks_mut(CHUNK)
        .zip(pixels.par_chunks(CHUNK))
        .for_each(|(o, p)| {
            for (o, p) in o.iter_mut().zip(p) {
                let v = f32::from(*p) / 255.0;
                *o = (v + v) - 1.0;
            }
        });
    Ok(Tensor::from_buf(shape, out))
}

/// Images in \[0, 1\] as 8-bit pixels, rounded to the nearest level; values outside are clamped.
///
/// # Errors
/// When x holds integers.
pub fn to_pixels(x: &Tensor) -> Result<Vec<u8>> {
    match x.device() {
        Device::Cuda(_) => return Err(crate::Error::not_on_gpu("pixels")),
        Device::Cpu => Ok(x
            .f32()?
            .par_iter()
            .with_min_len(CHUNK)
            .map(|v| (v.clamp(0.0, 1.0) * 255.0).round_ties_even() as u8)
            .collect()),
    }
}

/// x from \[−1, 1\] to \[0, 1\]: (x + 1)·½.
///
/// # Errors
/// When x holds integers.
pub fn to_unit_range(x: &Tensor) -> Result<Tensor> {
    super::arithmetic::zip_map("to_unit_range", x, x, |x, _| (x + 1.0) * 0.5)
}

/// x limited to \[lo, hi\].
///
/// # Errors
/// When x holds integers.
pub fn clamp(x: &Tensor, lo: f32, hi: f32) -> Result<Tensor> {
    super::arithmetic::zip_map("clamp", x, x, |x, _| x.max(lo).min(hi))
}
