//! TensorBoard event files. nextscale only writes them, so the bytes say what is written, and a reader of its own checks the file.

use std::ops::RangeInclusive;

use nextscale::log::tensorboard::EventWriter;

/// Something written: its step, its tag, and a number where it is one.
type Written = (i64, String, Option<f32>);

/// Writes what `data` says and reads it back.
pub fn events(data: &[u8]) {
    let mut data = Bytes(data);
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let resumed = data.byte().filter(|byte| byte & 1 == 1);
    let resumed = resumed.map(|_| data.word() as i64);
    let mut writer = EventWriter::create(folder.path(), resumed).expect("a file of events");
    let mut written: Vec<Written> = Vec::new();
    while let Some(kind) = data.byte() {
        let step = data.word() as i64;
        let tag = data.text();
        match kind % 3 {
            0 => {
                let value = f64::from_bits(data.word());
                let scalars = [(tag.as_str(), value)];
                writer.scalars(step, scalars).expect("room on the disk");
                written.push((step, tag.clone(), Some(value as f32)));
            }
            1 => {
                let text = data.text();
                writer.text(step, &tag, &text).expect("room on the disk");
                written.push((step, format!("{tag}/text_summary"), None));
            }
            _ => {
                let size = data.byte().unwrap_or(0);
                let (width, height) = (size & 15, size >> 4);
                let mut rgb = data.text().into_bytes();
                let whole = 3 * usize::from(width) * usize::from(height);
                rgb.resize(whole.min(2 * rgb.len()), 7);
                let done = writer.image(step, &tag, width.into(), height.into(), &rgb);
                assert_eq!(done.is_ok(), whole > 0 && rgb.len() == whole);
                if done.is_ok() {
                    written.push((step, tag, None));
                }
            }
        }
    }
    writer.flush().expect("room on the disk");
    let file = std::fs::read(writer.path()).expect("the file that was written");
    let mut messages = messages(&file).into_iter();
    let version = messages.next().expect("the version");
    assert_eq!(Field::of(3, version), Field::Bytes(b"brain.Event:2"));
    if let Some(done) = resumed {
        let start = messages.next().expect("the start");
        assert_eq!(step_of(start), done.saturating_add(1));
    }
    for (step, tag, number) in written {
        let event = messages.next().expect("all that was written");
        assert_eq!(step_of(event), step);
        let value = Field::of(1, Field::of(5, event).bytes()).bytes();
        assert_eq!(Field::of(1, value), Field::Bytes(tag.as_bytes()));
        if let Some(number) = number {
            // A cast may change the bits of what is no number.
            match Field::of(2, value) {
                Field::Number32(bits) if number.is_nan() => assert!(f32::from_bits(bits).is_nan()),
                field => assert_eq!(field, Field::Number32(number.to_bits())),
            }
        }
    }
    assert!(messages.next().is_none());
}

fn step_of(event: &[u8]) -> i64 {
    match Field::of(2, event) {
        Field::Number64(step) => step as i64,
        Field::None => 0,
        other => panic!("a step is no {other:?}"),
    }
}

/// The messages of a file, with every length and checksum looked at.
fn messages(mut file: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while !file.is_empty() {
        let (head, rest) = file.split_at(12);
        let (length, sum) = head.split_at(8);
        let message_length = u64::from_le_bytes(length.try_into().expect("eight bytes"));
        let (message, rest) = rest.split_at(message_length as usize);
        let (message_sum, rest) = rest.split_at(4);
        assert_eq!(sum, masked_sum(length));
        assert_eq!(message_sum, masked_sum(message));
        messages.push(message);
        file = rest;
    }
    messages
}

fn masked_sum(bytes: &[u8]) -> [u8; 4] {
    let sum = crc32c::crc32c(bytes).rotate_right(15);
    sum.wrapping_add(0xa282_ead8).to_le_bytes()
}

/// A field of a protocol-buffer message.
#[derive(Debug, PartialEq)]
enum Field<'a> {
    None,
    Bytes(&'a [u8]),
    Number32(u32),
    Number64(u64),
}

impl<'a> Field<'a> {
    /// The first field of that number. The whole message is walked, as any reader does.
    fn of(number: u64, message: &'a [u8]) -> Self {
        let mut data = Bytes(message);
        let mut found = Self::None;
        while !data.0.is_empty() {
            let key = data.varint(1..=5);
            let field = match key & 7 {
                0 => Self::Number64(data.varint(1..=10)),
                1 => Self::Number64(data.exactly(8).try_into().map(u64::from_le_bytes).unwrap()),
                2 => {
                    let length = data.varint(1..=10) as usize;
                    Self::Bytes(data.exactly(length))
                }
                5 => Self::Number32(data.exactly(4).try_into().map(u32::from_le_bytes).unwrap()),
                other => panic!("no wire type {other} is written"),
            };
            if key >> 3 == number && found == Self::None {
                found = field;
            }
        }
        found
    }

    fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            other => panic!("bytes were expected, not {other:?}"),
        }
    }
}

/// Bytes, from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn exactly(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    /// Eight bytes, or what there is.
    fn word(&mut self) -> u64 {
        let taken = self.exactly(self.0.len().min(8));
        let mut word = [0; 8];
        word[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(word)
    }

    /// A length of one byte and a text.
    fn text(&mut self) -> String {
        let length = usize::from(self.byte().unwrap_or(0)).min(self.0.len());
        String::from_utf8_lossy(self.exactly(length)).into_owned()
    }

    fn varint(&mut self, lengths: RangeInclusive<usize>) -> u64 {
        let mut value = 0;
        for place in 0..*lengths.end() {
            let byte = self.byte().expect("a whole number");
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                return value;
            }
        }
        panic!("a number of more than {} bytes", lengths.end());
    }
}
