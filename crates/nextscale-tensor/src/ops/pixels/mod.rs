//! Between 8-bit pictures and the network's range, and clamping. Not differentiable.

pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use super::arithmetic::{Map, zip_map};
use crate::cpu::CHUNK;
use crate::cpu::pool::PoolVec;
use crate::{DType, Device, Error, Result, Shape, Tensor};
use rayon::prelude::*;

/// 8-bit images, channels last, as floats in \[−1, 1\]: v = u/255, then v + v − 1, as the reference rounds it.
///
/// # Errors
/// When the count does not fit the shape.
pub fn from_pixels(shape: impl Into<Shape>, pixels: &[u8]) -> Result<Tensor> {
    from_pixels_on(Device::Cpu, DType::F32, shape, pixels)
}

/// [`from_pixels`] onto a device, in a float type: the bytes travel, and become floats there.
///
/// # Errors
/// As [`from_pixels`], when the device can't be used, or for half precision on a CPU.
pub fn from_pixels_on(
    device: Device,
    dtype: DType,
    shape: impl Into<Shape>,
    pixels: &[u8],
) -> Result<Tensor> {
    let shape = shape.into();
    if shape.numel() != pixels.len() {
        let detail = format!("{} bytes do not fit {shape}", pixels.len());
        return Err(Error::shape("from_pixels", detail));
    }
    if let Some(gpu) = device.gpu()? {
        return cuda::from_pixels(gpu, dtype, shape, pixels);
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
    Tensor::from_buf(shape, out).cast(dtype)
}

/// Images in \[0, 1\] as 8-bit pixels, rounded to the nearest level; values outside are clamped. Waits for a GPU.
///
/// # Errors
/// When x holds integers, or [`Error::NotNumbers`] where values are no numbers.
pub fn to_pixels(x: &Tensor) -> Result<Vec<u8>> {
    match x.device() {
        Device::Cuda(_) => cuda::to_pixels(x),
        Device::Cpu => {
            let x = x.f32()?.par_iter().with_min_len(CHUNK);
            let bad = x.clone().filter(|v| !v.is_finite()).count();
            not_numbers(bad, x.len())?;
            Ok(
                x.map(|v| (v.clamp(0.0, 1.0) * 255.0).round_ties_even() as u8)
                    .collect(),
            )
        }
    }
}

fn not_numbers(bad: usize, of: usize) -> Result<()> {
    match bad {
        0 => Ok(()),
        _ => Err(Error::NotNumbers {
            what: "values of the network's images",
            bad,
            of,
        }),
    }
}

/// x from \[−1, 1\] to \[0, 1\]: (x + 1)·½.
///
/// # Errors
/// When x holds integers.
pub fn to_unit_range(x: &Tensor) -> Result<Tensor> {
    zip_map("to_unit_range", Map::ToUnitRange, x, None)
}

/// x·scale + shift: into another range of values.
///
/// # Errors
/// When x holds integers.
pub fn to_range(x: &Tensor, scale: f32, shift: f32) -> Result<Tensor> {
    zip_map("to_range", Map::Affine(scale, shift), x, None)
}

/// x limited to \[lo, hi\]; what is no number or infinite becomes not-a-number, so that a mistake before is seen behind.
///
/// # Errors
/// When x holds integers.
pub fn clamp(x: &Tensor, lo: f32, hi: f32) -> Result<Tensor> {
    zip_map("clamp", Map::Clamp(lo, hi), x, None)
}
