//! Flat parameters: every weight of a model in one buffer, a parameter being a named view of it.
//!
//! The optimizer, the gradient norm, clipping, checkpoints, sums over processes and sharding are then each one pass over
//! ranges.

mod builder;
mod grad_buffer;
mod order;
mod sharding;
mod shared;

pub use builder::ParamsBuilder;
pub use grad_buffer::GradBuffer;
pub use sharding::{Exchange, Move, Number, Sharding, Values};

use crate::tape::Origin;
use crate::tensor::OnGpu;
use crate::tensor::Storage;
use crate::{DType, Device, Error, Result, Shape, Tensor};
use std::collections::HashMap;
use std::sync::Arc;

/// How a parameter's elements lie in checkpoints, as against in the flat buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The same order in both.
    Same,
    /// A convolution: `[out, in, kh, kw]` in checkpoints, `[out, kh, kw, in]` here (channels last).
    Conv,
}

/// A parameter's name, place and shape.
#[derive(Clone, Debug)]
pub struct ParamInfo {
    /// The reference's state-dict key.
    pub name: String,
    /// The shape in checkpoints.
    pub shape: Shape,
    /// First element in the flat buffer.
    pub offset: usize,
    /// How checkpoints order the elements.
    pub layout: Layout,
    /// Whether only products read it, in their own precision.
    pub operand: bool,
}

impl ParamInfo {
    /// The elements' range in the flat buffer.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.shape.numel()
    }
}

/// Offsets of parameters are multiples of this.
const ALIGN: usize = 16;

/// A handle to one parameter of a [`Params`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParamId(usize);

/// A part of a [`Params`]: parameters that follow one another, such as those of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PartId(pub(crate) usize);

/// All parameters of one model in one float32 buffer, on the CPU or a GPU. On a GPU there may be a copy of them in
/// half precision beside it, for matrix products.
pub struct Params {
    flat: Storage,
    len: usize,
    infos: Arc<Vec<ParamInfo>>,
    by_name: Arc<HashMap<String, usize>>,
    cuts: Arc<Vec<usize>>,
    /// Where processes have shares.
    sharding: Option<Arc<Sharding>>,
    // Present when gradients are wanted; the same Arc as `identity` would do, kept apart for clarity of intent.
    token: Option<Arc<()>>,
    identity: Arc<()>,
}

impl Params {
    pub(crate) fn token(&self) -> Arc<()> {
        Arc::clone(self.token.as_ref().unwrap_or(&self.identity))
    }

    /// The same parameters once more, to be read: they can't be changed as long as it is there.
    pub fn handle(&self) -> Self {
        Self {
            flat: self.flat.clone(),
            len: self.len,
            infos: Arc::clone(&self.infos),
            by_name: Arc::clone(&self.by_name),
            cuts: Arc::clone(&self.cuts),
            sharding: self.sharding.clone(),
            token: self.token.clone(),
            identity: Arc::clone(&self.identity),
        }
    }

    /// Where they are.
    pub fn device(&self) -> Device {
        match &self.flat {
            Storage::Cuda(on) => on.device(),
            _ => Device::Cpu,
        }
    }

    /// Moves them to `device`, with a copy in half precision where one is asked for and the device is a GPU.
    ///
    /// # Errors
    /// When the GPU can't be used or its memory is full.
    pub fn to_device(&mut self, device: Device, half: Option<DType>) -> Result<()> {
        if self.sharding.is_some() {
            return Err(Error::Params("parameters that are shared out stay".into()));
        }
        let moved = self.whole().to(device)?;
        self.flat = moved.storage;
        if let Storage::Cuda(on) = &mut self.flat {
            on.half = None;
        }
        if let (Device::Cuda(_), Some(half)) = (device, half) {
            let copy = self.whole().cast(half)?;
            let buffer = Arc::clone(&copy.on_gpu()?.buffer);
            if let Storage::Cuda(on) = &mut self.flat {
                on.half = Some((buffer, half));
            }
        }
        Ok(())
    }

    /// The whole flat buffer as one tensor, gaps included, float32. It has the copy in half precision with it.
    pub(crate) fn whole(&self) -> Tensor {
        Tensor {
            shape: Shape::from([self.len]),
            storage: self.flat.clone(),
            offset: 0,
            origin: None,
        }
    }

    /// The copy in half precision, where there is one: the flat buffer's elements in another type.
    pub(crate) fn half(&self) -> Option<Tensor> {
        match &self.flat {
            Storage::Cuda(OnGpu {
                half: Some((buffer, dtype)),
                ..
            }) => Some(Tensor {
                shape: Shape::from([self.len]),
                storage: Storage::Cuda(OnGpu {
                    buffer: Arc::clone(buffer),
                    dtype: *dtype,
                    half: None,
                }),
                offset: 0,
                origin: None,
            }),
            _ => None,
        }
    }

    /// The parameter as a tensor in the flat buffer's layout (convolutions: `[out, kh, kw, in]`), sharing memory.
    pub fn get(&self, id: ParamId) -> Tensor {
        let info = &self.infos[id.0];
        let origin = self.token.as_ref().map(|t| Origin::Param(Arc::clone(t)));
        if let Some(half) = self.half().filter(|_| self.is_alone(info)) {
            return Tensor {
                shape: info.shape,
                offset: info.offset,
                origin,
                ..half
            };
        }
        let shape = match (info.layout, info.shape.dims()) {
            (Layout::Conv, &[o, i, kh, kw]) => Shape::from([o, kh, kw, i]),
            _ => info.shape,
        };
        Tensor {
            shape,
            storage: self.flat.clone(),
            offset: info.offset,
            origin,
        }
    }

    /// Whether its float32 numbers are with their owners alone.
    fn is_alone(&self, info: &ParamInfo) -> bool {
        self.sharding.as_ref().is_some_and(|s| s.is_alone(info))
    }

    /// What is known of every parameter, in declaration order (the reference's order of parameters), which is that of their offsets
    /// unless they are shared out.
    pub fn infos(&self) -> &[ParamInfo] {
        &self.infos
    }

    /// What is known of the parameter called `name`.
    pub fn info(&self, name: &str) -> Option<&ParamInfo> {
        self.by_name.get(name).map(|&i| &self.infos[i])
    }

    /// Length of the flat buffer in floats, gaps included.
    pub fn flat_len(&self) -> usize {
        self.len
    }

    /// The parts of the flat buffer in order, gaps included: together they are all of it.
    pub fn parts(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        let starts = std::iter::once(0).chain(self.cuts.iter().copied());
        let ends = self.cuts.iter().copied().chain([self.len]);
        starts.zip(ends).map(|(from, to)| from.min(to)..to)
    }

    /// Number of trainable numbers, gaps not counted.
    pub fn count(&self) -> usize {
        self.infos.iter().map(|i| i.shape.numel()).sum()
    }

    /// The flat buffer, on the CPU.
    ///
    /// # Errors
    /// When the parameters are on a GPU.
    pub fn flat(&self) -> Result<&[f32]> {
        match &self.flat {
            Storage::CpuF32(v) => Ok(v),
            _ => Err(elsewhere()),
        }
    }

    /// The flat buffer for writing, on the CPU.
    ///
    /// # Errors
    /// While a tape or tensor still holds a parameter, or when they are on a GPU.
    pub fn flat_mut(&mut self) -> Result<&mut [f32]> {
        match &mut self.flat {
            Storage::CpuF32(v) => Arc::get_mut(v).map(|v| &mut v[..]).ok_or_else(held),
            _ => Err(elsewhere()),
        }
    }

    /// Fails while a tape or a tensor still holds a parameter: what changes them in place asks first.
    ///
    /// # Errors
    /// While one does.
    pub(crate) fn must_be_free(&self) -> Result<()> {
        let holders = match &self.flat {
            Storage::CpuF32(v) => Arc::strong_count(v),
            Storage::CpuI32(v) => Arc::strong_count(v),
            Storage::Cuda(on) => {
                let half = on.half.as_ref().map_or(1, |(b, _)| Arc::strong_count(b));
                Arc::strong_count(&on.buffer).max(half)
            }
        };
        if holders == 1 { Ok(()) } else { Err(held()) }
    }

    /// The elements of `name` in the checkpoint's order. Where processes have shares, all have to ask, in the same order.
    ///
    /// # Errors
    /// When there is no such parameter, it can't be brought from the GPU, or another process is gone.
    pub fn export(&self, name: &str) -> Result<Vec<f32>> {
        let info = self.known(name)?;
        let part = match &self.sharding {
            Some(sharding) if self.is_alone(info) => sharding.gathered(&self.whole(), info)?,
            _ => self.whole().narrow(info.offset, info.shape.numel())?,
        };
        Ok(order::as_saved(info, part.to(Device::Cpu)?.f32()?))
    }

    /// Overwrites `name` with elements in the checkpoint's order; where processes have shares, all have to.
    ///
    /// # Errors
    /// When there is no such parameter, the count differs, or the buffer is held.
    pub fn import(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let info = self.known(name)?.clone();
        self.must_be_free()?;
        let values = order::as_flat(&info, values)?;
        let all = info.range();
        if let Storage::CpuF32(flat) = &mut self.flat {
            let flat = Arc::get_mut(flat).ok_or_else(held)?;
            flat[all].copy_from_slice(&values);
            return Ok(());
        }
        let kept = match &self.sharding {
            Some(sharding) if self.is_alone(&info) => sharding.kept_of(&info),
            _ => vec![all.clone()],
        };
        order::write(&mut self.whole(), &info, &values, &kept)?;
        let Some(half) = self.half() else {
            return Ok(());
        };
        if !self.is_alone(&info) {
            return sharding::copy_to_half(&self.whole(), &half, &all);
        }
        let whole = Tensor::from_slice([values.len()], &values).to(half.device())?;
        let there = half.narrow(info.offset, values.len())?;
        sharding::copy(&whole.cast(half.dtype())?, &there)
    }

    fn known(&self, name: &str) -> Result<&ParamInfo> {
        self.info(name)
            .ok_or_else(|| Error::Params(format!("there is none called {name}")))
    }

    /// Exchanges the parameters with a buffer of the same layout, such as their average, copy in half precision included. Where
    /// processes have shares, all have to.
    ///
    /// # Errors
    /// While a tape or tensor still holds a parameter, when the buffer is of another model or device, or the GPU's memory is full;
    /// nothing is exchanged then, but where processes have shares a part may be. When another process is gone.
    pub fn swap(&mut self, buffer: &mut GradBuffer) -> Result<()> {
        self.must_be_free()?;
        if buffer.len() != self.len || buffer.device() != self.device() {
            return Err(Error::Params("a buffer of another model".into()));
        }
        if let Some(sharding) = self.sharding.clone() {
            self.swap_shares(&sharding, buffer)?;
            return self.publish();
        }
        // Made first: it is all that can fail.
        let half = match self.half() {
            Some(half) => Some(buffer.flat.cast(half.dtype())?),
            None => None,
        };
        std::mem::swap(&mut self.flat, &mut buffer.flat.storage);
        if let Storage::Cuda(on) = &mut buffer.flat.storage {
            on.half = None;
        }
        if let (Storage::Cuda(on), Some(half)) = (&mut self.flat, half) {
            on.half = Some((Arc::clone(&half.on_gpu()?.buffer), half.dtype()));
        }
        Ok(())
    }

    /// A zeroed buffer of gradients of the same layout on the same device.
    ///
    /// # Errors
    /// When the GPU's memory is full.
    pub fn buffer(&self) -> Result<GradBuffer> {
        let zeros = Tensor::zeros_on(self.device(), [self.len], DType::F32)?;
        Ok(GradBuffer::new(zeros, None))
    }
}

fn held() -> Error {
    Error::Params("still held by a tape or a tensor".into())
}

fn elsewhere() -> Error {
    Error::Params("they are on a GPU, not in this memory".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_round_trip_and_views() {
        let mut b = ParamsBuilder::new();
        let bias = b.add("bias", [3], Layout::Same);
        let conv = b.add("conv", [2, 3, 3, 3], Layout::Conv);
        let mut p = b.build(true);
        let values: Vec<f32> = (0..54).map(|x| x as f32).collect();
        p.import("conv", &values).unwrap();
        p.import("bias", &[1.0, 2.0, 3.0]).unwrap();
        assert_eq!(p.export("conv").unwrap(), values);
        let w = p.get(conv);
        assert_eq!(w.dims(), &[2, 3, 3, 3]);
        // Element [o=1, kh=2, kw=0, i=1] is [o=1, i=1, kh=2, kw=0] of the checkpoint.
        let here = ((3 + 2) * 3) * 3 + 1;
        assert_eq!(w.f32().unwrap()[here], values[((3 + 1) * 3 + 2) * 3]);
        assert!(p.flat_mut().is_err(), "held by w");
        drop(w);
        assert!(p.flat_mut().is_ok());
        assert_eq!(p.get(bias).f32().unwrap(), &[1.0, 2.0, 3.0]);
        assert_eq!(p.count(), 57);
        assert!(p.import("conv", &[0.0]).is_err());
        assert!(p.export("none").is_err());
    }
}
