//! Tensors: contiguous, row-major, cheap to clone, immutable once shared.

use crate::cpu::pool::PoolVec;
use crate::tape::Origin;
use crate::{DType, Device, Error, Result, Shape};
use std::sync::Arc;

mod gpu;
mod pending;

pub(crate) use gpu::OnGpu;
pub use pending::PendingTensor;

/// The memory behind tensors, by device and element type.
#[derive(Clone, Debug)]
pub(crate) enum Storage {
    CpuF32(Arc<PoolVec>),
    CpuI32(Arc<Vec<i32>>),
    Cuda(OnGpu),
}

/// A contiguous row-major array: a shape, a shared buffer, an offset into it, and, where it was produced on
/// a tape or is a trainable parameter, the variable that its gradient belongs to.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub(crate) shape: Shape,
    pub(crate) storage: Storage,
    pub(crate) offset: usize,
    pub(crate) origin: Option<Origin>,
}

impl Tensor {
    /// A float tensor on the CPU from a buffer.
    ///
    /// # Panics
    /// When the buffer's length is not the shape's element count (a programming error).
    pub fn from_buf(shape: impl Into<Shape>, data: PoolVec) -> Self {
        let shape = shape.into();
        assert_eq!(shape.numel(), data.len(), "buffer does not fit {shape}");
        Self {
            shape,
            storage: Storage::CpuF32(Arc::new(data)),
            offset: 0,
            origin: None,
        }
    }

    /// A float tensor on the CPU from a vector. Panics like [`Tensor::from_buf`].
    pub fn from_vec(shape: impl Into<Shape>, data: Vec<f32>) -> Self {
        Self::from_buf(shape, PoolVec::from(data))
    }

    /// A float tensor on the CPU from a slice. Panics like [`Tensor::from_buf`].
    pub fn from_slice(shape: impl Into<Shape>, data: &[f32]) -> Self {
        let mut buf = PoolVec::scratch(data.len());
        buf.copy_from_slice(data);
        Self::from_buf(shape, buf)
    }

    /// An integer tensor on the CPU. Panics like [`Tensor::from_buf`].
    pub fn from_i32(shape: impl Into<Shape>, data: Vec<i32>) -> Self {
        let shape = shape.into();
        assert_eq!(shape.numel(), data.len(), "buffer does not fit {shape}");
        Self {
            shape,
            storage: Storage::CpuI32(Arc::new(data)),
            offset: 0,
            origin: None,
        }
    }

    /// A float tensor of zeros on the CPU.
    pub fn zeros(shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        Self::from_buf(shape, PoolVec::zeros(shape.numel()))
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The extents, outermost first.
    pub fn dims(&self) -> &[usize] {
        self.shape.dims()
    }

    /// The number of elements.
    pub fn numel(&self) -> usize {
        self.shape.numel()
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match &self.storage {
            Storage::CpuF32(_) => DType::F32,
            Storage::CpuI32(_) => DType::I32,
            Storage::Cuda(on) => on.dtype,
        }
    }

    /// Where the tensor lives.
    pub fn device(&self) -> Device {
        match &self.storage {
            Storage::CpuF32(_) | Storage::CpuI32(_) => Device::Cpu,
            Storage::Cuda(on) => on.device(),
        }
    }

    /// The elements of a float tensor on the CPU, row-major.
    ///
    /// # Errors
    /// When the tensor holds integers or lies on a GPU ([`Tensor::to`] brings it here).
    pub fn f32(&self) -> Result<&[f32]> {
        match &self.storage {
            Storage::CpuF32(b) => Ok(&b[self.offset..self.offset + self.numel()]),
            Storage::CpuI32(_) | Storage::Cuda(_) => Err(self.wrong("f32 on the CPU")),
        }
    }

    /// The elements of an integer tensor on the CPU, row-major.
    ///
    /// # Errors
    /// When the tensor holds floats or lies on a GPU ([`Tensor::to`] brings it here).
    pub fn i32(&self) -> Result<&[i32]> {
        match &self.storage {
            Storage::CpuI32(b) => Ok(&b[self.offset..self.offset + self.numel()]),
            Storage::CpuF32(_) | Storage::Cuda(_) => Err(self.wrong("i32 on the CPU")),
        }
    }

    pub(crate) fn wrong(&self, expected: &'static str) -> Error {
        Error::DType {
            op: "tensor",
            expected,
            found: match (&self.storage, self.dtype()) {
                (Storage::Cuda(_), DType::F32) => "f32 on a GPU",
                (Storage::Cuda(_), DType::I32) => "i32 on a GPU",
                (_, other) => other.name(),
            },
        }
    }

    /// The elements for writing: in place when nobody else holds the buffer, else on a private copy. Used by
    /// backward rules that may overwrite what they were given.
    ///
    /// # Errors
    /// When the tensor holds integers or lies on a GPU.
    pub fn make_mut(&mut self) -> Result<&mut [f32]> {
        let n = self.numel();
        let whole = match &mut self.storage {
            Storage::CpuF32(b) => self.offset == 0 && b.len() == n && Arc::get_mut(b).is_some(),
            Storage::CpuI32(_) | Storage::Cuda(_) => {
                return Err(self.wrong("f32 on the CPU"));
            }
        };
        if !whole {
            let copy = Self::from_slice(self.shape, self.f32()?);
            self.storage = copy.storage;
            self.offset = 0;
        }
        match &mut self.storage {
            Storage::CpuF32(b) => Ok(Arc::get_mut(b).expect("made private above")),
            Storage::CpuI32(_) | Storage::Cuda(_) => unreachable!("refused above"),
        }
    }

    /// The same elements under another shape. Free; gradients flow through it, since they are kept by element.
    ///
    /// # Errors
    /// When the element counts differ.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        if shape.numel() != self.numel() {
            return Err(Error::shape(
                "reshape",
                format!("{} elements do not fit {shape}", self.numel()),
            ));
        }
        Ok(Self {
            shape,
            ..self.clone()
        })
    }

    /// The same values cut off from the tape: no gradient flows to what produced them.
    pub fn detach(&self) -> Self {
        Self {
            origin: None,
            ..self.clone()
        }
    }

    /// The shape and the place on the tape without the values: what a rule needs to hand on a gradient while the
    /// values' buffer is reused.
    pub(crate) fn without_data(&self) -> Self {
        match &self.origin {
            // A parameter's gradient is found by its place in the flat buffer, so it keeps the buffer.
            Some(Origin::Param(_)) => self.clone(),
            _ if matches!(self.storage, Storage::Cuda(_)) => self.without_gpu_data(),
            _ => Self {
                shape: self.shape,
                storage: Storage::CpuF32(Arc::new(PoolVec::scratch(0))),
                offset: 0,
                origin: self.origin.clone(),
            },
        }
    }

    /// Whether a gradient can flow into this tensor.
    pub fn wants_grad(&self) -> bool {
        self.origin.is_some()
    }

    /// The single element of a one-element float tensor; waits for it where it is on a GPU.
    ///
    /// # Errors
    /// When there is not exactly one float.
    pub fn scalar(&self) -> Result<f32> {
        match self.to(Device::Cpu)?.f32()? {
            [x] => Ok(*x),
            other => Err(Error::shape(
                "scalar",
                format!("expected one element, found {}", other.len()),
            )),
        }
    }

    /// Rows `start..start + len` of the outermost axis, without a copy. The view is detached.
    ///
    /// # Errors
    /// When the rows are not all there.
    pub fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        let dims = self.dims();
        let outer = dims.first().copied().unwrap_or(0);
        if start + len > outer {
            return Err(Error::shape(
                "narrow",
                format!("rows {start}..{} of {outer}", start + len),
            ));
        }
        let inner = self.numel() / outer.max(1);
        let mut d = dims.to_vec();
        d[0] = len;
        Ok(Self {
            shape: Shape::from(d.as_slice()),
            storage: self.storage.clone(),
            offset: self.offset + start * inner,
            origin: None,
        })
    }
}

/// Checks that `x` has the extents `dims`, naming the operator and the argument otherwise.
pub fn expect_dims(op: &'static str, what: &str, x: &Tensor, dims: &[usize]) -> Result<()> {
    if x.dims() == dims {
        Ok(())
    } else {
        Err(Error::shape(
            op,
            format!("{what} is {}, expected {dims:?}", x.shape()),
        ))
    }
}
