//! Rank 0's side: it listens, and takes the others in.

use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::{Duration, Instant};

use super::cards::write_table;
use super::*;

impl Rendezvous<'_> {
    pub(super) fn lead(&mut self) -> Result<(OpenGate, Vec<Place>, Option<IpAddr>)> {
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
            let _ = handshake::write_verdict(&guest.stream, Err(error));
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
            let _ = handshake::write_verdict(&guest.stream, Err(&error));
            self.shared.fail(error.clone());
            return Err(error);
        }
        let io = |e| Error::io(format!("the connection to {they}"), e);
        let address = guest.stream.peer_addr().map_err(io)?.ip().to_canonical();
        // One that has gone already may come once more.
        if handshake::write_verdict(&guest.stream, Ok(&self.identity.host)).is_ok() {
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
}
