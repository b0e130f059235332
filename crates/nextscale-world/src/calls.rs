//! Which collectives members have asked for: that all ask for the same, and who has not come yet.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use crate::wire::{Reader, Writer};

/// A collective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Join = 1,
    Sum = 2,
    Broadcast = 3,
    Gather = 4,
    Barrier = 5,
    AllReduce = 6,
    ReduceScatter = 7,
    AllGather = 8,
    Finish = 9,
    Collect = 10,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Join,
        Self::Sum,
        Self::Broadcast,
        Self::Gather,
        Self::Barrier,
        Self::AllReduce,
        Self::ReduceScatter,
        Self::AllGather,
        Self::Finish,
        Self::Collect,
    ];

    /// Whether what members send goes through rank 0.
    pub fn by_first(self) -> bool {
        !matches!(
            self,
            Self::AllReduce | Self::ReduceScatter | Self::AllGather
        )
    }
}

/// What a member asks for. Two that differ in anything are a mistake of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub kind: Kind,
    /// Numbers, where all members give the same count.
    pub len: u64,
    /// Of the ranges, where all members give the same.
    pub digest: u64,
}

impl Call {
    pub const BYTES: usize = 17;

    pub fn new(kind: Kind, len: usize) -> Self {
        Self {
            kind,
            len: len as u64,
            digest: 0,
        }
    }

    pub fn write(&self, to: &mut Writer) {
        to.u8(self.kind as u8).u64(self.len).u64(self.digest);
    }

    pub fn read(from: &mut Reader<'_>) -> Option<Self> {
        let code = from.u8()?;
        Some(Self {
            kind: Kind::ALL.into_iter().find(|kind| *kind as u8 == code)?,
            len: from.u64()?,
            digest: from.u64()?,
        })
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            Kind::Join => "join",
            Kind::Sum => "sum",
            Kind::Broadcast => "broadcast",
            Kind::Gather => "gather",
            Kind::Collect => "collect",
            Kind::Barrier => "barrier",
            Kind::AllReduce => "all_reduce",
            Kind::ReduceScatter => "reduce_scatter",
            Kind::AllGather => "all_gather",
            Kind::Finish => "finish",
        };
        match self.kind {
            Kind::Sum | Kind::AllReduce => write!(f, "`{name}` of {} numbers", self.len),
            Kind::ReduceScatter | Kind::AllGather => write!(
                f,
                "`{name}` of {} numbers (ranges {:08x})",
                self.len, self.digest as u32
            ),
            _ => write!(f, "`{name}`"),
        }
    }
}

/// A collective that not all have called yet.
struct Open {
    call: Call,
    first: usize,
    since: Instant,
    limit: Duration,
    came: Vec<bool>,
}

/// The calls of all members, kept by rank 0.
pub(crate) struct Calls {
    size: usize,
    open: BTreeMap<u64, Open>,
}

/// Two members that asked for different things.
#[derive(Debug)]
pub(crate) struct Differ(pub [(usize, Call); 2]);

impl Calls {
    pub fn new(size: usize) -> Self {
        Self {
            size,
            open: BTreeMap::new(),
        }
    }

    /// Notes that `rank` calls `call` as its `number`th.
    pub fn note(
        &mut self,
        rank: usize,
        number: u64,
        call: Call,
        limit: Duration,
    ) -> Result<(), Differ> {
        let open = self.open.entry(number).or_insert_with(|| Open {
            call,
            first: rank,
            since: Instant::now(),
            limit,
            came: vec![false; self.size],
        });
        if open.call != call {
            let mut both = [(open.first, open.call), (rank, call)];
            both.sort_by_key(|(rank, _)| *rank);
            return Err(Differ(both));
        }
        open.came[rank] = true;
        if open.came.iter().all(|came| *came) {
            self.open.remove(&number);
        }
        Ok(())
    }

    /// A call that is too old: who has not made it, who was first to wait, which, and for how long.
    pub fn overdue(&self) -> Option<(usize, usize, Call, Duration)> {
        let late = self
            .open
            .values()
            .find(|open| open.since.elapsed() > open.limit)?;
        let missing = late.came.iter().position(|came| !came)?;
        Some((missing, late.first, late.call, late.limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(1000);

    #[test]
    fn equal_calls_in_any_order() {
        let mut calls = Calls::new(3);
        let (a, b) = (Call::new(Kind::AllReduce, 3), Call::new(Kind::Barrier, 0));
        for (rank, number, call) in [(2, 0, a), (2, 1, b), (0, 0, a), (1, 0, a), (0, 1, b)] {
            calls.note(rank, number, call, LONG).unwrap();
        }
        assert_eq!(calls.open.len(), 1);
        assert!(calls.overdue().is_none());
        calls.note(1, 1, b, LONG).unwrap();
        assert!(calls.open.is_empty());
    }

    #[test]
    fn both_that_differ_are_named() {
        let mut calls = Calls::new(3);
        calls.note(2, 0, Call::new(Kind::Sum, 3), LONG).unwrap();
        let Differ(both) = calls.note(1, 0, Call::new(Kind::Sum, 4), LONG).unwrap_err();
        assert_eq!(both[0].0, 1);
        assert_eq!(both[0].1.to_string(), "`sum` of 4 numbers");
        assert_eq!((both[1].0, both[1].1.len), (2, 3));
    }

    #[test]
    fn who_is_missing_is_known() {
        let mut calls = Calls::new(3);
        calls
            .note(2, 0, Call::new(Kind::Barrier, 0), Duration::ZERO)
            .unwrap();
        calls
            .note(0, 0, Call::new(Kind::Barrier, 0), Duration::ZERO)
            .unwrap();
        std::thread::sleep(Duration::from_millis(2));
        let (missing, first, call, _) = calls.overdue().unwrap();
        assert_eq!((missing, first, call.kind), (1, 2, Kind::Barrier));
    }

    #[test]
    fn a_call_is_read_as_written() {
        for kind in Kind::ALL {
            let call = Call {
                kind,
                len: 7,
                digest: 9,
            };
            let mut to = Writer::default();
            call.write(&mut to);
            assert_eq!(to.0.len(), Call::BYTES);
            assert_eq!(Call::read(&mut Reader(&to.0)), Some(call));
        }
        assert_eq!(Call::read(&mut Reader(&[77; Call::BYTES])), None);
    }
}
