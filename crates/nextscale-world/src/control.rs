//! What a process knows of the job while it lasts: who is there, what is being called, and the first thing that went wrong.
//!
//! Rank 0 has a connection to each other member, and its word on a failure is the one that counts: a member whose neighbour
//! disappears waits for it, so that all name the one that failed first and not one that ended because of it.

mod failure;
mod watch;

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::calls::{Call, Calls, Differ, Kind};
use crate::link::{Frame, Link};
use crate::wire::{Reader, Writer, read_error, write_error};
use crate::{Error, Limits, Result};

/// How long a member waits for rank 0's word before it tells what it sees itself.
const BEFORE_REPORT: Duration = Duration::from_secs(2);
/// How long it waits after that before it makes up its own mind.
const AFTER_REPORT: Duration = Duration::from_secs(5);
/// How long the last word to a member may take.
const LAST_WORD: Duration = Duration::from_secs(1);

type Callback = Box<dyn FnOnce(&Error) + Send>;

pub(crate) struct Shared {
    pub rank: usize,
    pub size: usize,
    pub limits: Limits,
    state: Mutex<State>,
    changed: Condvar,
}

pub(crate) struct State {
    /// By rank; of members that have not come yet nothing is known.
    pub hosts: Vec<Option<String>>,
    /// Rank 0: to each member by its rank. Others: to rank 0.
    links: Vec<Option<Arc<Link>>>,
    ring: Vec<TcpStream>,
    /// The launcher hears who is to blame.
    pub launched: bool,
    /// A failure is being told to all.
    failing: bool,
    failure: Option<Error>,
    callbacks: Vec<Callback>,
    /// All have called `finish`: connections may close.
    ending: bool,
    /// This process's part is over.
    closed: bool,
    /// Members whose connection has closed after the end.
    gone: usize,
    pub table: Option<Vec<u8>>,
    payloads: BTreeMap<(u64, usize), Vec<u8>>,
    answer: Option<(u64, Vec<u8>)>,
    calls: Calls,
    /// The number of the next call.
    next: u64,
    current: Option<Current>,
    /// Kinds of collectives that came to their end once.
    done: Vec<Kind>,
}

struct Current {
    call: Call,
    since: Instant,
    limit: Duration,
    told: bool,
}

impl Shared {
    pub fn new(rank: usize, size: usize, host: &str, limits: Limits) -> Arc<Self> {
        let mut hosts = vec![None; size];
        hosts[rank] = Some(host.to_owned());
        Arc::new(Self {
            rank,
            size,
            limits,
            state: Mutex::new(State {
                hosts,
                links: vec![None; size],
                ring: Vec::new(),
                launched: false,
                failing: false,
                failure: None,
                callbacks: Vec::new(),
                ending: false,
                closed: false,
                gone: 0,
                table: None,
                payloads: BTreeMap::new(),
                answer: None,
                calls: Calls::new(size),
                next: 0,
                current: None,
                done: Vec::new(),
            }),
            changed: Condvar::new(),
        })
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn check(&self) -> Result<()> {
        match &self.lock().failure {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    pub fn host(&self, rank: usize) -> String {
        let host = self.lock().hosts.get(rank).cloned().flatten();
        host.unwrap_or_else(|| "an unknown host".to_owned())
    }

    fn name(&self, rank: usize) -> String {
        format!("rank {rank} on {}", self.host(rank))
    }

    pub fn lost(&self, rank: usize, why: impl Into<String>) -> Error {
        Error::Lost {
            rank,
            host: self.host(rank),
            why: why.into(),
        }
    }

    /// Waits until `ready` gives something, or for the failure.
    pub fn wait<T>(&self, mut ready: impl FnMut(&mut State) -> Option<T>) -> Result<T> {
        let mut state = self.lock();
        loop {
            if let Some(found) = ready(&mut state) {
                return Ok(found);
            }
            if let Some(error) = &state.failure {
                return Err(error.clone());
            }
            state = self.changed.wait(state).unwrap_or_else(|e| e.into_inner());
        }
    }

    /// Waits for a failure, at most for `patience`.
    pub fn wait_for_failure(&self, patience: Duration) -> Option<Error> {
        let until = |state: &mut State| state.failure.is_none() && !state.closed;
        let (state, _) = self
            .changed
            .wait_timeout_while(self.lock(), patience, until)
            .unwrap_or_else(|e| e.into_inner());
        state.failure.clone()
    }

    /// Takes a connection up, and begins to listen to it.
    pub fn add_link(
        self: &Arc<Self>,
        rank: usize,
        host: &str,
        stream: TcpStream,
    ) -> io::Result<()> {
        let link = Arc::new(Link::new(stream)?);
        let failing = {
            let mut state = self.lock();
            state.hosts[rank] = Some(host.to_owned());
            if !state.failing {
                state.links[rank] = Some(link.clone());
            }
            state.failing
        };
        if failing {
            // All who were there are being told. This one came a moment too late for that.
            if let Some(error) = self.wait_for_failure(BEFORE_REPORT + LAST_WORD) {
                let mut body = Writer::default();
                write_error(&mut body, &error);
                let _ = link.try_send(Frame::Fail, &body.0, LAST_WORD);
            }
            return Ok(());
        }
        let shared = self.clone();
        thread::spawn(move || shared.listen(rank, &link));
        Ok(())
    }

    /// Connections that are shut at a failure, so that nobody goes on waiting for them.
    pub fn add_ring(&self, streams: Vec<TcpStream>) {
        let mut state = self.lock();
        if state.failure.is_some() {
            shut(&streams);
        }
        state.ring = streams;
    }

    fn links(&self) -> Vec<(usize, Arc<Link>)> {
        let state = self.lock();
        let links = state.links.iter().enumerate();
        links
            .filter_map(|(rank, link)| Some((rank, link.clone()?)))
            .collect()
    }

    fn listen(&self, rank: usize, link: &Link) {
        let ended = loop {
            match link.read() {
                Ok((Frame::Beat, _)) => {}
                Ok((frame, body)) => {
                    if self.take(rank, frame, body).is_none() {
                        break io::ErrorKind::InvalidData.into();
                    }
                }
                Err(error) => break error,
            }
        };
        {
            let mut state = self.lock();
            if state.ending || state.closed {
                state.gone += 1;
                self.changed.notify_all();
                return;
            }
        }
        let why = match ended.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => "its process ended without a word".to_owned(),
            io::ErrorKind::InvalidData => "it sent what is no message".to_owned(),
            _ => format!("the connection to it broke ({ended})"),
        };
        self.fail(self.lost(rank, why));
    }

    /// A frame's meaning; nothing if it has none.
    fn take(&self, rank: usize, frame: Frame, body: Vec<u8>) -> Option<()> {
        let mut from = Reader(&body);
        let first = self.rank == 0;
        match frame {
            Frame::Call if first => {
                let number = from.u64()?;
                let call = Call::read(&mut from)?;
                let noted = {
                    let mut state = self.lock();
                    let noted = self.note(&mut state, rank, number, call);
                    if noted.is_ok() && call.kind.by_first() {
                        state.payloads.insert((number, rank), from.0.to_vec());
                    }
                    noted
                };
                self.changed.notify_all();
                if let Err(differ) = noted {
                    self.fail(self.mismatch(&differ));
                }
            }
            Frame::Report if first => self.fail(read_error(&mut from)?),
            Frame::Answer if !first => {
                let number = from.u64()?;
                let mut state = self.lock();
                // After the last answer rank 0 closes: no alarm.
                let last = |current: &Current| current.call.kind == Kind::Finish;
                state.ending |= state.current.as_ref().is_some_and(last);
                state.answer = Some((number, from.0.to_vec()));
                self.changed.notify_all();
            }
            Frame::Fail if !first => self.settle(read_error(&mut from)?),
            Frame::Table if !first => {
                self.lock().table = Some(body);
                self.changed.notify_all();
            }
            _ => return None,
        }
        Some(())
    }

    fn limit(&self, state: &State, kind: Kind) -> Duration {
        match state.done.contains(&kind) {
            true => self.limits.collective,
            false => self.limits.first_collective,
        }
    }

    fn note(
        &self,
        state: &mut State,
        rank: usize,
        number: u64,
        call: Call,
    ) -> std::result::Result<(), Differ> {
        let limit = self.limit(state, call.kind);
        state.calls.note(rank, number, call, limit)
    }

    fn mismatch(&self, Differ([(one, a), (other, b)]): &Differ) -> Error {
        Error::Mismatch(format!(
            "{} called {a} where {} called {b}: all must call the same collectives in the same order",
            self.name(*one),
            self.name(*other)
        ))
    }

    /// Announces a call. `payload` goes to rank 0 with it.
    pub fn begin(&self, call: Call, payload: &[u8]) -> Result<u64> {
        let (number, noted) = {
            let mut state = self.lock();
            if let Some(error) = &state.failure {
                return Err(error.clone());
            }
            if state.closed || state.ending {
                return Err(Error::Mismatch(format!("{call} after the end")));
            }
            let number = state.next;
            state.next += 1;
            let limit = self.limit(&state, call.kind);
            state.current = Some(Current {
                call,
                since: Instant::now(),
                limit,
                told: false,
            });
            let noted = match self.rank {
                0 => self.note(&mut state, 0, number, call),
                _ => Ok(()),
            };
            (number, noted)
        };
        if let Err(differ) = noted {
            let error = self.mismatch(&differ);
            self.fail(error.clone());
            return Err(self.wait_for_failure(BEFORE_REPORT).unwrap_or(error));
        }
        if self.rank != 0 {
            let mut frame = Writer::default();
            frame.u64(number);
            call.write(&mut frame);
            frame.raw(payload);
            self.send(0, Frame::Call, &frame.0)?;
        }
        Ok(number)
    }

    pub fn end(&self, call: Call) {
        let mut state = self.lock();
        state.current = None;
        if !state.done.contains(&call.kind) {
            state.done.push(call.kind);
        }
    }

    /// Rank 0: what member `rank` sent with call `number`.
    pub fn payload(&self, number: u64, rank: usize) -> Result<Vec<u8>> {
        self.wait(|state| state.payloads.remove(&(number, rank)))
    }

    /// Rank 0: gives all members what call `number` came to.
    pub fn answer(&self, number: u64, last: bool, body: &[u8]) -> Result<()> {
        self.lock().ending |= last;
        let mut frame = Writer::default();
        frame.u64(number).raw(body);
        for rank in 1..self.size {
            let sent = self.send(rank, Frame::Answer, &frame.0);
            if !last {
                sent?;
            }
        }
        Ok(())
    }

    /// Others: what call `number` came to.
    pub fn answered(&self, number: u64) -> Result<Vec<u8>> {
        self.wait(|state| match state.answer.take() {
            Some((n, body)) if n == number => Some(body),
            other => {
                state.answer = other;
                None
            }
        })
    }

    pub fn send(&self, rank: usize, frame: Frame, body: &[u8]) -> Result<()> {
        let link = self.lock().links[rank].clone();
        let Some(link) = link else {
            // It came while the job was failing already.
            return Err(self.explain(rank, "it has not come yet"));
        };
        let stop = || self.lock().failing;
        match link.send(frame, body, stop) {
            Ok(()) => Ok(()),
            // The listener of this connection sees it too, and knows why.
            Err(error) => Err(self.explain(rank, &format!("the connection to it broke ({error})"))),
        }
    }

    /// After the last collective: rank 0 waits until the others have closed.
    pub fn await_end(&self) {
        if self.rank == 0 {
            let others = self.size - 1;
            let _ = self
                .changed
                .wait_timeout_while(self.lock(), AFTER_REPORT, |state| state.gone < others);
        }
    }

    /// Ends threads and connections.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        shut(&state.ring);
        for link in state.links.iter().flatten() {
            link.shut();
        }
        self.changed.notify_all();
    }
}

fn shut(streams: &[TcpStream]) {
    for stream in streams {
        let _ = stream.shutdown(Shutdown::Both);
    }
}
