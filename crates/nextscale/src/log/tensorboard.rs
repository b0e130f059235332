//! TensorBoard event files: scalars, images and text.
//!
//! A file is a series of TFRecords (length, checksum of the length, message, checksum of the message), each
//! holding one `Event`. Every process start writes a file of its own beside the older ones.

mod proto;

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};

use self::proto::{Value, What, event};
use crate::{Error, Result};

/// An open event file. Events reach the disk with [`EventWriter::flush`] or when the writer is dropped.
#[derive(Debug)]
pub struct EventWriter {
    file: File,
    path: PathBuf,
    /// What is not in the file yet. Where a write fails midway the rest stays here, so that no event in the file is torn.
    waiting: Vec<u8>,
}

/// Events are handed to the system once so many bytes wait.
const ENOUGH: usize = 1 << 16;
/// Beyond this, on a disk that stays full, events are lost.
const TOO_MUCH: usize = 1 << 24;

impl EventWriter {
    /// Starts a new event file in the folder `dir`, which is created if need be. A run that resumes gives the number
    /// of steps that it has done: readers then drop what older files hold of later steps. An evaluation after that many
    /// stays, as it is not repeated.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file or folder.
    pub fn create(dir: &Path, resumed_after: Option<i64>) -> Result<Self> {
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let (file, path) = new_file(dir)?;
        let mut writer = Self {
            file,
            path,
            waiting: Vec::new(),
        };
        writer.write(0, &What::Version)?;
        if let Some(done) = resumed_after {
            // Readers drop what stands at the step of this event, too.
            writer.write(done.saturating_add(1), &What::Start)?;
        }
        writer.flush()?;
        Ok(writer)
    }

    /// The event file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds numbers at `step`, each under its tag. The format holds float32.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn scalars<'a>(
        &mut self,
        step: i64,
        values: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> Result<()> {
        let values: Vec<(&str, Value<'_>)> = values
            .into_iter()
            .map(|(tag, value)| (tag, Value::Scalar(value as f32)))
            .collect();
        if values.is_empty() {
            return Ok(());
        }
        self.write(step, &What::Summary(&values))
    }

    /// Adds an image at `step`: `rgb` holds `height`×`width`×3 bytes, row by row.
    ///
    /// # Errors
    /// [`Error::Failed`] if `rgb` has another length; [`Error::Io`] naming the file.
    pub fn image(
        &mut self,
        step: i64,
        tag: &str,
        width: u32,
        height: u32,
        rgb: &[u8],
    ) -> Result<()> {
        let needed = u64::from(width) * u64::from(height) * 3;
        if needed == 0 || rgb.len() as u64 != needed {
            return Err(Error::failed(format!(
                "the logged image '{tag}' has {} bytes, not the {needed} of {width}×{height} RGB pixels",
                rgb.len()
            )));
        }
        let mut png = Vec::new();
        PngEncoder::new(&mut png)
            .write_image(rgb, width, height, ExtendedColorType::Rgb8)
            .map_err(|cause| {
                Error::failed(format!(
                    "the logged image '{tag}' can't be encoded: {cause}"
                ))
            })?;
        let image = Value::Image {
            width,
            height,
            png: &png,
        };
        self.write(step, &What::Summary(&[(tag, image)]))
    }

    /// Adds a text in Markdown at `step`.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn text(&mut self, step: i64, tag: &str, markdown: &str) -> Result<()> {
        // The suffix that other writers add, so that texts of both stand under one name.
        let tag = format!("{tag}/text_summary");
        self.write(step, &What::Summary(&[(&tag, Value::Text(markdown))]))
    }

    /// Hands all events to the system, so that readers see them.
    ///
    /// # Errors
    /// [`Error::Io`] naming the file.
    pub fn flush(&mut self) -> Result<()> {
        let mut done = 0;
        let mut outcome = Ok(());
        while done < self.waiting.len() && outcome.is_ok() {
            match self.file.write(&self.waiting[done..]) {
                Ok(0) => outcome = Err(ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => outcome = Err(e),
            }
        }
        self.waiting.drain(..done);
        outcome.map_err(Error::io(&self.path))
    }

    fn write(&mut self, step: i64, what: &What<'_>) -> Result<()> {
        let wall_time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64());
        let record = record(&event(wall_time, step, what));
        if self.waiting.len() <= TOO_MUCH {
            self.waiting.extend(record);
        }
        if self.waiting.len() >= ENOUGH {
            self.flush()?;
        }
        Ok(())
    }
}

impl Drop for EventWriter {
    fn drop(&mut self) {
        // Who wants to know has flushed before.
        let _ = self.flush();
    }
}

/// `message` as a TFRecord.
fn record(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(message.len() + 16);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(message);
    record.extend(masked_crc(message).to_le_bytes());
    record
}

/// The checksum of the format: a CRC-32C, rotated and shifted so that a checksum of checksums stays useful.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

/// Creates a file of the name that TensorBoard looks for and that no other process start has.
fn new_file(dir: &Path) -> Result<(File, PathBuf)> {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let host = host_name();
    let process = std::process::id();
    let mut number = 0u32;
    loop {
        let path = dir.join(format!(
            "events.out.tfevents.{seconds:010}.{host}.{process}.{number}"
        ));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((file, path)),
            Err(cause) if cause.kind() == ErrorKind::AlreadyExists && number < u32::MAX => {
                number += 1
            }
            Err(cause) => return Err(Error::io(path)(cause)),
        }
    }
}

/// The machine's name as far as it can stand in a file name.
fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .or_else(|| std::env::var("COMPUTERNAME").ok())
        .unwrap_or_default();
    let name: String = name
        .trim()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        .collect();
    if name.is_empty() {
        "localhost".to_owned()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The messages of a file, with every length and checksum looked at.
    fn messages(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_at(12);
            let length = u64::from_le_bytes(head[..8].try_into().unwrap()) as usize;
            assert_eq!(head[8..], masked_crc(&head[..8]).to_le_bytes());
            let (message, rest) = rest.split_at(length);
            let (crc, rest) = rest.split_at(4);
            assert_eq!(crc, masked_crc(message).to_le_bytes());
            messages.push(message.to_vec());
            bytes = rest;
        }
        messages
    }

    /// The message without its wall time.
    fn timeless(message: &[u8]) -> &[u8] {
        assert_eq!(message[0], 0x09);
        &message[9..]
    }

    #[test]
    fn the_checksum_of_the_format() {
        // Values of TensorBoard's own writer.
        assert_eq!(masked_crc(b"123456789"), 0xc78a_b0e5);
        assert_eq!(masked_crc(&[0; 8]), 0x0798_0329);
        assert_eq!(record(b"").len(), 16);
    }

    #[test]
    fn a_file_starts_with_the_version_and_holds_all_events() {
        let dir = tempfile::tempdir().unwrap();
        let tb = dir.path().join("a/tb");
        let mut writer = EventWriter::create(&tb, None).unwrap();
        writer.scalars(3, [("x", 0.5), ("y", f64::NAN)]).unwrap();
        writer.scalars(3, []).unwrap();
        writer.text(0, "args", "| a |").unwrap();
        writer.flush().unwrap();
        let name = writer
            .path()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        assert!(name.starts_with("events.out.tfevents."), "{name}");
        let messages = messages(&fs::read(writer.path()).unwrap());
        assert_eq!(messages.len(), 3);
        assert_eq!(timeless(&messages[0]), b"\x1a\x0dbrain.Event:2");
        let wall = f64::from_le_bytes(messages[1][1..9].try_into().unwrap());
        assert!(wall > 1.6e9, "{wall}");
        let values = [("x", Value::Scalar(0.5)), ("y", Value::Scalar(f32::NAN))];
        assert_eq!(
            timeless(&messages[1]),
            timeless(&event(0.0, 3, &What::Summary(&values)))
        );
    }

    #[test]
    fn a_resumed_run_says_from_where() {
        let dir = tempfile::tempdir().unwrap();
        let first = EventWriter::create(dir.path(), None).unwrap();
        let second = EventWriter::create(dir.path(), Some(7)).unwrap();
        assert_ne!(first.path(), second.path());
        let messages = messages(&fs::read(second.path()).unwrap());
        assert_eq!(
            timeless(&messages[1]),
            timeless(&event(0.0, 8, &What::Start))
        );
    }

    #[test]
    fn a_write_that_fails_tears_no_event() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(dir.path(), None).unwrap();
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let file = std::mem::replace(&mut writer.file, full);
        writer.scalars(1, [("x", 0.5)]).unwrap();
        let error = writer.flush().unwrap_err().to_string();
        assert!(
            error.contains("events.out") && error.contains("No space"),
            "{error}"
        );
        let long = "n".repeat(100_000);
        assert!(writer.text(2, "t", &long).is_err());
        writer.file = file;
        writer.scalars(3, [("x", 0.25)]).unwrap();
        writer.flush().unwrap();
        assert_eq!(messages(&fs::read(writer.path()).unwrap()).len(), 4);
    }

    #[test]
    fn images_are_png_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(dir.path(), None).unwrap();
        let rgb: Vec<u8> = (0..2 * 3 * 3).collect();
        writer.image(1, "samples", 3, 2, &rgb).unwrap();
        writer.flush().unwrap();
        let messages = messages(&fs::read(writer.path()).unwrap());
        let start = messages[1]
            .windows(4)
            .position(|bytes| bytes == b"\x89PNG")
            .unwrap();
        let image = image::load_from_memory(&messages[1][start..])
            .unwrap()
            .to_rgb8();
        assert_eq!((image.width(), image.height()), (3, 2));
        assert_eq!(image.as_raw(), &rgb);
        let error = writer
            .image(1, "samples", 2, 2, &rgb)
            .unwrap_err()
            .to_string();
        assert!(error.contains("18 bytes, not the 12"), "{error}");
    }

    #[test]
    fn a_folder_that_cant_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = EventWriter::create(&file.join("tb"), None)
            .unwrap_err()
            .to_string();
        assert!(error.contains("file"), "{error}");
    }

    proptest! {
        #[test]
        fn any_scalars_keep_the_frame(tag in "\\PC{0,300}", value: f64, step: i64) {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = EventWriter::create(dir.path(), None).unwrap();
            writer.scalars(step, [(tag.as_str(), value)]).unwrap();
            writer.flush().unwrap();
            let messages = messages(&fs::read(writer.path()).unwrap());
            prop_assert_eq!(messages.len(), 2);
        }
    }
}
