//! Batches on their way to a GPU beside its work, so that the next one travels while this one is computed with.

use crate::ops::pixels;
use crate::{DType, Error, Result, Shape, Tensor};
use nextscale_cuda::Gpu;
use nextscale_cuda::matmul::Place;
use nextscale_cuda::upload::CopyStream;

/// Copies to one GPU.
#[derive(Debug)]
pub struct Uploads {
    gpu: &'static Gpu,
    copies: CopyStream,
}

impl Uploads {
    /// Copies to this GPU.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn new(gpu: &'static Gpu) -> Result<Self> {
        Ok(Self {
            gpu,
            copies: CopyStream::new(gpu)?,
        })
    }

    /// 8-bit images as floats in \[−1, 1\], as [`crate::ops::from_pixels`] makes them. Waits for nothing but the
    /// copy before the last.
    ///
    /// # Errors
    /// When the count does not fit the shape, or memory is full.
    pub fn images(&mut self, shape: impl Into<Shape>, pixels: &[u8]) -> Result<Tensor> {
        let (shape, gpu) = (shape.into(), self.gpu);
        if shape.numel() != pixels.len() {
            let detail = format!("{} bytes do not fit {shape}", pixels.len());
            return Err(Error::shape("images", detail));
        }
        self.copies.send(pixels, |bytes| {
            pixels::cuda::floats_of(gpu, DType::F32, shape, bytes)
        })
    }

    /// Integers. Waits as [`Uploads::images`].
    ///
    /// # Errors
    /// When the count does not fit the shape, or memory is full.
    pub fn integers(&mut self, shape: impl Into<Shape>, values: &[i32]) -> Result<Tensor> {
        let (shape, gpu) = (shape.into(), self.gpu);
        if shape.numel() != values.len() {
            let detail = format!("{} integers do not fit {shape}", values.len());
            return Err(Error::shape("integers", detail));
        }
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.copies.send(&bytes, |from| {
            let t = Tensor::scratch(gpu, shape, DType::I32)?;
            gpu.copy(Place(from, 0), t.place()?, bytes.len())?;
            Ok(t)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, ops};
    use nextscale_cuda as cuda;

    #[test]
    fn what_is_sent_arrives_in_order() {
        if cuda::count() == 0 {
            eprintln!("skipped: no CUDA device");
            return;
        }
        let gpu = Gpu::get(0).unwrap();
        let mut uploads = Uploads::new(gpu).unwrap();
        let mut sent = Vec::new();
        for i in 0..9usize {
            // Growing and shrinking sizes, so that slots are made anew and used again.
            let n = [3, 300_000, 7, 9_000_000][i % 4] + i;
            let pixels: Vec<u8> = (0..n).map(|j| (j * 7 + i) as u8).collect();
            let on = uploads.images([n], &pixels).unwrap();
            sent.push((ops::from_pixels([n], &pixels).unwrap(), on));
            let ints: Vec<i32> = (0..n.min(1000)).map(|j| j as i32 - i as i32).collect();
            let on = uploads.integers([ints.len()], &ints).unwrap();
            assert_eq!(on.to(Device::Cpu).unwrap().i32().unwrap(), ints);
        }
        drop(uploads);
        for (want, got) in sent {
            assert_eq!(
                got.to(Device::Cpu).unwrap().f32().unwrap(),
                want.f32().unwrap()
            );
        }
    }
}
