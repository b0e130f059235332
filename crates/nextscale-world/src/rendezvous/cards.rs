//! What members tell each other when they meet.

use std::net::IpAddr;

use crate::wire::{Reader, Writer};

/// What a member says of itself when it comes.
pub(super) struct Card {
    pub rank: usize,
    pub size: usize,
    pub host: String,
    pub program: String,
    pub ring_port: u16,
}

impl Card {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u64(self.rank as u64).u64(self.size as u64);
        out.text(&self.host).text(&self.program).u16(self.ring_port);
        out.raw(&1u32.to_ne_bytes());
        out.0
    }

    pub fn read(bytes: &[u8]) -> Option<(Self, bool)> {
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
pub(super) struct Place {
    pub host: String,
    /// As rank 0 sees it; rank 0's own is as each member sees it.
    pub address: Option<IpAddr>,
    pub port: u16,
}

pub(super) fn write_table(session: &[u8; 16], places: &[Place]) -> Vec<u8> {
    let mut out = Writer::default();
    out.raw(session);
    for place in places {
        let address = place.address.map_or_else(String::new, |a| a.to_string());
        out.text(&place.host).text(&address).u16(place.port);
    }
    out.0
}

pub(super) fn read_table(bytes: &[u8], size: usize) -> Option<([u8; 16], Vec<Place>)> {
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

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

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
