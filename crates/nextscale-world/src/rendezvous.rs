//! How the processes of a job find each other: rank 0 listens, the others look for it, in any order of starting.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

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

/// What a member says of itself when it comes.
struct Card {
    rank: usize,
    size: usize,
    host: String,
    program: String,
    ring_port: u16,
}

impl Card {
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u64(self.rank as u64).u64(self.size as u64);
        out.text(&self.host).text(&self.program).u16(self.ring_port);
        out.raw(&1u32.to_ne_bytes());
        out.0
    }

    fn read(bytes: &[u8]) -> Option<(Self, bool)> {
        let mut from = Reader(bytes);
        let card = Self {
            rank: from.index()?,
            size: from.index()?,
            host: from.text()?,
            program: from.text()?,
            ring_port: from.u16()?,
        };
        Some((card, from.array()? == 1u32.to_ne_bytes()))
    }
}

/// Where a member's ring connection is taken.
#[derive(Clone)]
struct Place {
    host: String,
    /// As rank 0 sees it; rank 0's own is as each member sees it.
    address: Option<IpAddr>,
    port: u16,
}

fn write_table(session: &[u8; 16], places: &[Place]) -> Vec<u8> {
    let mut out = Writer::default();
    out.raw(session);
    for place in places {
        let address = place.address.map_or_else(String::new, |a| a.to_string());
        out.text(&place.host).text(&address).u16(place.port);
    }
    out.0
}

fn read_table(bytes: &[u8], size: usize) -> Option<([u8; 16], Vec<Place>)> {
    let mut from = Reader(bytes);
    let session = from.array()?;
    let place = |from: &mut Reader<'_>| {
        Some(Place {
            host: from.text()?,
            address: from.text()?.parse().ok(),
            port: from.u16()?,
        })
    };
    let places = (0..size).map(|_| place(&mut from)).collect::<Option<_>>()?;
    Some((session, places))
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

    // Rank 0.

    fn lead(&mut self) -> Result<(OpenGate, Vec<Place>, Option<IpAddr>)> {
        getrandom::fill(&mut self.credentials.session)
            .map_err(|e| Error::io("no random numbers", std::io::Error::other(e.to_string())))?;
        let gate = self.bind_first()?;
        let port = gate.port();
        let gate = gate.open(self.credentials.clone(), self.allowed()?);
        let mut places: Vec<Option<Place>> = vec![None; self.identity.size];
        places[0] = Some(Place {
            host: self.identity.host.clone(),
            address: None,
            port,
        });
        if let Err(error) = self.take_all_in(&gate, &mut places, port) {
            self.tell_the_others(&gate, &mut places, &error);
            return Err(error);
        }
        let places: Vec<Place> = places.into_iter().flatten().collect();
        let table = write_table(&self.credentials.session, &places);
        for rank in 1..places.len() {
            self.shared.send(rank, crate::link::Frame::Table, &table)?;
        }
        Ok((gate, places, None))
    }

    fn take_all_in(&self, gate: &OpenGate, places: &mut [Option<Place>], port: u16) -> Result<()> {
        while places.iter().any(Option::is_none) {
            self.shared.check()?;
            if self.is_late() {
                let error = self.missing(places, port, &gate.turned_away());
                self.shared.fail(error.clone());
                return Err(error);
            }
            let Some(guest) = gate.next(Duration::from_millis(50)) else {
                continue;
            };
            if guest.purpose == Purpose::Control {
                self.admit(guest, places)?;
            }
        }
        Ok(())
    }

    /// Members that are still on their way would look for a job that is over.
    fn tell_the_others(&self, gate: &OpenGate, places: &mut [Option<Place>], error: &Error) {
        let until = Instant::now() + AFTERWARDS;
        let late = matches!(error, Error::Late(_));
        while !late && places.iter().any(Option::is_none) && Instant::now() < until {
            let Some(guest) = gate.next(Duration::from_millis(50)) else {
                continue;
            };
            let _ = handshake::write_verdict(&guest.stream, Some(error));
            if let Some((card, _)) = Card::read(&guest.body)
                && let Some(place) = places.get_mut(card.rank)
            {
                place.get_or_insert(Place {
                    host: card.host,
                    address: None,
                    port: 0,
                });
            }
        }
    }

    /// The first of the job's ports that is free.
    fn bind_first(&self) -> Result<Gate> {
        loop {
            let mut last = None;
            for port in &self.ports {
                match gate::bind(*port, self.loopback) {
                    Ok(gate) => return Ok(gate),
                    Err(error) => last = Some(error),
                }
                // Perhaps a second rank 0 has it: then both learn of it.
                let here = self.loopback.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
                if let Ok(stream) = self.knock(here, *port)
                    && let Ok(Err(refusal)) =
                        handshake::read_verdict(&stream, Instant::now() + VERDICT)
                {
                    return Err(refusal);
                }
            }
            self.shared.check()?;
            if self.is_late() {
                let why = last.unwrap_or_else(|| std::io::ErrorKind::AddrInUse.into());
                let ports = self.port_range();
                return Err(Error::io(
                    format!("rank 0 can't listen on ports {ports}"),
                    why,
                ));
            }
            thread::sleep(Duration::from_millis(500));
        }
    }

    /// Takes a member in, or ends the job when it can't be one.
    fn admit(&self, guest: Guest, places: &mut [Option<Place>]) -> Result<()> {
        let Some((card, same_order)) = Card::read(&guest.body) else {
            return Ok(());
        };
        let size = places.len();
        let me = format!("rank 0 on {}", self.identity.host);
        let they = format!("rank {} on {}", card.rank, card.host);
        let there = places.get(card.rank).and_then(Option::as_ref);
        let refusal = if card.program != self.identity.program {
            Some(format!(
                "{they} runs {}, {me} {}: start the same build everywhere",
                card.program, self.identity.program
            ))
        } else if !same_order {
            Some(format!(
                "{they} and {me} have processors of different byte order"
            ))
        } else if card.size != size {
            Some(format!(
                "{they} was started as one of {}, {me} as one of {size}: start all with the same number of processes",
                card.size
            ))
        } else if let Some(place) = there {
            Some(format!(
                "rank {} came twice, from {} and from {}: every process needs a rank of its own",
                card.rank, place.host, card.host
            ))
        } else {
            (card.rank >= size).then(|| format!("there is no rank {} of {size}", card.rank))
        };
        if let Some(refusal) = refusal {
            let error = Error::Input(refusal);
            let _ = handshake::write_verdict(&guest.stream, Some(&error));
            self.shared.fail(error.clone());
            return Err(error);
        }
        let io = |e| Error::io(format!("the connection to {they}"), e);
        let address = guest.stream.peer_addr().map_err(io)?.ip().to_canonical();
        // One that has gone already may come once more.
        if handshake::write_verdict(&guest.stream, None).is_ok() {
            places[card.rank] = Some(Place {
                host: card.host.clone(),
                address: Some(address),
                port: card.ring_port,
            });
            self.shared
                .add_link(card.rank, &card.host, guest.stream)
                .map_err(io)?;
        }
        Ok(())
    }

    fn missing(&self, places: &[Option<Place>], port: u16, away: &[String]) -> Error {
        let size = places.len();
        let missing: Vec<usize> = (0..size).filter(|rank| places[*rank].is_none()).collect();
        let came = places
            .iter()
            .enumerate()
            .skip(1)
            .filter_map(|(rank, place)| {
                let host = &place.as_ref()?.host;
                Some(format!("{rank} on {host}"))
            });
        let mut text = format!(
            "{} of {size} did not come within {} (rank 0 waits on {} port {port}; came: {}",
            ranks(&missing),
            self.patience(),
            self.identity.host,
            some_of(came.collect()),
        );
        if !away.is_empty() {
            text += "; turned away: ";
            text += &away.join(", ");
        }
        Error::Late(text + ")")
    }

    // The others.

    fn follow(&mut self) -> Result<(OpenGate, Vec<Place>, Option<IpAddr>)> {
        let gate = gate::bind(0, self.loopback).map_err(|e| Error::io("no port is free", e))?;
        let stream = self.find_first(gate.port())?;
        let io = |e| Error::io("the connection to rank 0", e);
        let first = stream.peer_addr().map_err(io)?.ip().to_canonical();
        self.shared.add_link(0, "its host", stream).map_err(io)?;
        let table = self.shared.wait(|state| state.table.take())?;
        let size = self.identity.size;
        let (session, places) = read_table(&table, size)
            .ok_or_else(|| self.shared.lost(0, "it sent what is no message"))?;
        self.credentials.session = session;
        let hosts = places.iter().map(|place| Some(place.host.clone()));
        self.shared.lock().hosts = hosts.collect();
        let gate = gate.open(self.credentials.clone(), self.allowed()?);
        Ok((gate, places, Some(first)))
    }

    /// Looks for rank 0 until it is there and has taken this process in.
    fn find_first(&self, ring_port: u16) -> Result<TcpStream> {
        let card = self.card(ring_port);
        let mut pause = Duration::from_millis(20);
        let mut stubborn: Option<(Instant, String)> = None;
        loop {
            let mut notes = Vec::new();
            let mut claimed = None;
            for (name, address) in self.addresses_of_first(&mut notes) {
                for port in &self.ports {
                    self.shared.check()?;
                    let place = format!("{name} port {port}");
                    match self.knock_with(address, *port, &card) {
                        Ok(stream) => match self.verdict(&stream)? {
                            true => return Ok(stream),
                            false => notes.push(format!("{place}: hung up")),
                        },
                        Err(Missed::Nobody) => {}
                        Err(Missed::Unreachable(why)) => {
                            notes.push(format!("{name}: {why}"));
                            break;
                        }
                        Err(Missed::Stranger(stranger)) => {
                            let note = format!("the process on {place} {}", stranger.why);
                            if stranger.same_job {
                                claimed = Some(note.clone());
                            }
                            notes.push(note);
                        }
                    }
                }
            }
            stubborn = match (stubborn, claimed) {
                (Some((since, _)), Some(note)) if since.elapsed() > STUBBORN => {
                    return Err(Error::Input(note));
                }
                (Some((since, _)), Some(note)) => Some((since, note)),
                (None, Some(note)) => Some((Instant::now(), note)),
                (_, None) => None,
            };
            if self.is_late() {
                return Err(self.first_missing(&notes));
            }
            let left = self.limits.rendezvous.saturating_sub(self.began.elapsed());
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    fn addresses_of_first(&self, notes: &mut Vec<String>) -> Vec<(String, IpAddr)> {
        if let Some(address) = self.loopback {
            return vec![(self.identity.host.clone(), address)];
        }
        let mut found = Vec::new();
        for host in &self.identity.masters {
            let addresses = gate::resolve(host);
            if addresses.is_empty() {
                notes.push(format!("the name {host} has no address"));
            }
            found.extend(addresses.into_iter().map(|address| (host.clone(), address)));
        }
        found
    }

    fn verdict(&self, stream: &TcpStream) -> Result<bool> {
        match handshake::read_verdict(stream, Instant::now() + VERDICT) {
            Ok(Ok(())) => Ok(true),
            Ok(Err(refusal)) => Err(refusal),
            Err(_) => Ok(false),
        }
    }

    fn first_missing(&self, notes: &[String]) -> Error {
        let masters = match self.loopback {
            Some(_) => self.identity.host.clone(),
            None => self.identity.masters.join(" or "),
        };
        let mut text = format!(
            "rank 0 of {} did not come within {} (rank {} on {} looks for it on {masters} ports {}",
            self.identity.size,
            self.patience(),
            self.identity.rank,
            self.identity.host,
            self.port_range(),
        );
        for note in notes.iter().take(4) {
            text += "; ";
            text += note;
        }
        Error::Late(text + ")")
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

    // The ring.

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

    #[test]
    fn tables_and_cards_are_read_as_written() {
        let place = |host: &str, address: Option<IpAddr>, port| Place {
            host: host.into(),
            address,
            port,
        };
        let places = [
            place("a", None, 1),
            place("b", Some([10, 0, 0, 2].into()), 2),
            place("c", Some(Ipv6Addr::LOCALHOST.into()), 3),
        ];
        let (session, read) = read_table(&write_table(&[7; 16], &places), 3).unwrap();
        assert_eq!(session, [7; 16]);
        for (one, other) in places.iter().zip(&read) {
            assert_eq!(
                (&one.host, one.address, one.port),
                (&other.host, other.address, other.port)
            );
        }
        assert!(read_table(&write_table(&[7; 16], &places[..2]), 3).is_none());
        assert!(Card::read(b"short").is_none());
    }
}
