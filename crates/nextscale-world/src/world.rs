//! This process among all that work on one thing.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::calls::{Call, Kind};
use crate::control::Shared;
use crate::rendezvous::{Joined, Rendezvous};
use crate::ring::{Broken, Ring};
use crate::wire::{Reader, Writer};
use crate::{Error, Identity, Limits, Result, orphan};

/// This process among all that work on one thing. Clones are the same member.
///
/// All members call the same collectives in the same order; one that calls another, or with another number of values, is an
/// error for all that names both. When a member is lost, every collective of every other member ends with [`Error::Lost`],
/// which names the one that was lost first.
#[derive(Clone)]
pub struct World {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    /// Held during a collective: one at a time.
    ring: Mutex<Option<Ring>>,
    hosts: Vec<String>,
    members: Vec<String>,
    local_rank: usize,
    local_size: usize,
    over: AtomicBool,
}

impl Default for World {
    fn default() -> Self {
        Self::alone()
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("rank", &self.rank())
            .field("size", &self.size())
            .field("hosts", &self.inner.hosts)
            .finish_non_exhaustive()
    }
}

impl World {
    /// One process. No connection is opened and no thread started; collectives leave everything as it is.
    pub fn alone() -> Self {
        let identity = Identity::alone();
        let shared = Shared::new(0, 1, &identity.host, Limits::default());
        Self::new(shared, None, vec![identity.host.clone()], &identity)
    }

    /// Finds the other processes of the job, and returns when all have come.
    ///
    /// # Errors
    /// [`Error::Input`] when processes do not fit together (two of one rank, different sizes, programs or secrets) or nothing
    /// would keep strangers out; [`Error::Late`] when one has not come in time, with its rank; [`Error::Lost`] when one is lost
    /// meanwhile.
    pub fn join(identity: &Identity, limits: Limits) -> Result<Self> {
        let shared = Shared::new(identity.rank, identity.size, &identity.host, limits);
        if identity.follows_stdin {
            orphan::watch(&shared);
        }
        if identity.size == 1 {
            let hosts = vec![identity.host.clone()];
            return Ok(Self::new(shared, None, hosts, identity));
        }
        let rendezvous = Rendezvous::new(identity, &shared, limits)?;
        shared.watch();
        let closing = Closing(Some(&shared));
        let Joined { ring, hosts } = rendezvous.meet()?;
        shared.add_ring(ring.handles().map_err(|e| Error::io("the ring", e))?);
        let world = Self::new(shared.clone(), Some(ring), hosts, identity);
        world.meet(Kind::Join)?;
        closing.keep();
        Ok(world)
    }

    fn new(
        shared: Arc<Shared>,
        ring: Option<Ring>,
        hosts: Vec<String>,
        identity: &Identity,
    ) -> Self {
        let rank = shared.rank;
        let here = |other: &usize| hosts[*other] == hosts[rank];
        let local_rank = (0..rank).filter(here).count();
        let local_size = (0..hosts.len()).filter(here).count();
        let members = hosts.iter().enumerate();
        let members = members.map(|(rank, host)| format!("rank {rank} on {host}"));
        Self {
            inner: Arc::new(Inner {
                members: members.collect(),
                local_rank: identity.local_rank.unwrap_or(local_rank),
                local_size: identity.local_size.unwrap_or(local_size),
                shared,
                ring: Mutex::new(ring),
                hosts,
                over: AtomicBool::new(false),
            }),
        }
    }

    /// This process's number, from 0.
    pub fn rank(&self) -> usize {
        self.inner.shared.rank
    }

    /// The number of processes.
    pub fn size(&self) -> usize {
        self.inner.shared.size
    }

    /// Whether this is rank 0, which writes what is written once.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// This process's number among those of its machine.
    pub fn local_rank(&self) -> usize {
        self.inner.local_rank
    }

    /// The number of processes on this machine.
    pub fn local_size(&self) -> usize {
        self.inner.local_size
    }

    /// A member in words, as `rank 2 on host-b`.
    ///
    /// # Panics
    /// When there is no such rank.
    pub fn member(&self, rank: usize) -> &str {
        &self.inner.members[rank]
    }

    /// The name of a member's machine.
    ///
    /// # Panics
    /// When there is no such rank.
    pub fn host(&self, rank: usize) -> &str {
        &self.inner.hosts[rank]
    }

    /// Replaces `values` by their sums over all members, added in the order of ranks. For few numbers: they go through rank 0.
    ///
    /// # Errors
    /// When a member is lost, late, or calls another collective.
    pub fn sum(&self, values: &mut [f64]) -> Result<()> {
        let _turn = self.turn();
        if self.size() == 1 {
            return self.check();
        }
        let call = Call::new(Kind::Sum, values.len());
        let own = to_bytes(values);
        let number = self.inner.shared.begin(call, &own)?;
        let summed = if self.is_first() {
            let mut sums = values.to_vec();
            for rank in 1..self.size() {
                let theirs = self.inner.shared.payload(number, rank)?;
                for (sum, value) in sums.iter_mut().zip(from_bytes(&theirs)) {
                    *sum += value;
                }
            }
            let summed = to_bytes(&sums);
            self.inner.shared.answer(number, false, &summed)?;
            summed
        } else {
            self.inner.shared.answered(number)?
        };
        for (value, sum) in values.iter_mut().zip(from_bytes(&summed)) {
            *value = sum;
        }
        self.inner.shared.end(call);
        Ok(())
    }

    /// Replaces `bytes` by those of rank 0, whatever the length here.
    ///
    /// # Errors
    /// When a member is lost, late, or calls another collective.
    pub fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()> {
        let _turn = self.turn();
        if self.size() == 1 {
            return self.check();
        }
        let call = Call::new(Kind::Broadcast, 0);
        let number = self.inner.shared.begin(call, &[])?;
        if self.is_first() {
            self.await_all(number)?;
            self.inner.shared.answer(number, false, bytes)?;
        } else {
            *bytes = self.inner.shared.answered(number)?;
        }
        self.inner.shared.end(call);
        Ok(())
    }

    /// The bytes of all members, in the order of ranks, for every member. Lengths may differ.
    ///
    /// # Errors
    /// When a member is lost, late, or calls another collective.
    pub fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        let _turn = self.turn();
        if self.size() == 1 {
            return self.check().map(|()| vec![bytes.to_vec()]);
        }
        let shared = &self.inner.shared;
        let call = Call::new(Kind::Gather, 0);
        let number = shared.begin(call, bytes)?;
        let all = if self.is_first() {
            let mut all = Writer::default();
            all.bytes(bytes);
            for rank in 1..self.size() {
                all.bytes(&shared.payload(number, rank)?);
            }
            shared.answer(number, false, &all.0)?;
            all.0
        } else {
            shared.answered(number)?
        };
        let mut from = Reader(&all);
        let parts = (0..self.size()).map(|_| Some(from.bytes()?.to_vec()));
        let parts = parts.collect::<Option<_>>();
        shared.end(call);
        parts.ok_or_else(|| shared.lost(0, "it sent what is no message"))
    }

    /// The bytes of all members, in the order of ranks, for rank 0 alone; `None` on the others. Lengths may differ.
    ///
    /// # Errors
    /// When a member is lost, late, or calls another collective.
    pub fn collect(&self, bytes: Vec<u8>) -> Result<Option<Vec<Vec<u8>>>> {
        let _turn = self.turn();
        if self.size() == 1 {
            return self.check().map(|()| Some(vec![bytes]));
        }
        let shared = &self.inner.shared;
        let call = Call::new(Kind::Collect, 0);
        let number = shared.begin(call, &bytes)?;
        let all = if self.is_first() {
            let theirs = (1..self.size()).map(|rank| shared.payload(number, rank));
            let all: Vec<_> = std::iter::once(Ok(bytes))
                .chain(theirs)
                .collect::<Result<_>>()?;
            shared.answer(number, false, &[])?;
            Some(all)
        } else {
            shared.answered(number)?;
            None
        };
        shared.end(call);
        Ok(all)
    }

    /// Waits until every member has come here.
    ///
    /// # Errors
    /// When a member is lost, late, or calls another collective.
    pub fn barrier(&self) -> Result<()> {
        self.meet(Kind::Barrier)
    }

    fn meet(&self, kind: Kind) -> Result<()> {
        let _turn = self.turn();
        if self.size() == 1 {
            return self.check();
        }
        let shared = &self.inner.shared;
        let call = Call::new(kind, 0);
        let number = shared.begin(call, &[])?;
        if self.is_first() {
            self.await_all(number)?;
            shared.answer(number, kind == Kind::Finish, &[])?;
        } else {
            shared.answered(number)?;
        }
        shared.end(call);
        Ok(())
    }

    fn await_all(&self, number: u64) -> Result<()> {
        (1..self.size()).try_for_each(|rank| self.inner.shared.payload(number, rank).map(drop))
    }

    /// Replaces `values` by their sums over all members: the same bits everywhere, and for the same number of members each time.
    ///
    /// # Errors
    /// When a member is lost, late, or calls another collective; `values` may then be half done.
    pub fn all_reduce(&self, values: &mut [f32]) -> Result<()> {
        let call = Call::new(Kind::AllReduce, values.len());
        self.around(call, |ring, head, stop| ring.all_reduce(head, values, stop))
    }

    /// Puts into range `r` of rank `r`'s `values` the sum of that range over all members. What the other ranges hold afterwards
    /// is not said. Ranges are one a member, may be empty, and must not overlap.
    ///
    /// # Errors
    /// When a member is lost, late, or calls another collective; when ranges are not as said.
    pub fn reduce_scatter(&self, values: &mut [f32], ranges: &[Range<usize>]) -> Result<()> {
        let call = self.ranged(Kind::ReduceScatter, values.len(), ranges)?;
        self.around(call, |ring, head, stop| {
            ring.reduce_scatter(head, values, ranges, stop)
        })
    }

    /// Copies range `r` of rank `r`'s `values` to all members. Ranges are one a member, may be empty, and must not overlap.
    ///
    /// # Errors
    /// When a member is lost, late, or calls another collective; when ranges are not as said.
    pub fn all_gather(&self, values: &mut [f32], ranges: &[Range<usize>]) -> Result<()> {
        let call = self.ranged(Kind::AllGather, values.len(), ranges)?;
        self.around(call, |ring, head, stop| {
            ring.all_gather(head, values, ranges, stop)
        })
    }

    fn ranged(&self, kind: Kind, len: usize, ranges: &[Range<usize>]) -> Result<Call> {
        let mut sorted: Vec<_> = ranges.iter().filter(|range| !range.is_empty()).collect();
        sorted.sort_by_key(|range| range.start);
        let apart = sorted.windows(2).all(|pair| pair[0].end <= pair[1].start);
        let inside = ranges
            .iter()
            .all(|range| range.start <= range.end && range.end <= len);
        if ranges.len() != self.size() || !apart || !inside {
            return Err(Error::Mismatch(format!(
                "{} ranges of {len} numbers for {} members: one each, inside and apart, is needed",
                ranges.len(),
                self.size()
            )));
        }
        let mut digest = Sha256::new();
        for range in ranges {
            digest.update((range.start as u64).to_le_bytes());
            digest.update((range.end as u64).to_le_bytes());
        }
        let digest = digest.finalize();
        let digest = digest[..8].try_into().map_or(0, u64::from_le_bytes);
        Ok(Call {
            digest,
            ..Call::new(kind, len)
        })
    }

    fn around(
        &self,
        call: Call,
        run: impl FnOnce(&mut Ring, (u64, Call), &dyn Fn() -> bool) -> std::result::Result<(), Broken>,
    ) -> Result<()> {
        let mut turn = self.turn();
        let Some(ring) = turn.as_mut() else {
            return self.check();
        };
        let shared = &self.inner.shared;
        let number = shared.begin(call, &[])?;
        let stop = || shared.check().is_err();
        let ran = run(ring, (number, call), &stop);
        match ran {
            Ok(()) => {
                shared.end(call);
                Ok(())
            }
            Err(Broken::Neighbour(rank, why)) => Err(shared.explain(
                rank,
                &format!("its connection to rank {} broke ({why})", self.rank()),
            )),
            // Rank 0 compares all calls, and names both.
            Err(Broken::Differs | Broken::Failed) => {
                let before = (self.rank() + self.size() - 1) % self.size();
                Err(shared.explain(before, "it sent what is no part of this collective"))
            }
        }
    }

    fn turn(&self) -> MutexGuard<'_, Option<Ring>> {
        self.inner.ring.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Whether all is well as far as is known here. Cheap; for loops that wait for something else.
    ///
    /// # Errors
    /// The failure that collectives would end with.
    pub fn check(&self) -> Result<()> {
        self.inner.shared.check()
    }

    /// Waits a moment for a failure to become known. When something else breaks, as a GPU's communicator, a lost member may be
    /// why, and this says which.
    pub fn wait_for_failure(&self, patience: Duration) -> Option<Error> {
        self.inner.shared.wait_for_failure(patience)
    }

    /// Has `callback` called once, by another thread, when a member is lost or the job fails otherwise; at once if it has
    /// already. For what is blocked elsewhere and must be aborted.
    pub fn on_loss(&self, callback: impl FnOnce(&Error) + Send + 'static) {
        self.inner.shared.on_loss(Box::new(callback));
    }

    /// Tells the others that this process ends, and why: they fail with it. After a failure that is known already it does
    /// nothing, so it may be called with whatever error ends the process.
    pub fn leave(&self, why: &str) {
        let error = self.inner.shared.lost(self.rank(), why);
        self.inner.shared.leave(error.clone(), error);
    }

    /// The end: waits for all members, then closes without alarming anyone. Clones can do nothing afterwards.
    ///
    /// # Errors
    /// When a member is lost, late, or calls another collective.
    pub fn finish(self) -> Result<()> {
        self.meet(Kind::Finish)?;
        self.inner.over.store(true, Ordering::Relaxed);
        self.inner.shared.await_end();
        self.inner.shared.close();
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.shared.size > 1 && !self.over.load(Ordering::Relaxed) {
            let why = match std::thread::panicking() {
                true => "it panicked",
                false => "it ended before the others",
            };
            let error = self.shared.lost(self.shared.rank, why);
            self.shared.leave(error.clone(), error);
        }
        self.shared.close();
    }
}

/// Closes what a failed rendezvous has opened.
struct Closing<'a>(Option<&'a Arc<Shared>>);

impl Closing<'_> {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        if let Some(shared) = self.0 {
            shared.close();
        }
    }
}

fn to_bytes(values: &[f64]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn from_bytes(bytes: &[u8]) -> impl Iterator<Item = f64> + '_ {
    bytes
        .as_chunks::<8>()
        .0
        .iter()
        .map(|bytes| f64::from_le_bytes(*bytes))
}
