//! The others' side: they look for rank 0.

use std::net::{IpAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::cards::read_table;
use super::*;

impl Rendezvous<'_> {
    pub(super) fn follow(&mut self) -> Result<(OpenGate, Vec<Place>, Option<IpAddr>)> {
        let gate = gate::bind(0, self.loopback).map_err(|e| Error::io("no port is free", e))?;
        let (stream, host) = self.find_first(gate.port())?;
        let io = |e| Error::io("the connection to rank 0", e);
        let first = stream.peer_addr().map_err(io)?.ip().to_canonical();
        self.shared.add_link(0, &host, stream).map_err(io)?;
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
    fn find_first(&self, ring_port: u16) -> Result<(TcpStream, String)> {
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
                            Some(host) => return Ok((stream, host)),
                            None => notes.push(format!("{place}: hung up")),
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

    /// The name of rank 0's machine when it took this process in.
    fn verdict(&self, stream: &TcpStream) -> Result<Option<String>> {
        match handshake::read_verdict(stream, Instant::now() + VERDICT) {
            Ok(Ok(host)) => Ok(Some(host)),
            Ok(Err(refusal)) => Err(refusal),
            Err(_) => Ok(None),
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
}
