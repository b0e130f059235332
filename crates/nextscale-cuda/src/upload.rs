//! Bytes on their way to a GPU beside its work: page-locked memory and a stream of their own, so that the next batch
//! travels while this one is computed with.

use crate::codes::Checked;
use crate::driver;
use crate::dry::Ask;
use crate::gpu::Gpu;
use crate::graph::StreamGuard;
use crate::matmul::DevicePtr;
use crate::pinned::{Event, Pinned, send};
use crate::pool::DeviceBuffer;
use crate::{Error, Result};
use cudarc::driver::sys;

/// Copies under way at once: one that work waits for, one behind it.
const SLOTS: usize = 2;
/// Pieces of a copy begin at multiples of this many bytes, for vector loads.
const ALIGN: usize = 16;

/// A stream of copies to one GPU.
#[derive(Debug)]
pub struct CopyStream {
    gpu: &'static Gpu,
    stream: sys::CUstream,
    slots: [Option<Slot>; SLOTS],
    next: usize,
}

// SAFETY: streams may be used from any thread (CUDA driver API); calls that need a current context bind it first.
unsafe impl Send for CopyStream {}

#[derive(Debug)]
struct Slot {
    host: Pinned,
    device: DeviceBuffer,
    /// After the copy, in the copies' stream.
    copied: Event,
    /// After the last work that reads it, in the GPU's stream.
    read: Event,
}

impl Slot {
    fn new(gpu: &'static Gpu, bytes: usize) -> Result<Self> {
        let slot = Self {
            host: Pinned::new(gpu, bytes)?,
            device: DeviceBuffer::new(gpu, bytes)?,
            copied: Event::new(gpu)?,
            read: Event::new(gpu)?,
        };
        // The block may still be read by work that was asked for before.
        slot.read.record(gpu.stream())?;
        Ok(slot)
    }

    /// Copies in `stream` and asks for the work that reads what comes.
    fn send<T, E: From<Error>>(
        &mut self,
        stream: sys::CUstream,
        pieces: &[&[u8]],
        read: impl FnOnce(&DeviceBuffer, &[usize]) -> Result<T, E>,
    ) -> Result<T, E> {
        let gpu = self.device.gpu();
        let (starts, bytes) = layout(pieces);
        for (piece, &at) in pieces.iter().zip(&starts) {
            self.host.bytes_mut()[at..at + piece.len()].copy_from_slice(piece);
        }
        self.read.hold(stream)?;
        if bytes > 0 {
            let address = DevicePtr(&self.device, 0).holds(gpu, "a copy", bytes)?;
            let from = &self.host.bytes()[..bytes];
            // SAFETY: both ranges are as long as said; the source is not touched again until `copied` is passed, and the
            // target's readers before have passed `read`, which the stream waits for.
            unsafe { send(gpu, address, from, stream) }?;
        }
        self.copied.record(stream)?;
        self.copied.hold(gpu.stream())?;
        let out = read(&self.device, &starts)?;
        self.read.record(gpu.stream())?;
        Ok(out)
    }
}

/// Where each piece begins in a copy, and the length of all.
fn layout(pieces: &[&[u8]]) -> (Vec<usize>, usize) {
    let mut end = 0usize;
    let starts = pieces.iter().map(|piece| {
        let at = end.next_multiple_of(ALIGN);
        end = at + piece.len();
        at
    });
    (starts.collect(), end)
}

impl CopyStream {
    /// Copies to this GPU.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn new(gpu: &'static Gpu) -> Result<Self> {
        let _guard = StreamGuard::take();
        gpu.bind()?;
        let stream = match gpu.dry() {
            Some(_) => std::ptr::null_mut(),
            None => driver::stream::create().doing("making a stream")?,
        };
        Ok(Self {
            gpu,
            stream,
            slots: [const { None }; SLOTS],
            next: 0,
        })
    }

    /// Sends pieces of bytes in one copy, and asks with `read` for the work that reads them from the buffer in which they arrive, each
    /// from where it begins. Waits for nothing but the copy before the last.
    ///
    /// # Errors
    /// When memory is full, the driver refuses, or `read` fails.
    pub fn send<T, E: From<Error>>(
        &mut self,
        pieces: &[&[u8]],
        read: impl FnOnce(&DeviceBuffer, &[usize]) -> Result<T, E>,
    ) -> Result<T, E> {
        let _guard = StreamGuard::take();
        let gpu = self.gpu;
        gpu.outside_capture("a copy to the GPU")?;
        let bytes = layout(pieces).1;
        let place = &mut self.slots[self.next];
        self.next = (self.next + 1) % SLOTS;
        if let Some(slot) = place {
            slot.copied.wait()?;
        }
        let slot = match place {
            Some(slot) if slot.host.len() >= bytes && slot.device.bytes() >= bytes => slot,
            _ => place.insert(Slot::new(gpu, bytes)?),
        };
        let sent = slot.send(self.stream, pieces, read);
        if sent.is_err() {
            // What was begun is marked in no stream: the slot goes back only when both are done.
            let done = synchronize(gpu, self.stream).and_then(|()| gpu.synchronize());
            match place.take() {
                Some(slot) if done.is_err() => std::mem::forget(slot),
                _ => {}
            }
        }
        sent
    }
}

fn synchronize(gpu: &Gpu, stream: sys::CUstream) -> Result<()> {
    if let Some(dry) = gpu.dry() {
        return dry.answer(Ask::Wait);
    }
    gpu.bind()?;
    // SAFETY: the stream lives as long as the copies' owner.
    unsafe { driver::stream::synchronize(stream) }.doing("copying to the GPU")
}

impl Drop for CopyStream {
    fn drop(&mut self) {
        // Memory goes back only when no copy touches it any more.
        for place in &mut self.slots {
            match place.take() {
                Some(slot) if slot.copied.wait().is_err() => std::mem::forget(slot),
                _ => {}
            }
        }
        if self.stream.is_null() {
            return;
        }
        let _ = self.gpu.bind();
        // SAFETY: destroyed once; its copies are done.
        let _ = unsafe { driver::stream::destroy(self.stream) };
    }
}
