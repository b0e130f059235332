//! Undoing a compression for one image.
//!
//! What is compressed is a page of many images. Of each image the index knows from where on the page can be unpacked without what
//! comes before, so that a page of many megabytes mostly costs an image no more than its own bytes and what lies around them.

use std::io::Read;

use super::{snappy, zstd};

/// The longest page that is unpacked, in bytes.
pub(super) const MAX_PAGE: u64 = 1 << 30;

/// What has to be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    /// Nothing.
    Stored = 0,
    /// Elements of Snappy, from one on before which no later one of the page refers back.
    Snappy = 1,
    /// A frame of Zstandard from its beginning.
    Zstd = 2,
    /// Blocks of a Zstandard frame that are stored as they are, as those of pictures mostly are.
    ZstdStored = 3,
    /// gzip from its beginning.
    Gzip = 4,
}

/// Where a value lies in what is unpacked: its start and its length.
pub(super) type Piece = (u64, u32);

/// What to read for a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub codec: Codec,
    /// Bytes from the start of what is compressed.
    pub from: u64,
    /// Bytes to read.
    pub stored: u32,
    /// Bytes to leave out at the start of what comes out.
    pub skip: u32,
}

impl Codec {
    /// The codec of a number in an index.
    pub fn from_number(number: u8) -> Option<Self> {
        use Codec::{Gzip, Snappy, Stored, Zstd, ZstdStored};
        [Stored, Snappy, Zstd, ZstdStored, Gzip]
            .into_iter()
            .find(|codec| *codec as u8 == number)
    }

    /// Unpacks at least the first `whole` bytes of `stored`, an image's part of a page, into `out`.
    ///
    /// # Errors
    /// What is wrong with the content.
    pub fn unpack(self, stored: &[u8], whole: usize, out: &mut Vec<u8>) -> Result<(), String> {
        out.clear();
        match self {
            Self::Stored => out.extend_from_slice(stored),
            Self::Snappy => snappy::unpack(stored, whole, out)?,
            Self::Zstd => zstd::unpack(stored, whole, out)?,
            Self::ZstdStored => zstd::copy(stored, whole, out)?,
            Self::Gzip => gzip(stored, whole, out)?,
        }
        match out.len() < whole {
            true => Err("its compressed data ends too early".into()),
            false => Ok(()),
        }
    }
}

/// How a page is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Snappy,
    Zstd,
    Gzip,
}

impl Compression {
    /// Unpacks a whole page of `size` bytes into `out`.
    ///
    /// # Errors
    /// What is wrong with the content.
    pub fn unpack(self, page: &[u8], size: usize, out: &mut Vec<u8>) -> Result<(), String> {
        out.clear();
        match self {
            Self::None => out.extend_from_slice(page),
            Self::Snappy => {
                let start = snappy::start(page, size)?;
                snappy::unpack(&page[start..], size, out)?;
            }
            Self::Zstd => zstd::unpack(page, size, out)?,
            Self::Gzip => gzip(page, size, out)?,
        }
        match out.len() == size {
            true => Ok(()),
            false => Err(format!(
                "a page has {} bytes where its header says {size}",
                out.len()
            )),
        }
    }

    /// What to read for each of `pieces`, ordered by their starts, of the page that `page` unpacks to.
    ///
    /// # Errors
    /// What is wrong with the content, or that it is too large.
    pub fn place(
        self,
        page: &[u8],
        unpacked: &[u8],
        pieces: &[Piece],
    ) -> Result<Vec<Place>, String> {
        let all = u32::try_from(page.len()).map_err(|_| "a page is too large".to_owned())?;
        match self {
            Self::Snappy => snappy::place(page, unpacked.len(), pieces),
            Self::Zstd => zstd::place(page, unpacked, pieces),
            Self::None => unreachable!("pages that are not compressed are not unpacked"),
            Self::Gzip => pieces
                .iter()
                .map(|&(start, _)| {
                    Ok(Place {
                        codec: Codec::Gzip,
                        from: 0,
                        stored: all,
                        skip: small(start)?,
                    })
                })
                .collect(),
        }
    }
}

/// A count that an entry has room for.
pub(super) fn small(count: u64) -> Result<u32, String> {
    u32::try_from(count).map_err(|_| "a page is too large".into())
}

fn gzip(stored: &[u8], whole: usize, out: &mut Vec<u8>) -> Result<(), String> {
    flate2::read::MultiGzDecoder::new(stored)
        .take(whole as u64)
        .read_to_end(out)
        .map_err(|e| format!("its gzip data is damaged: {e}"))?;
    Ok(())
}
