//! Sums and copies among GPUs, one a process: NCCL.
//!
//! A [`Communicator`] has a stream of its own. What is asked of it begins when everything that was asked of the GPU's stream
//! before is done, and the GPU's stream goes on beside it; [`Communicator::join`] makes that one wait. So sums of gradients
//! travel while the rest of the backward pass computes.
//!
//! # Buffers
//!
//! The pool hands a buffer out again as soon as its holder lets go, since all work is in one stream. Here it is in another: a
//! communicator therefore holds every buffer that it was given until `join`, and dropping one before is harmless. What the
//! caller has to see to is that *between* a call and `join` nothing else writes into these ranges or reads them. A gradient that
//! is summed after its last addition and read after `join` keeps to that.
//!
//! # Waiting
//!
//! Calls return when the work is in the stream. The first of a kind also connects the members, and so waits for all of them to
//! make the same call. A member that is lost is never noticed by waiting on the GPU alone: its partners' kernels go on for
//! ever. Whoever notices calls [`Communicator::abort`] from any other thread: calls that wait return an error, and the kernels
//! end, so that waits for the GPU return too. Values are then worth nothing, which [`Communicator::check`] tells after a wait.
//!
//! All members make the same calls in the same order. One thread at a time makes them; `abort` and `check` may come from others.
//!
//! # The same bits
//!
//! Every member gets the same sum, bit for bit, and gets it again in a run that is repeated with as many members, the same GPUs
//! and links between them, and the same version of NCCL: the library chooses an algorithm, a protocol and a number of channels
//! from these and the length, and each adds in a fixed order. With two members any order is the same. More members, other
//! lengths of the pieces or another machine may add in another order. So may the variables `NCCL_ALGO`, `NCCL_PROTO`,
//! `NCCL_MIN_NCHANNELS`, `NCCL_MAX_NCHANNELS`, `NCCL_NTHREADS`, `NCCL_BUFFSIZE` and `NCCL_TUNER_PLUGIN`, and
//! `NCCL_NVLS_ENABLE`: by default, NVLink switches that can add do so, in an order of their own; 0 leaves the sums to the GPUs.
//! A sum that has to be the same on any number of members is to be formed from gathered values in a fixed order instead.
//!
//! # Profiles
//!
//! Times of a profile are those of the GPU's stream and add up, so what a communicator does beside it has no row. What it
//! costs has: `nccl wait`, the time that `join` makes the GPU's stream wait.

mod functions;
#[cfg(test)]
mod tests;

use crate::bindings::nccl as raw;
use crate::codes::Checked;
use crate::driver;
use crate::gpu::Gpu;
use crate::graph::StreamGuard;
use crate::libraries::{Library, Version};
use crate::matmul::DevicePtr;
use crate::pinned::Event;
use crate::pool::Block;
use crate::work::Work;
use crate::{Error, Result};
use cudarc::driver::sys::CUstream;
use functions::{Comm, SUM, error, may_wait, pause};
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Most time that the last work of a communicator that is dropped is waited for.
const LAST_WORK: Duration = Duration::from_secs(10);

/// What the members of one communicator know each other by: made by one of them, and brought to the others by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UniqueId([u8; 128]);

impl UniqueId {
    /// The one that these bytes are.
    pub fn from_bytes(bytes: [u8; 128]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; 128] {
        &self.0
    }
}

/// A new identity for one communicator. The process listens for that one's members from now on and must live until all of them
/// have theirs; `NCCL_SOCKET_IFNAME` names the network that it listens on.
///
/// # Errors
/// When NCCL is missing, older than 2.14, or finds no network.
pub fn unique_id() -> Result<UniqueId> {
    Library::Nccl.required()?;
    functions::identity().map(UniqueId)
}

/// What a call does with its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As [`Communicator::all_reduce`].
    AllReduce,
    /// As [`Communicator::reduce_scatter`], `count` values a part.
    ReduceScatter,
    /// As [`Communicator::all_gather`], `count` values a part.
    AllGather,
    /// As [`Communicator::broadcast`].
    Broadcast {
        /// Whose values they are.
        root: usize,
    },
}

impl Kind {
    fn function(self) -> &'static str {
        match self {
            Self::AllReduce => "ncclAllReduce",
            Self::ReduceScatter => "ncclReduceScatter",
            Self::AllGather => "ncclAllGather",
            Self::Broadcast { .. } => "ncclBroadcast",
        }
    }
}

/// The type of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// float16.
    F16,
    /// bfloat16.
    Bf16,
    /// float32.
    F32,
    /// float64.
    F64,
}

impl Element {
    /// The library's number for it (ncclDataType_t).
    fn number(self) -> u32 {
        match self {
            Self::F16 => 6,
            Self::F32 => 7,
            Self::F64 => 8,
            Self::Bf16 => 9,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

/// One of several calls that are made at once.
#[derive(Clone, Copy, Debug)]
pub struct Collective<'a> {
    /// What is done.
    pub kind: Kind,
    /// Where the values are.
    pub values: DevicePtr<'a>,
    /// How many, or how many a part.
    pub count: usize,
    /// Their type.
    pub element: Element,
}

/// One member of a group of GPUs that sum and exchange numbers; see [the module](crate::nccl).
///
/// When dropped it waits for its last work, some seconds at most, and gives itself up where that does not end.
#[derive(Debug)]
pub struct Communicator {
    gpu: &'static Gpu,
    rank: usize,
    size: usize,
    comm: Comm,
    stream: Stream,
    /// After what was asked of the GPU's stream before the latest call.
    before: Event,
    /// After what was asked of this one's stream before the latest `join`.
    after: Event,
    /// What the work since the last `join` uses. Held through a call, so that calls follow each other.
    used: Mutex<Vec<Arc<Block>>>,
}

/// A stream; null on a dry GPU.
#[derive(Clone, Copy, Debug)]
struct Stream(CUstream);
// SAFETY: streams may be used from any thread (CUDA driver API); calls that need a current context bind it first.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Communicator {
    /// The member `rank` of `size`, on a GPU that no other member has. Returns when all members are there. `wait` is asked every
    /// few milliseconds until then, and its error ends the wait, as does `deadline`. On a dry GPU nobody is waited for, and calls
    /// are only checked.
    ///
    /// # Errors
    /// When NCCL is missing or older than 2.14, when it can't reach the other members or these do not come in time, or with the
    /// error of `wait`.
    pub fn new(
        gpu: &'static Gpu,
        rank: usize,
        size: usize,
        id: &UniqueId,
        wait: &dyn Fn() -> Result<()>,
        deadline: Duration,
    ) -> Result<Self> {
        gpu.outside_capture("NCCL")?;
        let numbers = (i32::try_from(rank), i32::try_from(size));
        let (Ok(r), Ok(s), true) = (numbers.0, numbers.1, rank < size) else {
            return Err(error(format_args!("there is no rank {rank} of {size}")));
        };
        let (before, after) = (Event::new(gpu)?, Event::new(gpu)?);
        let (comm, stream) = if gpu.is_dry() {
            (Comm::dry(gpu), std::ptr::null_mut())
        } else {
            Library::Nccl.required()?;
            may_wait()?;
            let begun = Instant::now();
            let look = || {
                wait()?;
                if begun.elapsed() >= deadline {
                    return Err(error(format_args!(
                        "ncclCommInitRankConfig: rank {rank} waited {} s for the other ranks of {size}",
                        deadline.as_secs_f32()
                    )));
                }
                Ok(())
            };
            let comm = Comm::start(gpu, &id.0, [r, s], look)?;
            gpu.bind()?;
            // Its few blocks begin before those of a product that is under way: the other members wait for them.
            (
                comm,
                driver::stream::create_first().doing("making a stream")?,
            )
        };
        Ok(Self {
            gpu,
            rank,
            size,
            comm,
            stream: Stream(stream),
            before,
            after,
            used: Mutex::default(),
        })
    }

    /// The GPU.
    pub fn gpu(&self) -> &'static Gpu {
        self.gpu
    }

    /// Which member it is, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many members there are.
    pub fn size(&self) -> usize {
        self.size
    }

    /// NCCL's version; `None` where there is none that can be used.
    pub fn version() -> Option<Version> {
        Library::Nccl.version()
    }

    /// Sums `count` float32 values over all members, in place.
    ///
    /// # Errors
    /// When they are not all there, a graph is captured, NCCL refuses, or the communicator is or becomes aborted.
    pub fn all_reduce(&self, values: DevicePtr<'_>, count: usize) -> Result<()> {
        self.call(Kind::AllReduce, values, count)
    }

    /// Sums `each`·size float32 values over all members and leaves part `rank` of the sum, `each` values, in its place. The other
    /// parts hold nothing afterwards. Lengths that do not divide are the caller's to pad.
    ///
    /// # Errors
    /// As [`Communicator::all_reduce`].
    pub fn reduce_scatter(&self, values: DevicePtr<'_>, each: usize) -> Result<()> {
        self.call(Kind::ReduceScatter, values, each)
    }

    /// Fills `each`·size float32 values: part r comes from member r, who has it in its place.
    ///
    /// # Errors
    /// As [`Communicator::all_reduce`].
    pub fn all_gather(&self, values: DevicePtr<'_>, each: usize) -> Result<()> {
        self.call(Kind::AllGather, values, each)
    }

    /// Gives all members the `count` float32 values of member `root`.
    ///
    /// # Errors
    /// As [`Communicator::all_reduce`], or when there is no such member.
    pub fn broadcast(&self, values: DevicePtr<'_>, count: usize, root: usize) -> Result<()> {
        if root >= self.size {
            let text = format!("there is no rank {root} of {}", self.size);
            return Err(error(text));
        }
        self.call(Kind::Broadcast { root }, values, count)
    }

    fn call(&self, kind: Kind, values: DevicePtr<'_>, count: usize) -> Result<()> {
        self.together(&[Collective {
            kind,
            values,
            count,
            element: Element::F32,
        }])
    }

    /// Makes several calls at once, behind what was asked of the GPU's stream: NCCL makes one of them.
    ///
    /// # Errors
    /// As [`Communicator::all_reduce`]; none of them is made then, or the communicator is broken.
    pub fn together(&self, calls: &[Collective<'_>]) -> Result<()> {
        let name = calls.first().map_or("NCCL", |c| c.kind.function());
        self.gpu.outside_capture(name)?;
        let ranges = calls.iter().map(|c| self.range_of(c));
        let ranges = ranges.collect::<Result<Vec<_>>>()?;
        let mut used = self.used();
        self.comm.check()?;
        let full: Vec<_> = calls.iter().zip(ranges).filter(|(_, r)| r.1 > 0).collect();
        if full.is_empty() {
            return Ok(());
        }
        used.extend(full.iter().map(|(c, _)| Arc::clone(c.values.0.block())));
        if self.gpu.is_dry() {
            return Ok(());
        }
        {
            // Only for as long as the GPU's stream is touched: another thread's capture must not wait for other members.
            let _guard = StreamGuard::take();
            self.before.record(self.gpu.stream())?;
        }
        self.before.hold(self.stream.0)?;
        let asked = |(call, (address, _)): &(&Collective<'_>, (u64, usize)), comm| {
            self.ask(call, *address, comm)
        };
        match &full[..] {
            [one] => self.comm.ask(name, |comm| asked(one, comm)),
            several => {
                let calls = several.iter().map(|c| move |comm| asked(c, comm));
                self.comm.ask_together(calls)
            }
        }
    }

    /// Where a call's values are, and how many bytes.
    fn range_of(&self, call: &Collective<'_>) -> Result<(u64, usize)> {
        let name = call.kind.function();
        let parts = match call.kind {
            Kind::AllReduce | Kind::Broadcast { .. } => 1,
            Kind::ReduceScatter | Kind::AllGather => self.size,
        };
        let count = call.count.checked_mul(parts);
        let bytes = count.and_then(|n| n.checked_mul(call.element.bytes()));
        let bytes =
            bytes.ok_or_else(|| Error::TooMany(format!("NCCL: {name}: too many values")))?;
        let address = call.values.holds(self.gpu, name, bytes)?;
        if !address.is_multiple_of(call.element.bytes() as u64) {
            let text = format!("{name}: values begin at byte {} of a buffer", call.values.1);
            return Err(error(text));
        }
        Ok((address, bytes))
    }

    /// Asks the library for one call on values that are at `at`.
    fn ask(&self, call: &Collective<'_>, at: u64, comm: raw::Comm) -> u32 {
        let (count, element, stream) = (call.count, call.element.number(), self.stream.0);
        let own = at + (self.rank * call.count * call.element.bytes()) as u64;
        let (whole, whole_mut) = (at as *const c_void, at as *mut c_void);
        // SAFETY: the handle lives during the call; the range is as long as `range_of` found and held until `join`; a member's part
        // lies within it; a root is less than the size, which fits.
        unsafe {
            match call.kind {
                Kind::AllReduce => {
                    raw::ncclAllReduce(whole, whole_mut, count, element, SUM, comm, stream)
                }
                Kind::ReduceScatter => {
                    let to = own as *mut c_void;
                    raw::ncclReduceScatter(whole, to, count, element, SUM, comm, stream)
                }
                Kind::AllGather => {
                    let from = own as *const c_void;
                    raw::ncclAllGather(from, whole_mut, count, element, comm, stream)
                }
                Kind::Broadcast { root } => {
                    let root = root as i32;
                    raw::ncclBroadcast(whole, whole_mut, count, element, root, comm, stream)
                }
            }
        }
    }

    /// Makes the GPU's stream wait for everything that was asked of this communicator so far.
    ///
    /// # Errors
    /// When a graph is captured, the driver refuses, or the communicator is broken or aborted.
    pub fn join(&self) -> Result<()> {
        self.gpu.outside_capture("waiting for NCCL")?;
        let mut used = self.used();
        self.comm.check()?;
        if used.is_empty() {
            return Ok(());
        }
        if !self.gpu.is_dry() {
            let _guard = StreamGuard::take();
            let _scope = self.gpu.scope("nccl wait", Work::default);
            self.after.record(self.stream.0)?;
            self.after.hold(self.gpu.stream())?;
        }
        // Whoever gets the memory next comes later in the GPU's stream.
        used.clear();
        Ok(())
    }

    /// Succeeds unless NCCL has found it broken, as when a member is lost that is reached by a network, or it was aborted.
    ///
    /// # Errors
    /// What NCCL says of it.
    pub fn check(&self) -> Result<()> {
        self.comm.check()
    }

    /// Gives it up: work under way ends with worthless values, and later calls are errors. From any thread; a second time does
    /// nothing. Takes some seconds at most. The other members do not learn of it.
    pub fn abort(&self) {
        self.comm.abort();
    }

    fn used(&self) -> MutexGuard<'_, Vec<Arc<Block>>> {
        self.used.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Waits a while for what is in the stream; whether it is done.
    fn ends_by_itself(&self) -> bool {
        if self.comm.check().is_err() || self.after.record(self.stream.0).is_err() {
            return false;
        }
        let begun = Instant::now();
        while !self.after.has_passed() {
            if begun.elapsed() >= LAST_WORK {
                return false;
            }
            pause(begun.elapsed());
        }
        true
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        if self.gpu.is_dry() {
            return;
        }
        if self.ends_by_itself() {
            self.comm.finish();
        } else {
            self.comm.abort();
        }
        let used = std::mem::take(&mut *self.used());
        // SAFETY: the stream lives until the end of this function.
        let over = !self.comm.is_stuck()
            && self.gpu.bind().is_ok()
            && unsafe { driver::stream::synchronize(self.stream.0) }.is_ok();
        if !over {
            // Kernels may still use them.
            std::mem::forget(used);
            return;
        }
        // SAFETY: destroyed once; its work is done.
        let _ = unsafe { driver::stream::destroy(self.stream.0) };
    }
}
