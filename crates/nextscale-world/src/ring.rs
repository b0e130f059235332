//! Sums and copies of many numbers, around a ring of direct connections.
//!
//! Numbers are cut into one range a rank. The sum of rank `c`'s range begins at rank `c + 1` and goes once around, every rank
//! adding its own: the order is fixed, so results repeat bit for bit. Finished sums then go around once more as copies, so all
//! ranks hold the same bits. What a rank sends next is what it received last: it is one stream, of which bytes go on as soon
//! as they are there, while others arrive.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use crate::calls::Call;
use crate::gate::timespec;
use crate::wire::Writer;

/// Bytes that are read, or written, in one go.
const PIECE: usize = 256 << 10;
/// How long one waits for a neighbour before asking whether the job still stands.
const PAUSE: Duration = Duration::from_secs(1);

/// Connections to the next rank and from the one before.
pub(crate) struct Ring {
    rank: usize,
    size: usize,
    next: TcpStream,
    previous: TcpStream,
    scratch: Vec<f32>,
}

/// Why a ring stood still.
pub(crate) enum Broken {
    /// Of the connection with this rank.
    Neighbour(usize, io::Error),
    /// The one before is in another call.
    Differs,
    /// The job has failed meanwhile.
    Failed,
}

/// What happens to a received range.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Add,
    Copy,
}

/// Ranges in the order in which they are sent and received.
struct Plan {
    first: Range<usize>,
    received: Vec<(Range<usize>, Then)>,
}

impl Ring {
    pub fn new(rank: usize, size: usize, next: TcpStream, previous: TcpStream) -> io::Result<Self> {
        for stream in [&next, &previous] {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
        }
        Ok(Self {
            rank,
            size,
            next,
            previous,
            scratch: vec![0.0; PIECE / 4],
        })
    }

    /// Second handles of the connections, with which others can shut them.
    pub fn handles(&self) -> io::Result<Vec<TcpStream>> {
        Ok(vec![self.next.try_clone()?, self.previous.try_clone()?])
    }

    /// Range `i` goes `back` steps around behind this rank.
    fn behind<'a>(&self, ranges: &'a [Range<usize>], back: usize) -> &'a Range<usize> {
        &ranges[(self.rank + 2 * self.size - back) % self.size]
    }

    pub fn all_reduce(
        &mut self,
        head: (u64, Call),
        values: &mut [f32],
        stop: impl Fn() -> bool,
    ) -> Result<(), Broken> {
        let ranges = even(values.len(), self.size);
        let add = (2..=self.size).map(|back| (self.behind(&ranges, back).clone(), Then::Add));
        let copy = (1..self.size).map(|back| (self.behind(&ranges, back).clone(), Then::Copy));
        let plan = Plan {
            first: self.behind(&ranges, 1).clone(),
            received: add.chain(copy).collect(),
        };
        self.run(head, values, &plan, stop)
    }

    pub fn reduce_scatter(
        &mut self,
        head: (u64, Call),
        values: &mut [f32],
        ranges: &[Range<usize>],
        stop: impl Fn() -> bool,
    ) -> Result<(), Broken> {
        let add = (2..=self.size).map(|back| (self.behind(ranges, back).clone(), Then::Add));
        let plan = Plan {
            first: self.behind(ranges, 1).clone(),
            received: add.collect(),
        };
        self.run(head, values, &plan, stop)
    }

    pub fn all_gather(
        &mut self,
        head: (u64, Call),
        values: &mut [f32],
        ranges: &[Range<usize>],
        stop: impl Fn() -> bool,
    ) -> Result<(), Broken> {
        let copy = (1..self.size).map(|back| (self.behind(ranges, back).clone(), Then::Copy));
        let plan = Plan {
            first: self.behind(ranges, 0).clone(),
            received: copy.collect(),
        };
        self.run(head, values, &plan, stop)
    }

    /// Sends and receives all of a plan. In front of the numbers goes the call, which must be the same everywhere: as every
    /// result has passed all ranks, none is taken for good if one rank is in another call.
    fn run(
        &mut self,
        (number, call): (u64, Call),
        values: &mut [f32],
        plan: &Plan,
        stop: impl Fn() -> bool,
    ) -> Result<(), Broken> {
        let (before, after) = (
            (self.rank + self.size - 1) % self.size,
            (self.rank + 1) % self.size,
        );
        let mut head = Writer::default();
        head.u64(number);
        call.write(&mut head);
        let head = head.0;

        let count: usize = plan.received.iter().map(|(range, _)| range.len()).sum();
        let last = plan.received.last().map_or(0, |(range, _)| range.len());
        let to_send = head.len() + 4 * (plan.first.len() + count - last);
        let mut out = Cursor::new(plan);
        let mut sent = 0;
        let mut incoming = Incoming::new(plan);

        while sent < to_send || !incoming.is_done() {
            // All that has come may go on.
            let may_send = to_send.min(head.len() + 4 * (plan.first.len() + incoming.values));
            let mut fds = Vec::with_capacity(2);
            if sent < may_send {
                fds.push(PollFd::new(&self.next, PollFlags::OUT));
            }
            if !incoming.is_done() {
                fds.push(PollFd::new(&self.previous, PollFlags::IN));
            }
            if let Err(e) = poll(&mut fds, Some(&timespec(PAUSE)))
                && e != rustix::io::Errno::INTR
            {
                return Err(Broken::Neighbour(before, e.into()));
            }
            let ready = fds.iter().any(|fd| !fd.revents().is_empty());
            if !ready {
                if stop() {
                    return Err(Broken::Failed);
                }
                continue;
            }
            if !incoming.is_done() {
                let took = incoming.take(&self.previous, &mut self.scratch, values, &head);
                match took {
                    Ok(true) => {}
                    Ok(false) => return Err(Broken::Differs),
                    Err(e) if waits(&e) => {}
                    Err(e) => return Err(Broken::Neighbour(before, e)),
                }
            }
            if sent < may_send {
                let bytes = match sent < head.len() {
                    true => &head[sent..],
                    false => out.bytes(values, may_send - sent),
                };
                match (&self.next).write(bytes) {
                    Ok(n) => {
                        if sent >= head.len() {
                            out.advance(n);
                        }
                        sent += n;
                    }
                    Err(e) if waits(&e) => {}
                    Err(e) => return Err(Broken::Neighbour(after, e)),
                }
            }
        }
        Ok(())
    }
}

fn waits(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// `len` numbers in `parts` ranges that differ by one at most.
pub(crate) fn even(len: usize, parts: usize) -> Vec<Range<usize>> {
    let at = |part: usize| len / parts * part + (len % parts).min(part);
    (0..parts).map(|part| at(part)..at(part + 1)).collect()
}

/// A place in the stream that is sent: the first range, then those received.
struct Cursor<'a> {
    plan: &'a Plan,
    index: usize,
    /// Bytes of the range at `index` that are gone.
    done: usize,
}

impl<'a> Cursor<'a> {
    fn new(plan: &'a Plan) -> Self {
        let mut cursor = Self {
            plan,
            index: 0,
            done: 0,
        };
        cursor.advance(0);
        cursor
    }

    fn range(&self) -> Range<usize> {
        match self.index {
            0 => self.plan.first.clone(),
            i => self.plan.received[i - 1].0.clone(),
        }
    }

    fn bytes<'v>(&self, values: &'v [f32], most: usize) -> &'v [u8] {
        let bytes: &[u8] = bytemuck::cast_slice(&values[self.range()]);
        let end = bytes.len().min(self.done + most.min(PIECE));
        &bytes[self.done..end]
    }

    fn advance(&mut self, bytes: usize) {
        self.done += bytes;
        while self.index <= self.plan.received.len() && self.done == 4 * self.range().len() {
            self.index += 1;
            self.done = 0;
        }
    }
}

/// The stream that is received.
struct Incoming<'a> {
    plan: &'a Plan,
    head: Vec<u8>,
    index: usize,
    /// Bytes of the range at `index` that have come.
    done: usize,
    /// Whole numbers that have come, of all ranges.
    values: usize,
}

impl<'a> Incoming<'a> {
    fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            head: Vec::new(),
            index: 0,
            done: 0,
            values: 0,
        }
    }

    fn is_done(&self) -> bool {
        self.head.len() == 8 + Call::BYTES && self.index == self.plan.received.len()
    }

    fn skip_empty(&mut self) {
        while let Some((range, _)) = self.plan.received.get(self.index)
            && self.done == 4 * range.len()
        {
            self.index += 1;
            self.done = 0;
        }
    }

    /// Reads once. False when the other side is in another call.
    fn take(
        &mut self,
        stream: &TcpStream,
        scratch: &mut [f32],
        values: &mut [f32],
        head: &[u8],
    ) -> io::Result<bool> {
        let mut stream = stream;
        if self.head.len() < head.len() {
            let mut rest = [0; 8 + Call::BYTES];
            let rest = &mut rest[self.head.len()..];
            let n = some(stream.read(rest)?)?;
            self.head.extend_from_slice(&rest[..n]);
            if self.head.len() == head.len() {
                self.skip_empty();
            }
            return Ok(self.head[..] == head[..self.head.len()]);
        }
        let (range, then) = self.plan.received[self.index].clone();
        let values = &mut values[range];
        let n = match then {
            Then::Copy => {
                let bytes: &mut [u8] = bytemuck::cast_slice_mut(values);
                let end = bytes.len().min(self.done + PIECE);
                some(stream.read(&mut bytes[self.done..end])?)?
            }
            Then::Add => {
                // A number of which a part has come stays at the front of the scratch.
                let (whole, part) = (self.done / 4, self.done % 4);
                let rest = &mut values[whole..];
                let scratch = &mut scratch[..rest.len().min(PIECE / 4)];
                let bytes: &mut [u8] = bytemuck::cast_slice_mut(scratch);
                let n = some(stream.read(&mut bytes[part..])?)?;
                let complete = (part + n) / 4;
                for (value, came) in rest.iter_mut().zip(&scratch[..complete]) {
                    *value += *came;
                }
                let bytes: &mut [u8] = bytemuck::cast_slice_mut(scratch);
                bytes.copy_within(4 * complete..part + n, 0);
                n
            }
        };
        self.values += (self.done + n) / 4 - self.done / 4;
        self.done += n;
        self.skip_empty();
        Ok(true)
    }
}

fn some(n: usize) -> io::Result<usize> {
    match n {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        n => Ok(n),
    }
}
