//! Device memory: blocks are taken from the driver once and then handed out again and again.
//!
//! All work of a GPU is in one stream, so a block may be handed out as soon as its last holder lets go: what the new
//! holder does comes after what the old one asked for. Memory of captured graphs is kept apart ([`super::graph`]).

use super::error::Checked;
use super::gpu::Gpu;
use super::graph::{self, Arena, Turn};
use crate::Result;
use cudarc::driver::result;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Sizes are rounded up to this many bytes; also the alignment.
const GRAIN: usize = 512;
/// Above this size, blocks are rounded up to it, so that slightly different sizes share blocks.
const LARGE: usize = 2 << 20;

/// The free blocks of one GPU and what was taken from the driver.
#[derive(Debug, Default)]
pub(super) struct Pool {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Addresses of free blocks by size.
    free: BTreeMap<usize, Vec<u64>>,
    /// Bytes handed out now, bytes taken from the driver, and the most handed out at once.
    used: usize,
    held: usize,
    peak: usize,
    /// How often the driver was asked.
    calls: u64,
}

/// What a pool holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// Bytes in buffers that are alive.
    pub used: usize,
    /// Bytes taken from the driver.
    pub held: usize,
    /// The most bytes alive at once, ever or since [`Gpu::restart_peak`].
    pub peak: usize,
    /// How often the driver was asked for memory: constant in a steady state.
    pub driver_calls: u64,
}

/// Bytes on a GPU; they go back to its pool when dropped.
#[derive(Debug)]
pub struct DeviceBuffer {
    gpu: &'static Gpu,
    address: u64,
    bytes: usize,
    block: usize,
    /// Of buffers that were made while a graph was captured: where the memory belongs.
    arena: Option<Arc<Arena>>,
}

impl DeviceBuffer {
    /// A buffer of `bytes` with unspecified content.
    ///
    /// # Errors
    /// When the GPU's memory is full.
    pub fn new(gpu: &'static Gpu, bytes: usize) -> Result<Self> {
        let block = block_size(bytes);
        let (address, arena) = graph::take(gpu, block)?;
        Ok(Self {
            gpu,
            address,
            bytes,
            block,
            arena,
        })
    }

    /// Where it is.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The GPU that it is on.
    pub fn gpu(&self) -> &'static Gpu {
        self.gpu
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        match &self.arena {
            Some(arena) => arena.give(self.address, self.block),
            None => graph::give_back(self.gpu, self.address, self.block),
        }
    }
}

fn block_size(bytes: usize) -> usize {
    let grain = if bytes > LARGE { LARGE } else { GRAIN };
    bytes.max(1).next_multiple_of(grain)
}

impl Pool {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn take(&self, gpu: &Gpu, block: usize) -> Result<u64> {
        // Before the lock: a thread that captures a graph must not wait for one that waits for the capture.
        let _turn = Turn::take();
        let mut s = self.state();
        let found = s.free.get_mut(&block).and_then(Vec::pop);
        let address = match found {
            Some(address) => address,
            None => {
                gpu.bind()?;
                s.calls += 1;
                // SAFETY: a context is current; the block is freed only by `release`.
                let first = unsafe { result::malloc_sync(block) };
                let address = match first {
                    Ok(address) => address,
                    // What lies free in other sizes may make room.
                    Err(_) if s.held > s.used && !gpu.captures() => {
                        release(gpu, &mut s)?;
                        // SAFETY: as above.
                        unsafe { result::malloc_sync(block) }
                            .doing(&format!("taking {} MiB on the GPU", block >> 20))?
                    }
                    Err(e) => {
                        return Err(e).doing(&format!("taking {} MiB on the GPU", block >> 20));
                    }
                };
                s.held += block;
                address
            }
        };
        s.used += block;
        s.peak = s.peak.max(s.used);
        Ok(address)
    }

    pub(super) fn give(&self, address: u64, block: usize) {
        let mut s = self.state();
        s.used -= block;
        s.free.entry(block).or_default().push(address);
    }

    pub(super) fn usage(&self) -> PoolUse {
        let s = self.state();
        PoolUse {
            used: s.used,
            held: s.held,
            peak: s.peak,
            driver_calls: s.calls,
        }
    }
}

impl Gpu {
    /// Counts the most bytes in use anew, from what is in use now.
    pub fn restart_peak(&self) {
        let mut s = self.pool().state();
        s.peak = s.used;
    }

    /// Gives memory that nothing holds back to the driver, for work of other sizes.
    ///
    /// # Errors
    /// When work before it failed, or the calling thread captures a graph.
    pub fn trim(&self) -> Result<()> {
        let _turn = Turn::take();
        self.outside_capture("giving memory back")?;
        release(self, &mut self.pool().state())
    }
}

/// Gives free blocks back to the driver.
fn release(gpu: &Gpu, s: &mut State) -> Result<()> {
    gpu.synchronize()?;
    for (size, list) in std::mem::take(&mut s.free) {
        for address in list {
            // SAFETY: the block came from `malloc_sync`, nobody holds it, and all work on it is done.
            unsafe { result::free_sync(address) }.doing("giving memory back")?;
            s.held -= size;
        }
    }
    Ok(())
}
