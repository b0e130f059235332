//! Zstandard: the crate unpacks a frame; which parts of one need no unpacking is found here.
//!
//! A frame is made of blocks of up to 128 KiB. Those that can't be made smaller are stored as they are, which pictures mostly are: an
//! image that lies in such blocks alone is copied. Any other is unpacked from the frame's beginning to the block in which it ends.

use std::io::Read;

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::codec::{Codec, Piece, Place, small};

/// The most bytes that a block unpacks to.
const BLOCK: u64 = 128 << 10;

/// The most that may be referred back to.
const WINDOW: u64 = 1 << 30;

/// The magic number of a frame.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Bytes by which the place of a block is known for certain.
const KNOWN: u64 = 64;

/// Bit of a frame's descriptor: a checksum follows the last block.
const CHECKSUM: u8 = 1 << 2;

fn damaged() -> String {
    "its Zstandard data is damaged".into()
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// As it is.
    Stored,
    /// One byte repeated.
    Repeated,
    Compressed,
}

/// A block: where its header begins in the input.
struct Block {
    kind: Kind,
    last: bool,
    at: usize,
    /// Where its content ends.
    end: usize,
    /// Bytes that it unpacks to; of compressed ones what they mostly have.
    size: u64,
}

/// The blocks from a place in a frame on, up to its last or to the input's end.
struct Blocks<'a> {
    input: &'a [u8],
    at: usize,
    ended: bool,
}

impl Iterator for Blocks<'_> {
    type Item = Result<Block, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended || self.at == self.input.len() {
            return None;
        }
        Some(self.block().ok_or_else(damaged))
    }
}

impl Blocks<'_> {
    fn block(&mut self) -> Option<Block> {
        let at = self.at;
        let header = self.input.get(at..at + 3)?;
        let header = header.iter().rev().fold(0, |n, b| n << 8 | usize::from(*b));
        let size = header >> 3;
        let (kind, content) = match header >> 1 & 3 {
            0 => (Kind::Stored, size),
            1 => (Kind::Repeated, 1),
            2 => (Kind::Compressed, size),
            _ => return None,
        };
        let end = at + 3 + content;
        if end > self.input.len() {
            return None;
        }
        (self.at, self.ended) = (end, header & 1 == 1);
        Some(Block {
            kind,
            last: self.ended,
            at,
            end,
            size: match kind {
                Kind::Compressed => BLOCK,
                _ => size as u64,
            },
        })
    }
}

/// Where the blocks of a frame begin.
fn first_block(frame: &[u8]) -> Option<usize> {
    let (magic, rest) = frame.split_first_chunk::<4>()?;
    let descriptor = *rest.first()?;
    let single = descriptor & 1 << 5 != 0;
    let content = match descriptor >> 6 {
        0 => usize::from(single),
        n => 1 << n,
    };
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let at = 5 + usize::from(!single) + dictionary + content;
    (*magic == MAGIC && at <= frame.len()).then_some(at)
}

/// Unpacks a frame, or the beginning of one that ends with any block, until there are `whole` bytes.
pub(super) fn unpack(input: &[u8], whole: usize, out: &mut Vec<u8>) -> Result<(), String> {
    let start = first_block(input).ok_or_else(damaged)?;
    // The part becomes a frame of its own: its last block is marked as such, and no checksum is expected. (The crate hands out the last
    // window, which may be all, only at a frame's end.)
    let mut last = None;
    for block in (Blocks {
        input,
        at: start,
        ended: false,
    }) {
        last = Some(block?);
    }
    let last = last.ok_or_else(damaged)?;
    let mut header = input[..start].to_vec();
    header[4] &= !CHECKSUM;
    let mark = [input[last.at] | 1];
    let mut source = header
        .as_slice()
        .chain(&input[start..last.at])
        .chain(mark.as_slice())
        .chain(&input[last.at + 1..last.end]);
    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(WINDOW);
    let wrong = |e: &dyn std::fmt::Display| format!("its Zstandard data is damaged: {e}");
    decoder.init(&mut source).map_err(|e| wrong(&e))?;
    loop {
        let ended = decoder
            .decode_blocks(&mut source, BlockDecodingStrategy::UptoBytes(1 << 20))
            .map_err(|e| wrong(&e))?;
        decoder
            .collect_to_writer(&mut *out)
            .map_err(|e| wrong(&e))?;
        if ended || out.len() >= whole {
            return Ok(());
        }
    }
}

/// Copies the content of blocks that are stored as they are.
pub(super) fn copy(input: &[u8], whole: usize, out: &mut Vec<u8>) -> Result<(), String> {
    for block in (Blocks {
        input,
        at: 0,
        ended: false,
    }) {
        let block = block?;
        let content = &input[block.at + 3..block.end];
        match block.kind {
            Kind::Stored => out.extend_from_slice(content),
            Kind::Repeated if block.size <= BLOCK => {
                out.resize(out.len() + block.size as usize, content[0]);
            }
            _ => return Err(damaged()),
        }
        if out.len() >= whole {
            break;
        }
    }
    Ok(())
}

/// What to read for each piece of a page, ordered by their starts.
pub(super) fn place(page: &[u8], unpacked: &[u8], pieces: &[Piece]) -> Result<Vec<Place>, String> {
    let start = first_block(page).ok_or_else(damaged)?;
    let all = small(page.len() as u64)?;
    let from_start = |stored: u32, start: u64| {
        Ok(Place {
            codec: Codec::Zstd,
            from: 0,
            stored,
            skip: small(start)?,
        })
    };
    let Some(blocks) = blocks_of(page, start, unpacked) else {
        return pieces
            .iter()
            .map(|&(start, _)| from_start(all, start))
            .collect();
    };
    let place = |&(start, length): &Piece| {
        let end = start + u64::from(length);
        let first = blocks
            .partition_point(|(_, at)| *at <= start)
            .saturating_sub(1);
        let behind = blocks.partition_point(|(_, at)| *at < end).max(first + 1);
        let (run, at) = (&blocks[first..behind], blocks[first].1);
        if run.iter().any(|(block, _)| block.kind == Kind::Compressed) {
            // Where a compressed block ends is certain only by the next one of which the content is known.
            let known =
                |(block, _): &&(Block, u64)| block.kind == Kind::Stored && block.size >= KNOWN;
            let last = blocks[behind - 1..].iter().find(known);
            let stored = last.map_or(Ok(all), |(block, _)| small(block.end as u64))?;
            return from_start(stored, start);
        }
        let last = small(run.last().map_or(0, |(block, _)| block.end as u64))?;
        let from = run[0].0.at;
        Ok(Place {
            codec: Codec::ZstdStored,
            from: from as u64,
            stored: last - from as u32,
            skip: small(start - at)?,
        })
    };
    pieces.iter().map(place).collect()
}

/// The blocks of a frame that is all of `page`, each with where its content begins in `unpacked`. How much a compressed block unpacks to is
/// not written in it; that it is what compressors make is checked at every block of which the content is known. `None` where it is not so.
fn blocks_of(page: &[u8], start: usize, unpacked: &[u8]) -> Option<Vec<(Block, u64)>> {
    let (mut found, mut at) = (Vec::new(), 0u64);
    for block in (Blocks {
        input: page,
        at: start,
        ended: false,
    }) {
        let block = block.ok()?;
        let here = unpacked.get(at as usize..)?;
        let size = block.size.min(here.len() as u64);
        let content = &page[block.at + 3..block.end];
        match block.kind {
            Kind::Stored => {
                if !here.starts_with(content) {
                    return None;
                }
            }
            Kind::Repeated => {
                let same = here.get(..block.size as usize)?;
                if same.iter().any(|byte| *byte != content[0]) {
                    return None;
                }
            }
            Kind::Compressed => {}
        }
        let next = at + size;
        found.push((block, at));
        at = next;
    }
    let whole = found.last().is_some_and(|(block, _)| block.last) && at == unpacked.len() as u64;
    whole.then_some(found)
}
