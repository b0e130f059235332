//! What stands in a page: which values are missing, and where or what the others are.

/// Why a page can't be read.
pub(super) type Fault = String;

fn damaged() -> Fault {
    "a page is damaged".into()
}

/// A number of seven bits a byte, the lowest first.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The first `count` bits as a number.
fn bits(bytes: &[u8], from: usize, count: u32) -> Option<u64> {
    let mut value = 0;
    for i in 0..count as usize {
        let byte = bytes.get((from + i) / 8)?;
        value |= u64::from(byte >> ((from + i) % 8) & 1) << i;
    }
    Some(value)
}

/// `count` numbers of `width` bits, in runs of one value or packed closely.
pub(super) fn hybrid(bytes: &[u8], width: u32, count: usize) -> Result<Vec<u32>, Fault> {
    read_hybrid(bytes, width, count).ok_or_else(damaged)
}

fn read_hybrid(mut bytes: &[u8], width: u32, count: usize) -> Option<Vec<u32>> {
    if width > 32 {
        return None;
    }
    let mut out = Vec::new();
    while out.len() < count {
        let head = varint(&mut bytes)?;
        let left = count - out.len();
        if head & 1 == 0 {
            let size = width.div_ceil(8) as usize;
            let (value, rest) = bytes.split_at_checked(size)?;
            bytes = rest;
            let value = value.iter().rev().fold(0, |n, b| n << 8 | u32::from(*b));
            let run = usize::try_from(head >> 1).ok().filter(|run| *run > 0)?;
            out.resize(out.len() + run.min(left), value);
        } else {
            let packed = usize::try_from(head >> 1).ok()?.checked_mul(8)?;
            let size = packed.checked_mul(width as usize)? / 8;
            // The last run may be filled up, and the filling left away.
            let (own, rest) = bytes.split_at(size.min(bytes.len()));
            bytes = rest;
            if packed == 0 {
                return None;
            }
            for i in 0..packed.min(left) {
                out.push(bits(own, i * width as usize, width)? as u32);
            }
        }
    }
    Some(out)
}

/// Numbers as differences in blocks, and what follows them.
pub(super) fn deltas(bytes: &[u8], count: usize) -> Result<(Vec<i64>, &[u8]), Fault> {
    read_deltas(bytes, count).ok_or_else(damaged)
}

fn read_deltas(mut bytes: &[u8], count: usize) -> Option<(Vec<i64>, &[u8])> {
    let zigzag = |bytes: &mut &[u8]| {
        let value = varint(bytes)?;
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    };
    let block = usize::try_from(varint(&mut bytes)?).ok()?;
    let minis = usize::try_from(varint(&mut bytes)?).ok()?;
    let total = usize::try_from(varint(&mut bytes)?).ok()?;
    let mut value = zigzag(&mut bytes)?;
    if total != count || minis == 0 || block % minis != 0 || block == 0 || block > 1 << 20 {
        return None;
    }
    let each = block / minis;
    let mut out = Vec::new();
    if count > 0 {
        out.push(value);
    }
    while out.len() < count {
        let least = zigzag(&mut bytes)?;
        let (widths, rest) = bytes.split_at_checked(minis)?;
        bytes = rest;
        for width in widths {
            if out.len() == count {
                break;
            }
            let width = u32::from(*width);
            if width > 64 {
                return None;
            }
            let size = (each * width as usize).div_ceil(8);
            let (own, rest) = bytes.split_at_checked(size)?;
            bytes = rest;
            for i in 0..each.min(count - out.len()) {
                let delta = bits(own, i * width as usize, width)?.cast_signed();
                value = value.wrapping_add(least).wrapping_add(delta);
                out.push(value);
            }
        }
    }
    Some((out, bytes))
}

/// Numbers as they are, `size` bytes each.
pub(super) fn plain_numbers(bytes: &[u8], size: usize, count: usize) -> Result<Vec<i64>, Fault> {
    let needed = count.checked_mul(size).filter(|n| *n <= bytes.len());
    needed.ok_or_else(damaged)?;
    let number = |piece: &[u8]| match piece.try_into() {
        Ok(whole) => i64::from_le_bytes(whole),
        Err(_) => i64::from(i32::from_le_bytes([piece[0], piece[1], piece[2], piece[3]])),
    };
    Ok(bytes.chunks_exact(size).take(count).map(number).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn runs_and_packed_numbers_are_read() {
        // The example of the format's description: 0 to 7 of three bits.
        let packed = [3, 0b1000_1000, 0b1100_0110, 0b1111_1010];
        assert_eq!(hybrid(&packed, 3, 8).unwrap(), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(hybrid(&packed, 3, 5).unwrap(), [0, 1, 2, 3, 4]);
        assert_eq!(hybrid(&[10, 3, 4, 9], 7, 7).unwrap(), [3, 3, 3, 3, 3, 9, 9]);
        assert_eq!(hybrid(&[6], 0, 3).unwrap(), [0, 0, 0]);
        assert!(hybrid(&packed, 3, 9).is_err());
        assert!(hybrid(&[0, 0, 0], 1, 1).is_err());
        assert!(hybrid(&[1, 1, 1], 1, 1).is_err());
    }

    #[test]
    fn differences_are_read() {
        // Blocks of 128 in four; five numbers from 7 on: 7, 5, 3, 1, 2 as in the format's description.
        let mut bytes = vec![0x80, 1, 4, 5, 14, 3, 2, 0, 0, 0, 0b1100_0000];
        bytes.resize(bytes.len() + 7, 0);
        bytes.push(77);
        let (numbers, rest) = deltas(&bytes, 5).unwrap();
        assert_eq!(numbers, [7, 5, 3, 1, 2]);
        assert_eq!(rest, [77]);
        assert!(deltas(&bytes, 6).is_err());
        assert_eq!(
            plain_numbers(&[1, 0, 0, 0, 255, 255, 255, 255], 4, 2).unwrap(),
            [1, -1]
        );
        assert!(plain_numbers(&[0; 15], 8, 2).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_come_to_an_end(bytes in vec(any::<u8>(), 0..100), width in 0u32..40, count in 0usize..3000) {
            let _ = hybrid(&bytes, width, count);
            let _ = deltas(&bytes, count);
        }
    }
}
