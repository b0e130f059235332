//! From the stored bytes of a strip or tile to its packed samples.

use std::borrow::Cow;
use std::io::{Cursor, Read};

use flate2::read::ZlibDecoder;
use weezl::{BitOrder, LzwStatus, decode::Decoder};

use super::fax;
use super::layout::{Compression, Layout, SampleKind};

const SHORT: &str = "TIFF: the picture data ends early or is damaged";

/// The stored bytes of a chunk, to be unpacked some rows at a time.
pub(super) struct Packed<'a> {
    layout: &'a Layout,
    row_bytes: usize,
    stream: Stream<'a>,
}

/// What is left of the stored bytes, by compression.
enum Stream<'a> {
    /// As they are, or undone at once (fax: a bit a pixel), and how many are read.
    Plain(Cow<'a, [u8]>, usize),
    Lzw(Cow<'a, [u8]>, usize, Box<Decoder>),
    Deflate(Box<ZlibDecoder<Cursor<Cow<'a, [u8]>>>>),
    PackBits(Cow<'a, [u8]>, usize, Run),
}

/// What is left of a run of bytes.
enum Run {
    /// As they are stored.
    Stored(usize),
    /// One byte again and again.
    Same(u8, usize),
}

impl<'a> Packed<'a> {
    /// The chunk `data` of `rows` rows of `row_bytes`, `across` pixels each.
    pub fn new(
        layout: &'a Layout,
        data: &'a [u8],
        across: usize,
        row_bytes: usize,
        rows: usize,
    ) -> Result<Self, String> {
        let data = match layout.compression {
            // What can't be ended is not begun.
            Compression::None => data.get(..row_bytes * rows).ok_or(SHORT)?,
            _ => data,
        };
        let data = if layout.reversed_bits {
            Cow::Owned(data.iter().map(|b| b.reverse_bits()).collect())
        } else {
            Cow::Borrowed(data)
        };
        let stream = match layout.compression {
            Compression::None => Stream::Plain(data, 0),
            // The first writers put codes the other way round, from the low bit on, with the sizes of GIF.
            Compression::Lzw if data.starts_with(&[0, 1]) => {
                return Err(
                    "TIFF with old-style LZW compression is not supported; convert it to PNG"
                        .into(),
                );
            }
            Compression::Lzw => {
                let decoder = Decoder::with_tiff_size_switch(BitOrder::Msb, 8);
                Stream::Lzw(data, 0, Box::new(decoder))
            }
            Compression::Deflate => Stream::Deflate(Box::new(ZlibDecoder::new(Cursor::new(data)))),
            Compression::PackBits => Stream::PackBits(data, 0, Run::Stored(0)),
            Compression::Fax(scheme) => {
                let mut bits = vec![0; row_bytes * rows];
                fax::decode(&data, scheme, across, &mut bits).ok_or(SHORT)?;
                Stream::Plain(Cow::Owned(bits), 0)
            }
            Compression::Jpeg => return Err("TIFF: JPEG data has no packed samples".to_owned()),
        };
        Ok(Self {
            layout,
            row_bytes,
            stream,
        })
    }

    /// Undoes compression and prediction of the next rows, which fill `out`.
    pub fn read(&mut self, out: &mut [u8]) -> Result<(), String> {
        match &mut self.stream {
            Stream::Plain(data, at) => {
                out.copy_from_slice(data.get(*at..*at + out.len()).ok_or(SHORT)?);
                *at += out.len();
            }
            Stream::Lzw(data, at, decoder) => lzw(data, at, decoder, out)?,
            Stream::Deflate(decoder) => decoder.read_exact(out).map_err(|_| SHORT)?,
            Stream::PackBits(data, at, run) => pack_bits(data, at, run, out)?,
        }
        let rows = out.chunks_exact_mut(self.row_bytes);
        match self.layout.predictor {
            1 => {}
            2 => rows.for_each(|row| add_differences(self.layout, row)),
            _ => {
                let mut turned = vec![0; self.row_bytes];
                rows.for_each(|row| add_float_differences(self.layout, row, &mut turned));
            }
        }
        Ok(())
    }
}

fn lzw(data: &[u8], at: &mut usize, decoder: &mut Decoder, out: &mut [u8]) -> Result<(), String> {
    let mut written = 0;
    while written < out.len() {
        let step = decoder.decode_bytes(&data[*at..], &mut out[written..]);
        *at += step.consumed_in;
        written += step.consumed_out;
        match step.status {
            Ok(LzwStatus::Ok) => {}
            _ if written == out.len() => {}
            _ => return Err(SHORT.to_owned()),
        }
    }
    Ok(())
}

fn pack_bits(data: &[u8], at: &mut usize, run: &mut Run, mut out: &mut [u8]) -> Result<(), String> {
    while !out.is_empty() {
        let fits;
        match *run {
            Run::Stored(n) if n > 0 => {
                fits = n.min(out.len());
                out[..fits].copy_from_slice(data.get(*at..*at + fits).ok_or(SHORT)?);
                *at += fits;
                *run = Run::Stored(n - fits);
            }
            Run::Same(byte, n) if n > 0 => {
                fits = n.min(out.len());
                out[..fits].fill(byte);
                *run = Run::Same(byte, n - fits);
            }
            _ => {
                let head = *data.get(*at).ok_or(SHORT)? as i8;
                let n = usize::from(head.unsigned_abs()) + 1;
                fits = 0;
                *at += 1;
                if head >= 0 {
                    *run = Run::Stored(n);
                } else if head > i8::MIN {
                    *run = Run::Same(*data.get(*at).ok_or(SHORT)?, n);
                    *at += 1;
                }
            }
        }
        out = &mut out[fits..];
    }
    Ok(())
}

/// Each sample is stored as its difference to the one before.
fn add_differences(layout: &Layout, row: &mut [u8]) {
    let step = layout.chunk_samples();
    match layout.bits {
        8 => {
            for i in step..row.len() {
                row[i] = row[i].wrapping_add(row[i - step]);
            }
        }
        16 => {
            for i in step..row.len() / 2 {
                let sum = layout
                    .u16(&row[2 * i..])
                    .wrapping_add(layout.u16(&row[2 * (i - step)..]));
                row[2 * i..2 * i + 2].copy_from_slice(&layout.bytes_of_u16(sum));
            }
        }
        _ => {
            for i in step..row.len() / 4 {
                let sum = layout
                    .u32(&row[4 * i..])
                    .wrapping_add(layout.u32(&row[4 * (i - step)..]));
                row[4 * i..4 * i + 4].copy_from_slice(&layout.bytes_of_u32(sum));
            }
        }
    }
}

/// Floats are stored as differences of bytes: first all highest bytes of the row, then the next.
fn add_float_differences(layout: &Layout, row: &mut [u8], turned: &mut [u8]) {
    debug_assert_eq!(layout.kind, SampleKind::Float);
    let step = layout.chunk_samples();
    for i in step..row.len() {
        row[i] = row[i].wrapping_add(row[i - step]);
    }
    let n = row.len() / 4;
    for i in 0..n {
        let bytes = [row[i], row[n + i], row[2 * n + i], row[3 * n + i]];
        let value = layout.bytes_of_u32(u32::from_be_bytes(bytes));
        turned[4 * i..4 * i + 4].copy_from_slice(&value);
    }
    row.copy_from_slice(turned);
}
