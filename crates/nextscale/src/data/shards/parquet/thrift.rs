//! Thrift's compact protocol, as far as Parquet's metadata needs it: structures are read field by field, and what is not known is
//! passed over.

/// How deep structures may lie in each other.
const DEPTH: u32 = 32;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The bytes end before the structure does.
    Short,
    /// They are no such structure.
    Damaged,
}

type Result<T> = std::result::Result<T, Fault>;

/// The type of a field or an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool(bool),
    Byte,
    Integer,
    Double,
    Binary,
    List,
    Map,
    Struct,
}

impl Kind {
    fn of(number: u8) -> Result<Self> {
        Ok(match number {
            1 => Self::Bool(true),
            2 => Self::Bool(false),
            3 => Self::Byte,
            4..=6 => Self::Integer,
            7 => Self::Double,
            8 => Self::Binary,
            9 | 10 => Self::List,
            11 => Self::Map,
            12 => Self::Struct,
            _ => return Err(Fault::Damaged),
        })
    }
}

/// A reader over bytes.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub fn at(&self) -> usize {
        self.at
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let taken = self.bytes[self.at..].get(..count).ok_or(Fault::Short)?;
        self.at += count;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// A number of seven bits a byte, the lowest first.
    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Fault::Damaged)
    }

    /// A signed number.
    pub fn integer(&mut self) -> Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// Bytes.
    pub fn binary(&mut self) -> Result<&'a [u8]> {
        let length = usize::try_from(self.varint()?).map_err(|_| Fault::Damaged)?;
        self.take(length)
    }

    /// Text; what is no UTF-8 in it is replaced.
    pub fn text(&mut self) -> Result<String> {
        Ok(String::from_utf8_lossy(self.binary()?).into_owned())
    }

    /// Calls `read` with the number and type of each field of a structure; it reads the field and says so, or leaves it.
    pub fn fields(
        &mut self,
        mut read: impl FnMut(&mut Self, i16, Kind) -> Result<bool>,
    ) -> Result<()> {
        let mut last = 0i16;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(());
            }
            last = match head >> 4 {
                0 => i16::try_from(self.integer()?).map_err(|_| Fault::Damaged)?,
                step => last.checked_add(i16::from(step)).ok_or(Fault::Damaged)?,
            };
            let kind = Kind::of(head & 15)?;
            if !read(self, last, kind)? {
                self.skip(kind, DEPTH)?;
            }
        }
    }

    /// Calls `read` for each element of a list of structures, which reads it.
    pub fn list(&mut self, mut read: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        let (kind, count) = self.list_head()?;
        if kind != Kind::Struct && count > 0 {
            return Err(Fault::Damaged);
        }
        (0..count).try_for_each(|_| read(self))
    }

    fn list_head(&mut self) -> Result<(Kind, u64)> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => self.varint()?,
            count => u64::from(count),
        };
        // Every element takes a byte at least.
        if count > (self.bytes.len() - self.at) as u64 {
            return Err(Fault::Short);
        }
        match count {
            0 => Ok((Kind::Byte, 0)),
            _ => Ok((Kind::of(head & 15)?, count)),
        }
    }

    fn skip(&mut self, kind: Kind, depth: u32) -> Result<()> {
        let depth = depth.checked_sub(1).ok_or(Fault::Damaged)?;
        // Within lists and maps a truth value is a byte.
        let element = |r: &mut Self, kind| match kind {
            Kind::Bool(_) => r.take(1).map(drop),
            other => r.skip(other, depth),
        };
        match kind {
            Kind::Bool(_) => {}
            Kind::Byte => drop(self.byte()?),
            Kind::Integer => drop(self.varint()?),
            Kind::Double => drop(self.take(8)?),
            Kind::Binary => drop(self.binary()?),
            Kind::List => {
                let (kind, count) = self.list_head()?;
                for _ in 0..count {
                    element(self, kind)?;
                }
            }
            Kind::Map => {
                let count = self.varint()?;
                if count > 0 {
                    let kinds = self.byte()?;
                    let (key, value) = (Kind::of(kinds >> 4)?, Kind::of(kinds & 15)?);
                    for _ in 0..count {
                        element(self, key)?;
                        element(self, value)?;
                    }
                }
            }
            Kind::Struct => loop {
                let head = self.byte()?;
                if head == 0 {
                    break;
                }
                if head >> 4 == 0 {
                    self.varint()?;
                }
                self.skip(Kind::of(head & 15)?, depth)?;
            },
        }
        Ok(())
    }
}

/// A field's number where it is of the type that it should be.
pub(super) fn expect(kind: Kind, expected: Kind) -> Result<()> {
    match kind == expected {
        true => Ok(()),
        false => Err(Fault::Damaged),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn fields_are_read_and_others_passed_over() {
        // Field 1: −3; field 2: true; field 4: a list of two binaries; field 20: a structure with one byte in it; field 21: "ok".
        let bytes = [
            0x15, 5, 0x11, 0x29, 0x28, 1, b'a', 2, b'b', b'c', 0x0c, 40, 0x13, 9, 0, 0x18, 2, b'o',
            b'k', 0,
        ];
        let mut seen = Vec::new();
        let mut reader = Reader::new(&bytes);
        reader
            .fields(|r, id, kind| {
                seen.push((id, kind));
                match id {
                    1 => assert_eq!(r.integer(), Ok(-3)),
                    21 => assert_eq!(r.text(), Ok("ok".into())),
                    _ => return Ok(false),
                }
                Ok(true)
            })
            .unwrap();
        assert_eq!(reader.at(), bytes.len());
        let kinds = [
            Kind::Integer,
            Kind::Bool(true),
            Kind::List,
            Kind::Struct,
            Kind::Binary,
        ];
        assert_eq!(
            seen,
            [1, 2, 4, 20, 21].into_iter().zip(kinds).collect::<Vec<_>>()
        );
        for end in 0..bytes.len() {
            assert_eq!(
                Reader::new(&bytes[..end]).fields(|_, _, _| Ok(false)),
                Err(Fault::Short)
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_to_an_end(bytes in vec(any::<u8>(), 0..300)) {
            let _ = Reader::new(&bytes).fields(|_, _, _| Ok(false));
            let _ = Reader::new(&[&[0x1c; 100], &bytes[..]].concat()).fields(|_, _, _| Ok(false));
        }
    }
}
