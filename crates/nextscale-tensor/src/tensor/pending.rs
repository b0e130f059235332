//! Values that come from a GPU without anybody waiting for them until they are needed.

use super::{Storage, Tensor};
use crate::{DType, Device, Result, Shape};
use nextscale_cuda::pinned::HostCopy;

/// Values on their way to the CPU.
#[derive(Debug)]
pub struct PendingTensor(State);

#[derive(Debug)]
enum State {
    Here(Tensor),
    Coming {
        shape: Shape,
        dtype: DType,
        copy: HostCopy,
    },
}

impl Tensor {
    /// Starts a copy to the CPU without waiting for it. Half precision comes as float32.
    ///
    /// # Errors
    /// When the GPU refuses or memory is full.
    pub fn copy_to_host(&self) -> Result<PendingTensor> {
        let Storage::Cuda(on) = &self.storage else {
            return Ok(PendingTensor(State::Here(self.detach())));
        };
        let source = if on.dtype.is_half() {
            self.cast(DType::F32)?
        } else {
            self.detach()
        };
        let gpu = source.gpu()?;
        if gpu.is_dry() {
            return Ok(PendingTensor(State::Here(source.to(Device::Cpu)?)));
        }
        Ok(PendingTensor(State::Coming {
            shape: source.shape,
            dtype: source.dtype(),
            copy: gpu.copy_to_host(source.device_ptr()?, source.numel() * 4)?,
        }))
    }
}

impl PendingTensor {
    /// The values, on the CPU; returns when they are there.
    ///
    /// # Errors
    /// When the GPU failed.
    pub fn wait(self) -> Result<Tensor> {
        match self.0 {
            State::Here(t) => Ok(t),
            State::Coming { shape, dtype, copy } => {
                Ok(Tensor::from_words(shape, dtype, copy.wait()?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nextscale_cuda as cuda;

    #[test]
    fn values_on_the_cpu_are_there_at_once() {
        let t = Tensor::from_i32([3], vec![1, -2, 3]);
        assert_eq!(
            t.copy_to_host().unwrap().wait().unwrap().i32().unwrap(),
            [1, -2, 3]
        );
    }

    #[test]
    fn values_come_from_a_gpu() {
        if cuda::count() == 0 {
            eprintln!("skipped: no CUDA device");
            return;
        }
        let device = Device::Cuda(0);
        let values: Vec<f32> = (0..70_000).map(|i| i as f32).collect();
        let x = Tensor::from_slice([values.len()], &values);
        let on = x.to(device).unwrap();
        let pending = on.copy_to_host().unwrap();
        let half = on
            .narrow(1, 3)
            .unwrap()
            .cast(DType::F16)
            .unwrap()
            .copy_to_host()
            .unwrap();
        // One that nobody waits for gives its memory back in order.
        drop(on.copy_to_host().unwrap());
        drop(on);
        assert_eq!(pending.wait().unwrap().f32().unwrap(), values);
        assert_eq!(half.wait().unwrap().f32().unwrap(), [1.0, 2.0, 3.0]);
        let ints = Tensor::from_i32([2], vec![7, -7]).to(device).unwrap();
        assert_eq!(
            ints.copy_to_host().unwrap().wait().unwrap().i32().unwrap(),
            [7, -7]
        );
    }
}
