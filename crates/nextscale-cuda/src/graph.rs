//! CUDA graphs: the work that a function asks for, recorded once and replayed with one call.
//!
//! While a graph is captured, the calling thread's memory comes from an arena of the graph. Buffers share it among
//! themselves in the order of the stream, as they share the pool, but nobody else gets it before the graph and the buffers
//! that came out of it are gone. Other threads wait with their work for the GPU until the capture is over.

use crate::codes::Checked;
use crate::driver;
use crate::gpu::Gpu;
use crate::pool::{Block, DeviceBuffer};
use crate::{Error, Result};
use cudarc::driver::sys::{CUgraph, CUgraphExec};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard};

/// Recorded work of a GPU.
pub struct Graph {
    gpu: &'static Gpu,
    /// Null in a dry run.
    exec: GraphExec,
    /// Memory that the work uses; it goes back to the pool after the work's last replay.
    arena: Arc<Arena>,
}

struct GraphExec(CUgraphExec);
// SAFETY: a graph's handle may be used from any thread, one at a time (CUDA driver API, "Graph object thread safety"); it is
// only used through `&mut Graph` or by its drop.
unsafe impl Send for GraphExec {}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Graph({:?}, {} bytes)", self.gpu, self.arena.bytes())
    }
}

/// The memory of one graph.
#[derive(Debug)]
pub(crate) struct Arena {
    gpu: &'static Gpu,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Free blocks by size; only taken from while the capture goes on.
    free: BTreeMap<usize, Vec<u64>>,
    /// Every block, with its size.
    all: Vec<(u64, usize)>,
    /// What was let go during the capture but was there before it.
    kept: Vec<(u64, usize)>,
    /// Blocks from before the capture that the work uses, by address.
    used: BTreeMap<u64, Arc<Block>>,
}

impl Arena {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn bytes(&self) -> usize {
        self.state().all.iter().map(|(_, size)| size).sum()
    }

    /// A block for a buffer of the capture.
    pub(crate) fn take(&self, block: usize) -> Result<u64> {
        let mut s = self.state();
        if let Some(address) = s.free.get_mut(&block).and_then(Vec::pop) {
            return Ok(address);
        }
        let address = self.gpu.pool().take(self.gpu, block)?;
        s.all.push((address, block));
        Ok(address)
    }

    /// Holds what the work uses, but for the arena's own blocks, which hold it.
    fn hold(self: &Arc<Self>, block: &Arc<Block>) {
        if block.arena.as_ref().is_some_and(|a| Arc::ptr_eq(a, self)) {
            return;
        }
        let address = block.address();
        self.state()
            .used
            .entry(address)
            .or_insert_with(|| Arc::clone(block));
    }

    /// A buffer of the capture is let go.
    pub(crate) fn give(&self, address: u64, block: usize) {
        self.state().free.entry(block).or_default().push(address);
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let s = self.state.get_mut().unwrap_or_else(|e| e.into_inner());
        for (address, block) in s.all.drain(..).chain(s.kept.drain(..)) {
            give_back(self.gpu, address, block);
        }
    }
}

/// Held for reading by whoever puts work into a stream, for writing by who captures one, on whatever GPU.
static GATE: RwLock<()> = RwLock::new(());

thread_local! {
    /// The arena of the graph that this thread captures.
    static CAPTURED: RefCell<Option<Arc<Arena>>> = const { RefCell::new(None) };
    /// How many guards this thread holds.
    static GUARDS: Cell<u32> = const { Cell::new(0) };
}

/// The right to put work into a stream; a thread may hold several.
pub(crate) struct StreamGuard(#[allow(dead_code)] Option<RwLockReadGuard<'static, ()>>);

impl StreamGuard {
    /// Waits while another thread captures a graph.
    pub(crate) fn take() -> Self {
        let held = GUARDS.get();
        GUARDS.set(held + 1);
        let first = held == 0 && CAPTURED.with_borrow(Option::is_none);
        Self(first.then(|| GATE.read().unwrap_or_else(|e| e.into_inner())))
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        GUARDS.set(GUARDS.get() - 1);
    }
}

/// The arena that a buffer of `gpu` comes from now, if the calling thread captures a graph there.
pub(crate) fn arena_of(gpu: &Gpu) -> Option<Arc<Arena>> {
    CAPTURED.with_borrow(|a| a.as_ref().filter(|a| std::ptr::eq(a.gpu, gpu)).cloned())
}

/// What one call uses of a GPU: the one place where buffers become addresses for the driver and its libraries. A graph that
/// is captured holds the buffers as long as it lives.
pub(crate) struct Uses<'a> {
    gpu: &'a Gpu,
    captured: Option<Arc<Arena>>,
}

impl<'a> Uses<'a> {
    pub(crate) fn of(gpu: &'a Gpu) -> Self {
        Self {
            gpu,
            captured: arena_of(gpu),
        }
    }

    /// The address of a byte of a buffer that has `bytes` more.
    pub(crate) fn address(&self, buffer: &DeviceBuffer, byte: usize, bytes: usize) -> Result<u64> {
        if !std::ptr::eq(buffer.gpu(), self.gpu) {
            return Err(Error::Device(format!(
                "memory of GPU {} can't be used on GPU {}",
                buffer.gpu().info().ordinal,
                self.gpu.info().ordinal
            )));
        }
        if byte
            .checked_add(bytes)
            .is_none_or(|end| end > buffer.bytes())
        {
            return Err(Error::Device(format!(
                "{bytes} bytes from {byte} of a buffer of {}",
                buffer.bytes()
            )));
        }
        if let Some(arena) = &self.captured {
            arena.hold(buffer.block());
        }
        Ok(buffer.address() + byte as u64)
    }
}

/// A block goes back to the pool; while the calling thread captures a graph, whose work may use the block, to that graph.
pub(crate) fn give_back(gpu: &Gpu, address: u64, block: usize) {
    let captured = |a: &RefCell<Option<Arc<Arena>>>| {
        let a = a.borrow();
        a.as_ref().filter(|a| std::ptr::eq(a.gpu, gpu)).cloned()
    };
    // A thread that ends captures nothing.
    match CAPTURED.try_with(captured).ok().flatten() {
        Some(arena) => arena.state().kept.push((address, block)),
        None => gpu.pool().give(address, block),
    }
}

/// Ends a capture whatever happens.
struct Ending {
    gpu: &'static Gpu,
    over: bool,
}

impl Ending {
    fn end(&mut self) -> Result<CUgraph> {
        self.over = true;
        // Out of the cell before it is dropped, since dropping blocks looks there.
        let arena = CAPTURED.take();
        drop(arena);
        if self.gpu.dry().is_some() {
            return Ok(std::ptr::null_mut());
        }
        // SAFETY: the stream is never destroyed and in the state of capture since `Gpu::capture`.
        unsafe { driver::stream::end_capture(self.gpu.stream()) }.doing("capturing a graph")
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        if let Ok(graph) = self.end()
            && !graph.is_null()
        {
            // SAFETY: the graph was made by the capture and nobody else has it.
            let _ = unsafe { driver::graph::destroy(graph) };
        }
    }
}

impl Gpu {
    /// Records what `work` asks the GPU for, without doing it, and returns the record with what `work` returned. Buffers in
    /// there hold nothing before the first [`Graph::launch`], and what the latest one computed afterwards.
    ///
    /// Everything that `work` needs of the host must have happened before: kernels are loaded and algorithms chosen by a run
    /// of the same work without a capture. To replay the work on other values, the caller writes them into these buffers.
    ///
    /// # Errors
    /// When `work` fails, copies between host and GPU, waits for the GPU, or uses a kernel or a product that was never run; when
    /// the calling thread captures already, or the GPU's memory is full.
    pub fn capture<T, E: From<Error>>(
        &'static self,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<(Graph, T), E> {
        if GUARDS.get() > 0 || CAPTURED.with_borrow(Option::is_some) {
            let text = "a graph can't be captured within other work";
            return Err(Error::Device(text.into()).into());
        }
        let _alone = GATE.write().unwrap_or_else(|e| e.into_inner());
        let arena = Arc::new(Arena {
            gpu: self,
            state: Mutex::default(),
        });
        self.bind()?;
        // Memory may be taken from the driver meanwhile; nothing else that is forbidden happens.
        if self.dry().is_none() {
            // SAFETY: the stream is never destroyed; no other thread puts work into it before the gate opens.
            unsafe { driver::stream::begin_capture(self.stream()) }.doing("capturing a graph")?;
        }
        CAPTURED.set(Some(Arc::clone(&arena)));
        let mut ending = Ending {
            gpu: self,
            over: false,
        };
        let out = work()?;
        let graph = ending.end()?;
        let exec = if graph.is_null() {
            std::ptr::null_mut()
        } else {
            // SAFETY: the graph was made by the capture; it is destroyed once, after its last use.
            unsafe {
                let exec = driver::graph::instantiate(graph);
                let destroyed = driver::graph::destroy(graph);
                let exec = exec.doing("making a graph ready")?;
                destroyed.doing("making a graph ready")?;
                exec
            }
        };
        let graph = Graph {
            gpu: self,
            exec: GraphExec(exec),
            arena,
        };
        Ok((graph, out))
    }

    /// Whether the calling thread captures a graph on this GPU.
    pub fn captures(&self) -> bool {
        arena_of(self).is_some()
    }

    /// Refuses what can't be captured.
    pub(crate) fn outside_capture(&self, what: &str) -> Result<()> {
        if self.captures() {
            return Err(Error::Device(format!(
                "{what} can't be part of a captured graph"
            )));
        }
        Ok(())
    }
}

impl Graph {
    /// Puts the recorded work into the stream.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn launch(&mut self) -> Result<()> {
        let _guard = StreamGuard::take();
        self.gpu.outside_capture("another graph")?;
        if self.exec.0.is_null() {
            return Ok(());
        }
        self.gpu.bind()?;
        // SAFETY: the handle is valid until the drop; what the work uses is held by the arena.
        unsafe { driver::graph::launch(self.exec.0, self.gpu.stream()) }.doing("replaying a graph")
    }

    /// Bytes of memory that the graph keeps for itself.
    pub fn bytes(&self) -> usize {
        self.arena.bytes()
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.exec.0.is_null() {
            return;
        }
        let _ = self.gpu.bind();
        // SAFETY: the handle is not used afterwards; the driver lets work in flight finish. The memory then goes back to the
        // pool for work that comes later in the stream.
        let _ = unsafe { driver::graph::exec_destroy(self.exec.0) };
    }
}

/// A buffer's memory for as long as it lives.
pub(crate) fn take(gpu: &'static Gpu, block: usize) -> Result<(u64, Option<Arc<Arena>>)> {
    match arena_of(gpu) {
        Some(arena) => Ok((arena.take(block)?, Some(arena))),
        None => Ok((gpu.pool().take(gpu, block)?, None)),
    }
}
