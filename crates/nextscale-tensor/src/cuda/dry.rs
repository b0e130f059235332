//! Dry runs: a GPU that computes nothing and only counts memory.
//!
//! What a step takes follows from what its operators ask the pool for, so the operators themselves are the one true
//! statement of it. On a dry GPU they run as ever, buffers come from a pool that has no memory behind it, and kernels,
//! products and copies are left out: the peak for any model, batch and precision, within milliseconds, before anything is
//! computed, and on machines without a GPU too. Values that are read from a dry GPU are zeros.
//!
//! A dry *processor* ([`processor`]) is one more of them: models keep the same on either device, so a dry GPU in float32
//! without what libraries take for themselves, and with what the processor's products take beside their operands, counts the
//! memory of a run on a CPU.

use super::compile::Arch;
use super::gpu::{Gpu, GpuInfo};
use super::pool::DeviceBuffer;
use crate::{Device, Result};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};

/// Dry GPUs count from here, far from any real one.
const FIRST: usize = 1 << 20;

/// Every dry GPU of the process.
static ALL: RwLock<Vec<&'static Gpu>> = RwLock::new(Vec::new());

/// What a dry GPU remembers.
#[derive(Debug, Default)]
pub(super) struct Dry {
    /// Hashes of the products and convolutions that were asked for before: a first one is measured.
    seen: Mutex<HashSet<u64>>,
    /// Bytes copied from place to place.
    copied: AtomicUsize,
    /// Whether it stands for a processor.
    processor: bool,
    /// What it was asked for beside memory and kernels, and what it is to refuse.
    #[cfg(test)]
    pub(super) script: Mutex<tests::Script>,
}

/// What goes on between the processor and a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// A copy from this address of the processor, or to it.
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
    pub(super) fn is_first(&self, key: &impl Hash) -> bool {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let mut seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
        seen.insert(hasher.finish())
    }

    /// Does what it is asked for, which is nothing, unless a test has it refuse.
    ///
    /// # Errors
    /// Where a test says so.
    pub(super) fn answer(&self, ask: Ask) -> Result<()> {
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

    /// What stands for a processor.
    fn processor() -> Self {
        Self {
            processor: true,
            ..Self::default()
        }
    }

    /// Whether it stands for a processor.
    pub(super) fn is_processor(&self) -> bool {
        self.processor
    }

    /// Counts a copy within the GPU's memory.
    pub(super) fn copies(&self, bytes: usize) {
        self.copied.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A new dry GPU like `like`, as a device. It lives as long as the process and takes a few KiB.
pub fn device(like: &GpuInfo) -> Device {
    register(like, Dry::default())
}

/// A new dry processor, as a device: what passes in float32 take of it is what they take on [`Device::Cpu`].
pub fn processor() -> Device {
    let like = GpuInfo {
        ordinal: 0,
        name: "processor".into(),
        // None of the kernels that need more memory to be faster.
        arch: Arch::LEAST,
        multiprocessors: 1,
        memory: usize::MAX,
        l2: 0,
        shared: 1 << 30,
    };
    register(&like, Dry::processor())
}

fn register(like: &GpuInfo, dry: Dry) -> Device {
    let mut all = ALL.write().unwrap_or_else(|e| e.into_inner());
    let ordinal = FIRST + all.len();
    let info = GpuInfo {
        ordinal,
        ..like.clone()
    };
    all.push(Box::leak(Box::new(Gpu::without_driver(info, dry))));
    Device::Cuda(ordinal)
}

/// The dry GPU of this number.
pub(super) fn find(ordinal: usize) -> Option<&'static Gpu> {
    let all = ALL.read().unwrap_or_else(|e| e.into_inner());
    all.get(ordinal.checked_sub(FIRST)?).copied()
}

impl Gpu {
    /// What a product takes beside its operands: at the first time buffers of the sizes `own` to measure algorithms with,
    /// always the algorithm's scratch memory.
    pub(super) fn dry_product(
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

#[cfg(test)]
impl Gpu {
    /// Bytes that were copied within a dry GPU's memory: most are values that a rule overwrites and somebody else holds.
    pub(crate) fn dry_copied(&self) -> usize {
        self.dry().map_or(0, |d| d.copied.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cuda::Arch;
    use crate::cuda::kernel::{Arg, MEMORY, Shape};
    use crate::cuda::matmul::{Element, Follow, Operands, Place, Product};
    use crate::ops::{Activation, Bias};
    use crate::{Cx, DType, Math, Tape, Tensor, ops};

    /// What a dry GPU was asked for, and what it refuses.
    #[derive(Debug, Default)]
    pub(in crate::cuda) struct Script {
        pub(in crate::cuda) asked: Vec<Ask>,
        pub(in crate::cuda) refused: Vec<Ask>,
    }

    impl Script {
        pub(in crate::cuda) fn answer(&mut self, ask: Ask) -> Result<()> {
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

    #[test]
    fn blocks_are_counted_and_used_again() {
        let gpu = device(&like()).gpu().unwrap().unwrap();
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

    #[test]
    fn operators_run_and_keep_what_their_gradients_need() {
        let device = device(&like());
        let gpu = device.gpu().unwrap().unwrap();
        let math = Math {
            operands: DType::Bf16,
            tf32: false,
        };
        let zeros = |shape: &[usize], dtype| Tensor::zeros_on(device, shape, dtype).unwrap();
        let (rows, c) = (3000, 512);
        let (x, w, b) = (
            zeros(&[1, rows, c], DType::Bf16),
            zeros(&[c, c], DType::F32),
            zeros(&[c], DType::F32),
        );
        let tape = Tape::new();
        let cx = Cx::on(&tape).with(math);
        let (x, key) = cx.leaf(&x);
        let before = gpu.usage().used;
        let y = ops::linear(&cx, &x, &w, Bias::Full(&b), Activation::None).unwrap();
        // The result, 3,072,000 bytes, takes two grains of the pool; the rule keeps the weight in half precision.
        assert_eq!(y.dims(), [1, rows, c]);
        assert!(gpu.usage().used >= before + (4 << 20));
        let seed = zeros(&[1, rows, c], DType::Bf16);
        let grads = tape.backward_from(&y, seed, None, &[key]).unwrap();
        let dx = grads[0].as_ref().unwrap();
        assert_eq!(dx.dims(), [1, rows, c]);
        assert!(
            dx.to(Device::Cpu)
                .unwrap()
                .f32()
                .unwrap()
                .iter()
                .all(|v| *v == 0.0)
        );
        let late = dx.fetch().unwrap().wait().unwrap();
        assert_eq!(late.numel(), rows * c);
        drop((grads, x, y));
        assert!(gpu.usage().used < gpu.usage().peak);
    }

    #[test]
    fn what_is_captured_keeps_its_memory() {
        let device = device(&like());
        let gpu = device.gpu().unwrap().unwrap();
        let make = || Tensor::zeros_on(device, [1 << 20], DType::F32);
        let (mut graph, out) = gpu.capture(make).unwrap();
        graph.launch().unwrap();
        assert_eq!(graph.bytes(), 4 << 20);
        drop(graph);
        assert_eq!(gpu.usage().used, 4 << 20);
        drop(out);
        assert_eq!(gpu.usage().used, 0);
    }

    /// A graph reads at every replay what was there before its capture, whoever has let go of it.
    #[test]
    fn a_graph_holds_what_it_uses() {
        let device = device(&like());
        let gpu = device.gpu().unwrap().unwrap();
        let (part, whole) = (4 << 20, 1 << 20);
        let zeros = || Tensor::zeros_on(device, [whole], DType::F32).unwrap();
        let (read, added, weight, other) = (zeros(), zeros(), zeros(), zeros());
        let work = || {
            let y = read.copied()?;
            y.add_in_place(&added)?;
            let p = Product {
                m: 1024,
                n: 1024,
                k: 1024,
                operands: Element::F32,
                result: Element::F32,
                a_transposed: false,
                b_transposed: false,
                accumulate: true,
                tf32: false,
                follow: Follow::Plain,
            };
            let o = Operands {
                a: y.place()?,
                b: weight.place()?,
                c: y.place()?,
                vector: None,
                aux: None,
            };
            gpu.matmul(&p, &o)?;
            Ok(y)
        };
        let (mut graph, out) = gpu.capture(work).unwrap();
        let with_all = gpu.usage().used;
        drop((read, added, weight));
        assert_eq!(gpu.usage().used, with_all, "held for the graph");
        drop(other);
        assert_eq!(gpu.usage().used, with_all - part, "not of the graph");
        graph.launch().unwrap();
        drop((graph, out));
        assert_eq!(gpu.usage().used, 0);
    }

    #[test]
    fn memory_of_another_gpu_is_refused() {
        let (a, b) = (device(&like()), device(&like()));
        let (on, gpu) = (a.gpu().unwrap().unwrap(), b.gpu().unwrap().unwrap());
        let x = Tensor::zeros_on(a, [64], DType::F32).unwrap();
        let y = Tensor::zeros_on(b, [64], DType::F32).unwrap();
        let refused = |r: Result<()>| {
            let text = r.unwrap_err().to_string();
            assert!(text.contains("can't be used on GPU"), "{text}");
        };
        refused(gpu.copy(x.place().unwrap(), y.place().unwrap(), 256));
        refused(gpu.copy(y.place().unwrap(), x.place().unwrap(), 256));
        refused(gpu.zero(x.place().unwrap(), 256));
        refused(gpu.upload_to(&[0; 256], x.place().unwrap()));
        refused(gpu.download_from(x.place().unwrap(), &mut [0; 256]));
        refused(y.add_in_place(&x));
        refused(x.add_in_place(&y));
        on.zero(x.place().unwrap(), 256).unwrap();
        let p = Product {
            m: 8,
            n: 8,
            k: 8,
            operands: Element::F32,
            result: Element::F32,
            a_transposed: false,
            b_transposed: false,
            accumulate: false,
            tf32: false,
            follow: Follow::Plain,
        };
        let (x, y) = (x.place().unwrap(), y.place().unwrap());
        for (a, b, c) in [(x, y, y), (y, x, y), (y, y, x)] {
            let o = Operands {
                a,
                b,
                c,
                vector: None,
                aux: None,
            };
            refused(gpu.matmul(&p, &o));
        }
    }

    /// Offsets whose sums would begin again at zero.
    #[test]
    fn places_past_the_end_are_refused() {
        let gpu = device(&like()).gpu().unwrap().unwrap();
        let buffer = DeviceBuffer::new(gpu, 64).unwrap();
        for (at, bytes) in [
            (usize::MAX - 7, 8),
            (usize::MAX, 1),
            (60, 8),
            (65, 0),
            (0, usize::MAX),
        ] {
            let place = Place(&buffer, at);
            assert!(place.holds(gpu, "a test", bytes).is_err(), "{at} {bytes}");
            assert!(gpu.zero(place, bytes).is_err(), "{at} {bytes}");
            let arg = Arg::At(&buffer, at);
            let args = [arg, Arg::F32(0.0), Arg::U64(0)];
            let shape = Shape::pass(gpu, 1);
            let launched = gpu.launch(&MEMORY, "fill_f32", shape, &args);
            assert_eq!(launched.is_err(), at > 64, "{at}");
        }
        assert!(Place(&buffer, 56).holds(gpu, "a test", 8).is_ok());
        assert!(DeviceBuffer::new(gpu, usize::MAX).is_err());
    }

    #[test]
    fn more_samples_than_a_grid_has_rows_are_one_line() {
        let device = device(&like());
        let zeros = |shape: &[usize]| Tensor::zeros_on(device, shape, DType::F32).unwrap();
        let (weight, bias) = (zeros(&[32]), zeros(&[32]));
        let norm = |samples| {
            let x = zeros(&[samples, 1, 1, 32]);
            ops::group_norm(&Cx::off(), &x, &weight, &bias, 32, 1e-6, false).map(|_| ())
        };
        norm(65_535).unwrap();
        let e = norm(65_536).unwrap_err();
        assert!(matches!(e, crate::Error::TooMany(_)), "{e}");
        assert!(e.to_string().contains("65535"), "{e}");
    }
}
