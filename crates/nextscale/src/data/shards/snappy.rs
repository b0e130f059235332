//! Snappy without its frame: elements that are bytes as they stand, or copies of what came before.
//!
//! Crates unpack a whole page at once. Here it is begun in its middle: between two elements that no later copy reaches across. Those who
//! write Snappy compress pieces of 64 KiB on their own, so such cuts are never far.

use super::codec::{Codec, Piece, Place, small};

/// Cuts closer to each other than this many bytes are not remembered.
const APART: u64 = 4096;

/// An element.
enum Element {
    /// As many bytes as they stand from a place in the input.
    Literal { at: usize, length: usize },
    /// As many bytes from some way back.
    Copy { back: usize, length: usize },
}

/// The elements of an input, each with where it ends.
struct Elements<'a> {
    input: &'a [u8],
    at: usize,
}

impl Elements<'_> {
    fn number(&mut self, bytes: usize) -> Option<usize> {
        let piece = self.input.get(self.at..self.at + bytes)?;
        self.at += bytes;
        let number = piece.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
        usize::try_from(number).ok()
    }

    fn element(&mut self) -> Option<Element> {
        let tag = self.number(1)?;
        let upper = tag >> 2;
        Some(match tag & 3 {
            0 => {
                let length = match upper {
                    0..60 => upper,
                    _ => self.number(upper - 59)?,
                }
                .checked_add(1)?;
                let at = self.at;
                self.at = at
                    .checked_add(length)
                    .filter(|end| *end <= self.input.len())?;
                Element::Literal { at, length }
            }
            1 => Element::Copy {
                back: (upper >> 3) << 8 | self.number(1)?,
                length: 4 + (upper & 7),
            },
            n => Element::Copy {
                back: self.number(if n == 2 { 2 } else { 4 })?,
                length: upper + 1,
            },
        })
    }
}

impl Iterator for Elements<'_> {
    type Item = Result<Element, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.input.len() {
            return None;
        }
        Some(self.element().ok_or_else(damaged))
    }
}

fn damaged() -> String {
    "its Snappy data is damaged".into()
}

/// Where the elements of a whole page begin, which says that it has `size` bytes.
pub(super) fn start(page: &[u8], size: usize) -> Result<usize, String> {
    let mut value = 0u64;
    for (i, byte) in page.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return match value == size as u64 {
                true => Ok(i + 1),
                false => Err(format!(
                    "its Snappy data has {value} bytes where its header says {size}"
                )),
            };
        }
    }
    Err(damaged())
}

/// Unpacks elements until there are `whole` bytes or no more elements.
pub(super) fn unpack(input: &[u8], whole: usize, out: &mut Vec<u8>) -> Result<(), String> {
    let mut elements = Elements { input, at: 0 };
    // What is claimed may be more than there is; a copy of 64 bytes takes at least two.
    out.reserve(whole.min(input.len().saturating_mul(32)));
    while out.len() < whole {
        let Some(element) = elements.next() else {
            break;
        };
        match element? {
            Element::Literal { at, length } => out.extend_from_slice(&input[at..at + length]),
            Element::Copy { back, length } => {
                if back == 0 || back > out.len() {
                    return Err(damaged());
                }
                let from = out.len() - back;
                if back >= length {
                    out.extend_from_within(from..from + length);
                } else {
                    (from..from + length).for_each(|i| out.push(out[i]));
                }
            }
        }
    }
    Ok(())
}

/// What to read for each piece, ordered by their starts.
pub(super) fn place(page: &[u8], size: usize, pieces: &[Piece]) -> Result<Vec<Place>, String> {
    let mut elements = Elements {
        input: page,
        at: start(page, size)?,
    };
    // Cuts that no copy so far has reached across: where they are in the page and in what it unpacks to.
    let mut cuts: Vec<(u64, u64)> = vec![(elements.at as u64, 0)];
    // Ends of elements at or behind the end of each piece.
    let mut ends = vec![page.len() as u64; pieces.len()];
    let mut by_end: Vec<usize> = (0..pieces.len()).collect();
    by_end.sort_by_key(|&i| pieces[i].0 + u64::from(pieces[i].1));
    let mut open = by_end.into_iter().peekable();
    let mut done = 0u64;
    while let Some(element) = elements.next() {
        match element? {
            Element::Literal { length, .. } => done += length as u64,
            Element::Copy { back, length } => {
                let from = done.checked_sub(back as u64).ok_or_else(damaged)?;
                while cuts.last().is_some_and(|cut| cut.1 > from) {
                    cuts.pop();
                }
                done += length as u64;
            }
        }
        let at = elements.at as u64;
        while let Some(i) = open.next_if(|&i| pieces[i].0 + u64::from(pieces[i].1) <= done) {
            ends[i] = at;
        }
        if cuts.last().is_none_or(|cut| cut.1 + APART <= done) {
            cuts.push((at, done));
        }
    }
    let place = |(&(start, _), end): (&Piece, u64)| {
        let (from, begun) = cuts[cuts.partition_point(|cut| cut.1 <= start).saturating_sub(1)];
        Ok(Place {
            codec: Codec::Snappy,
            from,
            stored: small(end - from)?,
            skip: small(start - begun)?,
        })
    };
    pieces.iter().zip(ends).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Elements that a compressor may write, from drawn numbers: bytes as they stand, and copies from somewhere before.
    fn compressed(choices: &[(u8, u16, u8)]) -> (Vec<u8>, Vec<u8>) {
        let (mut elements, mut plain): (Vec<u8>, Vec<u8>) = Default::default();
        for &(kind, back, length) in choices {
            let back = usize::from(back).min(plain.len());
            if kind % 3 == 0 || back == 0 {
                let bytes: Vec<u8> = (0..=u16::from(length)).map(|i| (i as u8) ^ kind).collect();
                match bytes.len() {
                    n @ 1..=60 => elements.push((n as u8 - 1) << 2),
                    n => elements.extend([60 << 2, (n - 1) as u8]),
                }
                elements.extend(&bytes);
                plain.extend(&bytes);
            } else if kind % 3 == 1 && back < 2048 {
                let length = 4 + usize::from(length) % 8;
                elements.extend([1 | ((length - 4) << 2 | back >> 8 << 5) as u8, back as u8]);
                (0..length).for_each(|_| plain.push(plain[plain.len() - back]));
            } else {
                let length = 1 + usize::from(length) % 64;
                elements.push(2 | ((length - 1) << 2) as u8);
                elements.extend((back as u16).to_le_bytes());
                (0..length).for_each(|_| plain.push(plain[plain.len() - back]));
            }
        }
        let mut page = Vec::new();
        let mut rest = plain.len();
        while rest >= 0x80 {
            page.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        page.push(rest as u8);
        page.extend(elements);
        (page, plain)
    }

    proptest! {
        #[test]
        fn any_piece_is_unpacked_from_the_nearest_cut(
            choices in vec((any::<u8>(), prop_oneof![0u16..300, any::<u16>()], any::<u8>()), 1..400),
            starts in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..20),
        ) {
            let (page, plain) = compressed(&choices);
            let mut out = Vec::new();
            unpack(&page[start(&page, plain.len()).unwrap()..], plain.len(), &mut out).unwrap();
            prop_assert_eq!(&out, &plain);
            let mut pieces: Vec<Piece> = starts
                .iter()
                .map(|(a, b)| {
                    let start = a.index(plain.len());
                    (start as u64, b.index(plain.len() - start + 1) as u32)
                })
                .collect();
            pieces.sort_unstable();
            for (place, (start, length)) in place(&page, plain.len(), &pieces).unwrap().iter().zip(pieces) {
                let stored = &page[place.from as usize..][..place.stored as usize];
                let whole = (place.skip + length) as usize;
                place.codec.unpack(stored, whole, &mut out).unwrap();
                prop_assert_eq!(&out[place.skip as usize..whole], &plain[start as usize..][..length as usize]);
            }
        }

        #[test]
        fn damaged_data_is_an_error_or_other_bytes(mut page in vec(any::<u8>(), 0..200)) {
            let mut out = Vec::new();
            let _ = unpack(&page, 1 << 20, &mut out);
            prop_assert!(out.len() <= 200 * 64);
            page.insert(0, 100);
            let _ = place(&page, 100, &[(0, 10), (50, 60)]);
        }
    }

    #[test]
    fn pieces_of_64_kib_on_their_own_are_begun_at_their_start() {
        // Two pieces: one literal each, then a copy within the piece.
        let mut page = vec![0x80, 0x80, 0x08];
        for fill in [1u8, 2] {
            page.extend([61 << 2, 0xbf, 0xff]);
            page.extend(vec![fill; 0xffc0]);
            page.extend([2 | 63 << 2, 64, 0]);
        }
        let places = place(&page, 0x20000, &[(100, 50), (0x10010, 5)]).unwrap();
        assert_eq!((places[0].from, places[0].skip), (3, 100));
        assert_eq!(places[1].skip, 0x10);
        assert!(places[1].from > 0xffc0 && places[1].stored < 0x10000);
    }
}
