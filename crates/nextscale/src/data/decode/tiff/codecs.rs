//! From the stored bytes of a strip or tile to its packed samples.

use std::io::Read;

use super::fax;
use super::layout::{Compression, Layout, SampleKind};

const SHORT: &str = "TIFF: the picture data ends early or is damaged";

/// Undoes compression and prediction of one chunk into `out`, `rows` rows of `row_bytes`.
pub(super) fn unpack(
    layout: &Layout,
    data: &[u8],
    across: usize,
    row_bytes: usize,
    out: &mut [u8],
) -> Result<(), String> {
    let turned;
    let data = if layout.reversed_bits {
        turned = data.iter().map(|b| b.reverse_bits()).collect::<Vec<_>>();
        &turned
    } else {
        data
    };
    match layout.compression {
        Compression::None => {
            out.copy_from_slice(data.get(..out.len()).ok_or(SHORT)?);
        }
        Compression::Lzw => lzw(data, out)?,
        Compression::Deflate => {
            flate2::read::ZlibDecoder::new(data)
                .read_exact(out)
                .map_err(|_| SHORT)?;
        }
        Compression::PackBits => pack_bits(data, out)?,
        Compression::Fax(scheme) => {
            fax::decode(data, scheme, across, out).ok_or(SHORT)?;
        }
        Compression::Jpeg => return Err("TIFF: JPEG data has no packed samples".to_owned()),
    }
    match layout.predictor {
        1 => {}
        2 => {
            for row in out.chunks_exact_mut(row_bytes) {
                add_differences(layout, row);
            }
        }
        _ => {
            let mut turned = vec![0; row_bytes];
            for row in out.chunks_exact_mut(row_bytes) {
                add_float_differences(layout, row, &mut turned);
            }
        }
    }
    Ok(())
}

fn lzw(data: &[u8], out: &mut [u8]) -> Result<(), String> {
    use weezl::{BitOrder, LzwStatus, decode::Decoder};
    // The first writers put codes the other way round, from the low bit on, with the sizes of GIF.
    let old = data.starts_with(&[0, 1]);
    let mut decoder = if old {
        return Err(
            "TIFF with old-style LZW compression is not supported; convert it to PNG".into(),
        );
    } else {
        Decoder::with_tiff_size_switch(BitOrder::Msb, 8)
    };
    let (mut read, mut written) = (0, 0);
    while written < out.len() {
        let step = decoder.decode_bytes(&data[read..], &mut out[written..]);
        read += step.consumed_in;
        written += step.consumed_out;
        match step.status {
            Ok(LzwStatus::Ok) => {}
            _ if written == out.len() => {}
            _ => return Err(SHORT.to_owned()),
        }
    }
    Ok(())
}

fn pack_bits(mut data: &[u8], out: &mut [u8]) -> Result<(), String> {
    let mut written = 0;
    while written < out.len() {
        let (&head, rest) = data.split_first().ok_or(SHORT)?;
        let head = head as i8;
        if head >= 0 {
            let n = usize::from(head as u8) + 1;
            let bytes = rest.get(..n).ok_or(SHORT)?;
            let fits = n.min(out.len() - written);
            out[written..written + fits].copy_from_slice(&bytes[..fits]);
            written += fits;
            data = &rest[n..];
        } else if head == i8::MIN {
            data = rest;
        } else {
            let (&byte, after) = rest.split_first().ok_or(SHORT)?;
            let n = usize::from(head.unsigned_abs()) + 1;
            let fits = n.min(out.len() - written);
            out[written..written + fits].fill(byte);
            written += fits;
            data = after;
        }
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
