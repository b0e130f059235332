//! Numbers and words as bytes, little-endian, with lengths that are checked.

use crate::Error;

/// The longest text in a message; what is longer is cut.
const LONGEST_TEXT: usize = 4096;

#[derive(Default)]
pub(crate) struct Writer(pub Vec<u8>);

impl Writer {
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.u64(bytes.len() as u64).raw(bytes)
    }

    pub fn text(&mut self, text: &str) -> &mut Self {
        let end = (0..=LONGEST_TEXT.min(text.len()))
            .rev()
            .find(|&i| text.is_char_boundary(i))
            .unwrap_or(0);
        self.u16(end as u16).raw(&text.as_bytes()[..end])
    }
}

pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn raw(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.raw(N)?.try_into().ok()
    }

    pub fn u8(&mut self) -> Option<u8> {
        Some(self.array::<1>()?[0])
    }

    pub fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.array()?))
    }

    pub fn index(&mut self) -> Option<usize> {
        usize::try_from(self.u64()?).ok()
    }

    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.index()?;
        self.raw(len)
    }

    /// Text fit for one line of a terminal.
    pub fn text(&mut self) -> Option<String> {
        let len = usize::from(self.u16()?);
        let text = String::from_utf8_lossy(self.raw(len)?);
        Some(text.replace(char::is_control, " "))
    }
}

/// An error on its way to another process.
pub(crate) fn write_error(to: &mut Writer, error: &Error) {
    match error {
        Error::Lost { rank, host, why } => {
            to.u8(1).u64(*rank as u64).text(host).text(why);
        }
        Error::Input(text) => {
            to.u8(2).text(text);
        }
        Error::Mismatch(text) => {
            to.u8(3).text(text);
        }
        Error::Late(text) => {
            to.u8(4).text(text);
        }
        Error::Orphaned | Error::Io { .. } => {
            to.u8(5).text(&error.to_string());
        }
    }
}

pub(crate) fn read_error(from: &mut Reader<'_>) -> Option<Error> {
    Some(match from.u8()? {
        1 => Error::Lost {
            rank: from.index()?,
            host: from.text()?,
            why: from.text()?,
        },
        2 => Error::Input(from.text()?),
        3 => Error::Mismatch(from.text()?),
        4 => Error::Late(from.text()?),
        5 => Error::io("a member of the job", std::io::Error::other(from.text()?)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(a: u8, b: u16, c: u64, text in "[^\\p{Cc}]{0,20}", bytes: Vec<u8>) {
            let mut to = Writer::default();
            to.u8(a).u16(b).u64(c).text(&text).bytes(&bytes);
            let mut from = Reader(&to.0);
            prop_assert_eq!(from.u8(), Some(a));
            prop_assert_eq!(from.u16(), Some(b));
            prop_assert_eq!(from.u64(), Some(c));
            prop_assert_eq!(from.text(), Some(text));
            prop_assert_eq!(from.bytes(), Some(&bytes[..]));
            prop_assert!(from.0.is_empty() && from.u8().is_none());
        }

        #[test]
        fn any_bytes_are_an_error_or_nothing(bytes: Vec<u8>) {
            if let Some(error) = read_error(&mut Reader(&bytes)) {
                prop_assert!(!error.to_string().contains('\n'));
            }
        }

        #[test]
        fn errors_come_through(rank in 0usize..9, host in "[a-z]{1,9}", why in "[ -~]{0,40}") {
            for error in [
                Error::Lost { rank, host: host.clone(), why: why.clone() },
                Error::Input(why.clone()),
                Error::Mismatch(why.clone()),
                Error::Late(why.clone()),
            ] {
                let mut to = Writer::default();
                write_error(&mut to, &error);
                let read = read_error(&mut Reader(&to.0)).unwrap();
                prop_assert_eq!(read.to_string(), error.to_string());
                prop_assert_eq!(read.is_input(), error.is_input());
            }
        }
    }

    #[test]
    fn long_texts_are_cut_at_a_letter() {
        let mut to = Writer::default();
        to.text(&"ü".repeat(5000));
        assert_eq!(Reader(&to.0).text().unwrap(), "ü".repeat(2048));
    }
}
