//! Device memory: blocks are taken from the driver once and then handed out again and again.
//!
//! All work of a GPU is in one stream, so a block may be handed out as soon as its last holder lets go: what the new
//! holder does comes after what the old one asked for. Memory of captured graphs is kept apart ([`crate::graph`]).

use crate::codes::{self, Checked};
use crate::driver::{Answer, DriverError, memory};
use crate::dry::Recycling;
use crate::gapped::Gapped;
use crate::gpu::Gpu;
use crate::graph::{self, Arena, StreamGuard};
use crate::matmul::DevicePtr;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// Sizes are rounded up to this many bytes; also the alignment.
const GRAIN: usize = 512;
/// Above this size, blocks are rounded up to it, so that slightly different sizes share blocks.
const LARGE: usize = 2 << 20;

/// The free blocks of one GPU and what was taken from the driver.
#[derive(Debug, Default)]
pub(crate) struct Pool {
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
    /// Of a dry run: bytes that were ever given addresses.
    numbered: u64,
}

/// What a pool holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// Bytes in buffers that are alive.
    pub used: usize,
    /// Bytes taken from the driver.
    pub held: usize,
    /// The most bytes alive at once, ever or since [`Gpu::reset_peak`].
    pub peak: usize,
    /// How often the driver was asked for memory: constant in a steady state.
    pub driver_calls: u64,
}

/// Bytes on a GPU; they go back to its pool when dropped, and when the last graph that uses them is.
#[derive(Debug)]
pub struct DeviceBuffer {
    block: Arc<Block>,
    bytes: usize,
}

/// A block of the pool in use.
#[derive(Debug)]
pub(crate) struct Block {
    gpu: &'static Gpu,
    address: u64,
    size: usize,
    /// Of blocks that were taken while a graph was captured: where the memory belongs.
    pub(crate) arena: Option<Arc<Arena>>,
    /// Of blocks with gaps, which are none of the pool's.
    gapped: Option<Gapped>,
}

impl DeviceBuffer {
    /// A buffer of `bytes` with unspecified content.
    ///
    /// # Errors
    /// When the GPU's memory is full.
    pub fn new(gpu: &'static Gpu, bytes: usize) -> Result<Self> {
        let (address, size, arena) = if let Some(rules) = gpu.dry_cpu() {
            let (address, size) = gpu.pool().take_as_cpu(rules, bytes);
            (address, size, None)
        } else {
            let size = block_size(bytes)
                .ok_or_else(|| Error::Memory(format!("{bytes} bytes on a GPU")))?;
            let (address, arena) = graph::take(gpu, size)?;
            (address, size, arena)
        };
        let block = Arc::new(Block {
            gpu,
            address,
            size,
            arena,
            gapped: None,
        });
        Ok(Self { block, bytes })
    }

    /// A buffer that has addresses for `bytes` bytes and memory only behind the ranges of them that are `kept`, in pages of 2 MiB on
    /// today's GPUs. What is there is zero. Work that touches the gaps fails, and the GPU with it: the caller's to see to.
    ///
    /// # Errors
    /// When the GPU's memory is full, or a graph is captured.
    pub fn with_gaps(gpu: &'static Gpu, bytes: usize, kept: &[Range<usize>]) -> Result<Self> {
        let gapped = Gapped::new(gpu, bytes, kept)?;
        let backed = gapped.backed().to_vec();
        let block = Arc::new(Block {
            gpu,
            address: gapped.address(),
            size: bytes,
            arena: None,
            gapped: Some(gapped),
        });
        let buffer = Self { block, bytes };
        for pages in backed {
            let end = pages.end.min(bytes);
            gpu.zero(DevicePtr(&buffer, pages.start), end - pages.start)?;
        }
        Ok(buffer)
    }

    /// Where it is.
    pub fn address(&self) -> u64 {
        self.block.address
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The GPU that it is on.
    pub fn gpu(&self) -> &'static Gpu {
        self.block.gpu
    }

    pub(crate) fn block(&self) -> &Arc<Block> {
        &self.block
    }
}

impl Block {
    pub(crate) fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.gapped.is_some() {
            return;
        }
        match &self.arena {
            Some(arena) => arena.give(self.address, self.size),
            None => match self.gpu.dry_cpu() {
                Some(rules) => (self.gpu.pool()).give_as_cpu(rules, self.address, self.size),
                None => graph::give_back(self.gpu, self.address, self.size),
            },
        }
    }
}

fn block_size(bytes: usize) -> Option<usize> {
    let grain = if bytes > LARGE { LARGE } else { GRAIN };
    bytes.max(1).checked_next_multiple_of(grain)
}

impl Pool {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(crate) fn take(&self, gpu: &Gpu, block: usize) -> Result<u64> {
        // Before the lock: a thread that captures a graph must not wait for one that waits for the capture.
        let _guard = StreamGuard::take();
        let mut s = self.state();
        let found = s.free.get_mut(&block).and_then(Vec::pop);
        let address = match found {
            Some(address) => address,
            None => {
                s.calls += 1;
                let address = fresh(gpu, &mut s, block)?;
                s.held += block;
                address
            }
        };
        s.used += block;
        s.peak = s.peak.max(s.used);
        Ok(address)
    }

    pub(crate) fn give(&self, address: u64, block: usize) {
        let mut s = self.state();
        s.used -= block;
        s.free.entry(block).or_default().push(address);
    }

    /// A block of a dry CPU, and its size: what that one's pool would hand out. The peak is of all that it holds.
    fn take_as_cpu(&self, rules: Recycling, bytes: usize) -> (u64, usize) {
        let mut s = self.state();
        let floats = bytes.div_ceil(4);
        let fit = s.free.range(4 * floats..=4 * (rules.most)(floats)).next();
        let kept = fit.map(|(size, _)| *size);
        let found = kept.and_then(|size| Some((s.free.get_mut(&size)?.pop()?, size)));
        let (address, block) = found.unwrap_or_else(|| {
            let block = (4 * floats).max(4);
            s.held += block;
            let address = (1 << 40) + s.numbered;
            s.numbered += block_size(block).unwrap_or(block) as u64;
            (address, block)
        });
        if s.free.get(&block).is_some_and(Vec::is_empty) {
            s.free.remove(&block);
        }
        s.used += block;
        s.peak = s.peak.max(s.held);
        (address, block)
    }

    fn give_as_cpu(&self, rules: Recycling, address: u64, block: usize) {
        let mut s = self.state();
        s.used -= block;
        if (rules.keeps)(block / 4, (s.held - s.used - block) / 4, s.used / 4) {
            s.free.entry(block).or_default().push(address);
        } else {
            s.held -= block;
        }
    }

    /// Runs `take`, which takes `bytes` from the driver beside the pool, a second time where what lies free here may make room.
    pub(crate) fn beside(
        &self,
        gpu: &Gpu,
        bytes: usize,
        take: impl Fn() -> Answer<()>,
    ) -> Result<()> {
        let _guard = StreamGuard::take();
        gpu.outside_capture("a buffer with gaps")?;
        let mut s = self.state();
        s.calls += 1;
        if gpu.dry().is_none() {
            gpu.bind()?;
            let mut taken = take();
            if taken.is_err() && s.held > s.used {
                release(gpu, &mut s)?;
                taken = take();
            }
            taken.map_err(|e| refused(gpu, &s, bytes, &e))?;
        }
        s.held += bytes;
        s.used += bytes;
        s.peak = s.peak.max(if gpu.dry_cpu().is_some() {
            s.held
        } else {
            s.used
        });
        Ok(())
    }

    /// What was taken [`Pool::beside`] it is gone.
    pub(crate) fn no_longer_beside(&self, bytes: usize) {
        let mut s = self.state();
        s.held -= bytes;
        s.used -= bytes;
    }

    /// Addresses of a dry run for so many bytes.
    pub(crate) fn number(&self, bytes: usize) -> u64 {
        let mut s = self.state();
        let address = (1 << 40) + s.numbered;
        s.numbered += bytes as u64;
        address
    }

    pub(crate) fn reset_peak(&self) {
        let mut s = self.state();
        s.peak = s.used;
    }

    pub(crate) fn trim(&self, gpu: &Gpu) -> Result<()> {
        let _guard = StreamGuard::take();
        gpu.outside_capture("giving memory back")?;
        release(gpu, &mut self.state())
    }

    pub(crate) fn usage(&self) -> PoolUse {
        let s = self.state();
        PoolUse {
            used: s.used,
            held: s.held,
            peak: s.peak,
            driver_calls: s.calls,
        }
    }
}

/// A block that was not in the pool.
fn fresh(gpu: &Gpu, s: &mut State, block: usize) -> Result<u64> {
    if gpu.dry().is_some() {
        // Every block its own place, none at zero, all on grains.
        let address = (1 << 40) + s.numbered;
        s.numbered += block as u64;
        return Ok(address);
    }
    gpu.bind()?;
    // Freed only by `release`.
    let mut taken = memory::take(block);
    // What lies free in other sizes may make room.
    if taken.is_err() && s.held > s.used && !gpu.captures() {
        release(gpu, s)?;
        taken = memory::take(block);
    }
    taken.map_err(|e| refused(gpu, s, block, &e))
}

fn refused(gpu: &Gpu, s: &State, bytes: usize, e: &DriverError) -> Error {
    if codes::is_full(e) {
        return full(gpu, s, bytes);
    }
    codes::driver(&format!("taking {} on the GPU", gib(bytes)), e)
}

/// That a block is not to be had, and why.
fn full(gpu: &Gpu, s: &State, block: usize) -> Error {
    let free = memory::info().map_or(0, |(free, _)| free);
    let info = gpu.info();
    Error::Memory(format!(
        "the memory of GPU {} ({}, {}) is full: {} more are needed, {} are free, {} are in use here and {} by other processes",
        info.ordinal,
        info.name,
        gib(info.memory),
        gib(block),
        gib(free),
        gib(s.held),
        gib(info.memory.saturating_sub(s.held + free)),
    ))
}

/// Bytes in words, such as `35.1 GiB` or `512 MiB`.
pub fn gib(bytes: usize) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1023.5 {
        format!("{mib:.0} MiB")
    } else {
        format!("{:.1} GiB", mib / 1024.0)
    }
}

/// Gives free blocks back to the driver.
fn release(gpu: &Gpu, s: &mut State) -> Result<()> {
    gpu.synchronize()?;
    if gpu.dry().is_some() {
        s.free.clear();
        s.held = s.used;
        return Ok(());
    }
    for (size, list) in &mut s.free {
        while let Some(address) = list.pop() {
            // SAFETY: the block came from `memory::take`, nobody holds it, and all work on it is done.
            unsafe { memory::free(address) }.doing("giving memory back")?;
            s.held -= *size;
        }
    }
    s.free.clear();
    Ok(())
}
