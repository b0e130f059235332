//! How the processes of a job find each other: rank 0 listens, the others look for it, in any order of starting.

mod cards;
mod first;
mod others;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use self::cards::{Card, Place};
use crate::control::Shared;
use crate::gate::{self, Allowed, Gate, Guest, OpenGate};
use crate::handshake::{self, Credentials, Purpose, Stranger};
use crate::identity::{Identity, Ports};
use crate::ring::Ring;
use crate::wire::{Reader, Writer};
use crate::{Error, Limits, Result};

/// Ports at which rank 0 may be. The first is enough unless another program has it.
const PORTS: u32 = 16;
/// Ports that follow from a job's name begin here: below those that systems give to outgoing connections.
const FIRST_OF_JOB: u32 = 20_000;
const SPAN_OF_JOB: u32 = 10_000;
/// How long a host that drops packets is waited for.
const REACH: Duration = Duration::from_secs(3);
/// How long a member waits for being taken in.
const VERDICT: Duration = Duration::from_secs(30);
/// How long a process that claims to be of this job and can't prove it is asked again.
const STUBBORN: Duration = Duration::from_secs(15);
/// How long rank 0 stays to tell those who come after a failure why there is no job.
const AFTERWARDS: Duration = Duration::from_secs(3);
/// How long the ring may take once all are known.
const RING: Duration = Duration::from_secs(60);

/// The ports that all members of a job try in turn.
pub(crate) fn candidates(ports: Ports, job: &str) -> Vec<u16> {
    let first = match ports {
        Ports::From(port) => u32::from(port),
        Ports::After(port) => u32::from(port) + 1,
        Ports::OfJob => {
            let digest = Sha256::digest(job.as_bytes());
            let number = u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]);
            FIRST_OF_JOB + number % SPAN_OF_JOB
        }
    };
    let wrap = |port: u32| match u16::try_from(port) {
        Ok(port) => port,
        Err(_) => (port - 16_384) as u16,
    };
    (first..first + PORTS).map(wrap).collect()
}

/// A job whose members have all come.
pub(crate) struct Joined {
    pub ring: Ring,
    pub hosts: Vec<String>,
}

/// What both sides of the rendezvous need.
pub(crate) struct Rendezvous<'a> {
    identity: &'a Identity,
    shared: &'a Arc<Shared>,
    credentials: Credentials,
    /// The address to bind when the whole job is on this machine.
    loopback: Option<IpAddr>,
    ports: Vec<u16>,
    began: Instant,
    limits: Limits,
}

impl<'a> Rendezvous<'a> {
    pub fn new(identity: &'a Identity, shared: &'a Arc<Shared>, limits: Limits) -> Result<Self> {
        let here =
            identity.is_one_host() || (identity.has_loopback_master() && identity.secret.is_none());
        let six = identity
            .masters
            .iter()
            .all(|host| host.trim_matches(['[', ']']) == "::1");
        let loopback = here.then_some(match six {
            true => IpAddr::V6(Ipv6Addr::LOCALHOST),
            false => IpAddr::V4(Ipv4Addr::LOCALHOST),
        });
        let job = format!("{} #{}", identity.job, identity.incarnation);
        let rendezvous = Self {
            identity,
            shared,
            credentials: Credentials {
                secret: identity.secret.as_ref().map(|secret| secret.0.clone()),
                job,
                session: [0; 16],
            },
            loopback,
            ports: candidates(identity.ports, &identity.job),
            began: Instant::now(),
            limits,
        };
        rendezvous.allowed().map(|_| rendezvous)
    }

    /// Who may come: see [`Allowed`].
    fn allowed(&self) -> Result<Allowed> {
        if self.credentials.secret.is_some() {
            Ok(Allowed::Anyone)
        } else if self.loopback.is_some() {
            Ok(Allowed::Loopback)
        } else if !self.identity.hosts.is_empty() {
            Ok(Allowed::Hosts(self.identity.hosts.clone()))
        } else {
            Err(Error::Input(
                "the job runs on several machines whose addresses are not known here: set NEXTSCALE_SECRET to the same words on every machine"
                    .to_owned(),
            ))
        }
    }

    fn card(&self, ring_port: u16) -> Card {
        Card {
            rank: self.identity.rank,
            size: self.identity.size,
            host: self.identity.host.clone(),
            program: self.identity.program.clone(),
            ring_port,
        }
    }

    fn is_late(&self) -> bool {
        self.began.elapsed() >= self.limits.rendezvous
    }

    fn patience(&self) -> String {
        format!("{} s", self.limits.rendezvous.as_secs_f64())
    }

    fn port_range(&self) -> String {
        format!("{} to {}", self.ports[0], self.ports[self.ports.len() - 1])
    }

    /// Until all are connected.
    pub fn meet(mut self) -> Result<Joined> {
        let (gate, places, me) = match self.identity.rank {
            0 => self.lead()?,
            _ => self.follow()?,
        };
        let (rank, size) = (self.identity.rank, self.identity.size);
        let next = self.call_next(&places[(rank + 1) % size], me)?;
        let previous = self.take_previous(&gate)?;
        let io = |e| Error::io("the ring can't be set up", e);
        Ok(Joined {
            ring: Ring::new(rank, size, next, previous).map_err(io)?,
            hosts: places.into_iter().map(|place| place.host).collect(),
        })
    }

    fn knock(&self, address: IpAddr, port: u16) -> std::result::Result<TcpStream, Missed> {
        self.knock_with(address, port, &self.card(0))
    }

    fn knock_with(
        &self,
        address: IpAddr,
        port: u16,
        card: &Card,
    ) -> std::result::Result<TcpStream, Missed> {
        let stream = connect(address, port)?;
        let body = card.to_bytes();
        handshake::call(
            &stream,
            &self.credentials,
            Purpose::Control,
            card.rank,
            &body,
        )
        .map_err(Missed::Stranger)?;
        Ok(stream)
    }

    /// Connects to the next rank, whose gate opens when it has the table.
    fn call_next(&self, place: &Place, first: Option<IpAddr>) -> Result<TcpStream> {
        let address = match (place.address, first) {
            // Rank 0 itself, or a member on rank 0's machine: there as this process reaches it.
            (None, Some(first)) => first,
            (Some(address), Some(first)) if address.is_loopback() => first,
            (Some(address), _) => address,
            (None, None) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let began = Instant::now();
        let mut body = Writer::default();
        body.u64(self.identity.rank as u64);
        loop {
            self.shared.check()?;
            let why = match connect(address, place.port) {
                Ok(stream) => {
                    let me = self.identity.rank;
                    match handshake::call(&stream, &self.credentials, Purpose::Ring, me, &body.0) {
                        Ok(()) => return Ok(stream),
                        Err(stranger) => format!("the process there {}", stranger.why),
                    }
                }
                Err(missed) => missed.to_string(),
            };
            if began.elapsed() > RING {
                let next = (self.identity.rank + 1) % self.identity.size;
                let port = place.port;
                return Err(self.shared.explain(
                    next,
                    &format!(
                        "rank {} can't reach it at {address} port {port} ({why})",
                        self.identity.rank
                    ),
                ));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn take_previous(&self, gate: &OpenGate) -> Result<TcpStream> {
        let (rank, size) = (self.identity.rank, self.identity.size);
        let before = (rank + size - 1) % size;
        let began = Instant::now();
        loop {
            self.shared.check()?;
            if let Some(guest) = gate.next(Duration::from_millis(50))
                && guest.purpose == Purpose::Ring
                && Reader(&guest.body).index() == Some(before)
            {
                return Ok(guest.stream);
            }
            if began.elapsed() > RING + RING / 4 {
                return Err(self
                    .shared
                    .explain(before, &format!("it did not connect to rank {rank}")));
            }
        }
    }
}

/// Why a knock found no member.
enum Missed {
    /// Nobody listens there.
    Nobody,
    /// The machine does not answer.
    Unreachable(String),
    Stranger(Stranger),
}

impl std::fmt::Display for Missed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody listens there"),
            Self::Unreachable(why) => f.write_str(why),
            Self::Stranger(stranger) => f.write_str(&stranger.why),
        }
    }
}

fn connect(address: IpAddr, port: u16) -> std::result::Result<TcpStream, Missed> {
    let stream =
        TcpStream::connect_timeout(&(address, port).into(), REACH).map_err(|error| match error
            .kind()
        {
            std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::ConnectionReset => {
                Missed::Nobody
            }
            _ => Missed::Unreachable(error.to_string()),
        })?;
    // A port that the system gives out may meet itself.
    match (stream.local_addr(), stream.peer_addr()) {
        (Ok(here), Ok(there)) if here != there => Ok(stream),
        _ => Err(Missed::Nobody),
    }
}

/// `rank 2`, `ranks 2 and 3`, `ranks 2, 3, 4, 5 and 12 others`.
fn ranks(ranks: &[usize]) -> String {
    match ranks {
        [one] => format!("rank {one}"),
        _ => format!(
            "ranks {}",
            some_of(ranks.iter().map(usize::to_string).collect())
        ),
    }
}

fn some_of(mut items: Vec<String>) -> String {
    if items.is_empty() {
        return "nobody".to_owned();
    }
    if items.len() > 8 {
        let more = items.len() - 6;
        items.truncate(6);
        items.push(format!("{more} others"));
    }
    match items.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => items.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_those_of_the_job() {
        assert_eq!(candidates(Ports::From(29500), "")[..2], [29500, 29501]);
        assert_eq!(candidates(Ports::After(29500), "")[..2], [29501, 29502]);
        let job = candidates(Ports::OfJob, "a");
        assert_eq!(job, candidates(Ports::OfJob, "a"));
        assert_ne!(job, candidates(Ports::OfJob, "b"));
        assert!(job.iter().all(|port| (20_000..30_100).contains(port)));
        for ports in [Ports::From(65_530), Ports::After(65_535), Ports::From(1)] {
            let mut all = candidates(ports, "");
            assert!(!all.contains(&0));
            all.dedup();
            assert_eq!(all.len(), PORTS as usize);
        }
    }

    #[test]
    fn many_ranks_are_not_all_named() {
        let list = |n: usize| ranks(&(1..=n).collect::<Vec<_>>());
        assert_eq!(list(1), "rank 1");
        assert_eq!(list(2), "ranks 1 and 2");
        assert_eq!(list(4), "ranks 1, 2, 3 and 4");
        assert_eq!(list(100), "ranks 1, 2, 3, 4, 5, 6 and 94 others");
        assert_eq!(some_of(Vec::new()), "nobody");
    }
}
