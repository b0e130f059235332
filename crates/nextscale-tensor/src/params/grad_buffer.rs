//! Buffers laid out as a model's parameters.

use super::sharding::Sharding;
use super::{ParamInfo, order};
use crate::{Device, Result, Tensor};
use std::sync::Arc;

/// A flat float32 buffer laid out as a [`Params`](crate::Params): gradients, an optimizer's moments or averaged weights.
#[derive(Debug)]
pub struct GradBuffer {
    pub(super) flat: Tensor,
    /// Of a buffer of which each process holds its share alone.
    sharding: Option<Arc<Sharding>>,
}

impl GradBuffer {
    pub(super) fn new(flat: Tensor, sharding: Option<Arc<Sharding>>) -> Self {
        Self { flat, sharding }
    }

    /// Where it is.
    pub fn device(&self) -> Device {
        self.flat.device()
    }

    /// Its length in floats, gaps included.
    #[allow(clippy::len_without_is_empty, reason = "a model has parameters")]
    pub fn len(&self) -> usize {
        self.flat.numel()
    }

    /// Whether each process has its share of it alone.
    pub fn is_shared(&self) -> bool {
        self.sharding.is_some()
    }

    /// The elements, on the CPU.
    ///
    /// # Errors
    /// When they are on a GPU.
    pub fn cpu(&self) -> Result<&[f32]> {
        self.flat.f32()
    }

    /// The elements for writing, on the CPU.
    ///
    /// # Errors
    /// When they are on a GPU.
    pub fn cpu_mut(&mut self) -> Result<&mut [f32]> {
        self.flat.make_mut()
    }

    /// The buffer on a GPU as a tensor that shares its memory.
    ///
    /// # Errors
    /// When it is on the CPU: there, a second handle would make the next write a copy.
    pub(crate) fn tensor(&self) -> Result<Tensor> {
        self.flat.on_gpu()?;
        Ok(self.flat.detach())
    }

    /// The buffer on a GPU, \[n\] float32, for what sums it over processes.
    ///
    /// # Errors
    /// When it is on the CPU.
    pub fn on_gpu(&self) -> Result<Tensor> {
        self.tensor()
    }

    /// Sets everything to zero. Not for one whose share alone is there.
    ///
    /// # Errors
    /// When the GPU refuses.
    pub fn zero(&mut self) -> Result<()> {
        match self.device() {
            Device::Cpu => crate::cpu::fill_zero(self.flat.make_mut()?),
            Device::Cuda(_) => {
                let bytes = self.flat.numel() * 4;
                self.flat.gpu()?.zero(self.flat.device_ptr()?, bytes)?;
            }
        }
        Ok(())
    }

    /// Moves it to another device.
    ///
    /// # Errors
    /// When the GPU can't be used or its memory is full.
    pub fn to_device(&mut self, device: Device) -> Result<()> {
        self.flat = self.flat.to(device)?;
        Ok(())
    }

    /// The elements of a parameter in the checkpoint's order. Where each process has its share, all have to ask, in the same order.
    ///
    /// # Errors
    /// When they can't be brought from the GPU, or another process is gone.
    pub fn export(&self, info: &ParamInfo) -> Result<Vec<f32>> {
        let part = match &self.sharding {
            Some(sharding) => sharding.gathered(&self.flat, info)?,
            None => self.flat.narrow(info.offset, info.shape.numel())?,
        };
        Ok(order::as_saved(info, part.to(Device::Cpu)?.f32()?))
    }

    /// Overwrites a parameter's elements, given in the checkpoint's order.
    ///
    /// # Errors
    /// When the count differs.
    pub fn import(&mut self, info: &ParamInfo, values: &[f32]) -> Result<()> {
        let values = order::as_flat(info, values)?;
        let all = [info.range()];
        match &self.sharding {
            Some(sharding) => order::write(&mut self.flat, info, &values, &sharding.kept_of(info)),
            None => order::write(&mut self.flat, info, &values, &all),
        }
    }
}
