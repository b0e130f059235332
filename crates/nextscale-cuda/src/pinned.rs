//! Page-locked host memory, and copies from a GPU that nobody waits for until the values are needed.
//!
//! The driver waits for the GPU when such memory is taken, so blocks are kept and handed out again.

use crate::Result;
use crate::codes::Checked;
use crate::driver::{event, memory, stream};
use crate::dry::Ask;
use crate::gpu::Gpu;
use crate::graph::StreamGuard;
use crate::matmul::DevicePtr;
use cudarc::driver::sys;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

/// Sizes are rounded up to this many bytes.
const GRAIN: usize = 4096;

/// Free blocks by GPU and size, as addresses.
static FREE: Mutex<BTreeMap<(usize, usize), Vec<usize>>> = Mutex::new(BTreeMap::new());

/// Page-locked bytes; they go back to be used again when dropped.
#[derive(Debug)]
pub(crate) struct Pinned {
    gpu: &'static Gpu,
    address: usize,
    block: usize,
    /// A copy may still use it: it is never handed out again.
    lost: bool,
}

impl Pinned {
    /// At least `bytes` with unspecified content.
    pub(crate) fn new(gpu: &'static Gpu, bytes: usize) -> Result<Self> {
        let block = bytes.max(1).next_multiple_of(GRAIN);
        let key = (gpu.info().ordinal, block);
        let free = || FREE.lock().unwrap_or_else(|e| e.into_inner());
        let found = free().get_mut(&key).and_then(Vec::pop);
        let address = match found {
            Some(address) => address,
            None => {
                gpu.bind()?;
                // Never freed; any GPU may use it. A dry one has ordinary memory.
                let taken = match gpu.dry() {
                    Some(_) => Box::leak(vec![0u8; block].into_boxed_slice())
                        .as_mut_ptr()
                        .cast(),
                    None => memory::take_pinned(block).doing("taking page-locked memory")?,
                };
                // SAFETY: the block is as long as said; defined content makes slices of it sound.
                unsafe { taken.cast::<u8>().write_bytes(0, block) };
                taken as usize
            }
        };
        Ok(Self {
            gpu,
            address,
            block,
            lost: false,
        })
    }

    /// Keeps it from being used again where waiting for its copies failed.
    fn settle(&mut self, waited: Result<()>) {
        self.lost |= waited.is_err();
    }

    /// Its length.
    pub(crate) fn len(&self) -> usize {
        self.block
    }

    /// The bytes. No copy into them may be under way.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the block is as long as said, initialised, and nobody else's while this lives.
        unsafe { std::slice::from_raw_parts(self.address as *const u8, self.block) }
    }

    /// The bytes for writing. No copy out of them may be under way.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the borrow is the only one.
        unsafe { std::slice::from_raw_parts_mut(self.address as *mut u8, self.block) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.lost {
            return;
        }
        let key = (self.gpu.info().ordinal, self.block);
        let mut free = FREE.lock().unwrap_or_else(|e| e.into_inner());
        free.entry(key).or_default().push(self.address);
    }
}

/// A mark in a stream.
#[derive(Debug)]
pub(crate) struct Event {
    gpu: &'static Gpu,
    handle: sys::CUevent,
}

// SAFETY: events may be used from any thread (CUDA driver API); calls that need a current context bind it first.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    /// One that counts as passed until it is recorded.
    pub(crate) fn new(gpu: &'static Gpu) -> Result<Self> {
        if gpu.dry().is_some() {
            let handle = std::ptr::null_mut();
            return Ok(Self { gpu, handle });
        }
        gpu.bind()?;
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING;
        let handle = event::create(flags).doing("making an event")?;
        Ok(Self { gpu, handle })
    }

    /// Marks what was put into `stream` so far.
    pub(crate) fn record(&self, stream: sys::CUstream) -> Result<()> {
        if let Some(dry) = self.gpu.dry() {
            return dry.answer(Ask::Mark);
        }
        self.gpu.bind()?;
        // SAFETY: event and stream live.
        unsafe { event::record(self.handle, stream) }.doing("marking the stream")
    }

    /// Makes what comes next in `stream` wait for the mark.
    pub(crate) fn hold(&self, stream: sys::CUstream) -> Result<()> {
        if self.gpu.dry().is_some() {
            return Ok(());
        }
        self.gpu.bind()?;
        // SAFETY: event and stream live.
        unsafe { stream::wait_event(stream, self.handle) }.doing("ordering streams")
    }

    /// Whether the mark is passed; it counts as passed where nobody can tell or the GPU failed, for [`Event::wait`] to say so.
    pub(crate) fn has_passed(&self) -> bool {
        if let Some(dry) = self.gpu.dry() {
            return dry.answer(Ask::Look).is_ok();
        }
        // SAFETY: the event lives.
        self.gpu.bind().is_err() || unsafe { event::has_passed(self.handle) }
    }

    /// Returns when the mark is passed.
    pub(crate) fn wait(&self) -> Result<()> {
        if let Some(dry) = self.gpu.dry() {
            return dry.answer(Ask::Wait);
        }
        self.gpu.bind()?;
        // SAFETY: the event lives.
        unsafe { event::synchronize(self.handle) }.doing("computing on the GPU")
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.handle.is_null() {
            return;
        }
        // SAFETY: destroyed once; the driver keeps what a stream still needs of it.
        let _ = unsafe { event::destroy(self.handle) };
    }
}

/// Asks for a copy to an address of `gpu` that has room for the bytes.
///
/// # Safety
/// The address is one of `gpu` with so much room; the bytes stay as they are until the copy is done.
pub(crate) unsafe fn send(
    gpu: &Gpu,
    address: u64,
    bytes: &[u8],
    stream: sys::CUstream,
) -> Result<()> {
    if let Some(dry) = gpu.dry() {
        return dry.answer(Ask::Copy(bytes.as_ptr() as usize));
    }
    gpu.bind()?;
    // SAFETY: as the caller says.
    unsafe { memory::upload(address, bytes, stream) }.doing("copying to the GPU")
}

/// Most bytes that are copied aside and sent without waiting; longer ones are waited for.
const ASIDE: usize = 1 << 20;

/// Small copies to GPUs that may be under way, the oldest first.
static SENT: Mutex<VecDeque<(Pinned, Event)>> = Mutex::new(VecDeque::new());

/// Most of them.
const MOST_SENT: usize = 64;

/// Copies bytes to an address of `gpu`, in its stream; they may be changed when this returns. On machines whose GPU reads
/// ordinary memory by itself, the driver need not have read them by then, so they go by way of page-locked memory.
pub(crate) fn upload(gpu: &'static Gpu, bytes: &[u8], address: u64) -> Result<()> {
    if bytes.len() > ASIDE {
        // SAFETY: the caller's target is as long as the source, which outlives the copy because of the wait.
        let sent = unsafe { send(gpu, address, bytes, gpu.stream()) };
        let done = gpu.synchronize();
        return sent.and(done);
    }
    let mut sent = SENT.lock().unwrap_or_else(|e| e.into_inner());
    while let Some((mut host, event)) = sent.pop_front() {
        if sent.len() + 1 < MOST_SENT && !event.has_passed() {
            sent.push_front((host, event));
            break;
        }
        host.settle(event.wait());
    }
    let mut host = Pinned::new(gpu, bytes.len())?;
    let event = Event::new(gpu)?;
    host.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
    let from = &host.bytes()[..bytes.len()];
    // SAFETY: both ranges are as long as said; the source is not touched until the event after the copy is passed.
    let asked = unsafe { send(gpu, address, from, gpu.stream()) };
    if let Err(e) = asked.and_then(|()| event.record(gpu.stream())) {
        host.settle(gpu.synchronize());
        return Err(e);
    }
    sent.push_back((host, event));
    Ok(())
}

/// Bytes on their way from a GPU.
#[derive(Debug)]
pub struct HostCopy {
    host: Pinned,
    bytes: usize,
    done: Event,
}

impl Gpu {
    /// Starts a copy of bytes from a place without waiting for it.
    ///
    /// # Errors
    /// When there are not so many, the GPU refuses, or memory is full.
    pub fn copy_to_host(&'static self, from: DevicePtr<'_>, bytes: usize) -> Result<HostCopy> {
        let _guard = StreamGuard::take();
        self.outside_capture("a copy from the GPU")?;
        let mut host = Pinned::new(self, bytes)?;
        let done = Event::new(self)?;
        let address = from.holds(self, "a copy", bytes)?;
        let mut asked = Ok(());
        if bytes > 0 {
            let to = &mut host.bytes_mut()[..bytes];
            asked = match self.dry() {
                Some(dry) => dry.answer(Ask::Copy(to.as_ptr() as usize)),
                None => self.bind().and_then(|()| {
                    // SAFETY: both ranges are as long as said. The target is not touched until the event after the copy is passed.
                    unsafe { memory::download(to, address, self.stream()) }
                        .doing("copying from the GPU")
                }),
            };
        }
        if let Err(e) = asked.and_then(|()| done.record(self.stream())) {
            host.settle(self.synchronize());
            return Err(e);
        }
        Ok(HostCopy { host, bytes, done })
    }
}

impl HostCopy {
    /// The bytes; returns when they are there.
    ///
    /// # Errors
    /// When the GPU failed.
    pub fn wait(&self) -> Result<&[u8]> {
        self.done.wait()?;
        Ok(&self.host.bytes()[..self.bytes])
    }
}

impl Drop for HostCopy {
    fn drop(&mut self) {
        // The memory may be handed out again at once.
        self.host.settle(self.done.wait());
    }
}

#[cfg(test)]
mod tests;
