//! A GPU: its context, its stream, its memory and its kernels.

use crate::codes::Checked;
use crate::compile::{Arch, load_or_compile};
use crate::constants::Constants;
use crate::conv;
use crate::driver::{self, device, kernel, memory};
use crate::dry::{self, Ask, Dry, Recycling};
use crate::graph::StreamGuard;
use crate::kernel::Module;
use crate::libraries::Library;
use crate::matmul::{self, DevicePtr};
use crate::pinned;
use crate::pool::{DeviceBuffer, Pool, PoolUse};
use crate::work::Work;
use crate::{Error, Result};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUfunction, CUmodule, CUstream};
use std::collections::HashMap;
use std::ffi::CString;
use std::ptr;
use std::sync::{Mutex, OnceLock};

/// What is known of a GPU.
#[derive(Clone, Debug)]
pub struct GpuInfo {
    /// Its number, from 0.
    pub ordinal: usize,
    /// Its name, such as `NVIDIA H200`.
    pub name: String,
    /// Its compute capability.
    pub arch: Arch,
    /// Its multiprocessors.
    pub multiprocessors: usize,
    /// Bytes of memory.
    pub memory: usize,
    /// Bytes of second-level cache.
    pub l2: usize,
    /// Bytes of shared memory that one block may have.
    pub shared: usize,
}

/// A GPU in use by this process.
pub struct Gpu {
    info: GpuInfo,
    context: DriverHandle<sys::CUcontext>,
    stream: DriverHandle<CUstream>,
    pool: Pool,
    modules: Mutex<HashMap<&'static str, Loaded>>,
    matmul: matmul::Slot,
    constants: Constants,
    conv: conv::Slot,
    /// Of a dry run: nothing is computed, memory is only counted.
    dry: Option<Dry>,
}

/// A driver's handle. They are opaque addresses that any thread may use.
#[derive(Clone, Copy)]
struct DriverHandle<T>(T);
// SAFETY: contexts, streams, modules and functions may be used from any thread (CUDA driver API, "Context Management"); the
// calls that need a current context are preceded by `Gpu::bind`.
unsafe impl<T> Send for DriverHandle<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for DriverHandle<T> {}

struct Loaded {
    module: DriverHandle<CUmodule>,
    /// By name, with the dynamic shared memory that each was told of.
    functions: HashMap<&'static str, (DriverHandle<CUfunction>, u32)>,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpu({})", self.info.ordinal)
    }
}

/// GPUs that the driver shows; 0 where there is no driver.
pub fn count() -> usize {
    if !Library::Driver.is_there() || driver::start().is_err() {
        return 0;
    }
    device::count().map_or(0, |n| n.max(0) as usize)
}

/// What the driver says of GPU `ordinal`, without taking it into use.
///
/// # Errors
/// When there is no driver or no such GPU.
pub fn describe(ordinal: usize) -> Result<GpuInfo> {
    Library::Driver.required()?;
    Library::check_driver()?;
    driver::start().doing("starting the NVIDIA driver")?;
    let there = count();
    if ordinal >= there {
        return Err(Error::Device(format!(
            "there is no GPU {ordinal}: the driver shows {there}"
        )));
    }
    let gpu = device::get(ordinal as i32).doing("opening the GPU")?;
    let name = device::name(gpu).doing("asking for the GPU's name")?;
    let attribute = |a| device::attribute(gpu, a).doing("asking the GPU");
    Ok(GpuInfo {
        ordinal,
        name,
        arch: Arch {
            major: attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)? as u32,
            minor: attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)? as u32,
        },
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize,
        l2: attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)? as usize,
        shared: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?
            as usize,
        memory: device::memory(gpu).doing("asking the GPU")?,
    })
}

impl GpuInfo {
    /// Refuses a GPU older than kernels are written for.
    fn young_enough(&self) -> Result<()> {
        if self.arch >= Arch::LEAST {
            return Ok(());
        }
        Err(Error::Device(format!(
            "GPU {} ({}) has compute capability {}.{}; nextscale needs 8.0 (Ampere) or newer",
            self.ordinal, self.name, self.arch.major, self.arch.minor
        )))
    }
}

impl Gpu {
    /// GPU `ordinal`, taken into use at the first call.
    ///
    /// # Errors
    /// When it is not there, too old, or can't be used.
    pub fn get(ordinal: usize) -> Result<&'static Self> {
        const MOST: usize = 64;
        static ALL: [OnceLock<Gpu>; MOST] = [const { OnceLock::new() }; MOST];
        static STARTING: Mutex<()> = Mutex::new(());
        let Some(slot) = ALL.get(ordinal) else {
            return dry::find(ordinal)
                .ok_or_else(|| Error::Device(format!("there is no GPU {ordinal}")));
        };
        let _one = STARTING.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(gpu) = slot.get() {
            return Ok(gpu);
        }
        let gpu = Self::open(ordinal)?;
        Ok(slot.get_or_init(|| gpu))
    }

    fn open(ordinal: usize) -> Result<Self> {
        let info = describe(ordinal)?;
        info.young_enough()?;
        let number = device::get(ordinal as i32).doing("opening the GPU")?;
        let context = device::retain(number).doing("taking the GPU into use")?;
        // SAFETY: the primary context is retained once and never released; it becomes current before the stream is made.
        unsafe { device::bind(context) }.doing("taking the GPU into use")?;
        let stream = driver::stream::create().doing("making a stream")?;
        Ok(Self::with(info, context, stream, None))
    }

    fn with(info: GpuInfo, context: sys::CUcontext, stream: CUstream, dry: Option<Dry>) -> Self {
        Self {
            info,
            context: DriverHandle(context),
            stream: DriverHandle(stream),
            pool: Pool::default(),
            modules: Mutex::default(),
            matmul: matmul::Slot::default(),
            constants: Constants::default(),
            conv: conv::Slot::default(),
            dry,
        }
    }

    /// A GPU that no driver knows, for dry runs.
    pub(crate) fn without_driver(info: GpuInfo, dry: Dry) -> Self {
        Self::with(info, ptr::null_mut(), ptr::null_mut(), Some(dry))
    }

    /// What there is of a dry run; `None` where work is done.
    pub(crate) fn dry(&self) -> Option<&Dry> {
        self.dry.as_ref()
    }

    /// Whether nothing is computed on it: values that are read from it are zeros.
    pub fn is_dry(&self) -> bool {
        self.dry.is_some()
    }

    /// Whether it is a dry one that stands for a CPU, which the limits of kernels are not for.
    pub fn is_dry_cpu(&self) -> bool {
        self.dry_cpu().is_some()
    }

    /// The rules of the pool of the CPU that it stands for.
    pub(crate) fn dry_cpu(&self) -> Option<Recycling> {
        self.dry.as_ref()?.cpu()
    }

    /// What is known of it.
    pub fn info(&self) -> &GpuInfo {
        &self.info
    }

    /// What its pool holds.
    pub fn usage(&self) -> PoolUse {
        self.pool.usage()
    }

    /// Lets the peak of [`Gpu::usage`] begin anew, at what is in use now.
    pub fn reset_peak(&self) {
        self.pool.reset_peak();
    }

    /// Gives memory that the pool holds for later back to the driver.
    ///
    /// # Errors
    /// When work before this failed, or the calling thread captures a graph.
    pub fn trim(&self) -> Result<()> {
        self.bind()?;
        self.pool.trim(self)
    }

    /// Bytes that this process can still have: what the driver has free, and what the pool holds for later.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn free_memory(&self) -> Result<usize> {
        let PoolUse { used, held, .. } = self.usage();
        if self.dry.is_some() {
            return Ok(self.info.memory.saturating_sub(used));
        }
        self.bind()?;
        let (free, _) = memory::info().doing("asking for the GPU's free memory")?;
        Ok(free + held - used)
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn matmul_slot(&self) -> &matmul::Slot {
        &self.matmul
    }

    pub(crate) fn constants(&self) -> &Constants {
        &self.constants
    }

    pub(crate) fn conv_slot(&self) -> &conv::Slot {
        &self.conv
    }

    pub(crate) fn stream(&self) -> CUstream {
        self.stream.0
    }

    /// Makes its context the calling thread's.
    pub(crate) fn bind(&self) -> Result<()> {
        if self.dry.is_some() {
            return Ok(());
        }
        // SAFETY: the context is never released.
        unsafe { device::bind(self.context.0) }.doing("turning to the GPU")
    }

    /// Waits until everything asked for so far is done.
    ///
    /// # Errors
    /// When any of it failed.
    pub fn synchronize(&self) -> Result<()> {
        let _guard = StreamGuard::take();
        self.outside_capture("waiting for the GPU")?;
        if let Some(dry) = &self.dry {
            return dry.answer(Ask::Wait);
        }
        self.bind()?;
        // SAFETY: the stream is never destroyed.
        unsafe { driver::stream::synchronize(self.stream.0) }.doing("computing on the GPU")
    }

    /// Copies `bytes` to the start of `to`.
    ///
    /// # Errors
    /// When they do not fit or the copy fails.
    pub fn upload(&'static self, bytes: &[u8], to: &DeviceBuffer) -> Result<()> {
        self.upload_to(bytes, DevicePtr(to, 0))
    }

    /// Copies `bytes` to a place.
    ///
    /// # Errors
    /// When they do not fit or the copy fails.
    pub fn upload_to(&'static self, bytes: &[u8], to: DevicePtr<'_>) -> Result<()> {
        let address = to.holds(self, "a copy", bytes.len())?;
        if bytes.is_empty() {
            return Ok(());
        }
        let _guard = StreamGuard::take();
        self.outside_capture("a copy to the GPU")?;
        if self.dry.is_some() {
            return Ok(());
        }
        pinned::upload(self, bytes, address)
    }

    /// Copies the first bytes of `from`; returns when they are here.
    ///
    /// # Errors
    /// When there are not so many or the copy fails.
    pub fn download(&self, from: &DeviceBuffer, bytes: &mut [u8]) -> Result<()> {
        self.download_from(DevicePtr(from, 0), bytes)
    }

    /// Copies bytes from a place; returns when they are here.
    ///
    /// # Errors
    /// When there are not so many or the copy fails.
    pub fn download_from(&self, from: DevicePtr<'_>, bytes: &mut [u8]) -> Result<()> {
        let address = from.holds(self, "a copy", bytes.len())?;
        if bytes.is_empty() {
            return Ok(());
        }
        let _guard = StreamGuard::take();
        self.outside_capture("a copy from the GPU")?;
        if self.dry.is_some() {
            bytes.fill(0);
            return Ok(());
        }
        self.bind()?;
        // SAFETY: both ranges are as long as said; the target outlives the copy because of the wait.
        let asked = unsafe { memory::download(bytes, address, self.stream.0) };
        let done = self.synchronize();
        asked.doing("copying from the GPU").and(done)
    }

    /// Copies bytes on the GPU, in the stream; the ranges do not overlap.
    ///
    /// # Errors
    /// When they are not all there or the copy fails.
    pub fn copy(&self, from: DevicePtr<'_>, to: DevicePtr<'_>, bytes: usize) -> Result<()> {
        let from = from.holds(self, "a copy", bytes)?;
        let to = to.holds(self, "a copy", bytes)?;
        let _scope = (bytes > 0).then(|| self.scope("copy", || Work::of_bytes(2 * bytes)));
        if let Some(dry) = &self.dry {
            dry.copies(bytes);
            return Ok(());
        }
        if bytes == 0 {
            return Ok(());
        }
        let _guard = StreamGuard::take();
        self.bind()?;
        // SAFETY: both ranges are as long as said and stay so for work that was asked for before they were let go.
        unsafe { memory::copy(to, from, bytes, self.stream.0) }.doing("copying on the GPU")
    }

    /// Sets bytes to zero, in the stream.
    ///
    /// # Errors
    /// When they are not all there or the driver refuses.
    pub fn zero(&self, to: DevicePtr<'_>, bytes: usize) -> Result<()> {
        let address = to.holds(self, "zeros", bytes)?;
        if bytes == 0 {
            return Ok(());
        }
        let _scope = self.scope("zeros", || Work::of_bytes(bytes));
        if self.dry.is_some() {
            return Ok(());
        }
        let _guard = StreamGuard::take();
        self.bind()?;
        // SAFETY: the range is as long as said.
        unsafe { memory::zero(address, bytes, self.stream.0) }.doing("clearing memory on the GPU")
    }

    /// The function `name` of a module, compiled and loaded at the first call and allowed `shared` bytes of dynamic shared
    /// memory.
    pub(crate) fn function(
        &self,
        module: &'static Module,
        name: &'static str,
        shared: u32,
    ) -> Result<CUfunction> {
        /// What a kernel may have without asking, what its source lays out included.
        const FREE: u32 = 48 << 10;
        self.bind()?;
        let mut modules = self.modules.lock().unwrap_or_else(|e| e.into_inner());
        if !modules.contains_key(module.name) {
            self.outside_capture(&format!("loading the kernels {}", module.name))?;
            let code = load_or_compile(module, self.info.arch)?;
            // SAFETY: the image is a whole cubin, read during the call.
            let handle = unsafe { kernel::load(&code) }
                .doing(&format!("loading the kernels {}", module.name))?;
            let loaded = Loaded {
                module: DriverHandle(handle),
                functions: HashMap::new(),
            };
            modules.insert(module.name, loaded);
        }
        let Some(loaded) = modules.get_mut(module.name) else {
            return Err(Error::Device(format!("kernels {} are gone", module.name)));
        };
        let (function, allowed) = match loaded.functions.get(name) {
            Some(&(f, allowed)) => (f, allowed),
            None => {
                let c_name = CString::new(name)
                    .map_err(|_| Error::Device(format!("kernel {name:?} has a zero byte")))?;
                // SAFETY: the module is loaded and never unloaded.
                let f = unsafe { kernel::find(loaded.module.0, &c_name) }
                    .doing(&format!("looking for the kernel {name}"))?;
                // SAFETY: the function is valid.
                let laid_out =
                    unsafe { kernel::shared(f) }.doing(&format!("asking what {name} needs"))?;
                let allowed = FREE.saturating_sub(laid_out as u32);
                loaded.functions.insert(name, (DriverHandle(f), allowed));
                (DriverHandle(f), allowed)
            }
        };
        if shared > allowed {
            // SAFETY: the function is valid.
            unsafe { kernel::allow(function.0, shared) }
                .doing(&format!("giving {name} {shared} bytes of shared memory"))?;
            loaded.functions.insert(name, (function, shared));
        }
        Ok(function.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_is_too_old_is_one_clear_line() {
        let info = |major, minor| GpuInfo {
            ordinal: 1,
            name: "Tesla V100".into(),
            arch: Arch { major, minor },
            multiprocessors: 80,
            memory: 16 << 30,
            l2: 6 << 20,
            shared: 96 << 10,
        };
        let text = info(7, 5).young_enough().unwrap_err().to_string();
        for part in ["GPU 1 (Tesla V100)", "7.5", "8.0"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains('\n'), "{text}");
        assert!(info(8, 0).young_enough().is_ok() && info(10, 0).young_enough().is_ok());
    }
}
