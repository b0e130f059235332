//! Sums and copies among the GPUs of one machine by their copy engines.
//!
//! NCCL's kernels add and send on multiprocessors. A matrix product whose blocks fill the GPU waits for the last of them, so that a
//! sum beside it costs as much time as it takes. Here values travel by copy engines, which compute nothing: each member sends every
//! other what that one is to add, into an inbox that the other has opened for it; a short kernel adds what has come; and the sums are
//! sent back the same way. All of it is put into two streams ahead of time. What orders the streams of different GPUs are numbers in
//! each other's memory, which streams wait for and write: no processor waits.
//!
//! It does what [`nccl`](crate::nccl) does of [`Kind::AllReduce`], [`Kind::ReduceScatter`] and [`Kind::AllGather`], with the same
//! rules: what is said there of buffers, of [`Peers::join`], of lost members and [`Peers::abort`] holds here. A sum is formed by one
//! member, its own value first, then those of the members before it, one after another: the same bits for all and in every run.
//!
//! It needs GPUs that reach each other's memory, as over NVLink or PCIe of one machine. Where they don't, [`Peers::open`] is an error,
//! and NCCL is there.

mod pieces;
#[cfg(test)]
mod tests;

use crate::codes::Checked;
use crate::driver::{self, memory, shared};
use crate::gpu::Gpu;
use crate::graph::StreamGuard;
use crate::kernel::{Module, Shape};
use crate::kernels;
use crate::nccl::{Collective, Element, Kind};
use crate::pinned::Event;
use crate::pool::Block;
use crate::work::Work;
use crate::{Error, Result};
use cudarc::driver::sys::CUstream;
use pieces::{Piece, phases, pieces};
use std::ffi::c_void;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

/// Adding up what others have sent.
pub static MODULE: Module = Module {
    name: "peers",
    source: &[include_str!("add.cu")],
    specific: false,
    kernels: kernels! {
        add_sent: "ppuiu" for f32;
    },
};

/// Most members of a group: as many as a machine has GPUs. Everybody sends to everybody.
pub const MOST_MEMBERS: usize = 16;
/// From how many bytes on it is worth it; what is smaller takes NCCL less time.
pub const LEAST_BYTES: usize = 1 << 20;

/// Messages of one member to another that are under way at most.
const SLOTS: usize = 4;
/// Most bytes of a message, and of the inbox.
const MOST_MESSAGE: usize = 16 << 20;
const MOST_INBOX: usize = 256 << 20;
/// Bytes from one number that is waited for to the next: one cache line each.
const APART: usize = 128;
/// Numbers that are waited for: how many messages have come from each member, and how many each has read.
const NUMBERS: usize = 2 * MOST_MEMBERS;
/// Added to numbers to end all waits. Numbers count around, so this is ahead of all that are waited for.
const FAR: u32 = 1 << 30;
/// Most time that the last work of a group that is dropped is waited for.
const LAST_WORK: Duration = Duration::from_secs(10);

fn error(text: impl std::fmt::Display) -> Error {
    Error::Device(format!("copies between GPUs: {text}"))
}

/// What this process is told from others by.
fn process() -> u64 {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    *PROCESS.get_or_init(|| {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u32(std::process::id());
        hasher.finish()
    })
}

/// Bytes of a message in a group of so many members.
fn message(members: usize) -> usize {
    let most = MOST_INBOX / (SLOTS * (members - 1));
    (most.min(MOST_MESSAGE) >> 20) << 20
}

/// The memory that others write to. It is never given back, since nobody here knows when they are done.
#[derive(Debug)]
pub struct Inbox {
    gpu: &'static Gpu,
    address: u64,
    members: usize,
    /// What another process needs to reach it.
    handle: [u8; 64],
}

impl Inbox {
    /// One for a group of `members`.
    ///
    /// # Errors
    /// When the GPU's memory is full or it can't be shared, or so many members are none of a group.
    pub fn new(gpu: &'static Gpu, members: usize) -> Result<Self> {
        if gpu.is_dry() || !(2..=MOST_MEMBERS).contains(&members) {
            return Err(error(format_args!("none among {members}")));
        }
        gpu.outside_capture("sharing memory")?;
        gpu.bind()?;
        let bytes = (members - 1) * SLOTS * message(members);
        let all = bytes + NUMBERS * APART;
        let address = memory::take(all).doing("taking memory to share")?;
        // SAFETY: the numbers lie behind the messages, in the block.
        unsafe { memory::zero(address + bytes as u64, NUMBERS * APART, gpu.stream()) }
            .doing("clearing memory to share")?;
        gpu.synchronize()?;
        // SAFETY: the block was taken just now.
        let handle = unsafe { shared::offer(address) }.doing("sharing memory")?;
        Ok(Self {
            gpu,
            address,
            members,
            handle,
        })
    }

    /// What the others need, to be brought to all of them.
    pub fn offer(&self) -> Vec<u8> {
        let mut bytes = process().to_le_bytes().to_vec();
        bytes.extend(self.address.to_le_bytes());
        bytes.extend(self.handle);
        bytes
    }
}

/// Where an offered inbox is seen in this process.
fn reach(offer: &[u8]) -> Result<u64> {
    let bad = || error("an offer that is none");
    let (numbers, handle) = offer.split_at_checked(16).ok_or_else(bad)?;
    let (numbers, _) = numbers.as_chunks::<8>();
    let handle = handle.try_into().map_err(|_| bad())?;
    if u64::from_le_bytes(numbers[0]) == process() {
        return Ok(u64::from_le_bytes(numbers[1]));
    }
    shared::open(handle).doing("reaching another GPU's memory")
}

/// A stream; kept from threads' rules as all handles of the driver.
#[derive(Clone, Copy, Debug)]
struct Stream(CUstream);
// SAFETY: streams may be used from any thread (CUDA driver API); calls that need a current context bind it first.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

/// One member of a group of GPUs; see [the module](crate::peers).
#[derive(Debug)]
pub struct Peers {
    gpu: &'static Gpu,
    rank: usize,
    size: usize,
    message: usize,
    /// Its own inbox.
    inbox: u64,
    /// Those of the others: of the member that comes k + 1 places after this one.
    others: Vec<u64>,
    outward: Stream,
    inward: Stream,
    /// Of nothing but the end of all waits.
    rescue: Stream,
    /// After what was asked of the GPU's stream before the latest call.
    before: Event,
    /// After the sums of the latest pieces, in turns.
    added: [Event; 2],
    /// After everything in either stream.
    ends: [Event; 2],
    /// How many messages were sent to each of the others, and are to come from each.
    messages: AtomicU32,
    is_aborted: AtomicBool,
    /// What the work since the last `join` uses. Held through a call, so that calls follow each other.
    used: Mutex<Vec<Arc<Block>>>,
}

/// Whose number it is, in the memory of the member that waits for it.
#[derive(Clone, Copy)]
enum Count {
    /// Messages that have come from the member that is so many places before.
    Come(usize),
    /// Messages that the member so many places after has read.
    Read(usize),
}

impl Peers {
    /// The member `rank` of the group that these offers make, by their order; its own is among them.
    ///
    /// # Errors
    /// When GPUs can't reach each other, or the driver refuses.
    pub fn open(inbox: &Inbox, rank: usize, offers: &[Vec<u8>]) -> Result<Self> {
        let (gpu, size) = (inbox.gpu, inbox.members);
        if offers.len() != size || rank >= size {
            let text = format!("{} offers, rank {rank} of {size}", offers.len());
            return Err(error(text));
        }
        gpu.bind()?;
        let others = (1..size).map(|places| reach(&offers[(rank + places) % size]));
        let others = others.collect::<Result<Vec<_>>>()?;
        // Loaded now, so that nothing is compiled in between.
        gpu.function(&MODULE, "add_sent_f32", 0)?;
        let stream = || driver::stream::create_first().doing("making a stream");
        Ok(Self {
            gpu,
            rank,
            size,
            message: message(size),
            inbox: inbox.address,
            others,
            outward: Stream(stream()?),
            inward: Stream(stream()?),
            rescue: Stream(stream()?),
            before: Event::new(gpu)?,
            added: [Event::new(gpu)?, Event::new(gpu)?],
            ends: [Event::new(gpu)?, Event::new(gpu)?],
            messages: AtomicU32::new(0),
            is_aborted: AtomicBool::new(false),
            used: Mutex::default(),
        })
    }

    /// Whether a call is one of those that are made here, and worth it.
    pub fn takes(&self, call: &Collective<'_>) -> bool {
        let phases = phases(call.kind);
        let is_known = match phases {
            Some((true, _)) => call.element == Element::F32,
            Some((false, _)) => true,
            None => false,
        };
        let each = match call.kind {
            Kind::AllReduce => call.count / self.size,
            _ => call.count,
        };
        is_known && each.saturating_mul(call.element.bytes()) >= LEAST_BYTES / self.size
    }

    /// Makes several calls, behind what was asked of the GPU's stream.
    ///
    /// # Errors
    /// When one is none of [`Peers::takes`], its values are not all there, a graph is captured, the driver refuses, or the group is
    /// aborted.
    pub fn together(&self, calls: &[Collective<'_>]) -> Result<()> {
        const NAME: &str = "copies between GPUs";
        self.gpu.outside_capture(NAME)?;
        let mut whole = Vec::with_capacity(calls.len());
        for call in calls {
            let (adds, gathers) = phases(call.kind)
                .filter(|(adds, _)| !adds || call.element == Element::F32)
                .ok_or_else(|| error(format_args!("not for {:?}", call.kind)))?;
            let parts = match call.kind {
                Kind::AllReduce => 1,
                _ => self.size,
            };
            let bytes = call.count.checked_mul(parts * call.element.bytes());
            let bytes = bytes.ok_or_else(|| error("too many values"))?;
            whole.push((
                call,
                (adds, gathers),
                call.values.holds(self.gpu, NAME, bytes)?,
            ));
        }
        let mut used = self.used();
        self.check()?;
        used.extend(calls.iter().map(|c| Arc::clone(c.values.0.block())));
        {
            let _guard = StreamGuard::take();
            self.before.record(self.gpu.stream())?;
        }
        self.before.hold(self.outward.0)?;
        self.before.hold(self.inward.0)?;
        for (call, (adds, gathers), address) in whole {
            let element = call.element.bytes();
            let cut = pieces(call.kind, call.count, self.size, self.message / element);
            // A sum is sent on while the next piece is on its way to be added.
            let mut before = None;
            for (turn, piece) in cut.iter().enumerate() {
                let added = &self.added[turn % 2];
                if adds {
                    self.add(piece, address, added)?;
                }
                if let Some((last, added)) = before.replace((piece, added))
                    && gathers
                {
                    self.gather(last, address, element, adds.then_some(added))?;
                }
            }
            if let Some((last, added)) = before
                && gathers
            {
                self.gather(last, address, element, adds.then_some(added))?;
            }
        }
        Ok(())
    }

    /// Sends the others what they are to add, and adds what they have sent to the own share.
    fn add(&self, piece: &Piece, address: u64, added: &Event) -> Result<()> {
        let number = self.next();
        let at = |share: &std::ops::Range<usize>| address + 4 * share.start as u64;
        self.send(number, |to| {
            let share = &piece.shares[to];
            (at(share), 4 * share.len())
        })?;
        self.await_messages(number)?;
        let own = &piece.shares[self.rank];
        if !own.is_empty() {
            self.launch_add(at(own), self.slot(0, number), own.len())?;
        }
        added.record(self.inward.0)?;
        self.acknowledge(number)
    }

    /// Sends everybody the own share, and takes theirs.
    fn gather(
        &self,
        piece: &Piece,
        address: u64,
        element: usize,
        added: Option<&Event>,
    ) -> Result<()> {
        let number = self.next();
        let at = |rank: usize| {
            let share = &piece.shares[rank];
            let from = address + (element * share.start) as u64;
            (from, element * share.len())
        };
        if let Some(added) = added {
            added.hold(self.outward.0)?;
        }
        self.send(number, |_| at(self.rank))?;
        self.await_messages(number)?;
        for places in 1..self.size {
            let (to, bytes) = at((self.rank + self.size - places) % self.size);
            self.copy(to, self.slot(places - 1, number), bytes, self.inward)?;
        }
        self.acknowledge(number)
    }

    /// The number of the next message, from 1.
    fn next(&self) -> u32 {
        self.messages
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(1)
    }

    /// Puts message `number` to each of the others into the outward stream: `what` of a rank, address and bytes.
    fn send(&self, number: u32, what: impl Fn(usize) -> (u64, usize)) -> Result<()> {
        for places in 1..self.size {
            let (from, bytes) = what((self.rank + places) % self.size);
            let other = self.others[places - 1];
            // Its slot is free when the message that was in it is read.
            let freed = number.wrapping_sub(SLOTS as u32);
            self.wait(self.outward, Count::Read(places), freed)?;
            let slot = other + self.offset(places - 1, number);
            self.copy(slot, from, bytes, self.outward)?;
            self.write(self.outward, other, Count::Come(places), number)?;
        }
        Ok(())
    }

    /// Makes the inward stream wait for message `number` of all others.
    fn await_messages(&self, number: u32) -> Result<()> {
        (1..self.size).try_for_each(|places| self.wait(self.inward, Count::Come(places), number))
    }

    /// Tells the others that message `number` was read.
    fn acknowledge(&self, number: u32) -> Result<()> {
        (1..self.size).try_for_each(|places| {
            // The member so many places before.
            let sender = self.others[self.size - places - 1];
            self.write(self.inward, sender, Count::Read(places), number)
        })
    }

    /// Where message `number` of the member that is `channel` + 1 places before lies in an inbox.
    fn offset(&self, channel: usize, number: u32) -> u64 {
        let slot = number as usize % SLOTS;
        ((channel * SLOTS + slot) * self.message) as u64
    }

    fn slot(&self, channel: usize, number: u32) -> u64 {
        self.inbox + self.offset(channel, number)
    }

    /// Where a number is in the memory of the member whose inbox this is.
    fn place(&self, inbox: u64, count: Count) -> u64 {
        let index = match count {
            Count::Come(places) => places,
            Count::Read(places) => MOST_MEMBERS + places,
        };
        inbox + ((self.size - 1) * SLOTS * self.message + index * APART) as u64
    }

    fn wait(&self, stream: Stream, count: Count, value: u32) -> Result<()> {
        // SAFETY: the stream lives; the number lies in the own inbox.
        unsafe { shared::wait(stream.0, self.place(self.inbox, count), value) }
            .doing("waiting for another GPU")
    }

    fn write(&self, stream: Stream, inbox: u64, count: Count, value: u32) -> Result<()> {
        // SAFETY: the stream lives; the number lies in an inbox, which is never given back.
        unsafe { shared::write(stream.0, self.place(inbox, count), value) }
            .doing("telling another GPU")
    }

    fn copy(&self, to: u64, from: u64, bytes: usize, stream: Stream) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: a share of values that `together` found to be there and holds, and a slot, which is as long as the longest.
        unsafe { memory::copy(to, from, bytes, stream.0) }.doing("copying to another GPU")
    }

    fn launch_add(&self, to: u64, from: u64, count: usize) -> Result<()> {
        let function = self.gpu.function(&MODULE, "add_sent_f32", 0)?;
        let shape = Shape::pass(self.gpu, count.div_ceil(4));
        let words = [
            to,
            from,
            (SLOTS * self.message / 4) as u64,
            self.size as u64 - 1,
            count as u64,
        ];
        let arguments = words
            .each_ref()
            .map(|w| std::ptr::from_ref(w).cast::<c_void>());
        // SAFETY: the function is that of the source beside this file, with these arguments; the share and the slots are there and
        // held, as in `copy`.
        unsafe {
            driver::kernel::launch(
                function,
                shape.grid.map(|n| n as u32),
                (shape.threads, shape.shared),
                self.inward.0,
                &arguments,
            )
        }
        .doing("adding up what other GPUs have sent")
    }

    /// Makes the GPU's stream wait for everything that was asked for so far.
    ///
    /// # Errors
    /// When a graph is captured, the driver refuses, or the group is aborted.
    pub fn join(&self) -> Result<()> {
        self.gpu
            .outside_capture("waiting for copies between GPUs")?;
        let mut used = self.used();
        self.check()?;
        if used.is_empty() {
            return Ok(());
        }
        let _guard = StreamGuard::take();
        let _scope = self.gpu.scope("exchange wait", Work::default);
        for (end, stream) in self.ends.iter().zip([self.outward, self.inward]) {
            end.record(stream.0)?;
            end.hold(self.gpu.stream())?;
        }
        // Whoever gets the memory next comes later in the GPU's stream.
        used.clear();
        Ok(())
    }

    /// Succeeds unless it was aborted.
    ///
    /// # Errors
    /// Says that it was.
    pub fn check(&self) -> Result<()> {
        match self.is_aborted.load(Ordering::SeqCst) {
            true => Err(error("given up")),
            false => Ok(()),
        }
    }

    /// Gives it up: all waits end, values are then worth nothing, and later calls are errors. From any thread; a second time does
    /// nothing. The other members do not learn of it.
    pub fn abort(&self) {
        if self.is_aborted.swap(true, Ordering::SeqCst) || self.gpu.bind().is_err() {
            return;
        }
        let far = self.messages.load(Ordering::SeqCst).wrapping_add(FAR);
        let numbers = self.place(self.inbox, Count::Come(0));
        // SAFETY: the numbers lie behind the messages in the own inbox; whatever the streams do after their waits stays within
        // memory that is held. A refusal leaves nothing else to try.
        let _ = unsafe { shared::fill(numbers, far, NUMBERS * APART / 4, self.rescue.0) };
    }

    fn used(&self) -> MutexGuard<'_, Vec<Arc<Block>>> {
        self.used.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Waits a while for what is in the streams; whether it is done.
    fn ends_by_itself(&self) -> bool {
        let begun = Instant::now();
        for (end, stream) in self.ends.iter().zip([self.outward, self.inward]) {
            if end.record(stream.0).is_err() {
                return false;
            }
            while !end.has_passed() {
                if begun.elapsed() >= LAST_WORK {
                    return false;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        true
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        if !self.ends_by_itself() {
            self.abort();
            if !self.ends_by_itself() {
                // Copies may still use them.
                std::mem::forget(std::mem::take(&mut *self.used()));
                return;
            }
        }
        for stream in [self.outward, self.inward, self.rescue] {
            // SAFETY: destroyed once; its work is done, or is the end of waits in memory that stays.
            let _ = unsafe { driver::stream::destroy(stream.0) };
        }
    }
}
