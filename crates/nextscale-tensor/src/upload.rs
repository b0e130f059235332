//! Batches on their way to a GPU beside its work, so that the next one travels while this one is computed with.

use crate::ops::pixels;
use crate::{DType, Error, Result, Shape, Tensor};
use nextscale_cuda::Gpu;
use nextscale_cuda::matmul::DevicePtr;
use nextscale_cuda::upload::CopyStream;
use std::borrow::Cow;

/// What a tensor that is sent holds.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// 8-bit images, which become floats in \[−1, 1\] as [`crate::ops::from_pixels`] makes them.
    Pixels(&'a [u8]),
    /// Integers.
    Integers(&'a [i32]),
    /// Floats.
    Floats(&'a [f32]),
}

impl Values<'_> {
    /// Fails unless there are as many as the shape has elements.
    fn check(&self, shape: Shape) -> Result<()> {
        let (op, count, what) = match self {
            Values::Pixels(v) => ("images", v.len(), "bytes"),
            Values::Integers(v) => ("integers", v.len(), "integers"),
            Values::Floats(v) => ("floats", v.len(), "floats"),
        };
        if shape.numel() == count {
            return Ok(());
        }
        Err(Error::shape(
            op,
            format!("{count} {what} do not fit {shape}"),
        ))
    }

    fn bytes(&self) -> Cow<'_, [u8]> {
        match self {
            Values::Pixels(v) => Cow::Borrowed(v),
            Values::Integers(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Values::Floats(v) => v.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }

    /// The tensor, once the bytes are in a GPU's buffer.
    fn arrived(&self, gpu: &'static Gpu, shape: Shape, from: DevicePtr<'_>) -> Result<Tensor> {
        let dtype = match self {
            Values::Integers(_) => DType::I32,
            Values::Pixels(_) | Values::Floats(_) => DType::F32,
        };
        let bytes = shape.numel() * dtype.bytes();
        match self {
            Values::Pixels(_) => pixels::cuda::floats_of(gpu, dtype, shape, from),
            Values::Integers(_) | Values::Floats(_) => {
                let t = Tensor::scratch(gpu, shape, dtype)?;
                if bytes > 0 {
                    gpu.copy(from, t.device_ptr()?, bytes)?;
                }
                Ok(t)
            }
        }
    }

    /// The tensor on the CPU.
    ///
    /// # Errors
    /// When the count does not fit the shape.
    pub fn on_cpu(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        self.check(shape)?;
        match self {
            Values::Pixels(v) => crate::ops::from_pixels(shape, v),
            Values::Integers(v) => Ok(Tensor::from_i32(shape, v.to_vec())),
            Values::Floats(v) => Ok(Tensor::from_slice(shape, v)),
        }
    }
}

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

    /// Tensors of these shapes and values, sent in one copy. Waits for nothing but the copy before the last.
    ///
    /// # Errors
    /// When a count does not fit its shape, or memory is full.
    pub fn together<const N: usize>(
        &mut self,
        tensors: [(Shape, Values<'_>); N],
    ) -> Result<[Tensor; N]> {
        let gpu = self.gpu;
        for (shape, values) in &tensors {
            values.check(*shape)?;
        }
        let bytes = tensors.each_ref().map(|(_, values)| values.bytes());
        let pieces = bytes.each_ref().map(|b| &**b);
        let arrived = self.copies.send(&pieces, |buffer, starts| {
            let all = tensors.iter().zip(starts);
            all.map(|((shape, values), &at)| values.arrived(gpu, *shape, DevicePtr(buffer, at)))
                .collect::<Result<Vec<_>>>()
        })?;
        Ok(<[Tensor; N]>::try_from(arrived).expect("one for each that was sent"))
    }

    /// 8-bit images as floats in \[−1, 1\]: [`Uploads::together`] of one tensor.
    ///
    /// # Errors
    /// As [`Uploads::together`].
    pub fn images(&mut self, shape: impl Into<Shape>, pixels: &[u8]) -> Result<Tensor> {
        let [images] = self.together([(shape.into(), Values::Pixels(pixels))])?;
        Ok(images)
    }

    /// Integers: [`Uploads::together`] of one tensor.
    ///
    /// # Errors
    /// As [`Uploads::together`].
    pub fn integers(&mut self, shape: impl Into<Shape>, values: &[i32]) -> Result<Tensor> {
        let [integers] = self.together([(shape.into(), Values::Integers(values))])?;
        Ok(integers)
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

    #[test]
    fn several_tensors_travel_in_one_copy() {
        let pixels: Vec<u8> = (0..7).collect();
        let (ints, floats) = ([3, -1, 2], [0.5, -2.0, 8.0, 1.25]);
        let sent = [
            (Shape::from([1, 7]), Values::Pixels(&pixels)),
            (Shape::from([3]), Values::Integers(&ints)),
            (Shape::from([0]), Values::Floats(&[])),
            (Shape::from([2, 2]), Values::Floats(&floats)),
        ];
        let want = sent.map(|(shape, values)| values.on_cpu(shape).unwrap());
        assert_eq!(want[1].i32().unwrap(), ints);
        assert_eq!(want[3].f32().unwrap(), floats);
        let (device, gpu) = crate::ops::testing::dry_gpu();
        let on = Uploads::new(gpu).unwrap().together(sent).unwrap();
        for (on, want) in on.iter().zip(&want) {
            assert_eq!((on.dims(), on.dtype()), (want.dims(), want.dtype()));
            assert_eq!(on.device(), device);
        }
        let misfit = [(Shape::from([2]), Values::Floats(&floats))];
        let e = Uploads::new(gpu).unwrap().together(misfit).unwrap_err();
        assert!(e.to_string().contains("4 floats do not fit [2]"), "{e}");
        if cuda::count() == 0 {
            return;
        }
        let mut uploads = Uploads::new(Gpu::get(0).unwrap()).unwrap();
        for _ in 0..3 {
            for (on, want) in uploads.together(sent).unwrap().iter().zip(&want) {
                let on = on.to(Device::Cpu).unwrap();
                match want.dtype() {
                    DType::I32 => assert_eq!(on.i32().unwrap(), want.i32().unwrap()),
                    _ => assert_eq!(on.f32().unwrap(), want.f32().unwrap()),
                }
            }
        }
    }
}
