//! Kernels as declared by the operator that owns them, and their launch.

use crate::codes::Checked;
use crate::driver;
use crate::gpu::Gpu;
use crate::graph::{StreamGuard, Uses};
use crate::pool::DeviceBuffer;
use crate::tensor_map::TensorMap;
use crate::{DType, Error, Result};
use std::ffi::c_void;

/// A source file of kernels, compiled as one.
#[derive(Debug)]
pub struct Module {
    /// The operator's name.
    pub name: &'static str,
    /// CUDA C++ in parts, one after the other; `common.cuh` goes before them.
    pub source: &'static [&'static str],
    /// Whether it needs instructions that only this very architecture has (`sm_90a`).
    pub specific: bool,
    /// The kernels in it.
    pub kernels: &'static [Kernel],
}

impl Module {
    /// The source as one text.
    pub fn text(&self) -> String {
        self.source.concat()
    }
}

/// One kernel's name and the kinds of its arguments, in order: `p` a buffer, `i` an i32, `u` a u64, `f` an f32, `m` a map of
/// tiles. A launch with other arguments is refused before it reaches the GPU.
#[derive(Debug)]
pub struct Kernel {
    /// The function's name.
    pub name: &'static str,
    /// The arguments' kinds.
    pub signature: &'static str,
}

impl Kernel {
    /// One by its name and signature.
    pub const fn new(name: &'static str, signature: &'static str) -> Self {
        Self { name, signature }
    }
}

/// Kernels by name, each with its arguments' kinds ([`Kernel`](crate::Kernel)) and the types that it is written for:
/// `silu: "ppu" for f32 bf16;` are `silu_f32` and `silu_bf16` of the source. A launch names kernel and type
/// ([`Name`](crate::Name)). Here on a dry GPU, which checks a launch and computes nothing:
///
/// ```
/// use nextscale_cuda::kernel::Shape;
/// use nextscale_cuda::{Arch, Arg, DType, DeviceBuffer, GpuInfo, Module, dry, kernels};
///
/// static MODULE: Module = Module {
///     name: "scale",
///     source: &[r#"
///         extern "C" __global__ void scale_f32(float* x, float by, u64 n) {
///             u64 step = (u64)gridDim.x * blockDim.x;
///             for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n; i += step) x[i] *= by;
///         }
///     "#],
///     specific: false,
///     kernels: kernels! {
///         scale: "pfu" for f32;
///     },
/// };
///
/// MODULE.check()?;
/// let gpu = dry::gpu(&GpuInfo {
///     ordinal: 0,
///     name: "dry".into(),
///     arch: Arch::LEAST,
///     multiprocessors: 100,
///     memory: 8 << 30,
///     l2: 40 << 20,
///     shared: 160 << 10,
/// });
/// let n = 1000;
/// let x = DeviceBuffer::new(gpu, 4 * n)?;
/// let args = [Arg::In(&x), Arg::F32(2.0), Arg::U64(n as u64)];
/// gpu.launch(&MODULE, ("scale", DType::F32), Shape::pass(gpu, n), &args)?;
/// assert!(gpu.launch(&MODULE, ("scale", DType::F16), Shape::pass(gpu, n), &args).is_err());
/// assert!(gpu.launch(&MODULE, ("scale", DType::F32), Shape::pass(gpu, n), &args[..2]).is_err());
/// # Ok::<(), nextscale_cuda::Error>(())
/// ```
#[macro_export]
macro_rules! kernels {
    (@ [$($all:expr,)*]) => { &[$($all,)*] };
    (@ [$($all:expr,)*] $name:ident: $signature:literal; $($rest:tt)*) => {
        $crate::kernels!(@ [$($all,)* $crate::Kernel::new(stringify!($name), $signature),] $($rest)*)
    };
    (@ [$($all:expr,)*] $name:ident: $signature:literal for $($of:ident)+; $($rest:tt)*) => {
        $crate::kernels!(@ [
            $($all,)*
            $($crate::Kernel::new(concat!(stringify!($name), "_", stringify!($of)), $signature),)+
        ] $($rest)*)
    };
    ($name:ident: $($rest:tt)*) => { $crate::kernels!(@ [] $name: $($rest)*) };
}

/// Which kernel of a module: its name, or its name and the types that it is for, so that `("silu", DType::F32)` is `silu_f32`.
#[derive(Clone, Copy, Debug)]
pub struct Name {
    stem: &'static str,
    of: [Option<DType>; 2],
}

impl From<&'static str> for Name {
    fn from(stem: &'static str) -> Self {
        let of = [None; 2];
        Self { stem, of }
    }
}

impl From<(&'static str, DType)> for Name {
    fn from((stem, dtype): (&'static str, DType)) -> Self {
        let of = [Some(dtype), None];
        Self { stem, of }
    }
}

impl From<(&'static str, DType, DType)> for Name {
    fn from((stem, a, b): (&'static str, DType, DType)) -> Self {
        let of = [Some(a), Some(b)];
        Self { stem, of }
    }
}

impl Name {
    /// Whether this is what the source calls it.
    fn is(&self, name: &str) -> bool {
        let mut rest = name.strip_prefix(self.stem);
        for dtype in self.of.iter().flatten() {
            rest = rest.and_then(|r| r.strip_prefix('_')?.strip_prefix(dtype.name()));
        }
        rest == Some("")
    }

    /// The kernel of that name in a module.
    fn find(&self, module: &'static Module) -> Result<&'static Kernel> {
        let found = module.kernels.iter().find(|k| self.is(k.name));
        found.ok_or_else(|| match self.of[0] {
            Some(dtype) => Error::DType {
                op: module.name,
                expected: "a type that there are kernels for",
                found: dtype.name(),
            },
            None => Error::Device(format!("{} has no kernel {}", module.name, self.stem)),
        })
    }
}

/// An argument of a launch.
#[derive(Clone, Copy, Debug)]
pub enum Arg<'a> {
    /// A buffer that is read.
    In(&'a DeviceBuffer),
    /// A buffer from this byte on.
    At(&'a DeviceBuffer, usize),
    /// No buffer: the kernel is told by a null pointer.
    Null,
    /// A 32-bit integer.
    I32(i32),
    /// A count, or the place of something, that the kernel takes as a 32-bit integer: a larger one is refused.
    Count(usize),
    /// A 64-bit count.
    U64(u64),
    /// A float.
    F32(f32),
    /// A tensor for the copy engine.
    Map(&'a TensorMap),
}

impl Arg<'_> {
    fn kind(&self) -> char {
        match self {
            Self::In(_) | Self::At(..) | Self::Null => 'p',
            Self::I32(_) | Self::Count(_) => 'i',
            Self::U64(_) => 'u',
            Self::F32(_) => 'f',
            Self::Map(_) => 'm',
        }
    }
}

/// Blocks, threads a block, bytes of dynamic shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Blocks along x, y, z.
    pub grid: [usize; 3],
    /// Threads a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
}

impl Shape {
    /// Most blocks along y and z.
    pub const MOST_ROWS: usize = 65_535;
    /// Most blocks along x.
    const MOST_BLOCKS: usize = (1 << 31) - 1;

    /// A pass over `n` elements in loops that step by the whole grid: enough blocks to fill `gpu`, no more.
    pub fn pass(gpu: &Gpu, n: usize) -> Self {
        const THREADS: usize = 256;
        let most = gpu.info().multiprocessors * 8;
        Self {
            grid: [n.div_ceil(THREADS).clamp(1, most), 1, 1],
            threads: THREADS as u32,
            shared: 0,
        }
    }
}

/// The most that a kernel counts with 32 bits: less than 2³¹ by more than a whole grid of threads, by which loops step.
pub const MOST_COUNT: usize = (1 << 31) - (1 << 24);

impl Gpu {
    /// Refuses more of `what` than kernels take at once.
    ///
    /// # Errors
    /// When `n` is more than `most`.
    pub fn counts(&self, module: &'static Module, n: usize, most: usize, what: &str) -> Result<()> {
        if n <= most || self.is_dry_cpu() {
            return Ok(());
        }
        Err(Error::TooMany(format!(
            "{} takes {most} {what} at once, not {n}: use a smaller batch",
            module.name
        )))
    }

    /// Puts a kernel into the stream. That the shape and the arguments' lengths are what the kernel's source counts on is the
    /// operator's care, which has checked its tensors.
    ///
    /// # Errors
    /// When the module has no such kernel or none for the type, the arguments are not those declared, a buffer is another GPU's, or
    /// the driver refuses.
    pub fn launch(
        &self,
        module: &'static Module,
        name: impl Into<Name>,
        shape: Shape,
        args: &[Arg<'_>],
    ) -> Result<()> {
        let &Kernel { name, signature } = name.into().find(module)?;
        if !args.iter().map(Arg::kind).eq(signature.chars()) {
            return Err(Error::Device(format!(
                "kernel {name} of {} takes {signature}, not these {} arguments",
                module.name,
                args.len()
            )));
        }
        let uses = Uses::of(self);
        // Every argument as the eight bytes that the driver reads through a pointer. Maps are wider and lie where the caller
        // has them.
        let mut words = Vec::with_capacity(args.len());
        for a in args {
            words.push(match *a {
                Arg::In(b) => uses.address(b, 0, 0)?,
                Arg::At(b, offset) => uses.address(b, offset, 0)?,
                Arg::Null | Arg::Map(_) => 0,
                Arg::I32(v) => u64::from(v as u32),
                Arg::Count(n) => {
                    self.counts(module, n, MOST_COUNT, "elements or rows along one side")?;
                    n as u64
                }
                Arg::U64(v) => v,
                Arg::F32(v) => u64::from(v.to_bits()),
            });
        }
        let [x, y, z] = shape.grid;
        self.counts(module, x, Shape::MOST_BLOCKS, "blocks of elements")?;
        let parts = "samples or parts of them";
        self.counts(module, y.max(z), Shape::MOST_ROWS, parts)?;
        if self.dry().is_some() {
            return Ok(());
        }
        let _guard = StreamGuard::take();
        let function = self.function(module, name, shape.shared)?;
        let pointers: Vec<*const c_void> = words
            .iter()
            .zip(args)
            .map(|(w, a)| match a {
                Arg::Map(map) => map.words().cast(),
                _ => std::ptr::from_ref(w).cast(),
            })
            .collect();
        self.bind()?;
        // SAFETY: the function belongs to a module that is never unloaded; the arguments are as many and as wide as
        // declared beside its source, buffers this GPU's, which go back to the pool only for work that comes later in the same stream.
        unsafe {
            driver::kernel::launch(
                function,
                // As many as were found to fit.
                shape.grid.map(|n| n as u32),
                (shape.threads, shape.shared),
                self.stream(),
                &pointers,
            )
        }
        .doing(&format!("launching {name}"))
    }
}

/// Filling, converting and adding.
pub static MEMORY: Module = Module {
    name: "memory",
    source: &[include_str!("memory.cu")],
    specific: false,
    kernels: kernels! {
        fill: "pfu" for f32 bf16 f16;
        convert: "ppu" for f32_bf16 f32_f16 bf16_f32 f16_f32 bf16_f16 f16_bf16;
        add: "ppu" for f32_f32 f32_bf16 f32_f16 bf16_bf16 f16_f16 bf16_f32 f16_f32;
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_found_by_name_and_types() {
        static SOME: Module = Module {
            name: "some",
            source: &[],
            specific: false,
            kernels: kernels! {
                one: "p";
                two: "pi" for f32 bf16;
                both: "pp" for f16_f32;
            },
        };
        let find = |name: Name| name.find(&SOME).map(|k| (k.name, k.signature));
        let two = |dtype| Name::from(("two", dtype));
        assert_eq!(find("one".into()).unwrap(), ("one", "p"));
        assert_eq!(find(two(DType::F32)).unwrap(), ("two_f32", "pi"));
        assert_eq!(find(two(DType::Bf16)).unwrap(), ("two_bf16", "pi"));
        let both = ("both", DType::F16, DType::F32);
        assert_eq!(find(both.into()).unwrap(), ("both_f16_f32", "pp"));
        for (name, says) in [
            ("two".into(), "some has no kernel two"),
            (("one", DType::F32).into(), "found f32"),
            (two(DType::I32), "found i32"),
            (("both", DType::F32, DType::F16).into(), "found f32"),
        ] {
            let text = find(name).unwrap_err().to_string();
            assert!(text.contains(says), "{text}");
        }
    }
}
