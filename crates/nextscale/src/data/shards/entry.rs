//! Where an image lies in a shard.

use super::build::MAX_LABEL;
use super::codec::{Codec, MAX_PAGE};
use crate::data::MAX_FILE_BYTES;

/// An image's place. The shard follows from the image's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// What has to be undone.
    pub codec: Codec,
    /// Where the bytes begin that are read, below 2^56.
    pub offset: u64,
    /// Bytes that are read.
    pub stored: u32,
    /// Where [`Codec::Stored`], how far back the member's headers begin. Else bytes to leave out at the start of what is unpacked.
    pub skip: u32,
    /// Bytes of the image's file.
    pub length: u32,
    /// Its class: a number, or a place in the shard's own list of names.
    pub label: u32,
}

impl Entry {
    /// Bytes of one in a file.
    pub const BYTES: usize = 24;

    /// As bytes.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let first = self.offset & ((1 << 56) - 1) | (self.codec as u64) << 56;
        bytes[..8].copy_from_slice(&first.to_le_bytes());
        let rest = [self.stored, self.skip, self.length, self.label];
        for (to, value) in bytes[8..].as_chunks_mut::<4>().0.iter_mut().zip(rest) {
            *to = value.to_le_bytes();
        }
        bytes
    }

    /// From bytes; `None` where they name no codec.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let (first, rest) = bytes.split_first_chunk::<8>()?;
        let first = u64::from_le_bytes(*first);
        let [stored, skip, length, label] = [0, 1, 2, 3].map(|i| {
            let at = 4 * i;
            u32::from_le_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]])
        });
        Some(Self {
            codec: Codec::from_number((first >> 56) as u8)?,
            offset: first & ((1 << 56) - 1),
            stored,
            skip,
            length,
            label,
        })
    }

    /// Whether it can be one of a shard of `size` bytes. What an index claims is not believed before memory is taken for it.
    pub fn is_within(&self, size: u64) -> bool {
        let unpacked = u64::from(self.skip) + u64::from(self.length);
        let fits = match self.codec {
            Codec::Stored => self.stored == self.length && u64::from(self.skip) <= self.offset,
            _ => unpacked <= MAX_PAGE,
        };
        fits && u64::from(self.length) <= MAX_FILE_BYTES
            && i64::from(self.label) <= MAX_LABEL
            && self.offset + u64::from(self.stored) <= size
    }

    /// Bytes of memory that reading the image takes.
    pub fn memory(&self) -> u64 {
        let unpacked = u64::from(self.length);
        match self.codec {
            Codec::Stored => unpacked,
            _ => unpacked + u64::from(self.skip) + u64::from(self.stored),
        }
    }
}
