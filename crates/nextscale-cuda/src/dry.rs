//! Dry runs: a GPU that computes nothing and only counts memory.
//!
//! What a step takes follows from what its operators ask the pool for, so the operators themselves are the one true
//! statement of it. On a dry GPU they run as ever, buffers come from a pool that has no memory behind it, and kernels,
//! products and copies are left out: the peak for any model, batch and precision, within milliseconds, before anything is
//! computed, and on machines without a GPU too. Values that are read from a dry GPU are zeros.
//!
//! A dry *CPU* ([`cpu`]) is one more of them: models keep the same on either device, so a dry GPU in float32
//! without what libraries take for themselves, with what the CPU's products take beside their operands, and with a pool
//! that keeps free buffers as the CPU's does, counts the memory of a run on a CPU.

use crate::Result;
use crate::compile::Arch;
use crate::gpu::{Gpu, GpuInfo};
use crate::pool::DeviceBuffer;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};

/// Dry GPUs count from here, far from any real one.
const FIRST: usize = 1 << 20;

/// Every dry GPU of the process.
static ALL: RwLock<Vec<&'static Gpu>> = RwLock::new(Vec::new());

/// How a CPU's pool keeps free buffers; in floats.
#[derive(Clone, Copy, Debug)]
pub struct Recycling {
    /// What a free buffer may hold at most to serve for so many.
    pub most: fn(usize) -> usize,
    /// Whether a buffer of so many is kept when it is let go of, where so many are kept and so many in use.
    pub keeps: fn(n: usize, free: usize, used: usize) -> bool,
}

/// What a dry GPU remembers.
#[derive(Debug, Default)]
pub(crate) struct Dry {
    /// Hashes of the products and convolutions that were asked for before: a first one is measured.
    seen: Mutex<HashSet<u64>>,
    /// Bytes copied from place to place.
    copied: AtomicUsize,
    /// Of one that stands for a CPU.
    cpu: Option<Recycling>,
    /// What it was asked for beside memory and kernels, and what it is to refuse.
    #[cfg(test)]
    pub(crate) script: Mutex<tests::Script>,
}

/// What goes on between the CPU and a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A copy from this address in host memory, or to it.
    Copy(usize),
    /// A mark in a stream.
    Mark,
    /// Word of whether a mark is passed.
    Look,
    /// A wait for a mark or for everything.
    Wait,
}

impl Dry {
    /// Whether this product or convolution is asked for the first time.
    pub(crate) fn is_first(&self, key: &impl Hash) -> bool {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let mut seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
        seen.insert(hasher.finish())
    }

    /// Does what it is asked for, which is nothing, unless a test has it refuse.
    ///
    /// # Errors
    /// Where a test says so.
    pub(crate) fn answer(&self, ask: Ask) -> Result<()> {
        #[cfg(test)]
        return self
            .script
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .answer(ask);
        #[cfg(not(test))]
        {
            let _ = ask;
            Ok(())
        }
    }

    /// Where it stands for a CPU, the rules of that one's pool.
    pub(crate) fn cpu(&self) -> Option<Recycling> {
        self.cpu
    }

    /// Counts a copy within the GPU's memory.
    pub(crate) fn copies(&self, bytes: usize) {
        self.copied.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A new dry GPU like `like`; [`Gpu::get`] finds it by its number. It lives as long as the process and takes a few KiB.
pub fn gpu(like: &GpuInfo) -> &'static Gpu {
    register(like, Dry::default())
}

/// A new dry CPU: what passes in float32 take of it is what they take on a CPU whose pool goes by `rules`.
pub fn cpu(rules: Recycling) -> &'static Gpu {
    let like = GpuInfo {
        ordinal: 0,
        name: "CPU".into(),
        // None of the kernels that need more memory to be faster.
        arch: Arch::LEAST,
        multiprocessors: 1,
        memory: usize::MAX,
        l2: 0,
        shared: 1 << 30,
    };
    let cpu = Some(rules);
    let dry = Dry {
        cpu,
        ..Dry::default()
    };
    register(&like, dry)
}

fn register(like: &GpuInfo, dry: Dry) -> &'static Gpu {
    let mut all = ALL.write().unwrap_or_else(|e| e.into_inner());
    let ordinal = FIRST + all.len();
    let info = GpuInfo {
        ordinal,
        ..like.clone()
    };
    let gpu = &*Box::leak(Box::new(Gpu::without_driver(info, dry)));
    all.push(gpu);
    gpu
}

/// The dry GPU of this number.
pub(crate) fn find(ordinal: usize) -> Option<&'static Gpu> {
    let all = ALL.read().unwrap_or_else(|e| e.into_inner());
    all.get(ordinal.checked_sub(FIRST)?).copied()
}

impl Gpu {
    /// What a product takes beside its operands: at the first time buffers of the sizes `own` to measure algorithms with,
    /// always the algorithm's scratch memory.
    pub(crate) fn dry_product(
        &'static self,
        key: &impl Hash,
        own: [usize; 3],
        scratch: usize,
    ) -> Result<()> {
        let first = self.dry().is_some_and(|d| d.is_first(key));
        let trial = own.map(|n| first.then(|| DeviceBuffer::new(self, n)).transpose());
        for buffer in trial {
            buffer?;
        }
        DeviceBuffer::new(self, scratch).map(|_| ())
    }
}

impl Gpu {
    /// Bytes that were copied within a dry GPU's memory: most are values that a gradient's rule overwrites and somebody else holds.
    pub fn dry_copied(&self) -> usize {
        self.dry().map_or(0, |d| d.copied.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::kernel::{Arg, MEMORY, Shape};
    use crate::matmul::DevicePtr;

    /// What a dry GPU was asked for, and what it refuses.
    #[derive(Debug, Default)]
    pub(crate) struct Script {
        pub(crate) asked: Vec<Ask>,
        pub(crate) refused: Vec<Ask>,
    }

    impl Script {
        pub(crate) fn answer(&mut self, ask: Ask) -> Result<()> {
            self.asked.push(ask);
            let kind = std::mem::discriminant(&ask);
            if self
                .refused
                .iter()
                .any(|r| std::mem::discriminant(r) == kind)
            {
                return Err(crate::Error::Device(format!("{ask:?} is refused")));
            }
            Ok(())
        }
    }

    /// A GPU as an H200 describes itself.
    pub(crate) fn like() -> GpuInfo {
        GpuInfo {
            ordinal: 0,
            name: "dry".into(),
            arch: Arch { major: 9, minor: 0 },
            multiprocessors: 132,
            memory: 139 << 30,
            l2: 50 << 20,
            shared: 227 << 10,
        }
    }

    /// A dry GPU of its own.
    pub(crate) fn dry_gpu() -> &'static Gpu {
        gpu(&like())
    }

    #[test]
    fn blocks_are_counted_and_used_again() {
        let gpu = dry_gpu();
        let (a, b) = (
            DeviceBuffer::new(gpu, 3 << 20).unwrap(),
            DeviceBuffer::new(gpu, 100).unwrap(),
        );
        let (large, small) = (4 << 20, 512);
        assert_eq!(gpu.usage().used, large + small);
        assert_ne!(a.address(), b.address());
        drop(a);
        let again = DeviceBuffer::new(gpu, 4 << 20).unwrap();
        assert_eq!(gpu.usage().held, large + small, "the free block fits");
        drop((again, b));
        let u = gpu.usage();
        assert_eq!((u.used, u.peak), (0, large + small));
        gpu.reset_peak();
        assert_eq!(gpu.usage().peak, 0);
        assert_eq!(gpu.free_memory().unwrap(), 139 << 30);
        gpu.trim().unwrap();
        assert_eq!(gpu.usage().held, 0);
    }

    /// Offsets whose sums would begin again at zero.
    #[test]
    fn places_past_the_end_are_refused() {
        let gpu = dry_gpu();
        let buffer = DeviceBuffer::new(gpu, 64).unwrap();
        for (at, bytes) in [
            (usize::MAX - 7, 8),
            (usize::MAX, 1),
            (60, 8),
            (65, 0),
            (0, usize::MAX),
        ] {
            let place = DevicePtr(&buffer, at);
            assert!(place.holds(gpu, "a test", bytes).is_err(), "{at} {bytes}");
            assert!(gpu.zero(place, bytes).is_err(), "{at} {bytes}");
            let arg = Arg::At(&buffer, at);
            let args = [arg, Arg::F32(0.0), Arg::U64(0)];
            let shape = Shape::pass(gpu, 1);
            let launched = gpu.launch(&MEMORY, "fill_f32", shape, &args);
            assert_eq!(launched.is_err(), at > 64, "{at}");
        }
        assert!(DevicePtr(&buffer, 56).holds(gpu, "a test", 8).is_ok());
        assert!(DeviceBuffer::new(gpu, usize::MAX).is_err());
    }
}
