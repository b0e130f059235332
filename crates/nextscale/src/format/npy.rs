//! Arrays as numpy keeps them in `.npy` files and in the members of `.npz` archives: a line that is a Python dict, then numbers.

use crate::{Error, Result};
use std::io::Read;

const MAGIC: &[u8] = b"\x93NUMPY";
/// Longer headers belong to arrays with named fields, which hold no plain numbers.
const MOST_HEADER: usize = 4096;
/// Axes at most.
const MOST_AXES: usize = 8;

/// Types of numbers that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NpyType {
    /// Bytes.
    U8,
    /// 32-bit integers.
    I32,
    /// 64-bit integers.
    I64,
    /// 32-bit floats.
    F32,
    /// 64-bit floats.
    F64,
}

impl NpyType {
    /// As numpy writes it, of little-endian machines.
    fn descr(self) -> &'static str {
        match self {
            Self::U8 => "|u1",
            Self::I32 => "<i4",
            Self::I64 => "<i8",
            Self::F32 => "<f4",
            Self::F64 => "<f8",
        }
    }

    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::I32 | Self::F32 => 4,
            Self::I64 | Self::F64 => 8,
        }
    }
}

/// What stands before the numbers of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NpyHeader {
    /// The numbers' type.
    pub dtype: NpyType,
    /// The array's extents.
    pub shape: Vec<usize>,
}

impl NpyHeader {
    /// Of an array that is to be written.
    pub fn new(dtype: NpyType, shape: &[usize]) -> Self {
        let shape = shape.to_vec();
        Self { dtype, shape }
    }

    /// How many numbers there are.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Reads it; the numbers follow. `source` names the array in messages.
    ///
    /// # Errors
    /// One line for what is no array, or one of a kind that is not read.
    pub fn read(from: &mut impl Read, source: &str) -> Result<Self> {
        let mut start = [0; 8];
        let cut = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => Error::input(format!(
                "{source}: the array ends in its header; get the file again"
            )),
            _ => Error::input(format!("{source}: can't be read: {e}")),
        };
        from.read_exact(&mut start).map_err(cut)?;
        if &start[..6] != MAGIC {
            return Err(Error::input(format!("{source}: is no numpy array")));
        }
        let length = if start[6] == 1 {
            let mut bytes = [0; 2];
            from.read_exact(&mut bytes).map_err(cut)?;
            usize::from(u16::from_le_bytes(bytes))
        } else {
            let mut bytes = [0; 4];
            from.read_exact(&mut bytes).map_err(cut)?;
            u32::from_le_bytes(bytes) as usize
        };
        if length > MOST_HEADER {
            return Err(Error::input(format!(
                "{source}: its header has {length} bytes; an array of plain numbers is expected"
            )));
        }
        let mut text = vec![0; length];
        from.read_exact(&mut text).map_err(cut)?;
        let text = String::from_utf8_lossy(&text);
        Self::parse(&text).map_err(|why| Error::input(format!("{source}: {why}")))
    }

    /// The dict of a header.
    fn parse(text: &str) -> Result<Self, String> {
        let descr = value(text, "descr")
            .and_then(|v| v.strip_prefix(['\'', '"'])?.split(['\'', '"']).next())
            .ok_or("its header names no type of numbers; an array of plain numbers is expected")?;
        let all = [
            NpyType::U8,
            NpyType::I32,
            NpyType::I64,
            NpyType::F32,
            NpyType::F64,
        ];
        // A byte has no order.
        let dtype = all
            .into_iter()
            .find(|t| t.descr()[1..] == descr[descr.len().min(1)..]);
        let dtype = dtype.filter(|t| t.size() == 1 || descr.starts_with(['<', '=']));
        let dtype = dtype.ok_or_else(|| {
            format!("its numbers are of type {descr:?}; uint8 ('|u1'), int32 ('<i4'), int64 ('<i8'), float32 ('<f4') and float64 ('<f8') are read")
        })?;
        let inner = value(text, "shape")
            .and_then(|v| v.strip_prefix('(')?.split_once(')'))
            .ok_or("its header has no shape")?
            .0;
        let axes = inner
            .split(',')
            .map(str::trim)
            .filter(|axis| !axis.is_empty());
        let shape = axes
            .map(|axis| axis.trim_end_matches('L').parse::<usize>())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| format!("its shape ({inner}) holds what is no count"))?;
        let numel = shape
            .iter()
            .try_fold(1usize, |n, axis| n.checked_mul(*axis));
        let bytes = numel.and_then(|n| n.checked_mul(dtype.size()));
        if shape.len() > MOST_AXES || bytes.is_none_or(|n| n > isize::MAX as usize) {
            return Err(format!("its shape ({inner}) is larger than any memory"));
        }
        let by_columns = value(text, "fortran_order").is_some_and(|v| v.starts_with("True"));
        if by_columns && shape.iter().filter(|axis| **axis != 1).count() > 1 {
            return Err("its numbers lie column by column (fortran_order); save it again from numpy.ascontiguousarray(a)".into());
        }
        Ok(Self { dtype, shape })
    }

    /// As it stands in a file: version 1.0, padded so that numbers begin at a multiple of 64 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let axes: String = match self.shape[..] {
            [one] => format!("{one},"),
            _ => self
                .shape
                .iter()
                .map(usize::to_string)
                .collect::<Vec<_>>()
                .join(", "),
        };
        let mut dict = format!(
            "{{'descr': '{}', 'fortran_order': False, 'shape': ({axes}), }}",
            self.dtype.descr()
        );
        let length = (10 + dict.len() + 1).next_multiple_of(64);
        while 10 + dict.len() + 1 < length {
            dict.push(' ');
        }
        dict.push('\n');
        let mut out = MAGIC.to_vec();
        out.extend([1, 0]);
        out.extend((dict.len() as u16).to_le_bytes());
        out.extend(dict.bytes());
        out
    }

    /// Reads the numbers as float64.
    ///
    /// # Errors
    /// When they end early, or are more than `most`.
    pub fn read_f64(&self, from: &mut impl Read, most: usize, source: &str) -> Result<Vec<f64>> {
        let n = self.numel();
        if n > most {
            return Err(Error::input(format!(
                "{source}: is of shape {:?}; at most {most} numbers are expected",
                self.shape
            )));
        }
        let cut = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => Error::input(format!(
                "{source}: its numbers end early; get the file again"
            )),
            _ => Error::input(format!("{source}: is damaged: {e}; get the file again")),
        };
        let size = self.dtype.size();
        let mut values = Vec::new();
        let mut buffer = vec![0; (1 << 16) * size];
        while values.len() < n {
            let now = (n - values.len()).min(1 << 16);
            let bytes = &mut buffer[..now * size];
            from.read_exact(bytes).map_err(cut)?;
            match self.dtype {
                NpyType::U8 => values.extend(bytes.iter().map(|b| f64::from(*b))),
                NpyType::I32 => {
                    let each = bytes.as_chunks().0.iter();
                    values.extend(each.map(|b| f64::from(i32::from_le_bytes(*b))));
                }
                NpyType::I64 => {
                    let each = bytes.as_chunks().0.iter();
                    values.extend(each.map(|b| i64::from_le_bytes(*b) as f64));
                }
                NpyType::F32 => values.extend(
                    bytes
                        .as_chunks()
                        .0
                        .iter()
                        .map(|b| f64::from(f32::from_le_bytes(*b))),
                ),
                NpyType::F64 => {
                    values.extend(bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)));
                }
            }
        }
        ended(from, source)?;
        Ok(values)
    }
}

/// That nothing follows the numbers. Archives compare checksums where they end, so it is also where damage shows.
///
/// # Errors
/// One line where something follows, or the archive finds damage.
pub fn ended(from: &mut impl Read, source: &str) -> Result<()> {
    match from.read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => Err(Error::input(format!(
            "{source}: more follows its numbers than its shape says; get the file again"
        ))),
        Err(e) => Err(Error::input(format!(
            "{source}: is damaged: {e}; get the file again"
        ))),
    }
}

/// What follows a key of the dict.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let at = ["'", "\""].iter().find_map(|quote| {
        let key = format!("{quote}{key}{quote}");
        text.find(&key).map(|at| at + key.len())
    })?;
    Some(text[at..].trim_start().strip_prefix(':')?.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers_of_numpy_are_understood() {
        let of = |text: &str| NpyHeader::parse(text);
        let plain =
            of("{'descr': '<f8', 'fortran_order': False, 'shape': (2048, 2048), }").unwrap();
        assert_eq!(plain, NpyHeader::new(NpyType::F64, &[2048, 2048]));
        let one = of("{'descr': '|u1', 'fortran_order': True, 'shape': (7,), }").unwrap();
        assert_eq!(one, NpyHeader::new(NpyType::U8, &[7]));
        let scalar = of("{'descr': '<f4', 'fortran_order': False, 'shape': (), }").unwrap();
        assert_eq!(scalar.numel(), 1);
        for (text, part) in [
            ("{'descr': '>f8', 'shape': (2,), }", ">f8"),
            ("{'descr': '<i2', 'shape': (2,), }", "<i2"),
            ("{'descr': '', 'shape': (2,), }", "type \"\""),
            ("{'descr': [('a', '<f8')], 'shape': (2,), }", "no type"),
            ("{'descr': '<f8', 'shape': (-2,), }", "no count"),
            (
                "{'descr': '<f8', 'shape': (2, 3), 'fortran_order': True}",
                "column",
            ),
            (
                "{'descr': '<f8', 'shape': (9999999999, 9999999999), }",
                "larger",
            ),
            ("{'descr': '<f8'}", "no shape"),
        ] {
            let told = of(text).unwrap_err();
            assert!(told.contains(part), "{text}: {told}");
        }
    }

    #[test]
    fn what_is_cut_off_is_said() {
        let header = NpyHeader::new(NpyType::F32, &[3]).to_bytes();
        for length in 0..header.len() {
            assert!(NpyHeader::read(&mut &header[..length], "x").is_err());
        }
        let read = NpyHeader::read(&mut &header[..], "x").unwrap();
        let told = read.read_f64(&mut &[0u8; 11][..], 3, "x").unwrap_err();
        assert!(told.to_string().contains("early"), "{told}");
        assert!(read.read_f64(&mut &[0u8; 12][..], 2, "x").is_err());
        let told = read.read_f64(&mut &[0u8; 13][..], 3, "x").unwrap_err();
        assert!(told.to_string().contains("more follows"), "{told}");
        assert!(NpyHeader::read(&mut &b"PK\x03\x04 and so on"[..], "x").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(shape in proptest::collection::vec(0usize..70_000, 0..4), kind in 0usize..5) {
            let dtype = [NpyType::U8, NpyType::I32, NpyType::I64, NpyType::F32, NpyType::F64][kind];
            let header = NpyHeader::new(dtype, &shape);
            let bytes = header.to_bytes();
            prop_assert_eq!(bytes.len() % 64, 0);
            prop_assert_eq!(NpyHeader::read(&mut &bytes[..], "x").unwrap(), header);
        }

        #[test]
        fn nothing_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,80}") {
            let _ = NpyHeader::read(&mut &bytes[..], "x");
            let _ = NpyHeader::parse(&text);
            let damaged = [MAGIC, &[1, 0, 80, 0], text.as_bytes(), &bytes].concat();
            let _ = NpyHeader::read(&mut &damaged[..], "x");
        }
    }
}
