//! Tensors on a GPU: making them, moving them, converting them.

use super::{Storage, Tensor};
use crate::{DType, Device, Error, Result, Shape};
use nextscale_cuda::kernel::{MEMORY, Shape as Launch};
use nextscale_cuda::matmul::DevicePtr;
use nextscale_cuda::{Arg, DeviceBuffer, Gpu, Work, work};
use std::ops::Range;
use std::sync::Arc;

/// A tensor's memory on a GPU.
#[derive(Clone, Debug)]
pub(crate) struct OnGpu {
    pub(crate) buffer: Arc<DeviceBuffer>,
    pub(crate) dtype: DType,
    /// Of parameters: the same elements in half precision at the same offsets.
    pub(crate) half: Option<(Arc<DeviceBuffer>, DType)>,
}

impl OnGpu {
    pub(crate) fn device(&self) -> Device {
        Device::Cuda(self.buffer.gpu().info().ordinal)
    }
}

impl work::Stored for Tensor {
    fn bytes(&self) -> usize {
        self.numel() * self.dtype().bytes()
    }
}

impl Tensor {
    /// A tensor on a GPU over a whole buffer.
    fn over(buffer: Arc<DeviceBuffer>, shape: Shape, dtype: DType) -> Self {
        Self {
            shape,
            storage: Storage::Cuda(OnGpu {
                buffer,
                dtype,
                half: None,
            }),
            offset: 0,
            origin: None,
        }
    }

    /// A small table of floats on a GPU that nobody writes to: uploaded once, then found by its content.
    ///
    /// # Errors
    /// When the GPU's memory is full, or while a graph is captured and the table is new.
    pub fn constant_f32(gpu: &'static Gpu, values: &[f32]) -> Result<Self> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let shape = Shape::from([values.len()]);
        Ok(Self::over(gpu.constant(&bytes)?, shape, DType::F32))
    }

    /// The same for integers.
    ///
    /// # Errors
    /// As [`Tensor::constant_f32`].
    pub fn constant_i32(gpu: &'static Gpu, values: &[i32]) -> Result<Self> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let shape = Shape::from([values.len()]);
        Ok(Self::over(gpu.constant(&bytes)?, shape, DType::I32))
    }

    /// A tensor on a GPU whose content is not specified: every element must be written before it is read.
    ///
    /// # Errors
    /// When the GPU's memory is full.
    pub fn scratch(gpu: &'static Gpu, shape: impl Into<Shape>, dtype: DType) -> Result<Self> {
        let shape = shape.into();
        let buffer = DeviceBuffer::new(gpu, shape.numel().saturating_mul(dtype.bytes()))?;
        Ok(Self::over(Arc::new(buffer), shape, dtype))
    }

    /// Zeros \[n\] of float32 on a GPU that have memory only in the ranges `kept`; nothing may touch the others.
    ///
    /// # Errors
    /// When the GPU's memory is full.
    pub(crate) fn with_gaps(gpu: &'static Gpu, n: usize, kept: &[Range<usize>]) -> Result<Self> {
        let bytes: Vec<_> = kept.iter().map(|r| 4 * r.start..4 * r.end).collect();
        let buffer = DeviceBuffer::with_gaps(gpu, 4 * n, &bytes)?;
        Ok(Self::over(Arc::new(buffer), Shape::from([n]), DType::F32))
    }

    /// Zeros on a device; a CPU holds float32 and integers only.
    ///
    /// # Errors
    /// When the GPU can't be used or its memory is full, or for half precision on a CPU.
    pub fn zeros_on(device: Device, shape: impl Into<Shape>, dtype: DType) -> Result<Self> {
        let shape = shape.into();
        match (device.gpu()?, dtype) {
            (None, DType::F32) => Ok(Self::zeros(shape)),
            (None, DType::I32) => Ok(Self::from_i32(shape, vec![0; shape.numel()])),
            (None, half) => Err(half_on_cpu(half)),
            (Some(gpu), _) => {
                let t = Self::scratch(gpu, shape, dtype)?;
                gpu.zero(t.device_ptr()?, t.numel() * dtype.bytes())?;
                Ok(t)
            }
        }
    }

    /// Its memory on the GPU.
    ///
    /// # Errors
    /// When it is on the CPU.
    pub(crate) fn on_gpu(&self) -> Result<&OnGpu> {
        match &self.storage {
            Storage::Cuda(on) => Ok(on),
            _ => Err(Error::DType {
                op: "tensor",
                expected: "a tensor on a GPU",
                found: "one on the CPU",
            }),
        }
    }

    /// The GPU that it is on.
    ///
    /// # Errors
    /// When it is on the CPU.
    pub fn gpu(&self) -> Result<&'static Gpu> {
        Ok(self.on_gpu()?.buffer.gpu())
    }

    /// Where its first element is: for matrix products, convolutions and copies.
    ///
    /// # Errors
    /// When it is on the CPU.
    pub fn device_ptr(&self) -> Result<DevicePtr<'_>> {
        let on = self.on_gpu()?;
        Ok(DevicePtr(&on.buffer, self.offset * on.dtype.bytes()))
    }

    /// As an argument of a kernel.
    ///
    /// # Errors
    /// When it is on the CPU.
    pub fn arg(&self) -> Result<Arg<'_>> {
        let DevicePtr(buffer, byte) = self.device_ptr()?;
        Ok(Arg::At(buffer, byte))
    }

    /// The same, checking the element type.
    ///
    /// # Errors
    /// When it is on the CPU or of another type.
    pub fn arg_of(&self, op: &'static str, dtype: DType) -> Result<Arg<'_>> {
        if self.dtype() != dtype {
            return Err(Error::DType {
                op,
                expected: dtype.name(),
                found: self.dtype().name(),
            });
        }
        self.arg()
    }

    /// On another device; shares the memory where it is there already. Half precision comes to the CPU as float32.
    /// The result is detached from the tape. Bringing values from a GPU waits for them.
    ///
    /// # Errors
    /// When the GPU can't be used or its memory is full.
    pub fn to(&self, device: Device) -> Result<Self> {
        if self.device() == device {
            return Ok(self.detach());
        }
        match (&self.storage, device.gpu()?) {
            (Storage::Cuda(on), None) => {
                let source = if on.dtype.is_half() {
                    self.cast(DType::F32)?
                } else {
                    self.detach()
                };
                let DevicePtr(buffer, byte) = source.device_ptr()?;
                let mut bytes = vec![0u8; source.numel() * 4];
                buffer
                    .gpu()
                    .download_from(DevicePtr(buffer, byte), &mut bytes)?;
                Ok(Self::from_words(self.shape, on.dtype, &bytes))
            }
            (Storage::Cuda(_), Some(_)) => self.to(Device::Cpu)?.to(device),
            (_, None) => Ok(self.detach()),
            (Storage::CpuF32(_), Some(gpu)) => {
                let t = Self::scratch(gpu, self.shape, DType::F32)?;
                let bytes: Vec<u8> = self.f32()?.iter().flat_map(|x| x.to_le_bytes()).collect();
                gpu.upload_to(&bytes, t.device_ptr()?)?;
                Ok(t)
            }
            (Storage::CpuI32(_), Some(gpu)) => {
                let t = Self::scratch(gpu, self.shape, DType::I32)?;
                let bytes: Vec<u8> = self.i32()?.iter().flat_map(|x| x.to_le_bytes()).collect();
                gpu.upload_to(&bytes, t.device_ptr()?)?;
                Ok(t)
            }
        }
    }

    /// On the CPU, from the bytes of integers or of float32.
    pub(super) fn from_words(shape: Shape, dtype: DType, bytes: &[u8]) -> Self {
        let words = bytes.as_chunks::<4>().0.iter();
        if dtype == DType::I32 {
            Self::from_i32(shape, words.map(|w| i32::from_le_bytes(*w)).collect())
        } else {
            Self::from_vec(shape, words.map(|w| f32::from_le_bytes(*w)).collect())
        }
    }

    /// In another float type; shares the memory where it has that type already. Detached from the tape.
    ///
    /// # Errors
    /// For integers, for half precision on a CPU, or when the GPU's memory is full.
    pub fn cast(&self, dtype: DType) -> Result<Self> {
        let from = self.dtype();
        if from == dtype {
            return Ok(self.detach());
        }
        let Storage::Cuda(_) = &self.storage else {
            return Err(half_on_cpu(dtype));
        };
        for dtype in [from, dtype] {
            dtype.float("cast")?;
        }
        let gpu = self.gpu()?;
        let y = Self::scratch(gpu, self.shape, dtype)?;
        let _scope = gpu.scope("convert", || Work::moving(&[self, &y]));
        let n = self.numel();
        let args = [self.arg()?, y.arg()?, Arg::U64(n as u64)];
        gpu.launch(
            &MEMORY,
            ("convert", from, dtype),
            Launch::pass(gpu, n),
            &args,
        )?;
        Ok(y)
    }

    /// The same of a tensor that is not needed any more, so that nobody else holds what shares its memory.
    ///
    /// # Errors
    /// As [`Tensor::cast`].
    pub fn into_dtype(self, dtype: DType) -> Result<Self> {
        if self.dtype() == dtype {
            return Ok(self.detach());
        }
        self.cast(dtype)
    }

    /// As an operand of a product in `dtype`: a parameter's half-precision copy where it has one of that type.
    ///
    /// # Errors
    /// As [`Tensor::cast`].
    pub fn operand(&self, dtype: DType) -> Result<Self> {
        if let Storage::Cuda(OnGpu {
            half: Some((buffer, half)),
            ..
        }) = &self.storage
            && *half == dtype
        {
            return Ok(Self {
                shape: self.shape,
                storage: Storage::Cuda(OnGpu {
                    buffer: Arc::clone(buffer),
                    dtype,
                    half: None,
                }),
                offset: self.offset,
                origin: None,
            });
        }
        self.cast(dtype)
    }

    /// A tensor on a GPU that nobody else holds, with the same values: itself where that is so, else a copy. For rules
    /// that overwrite what they were given.
    ///
    /// # Errors
    /// When it is on the CPU or the GPU's memory is full.
    pub fn into_unique(mut self) -> Result<Self> {
        let n = self.numel();
        let Storage::Cuda(on) = &mut self.storage else {
            return Err(self.wrong("a tensor on a GPU"));
        };
        let bytes = n * on.dtype.bytes();
        let whole = self.offset == 0 && on.buffer.bytes() == bytes;
        if whole && Arc::get_mut(&mut on.buffer).is_some() {
            on.half = None;
            return Ok(self.detach());
        }
        self.copied()
    }

    /// A copy in memory of its own, on a GPU.
    ///
    /// # Errors
    /// When it is on the CPU or the GPU's memory is full.
    pub fn copied(&self) -> Result<Self> {
        let gpu = self.gpu()?;
        let y = Self::scratch(gpu, self.shape, self.dtype())?;
        gpu.copy(
            self.device_ptr()?,
            y.device_ptr()?,
            self.numel() * self.dtype().bytes(),
        )?;
        Ok(y)
    }

    /// `self += other` on a GPU, in place whoever holds the memory; types may differ where `self` is float32.
    ///
    /// # Errors
    /// When counts or types do not fit.
    pub fn add_in_place(&self, other: &Self) -> Result<()> {
        let n = self.numel();
        if other.numel() != n {
            let detail = format!("{} to {}", other.shape, self.shape);
            return Err(Error::shape("add_in_place", detail));
        }
        let name = ("add", self.dtype(), other.dtype());
        let gpu = self.gpu()?;
        let _scope = gpu.scope("add up", || Work::moving(&[self, self, other]));
        let args = [self.arg()?, other.arg()?, Arg::U64(n as u64)];
        Ok(gpu.launch(&MEMORY, name, Launch::pass(gpu, n), &args)?)
    }

    /// Writes integers over the elements, in place whoever holds the memory: the inputs of a captured graph.
    ///
    /// # Errors
    /// When it is no integer tensor on a GPU or the counts differ.
    pub fn write_i32(&self, values: &[i32]) -> Result<()> {
        if values.len() != self.numel() {
            let detail = format!("{} values for {}", values.len(), self.shape);
            return Err(Error::shape("write_i32", detail));
        }
        if self.dtype() != DType::I32 {
            return Err(self.wrong("i32 on a GPU"));
        }
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Ok(self.gpu()?.upload_to(&bytes, self.device_ptr()?)?)
    }

    /// The place on the tape and the shape, with as good as no memory.
    pub(crate) fn without_gpu_data(&self) -> Self {
        let Ok(on) = self.on_gpu() else {
            return self.clone();
        };
        // An empty buffer that cost nothing: the pool's smallest block.
        let Ok(buffer) = DeviceBuffer::new(on.buffer.gpu(), 0) else {
            return self.clone();
        };
        Self {
            shape: self.shape,
            storage: Storage::Cuda(OnGpu {
                buffer: Arc::new(buffer),
                dtype: on.dtype,
                half: None,
            }),
            offset: 0,
            origin: self.origin.clone(),
        }
    }
}

/// That a CPU holds no such tensors.
fn half_on_cpu(dtype: DType) -> Error {
    Error::Device(format!(
        "{} tensors live on a GPU only; a CPU computes in f32",
        dtype.name()
    ))
}

#[cfg(test)]
#[path = "graph_tests.rs"]
mod graph_tests;
