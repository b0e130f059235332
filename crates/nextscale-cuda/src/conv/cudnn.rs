//! cuDNN's graph interface: descriptors, engines, execution plans. What they compute is described in `describe.rs`.

use super::describe::Graph;
use crate::bindings::cudnn as dnn;
use crate::gpu::Gpu;
use crate::libraries::Library;
use crate::pool::DeviceBuffer;
use crate::{Error, Result};
use cudarc::cudnn::sys::{
    self, cudnnBackendAttributeName_t as Name, cudnnBackendAttributeType_t as Type,
    cudnnBackendDescriptorType_t as Kind, cudnnBackendHeurMode_t as Advice,
    cudnnConvolutionMode_t as Mode, cudnnDataType_t as Data, cudnnPointwiseMode_t as Pointwise,
};
use std::ffi::c_void;
use std::ptr;

/// Codes that the library answers with (cudnnStatus_t); others are known by their thousands.
mod status {
    pub const SUCCESS: u32 = 0;
    pub const SUBLIBRARY_VERSION_MISMATCH: u32 = 1002;
    pub const SUBLIBRARY_LOADING_FAILED: u32 = 1008;
    pub const NOT_SUPPORTED: u32 = 3;
    pub const NOT_SUPPORTED_SUBLIBRARY_UNAVAILABLE: u32 = 3009;
    pub const DEVICE_ALLOCATION_FAILED: u32 = 4004;
}

fn check(doing: &str, code: u32) -> Result<()> {
    let why = match code {
        status::SUCCESS => return Ok(()),
        status::DEVICE_ALLOCATION_FAILED => "the GPU's memory is full",
        status::SUBLIBRARY_LOADING_FAILED
        | status::SUBLIBRARY_VERSION_MISMATCH
        | status::NOT_SUPPORTED_SUBLIBRARY_UNAVAILABLE => {
            "parts of the library are missing or of another version"
        }
        other if other / 1000 == status::NOT_SUPPORTED => "the library has no engine for it",
        _ => "cuDNN could not do it",
    };
    let said = last_message();
    let said = if said.is_empty() {
        said
    } else {
        format!(" ({said})")
    };
    let text = format!("{doing}: {why}{said}");
    Err(match code {
        status::DEVICE_ALLOCATION_FAILED => Error::Memory(text),
        _ => Error::Device(text),
    })
}

/// What the library says of its last error, in one line.
fn last_message() -> String {
    let mut text = [0u8; 512];
    // SAFETY: the library writes at most as many bytes as it is told, the last of them zero.
    unsafe { dnn::cudnnGetLastErrorString(text.as_mut_ptr().cast(), text.len()) };
    let length = text.iter().position(|b| *b == 0).unwrap_or(0);
    let whole = String::from_utf8_lossy(&text[..length]);
    whole.lines().next().unwrap_or_default().trim().to_owned()
}

/// The library's handle for one GPU, bound to its stream.
pub(super) struct Handle(pub(super) sys::cudnnHandle_t);
// SAFETY: the library's objects may be used from any thread, one at a time; they are only reached through a mutex.
unsafe impl Send for Handle {}

impl Handle {
    /// Starts the library on `gpu`.
    pub(super) fn open(gpu: &Gpu) -> Result<Self> {
        Library::Cudnn.required()?;
        gpu.bind()?;
        let mut handle = ptr::null_mut();
        // SAFETY: points at a handle; a context is current, and the stream is never destroyed.
        unsafe {
            check("starting cuDNN", dnn::cudnnCreate(&mut handle))?;
            let stream = gpu.stream().cast();
            check("starting cuDNN", dnn::cudnnSetStream(handle, stream))?;
        }
        Ok(Self(handle))
    }
}

/// A value of an attribute: its type as the library calls it.
///
/// # Safety
/// It is as wide as values of the library's type.
pub(super) unsafe trait Value: Copy {
    const TYPE: Type;
}

/// A value that may be any bits, so that the library can write it.
///
/// # Safety
/// Every pattern of bits is a value.
unsafe trait Number: Value + Default {}

/// The types of attributes by what the library calls them.
macro_rules! values {
    ($($value:ty: $name:ident,)*) => {
        // SAFETY: as the library's documentation of the types says.
        $(unsafe impl Value for $value {
            const TYPE: Type = Type::$name;
        })*
    };
}

values! {
    i64: CUDNN_TYPE_INT64,
    f32: CUDNN_TYPE_FLOAT,
    bool: CUDNN_TYPE_BOOLEAN,
    u8: CUDNN_TYPE_CHAR,
    Data: CUDNN_TYPE_DATA_TYPE,
    Mode: CUDNN_TYPE_CONVOLUTION_MODE,
    Pointwise: CUDNN_TYPE_POINTWISE_MODE,
    Advice: CUDNN_TYPE_HEUR_MODE,
    sys::cudnnHandle_t: CUDNN_TYPE_HANDLE,
    Address: CUDNN_TYPE_VOID_PTR,
    Note: CUDNN_TYPE_NUMERICAL_NOTE,
}

// SAFETY: integers.
unsafe impl Number for i64 {}
// SAFETY: integers.
unsafe impl Number for u8 {}
// SAFETY: an integer by itself.
unsafe impl Number for Note {}

/// A note on an engine, by number.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
struct Note(u32);

/// An address in device memory.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Address(u64);

/// One of the library's descriptors.
pub(super) struct Descriptor(sys::cudnnBackendDescriptor_t);
// SAFETY: as for `Handle`.
unsafe impl Send for Descriptor {}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: made by the library and destroyed once; what was made from it is destroyed before (`Graph`, `Engine`).
        unsafe { dnn::cudnnBackendDestroyDescriptor(self.0) };
    }
}

impl Descriptor {
    pub(super) fn new(kind: Kind) -> Result<Self> {
        let mut raw = ptr::null_mut();
        // SAFETY: points at a descriptor.
        check("describing a convolution", unsafe {
            dnn::cudnnBackendCreateDescriptor(kind, &mut raw)
        })?;
        Ok(Self(raw))
    }

    pub(super) fn set<V: Value>(self, name: Name, values: &[V]) -> Result<Self> {
        self.put(name, V::TYPE, values.len(), values.as_ptr().cast())
    }

    pub(super) fn link(self, name: Name, others: &[&Descriptor]) -> Result<Self> {
        let raw: Vec<_> = others.iter().map(|d| d.0).collect();
        let kind = Type::CUDNN_TYPE_BACKEND_DESCRIPTOR;
        self.put(name, kind, raw.len(), raw.as_ptr().cast())
    }

    fn put(self, name: Name, kind: Type, count: usize, values: *const c_void) -> Result<Self> {
        // SAFETY: the descriptor is alive and there are `count` values of the type said, which the library copies.
        let status =
            unsafe { dnn::cudnnBackendSetAttribute(self.0, name, kind, count as i64, values) };
        check("describing a convolution", status)?;
        Ok(self)
    }

    pub(super) fn finish(self) -> Result<Self> {
        // SAFETY: the descriptor is alive.
        check("describing a convolution", unsafe {
            dnn::cudnnBackendFinalize(self.0)
        })?;
        Ok(self)
    }

    /// Reads up to `room` numbers.
    fn read<V: Number>(&self, name: Name, room: usize) -> Result<Vec<V>> {
        let mut values = vec![V::default(); room];
        let mut count = 0;
        // SAFETY: the array has room for as many values as are asked for, which are as wide as the library's and may be any
        // bits.
        let status = unsafe {
            dnn::cudnnBackendGetAttribute(
                self.0,
                name,
                V::TYPE,
                room as i64,
                &mut count,
                values.as_mut_ptr().cast(),
            )
        };
        check("asking cuDNN", status)?;
        values.truncate(count.max(0) as usize);
        Ok(values)
    }

    /// How many values an attribute has.
    fn count(&self, name: Name, kind: Type) -> Result<usize> {
        let mut count = 0;
        // SAFETY: no values are asked for.
        let status = unsafe {
            dnn::cudnnBackendGetAttribute(self.0, name, kind, 0, &mut count, ptr::null_mut())
        };
        check("asking cuDNN", status)?;
        Ok(count.max(0) as usize)
    }

    /// Fills descriptors, made but not finished, with those of an attribute; returns how many there were.
    fn fill(&self, name: Name, into: &[Descriptor]) -> Result<usize> {
        let mut raw: Vec<_> = into.iter().map(|d| d.0).collect();
        let kind = Type::CUDNN_TYPE_BACKEND_DESCRIPTOR;
        let mut count = 0;
        // SAFETY: there are as many descriptors as are asked for, made and not finished.
        let status = unsafe {
            dnn::cudnnBackendGetAttribute(
                self.0,
                name,
                kind,
                raw.len() as i64,
                &mut count,
                raw.as_mut_ptr().cast(),
            )
        };
        check("asking cuDNN", status)?;
        Ok((count.max(0) as usize).min(into.len()))
    }
}

/// A way of computing a graph that the library proposes. Fields are destroyed in this order.
pub(super) struct Engine {
    config: Descriptor,
    engine: Descriptor,
}

/// Notes of engines that are of no use: sums in an order that changes from run to run, sums in half precision, and
/// transforms that lose bits. By number, since newer libraries have notes that the bindings do not know.
const REFUSED: [u32; 7] = [2, 3, 4, 5, 6, 7, 8];
/// Notes of engines that round float32 operands to TF32.
const ROUNDING: [u32; 2] = [0, 1];

impl Graph {
    /// What the library proposes, the likely fastest first; then what it falls back to.
    pub(super) fn engines(&self, exact: bool) -> Result<Vec<Engine>> {
        let mut out = Vec::new();
        for advice in [Advice::CUDNN_HEUR_MODE_A, Advice::CUDNN_HEUR_MODE_FALLBACK] {
            // The library may have no advice for a graph and still engines to fall back to.
            if let Ok(list) = self.advice(advice) {
                out.extend(list.into_iter().filter(|e| e.admissible(exact)));
            }
        }
        Ok(out)
    }

    fn advice(&self, mode: Advice) -> Result<Vec<Engine>> {
        const RESULTS: Name = Name::CUDNN_ATTR_ENGINEHEUR_RESULTS;
        let heuristics = Descriptor::new(Kind::CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)?
            .link(Name::CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, &[&self.graph])?
            .set(Name::CUDNN_ATTR_ENGINEHEUR_MODE, &[mode])?
            .finish()?;
        let count = heuristics.count(RESULTS, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR)?;
        let mut configs = (0..count)
            .map(|_| Descriptor::new(Kind::CUDNN_BACKEND_ENGINECFG_DESCRIPTOR))
            .collect::<Result<Vec<_>>>()?;
        let there = heuristics.fill(RESULTS, &configs)?;
        configs.truncate(there);
        configs
            .into_iter()
            .map(|config| {
                let engine = Descriptor::new(Kind::CUDNN_BACKEND_ENGINE_DESCRIPTOR)?;
                config.fill(
                    Name::CUDNN_ATTR_ENGINECFG_ENGINE,
                    std::slice::from_ref(&engine),
                )?;
                Ok(Engine { config, engine })
            })
            .collect()
    }
}

impl Engine {
    /// Whether its sums are exact enough and always in the same order; `exact` refuses TF32 too.
    fn admissible(&self, exact: bool) -> bool {
        let notes = self
            .engine
            .read::<Note>(Name::CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, 32);
        notes.is_ok_and(|notes| {
            !notes
                .iter()
                .any(|Note(n)| REFUSED.contains(n) || exact && ROUNDING.contains(n))
        })
    }
}

/// A compiled plan with everything that it was made from. Fields are destroyed in this order.
pub(super) struct Plan {
    plan: Descriptor,
    _engine: Option<Engine>,
    workspace: usize,
}

impl Plan {
    /// Compiles an engine.
    pub(super) fn new(handle: &Handle, engine: Engine) -> Result<Self> {
        let plan = Descriptor::new(Kind::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?
            .set(Name::CUDNN_ATTR_EXECUTION_PLAN_HANDLE, &[handle.0])?
            .link(
                Name::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG,
                &[&engine.config],
            )?
            .finish()?;
        Self::sized(plan, Some(engine))
    }

    /// A plan from the text that [`Plan::text`] gave.
    pub(super) fn from_text(handle: &Handle, text: &[u8]) -> Result<Self> {
        let plan = Descriptor::new(Kind::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)?
            .set(Name::CUDNN_ATTR_EXECUTION_PLAN_HANDLE, &[handle.0])?
            .set(Name::CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, text)?
            .finish()?;
        Self::sized(plan, None)
    }

    fn sized(plan: Descriptor, engine: Option<Engine>) -> Result<Self> {
        let workspace = plan.read::<i64>(Name::CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, 1)?;
        let workspace = workspace.first().copied().unwrap_or(0).max(0) as usize;
        Ok(Self {
            plan,
            _engine: engine,
            workspace,
        })
    }

    /// Everything that is needed to have the same plan again, in a form that may be kept.
    pub(super) fn text(&self) -> Result<Vec<u8>> {
        const TEXT: Name = Name::CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION;
        let room = self.plan.count(TEXT, Type::CUDNN_TYPE_CHAR)?;
        self.plan.read(TEXT, room)
    }

    /// Bytes of scratch memory that it takes.
    pub(super) fn workspace(&self) -> usize {
        self.workspace
    }

    /// Puts it into the stream with these tensors, each by its number and address.
    ///
    /// # Safety
    /// The addresses are those of tensors of `gpu` as long as the plan's convolution says.
    pub(super) unsafe fn run(
        &self,
        gpu: &'static Gpu,
        handle: &Handle,
        tensors: &[(i64, u64)],
    ) -> Result<()> {
        let workspace = DeviceBuffer::new(gpu, self.workspace)?;
        let (ids, places): (Vec<i64>, Vec<Address>) =
            tensors.iter().map(|&(id, at)| (id, Address(at))).unzip();
        let pack = Descriptor::new(Kind::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)?
            .set(Name::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, &ids)?
            .set(Name::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, &places)?
            .set(
                Name::CUDNN_ATTR_VARIANT_PACK_WORKSPACE,
                &[Address(workspace.address())],
            )?
            .finish()?;
        // SAFETY: tensors are as long as the caller says, the workspace as the plan asked for; all memory goes back to
        // the pool only for work that comes later in the stream.
        let status = unsafe { dnn::cudnnBackendExecute(handle.0, self.plan.0, pack.0) };
        check("convolution", status)
    }
}
