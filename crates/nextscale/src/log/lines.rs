//! A file of one JSON object a line that a resumed run cuts back and goes on with.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::format::atomic::{Unfinished, synced};
use crate::input::open_input;
use crate::{Error, Result};

/// A file that grows by whole lines.
#[derive(Debug)]
pub(crate) struct LineFile {
    file: File,
    path: PathBuf,
}

impl LineFile {
    /// Opens `path` for appending, creating it if need be, after dropping every line for which `keep` says
    /// no and a last line without its end (torn by a crash). `keep` gets the line's number, from 0, and its
    /// text. Where the very first line is not kept (or there is none), `first` takes its place.
    ///
    /// The cut is one rename: whatever happens, the old or the new content stands there whole.
    pub(crate) fn open(
        path: PathBuf,
        first: Option<&str>,
        mut keep: impl FnMut(usize, &str) -> bool,
    ) -> Result<Self> {
        let copy = Unfinished::create(&path)?;
        if cut(&path, copy.writer()?, first, &mut keep)? {
            copy.finish()?;
        }
        let file = OpenOptions::new()
            .append(true)
            .open(&path)
            .map_err(Error::io(&path))?;
        Ok(Self { file, path })
    }

    /// Appends `record` as one line, in one write. Where that fails, on a full disk say, a part of the line does not stay.
    pub(crate) fn append(&mut self, record: &impl Serialize) -> Result<()> {
        let mut line = json(record)?;
        line.push('\n');
        let before = self.file.metadata().map(|m| m.len());
        let written = self.file.write_all(line.as_bytes());
        if let (Err(_), Ok(length)) = (&written, before) {
            // Half a line would spoil the next one; where that can't be helped, the next start drops both.
            let _ = self.file.set_len(length);
        }
        written.map_err(Error::io(&self.path))
    }

    /// Waits until everything appended is on the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        synced(self.file.sync_data()).map_err(Error::io(&self.path))
    }
}

/// `record` as JSON on one line. Floats get their shortest form that reads back exactly.
pub(crate) fn json(record: &impl Serialize) -> Result<String> {
    serde_json::to_string(record)
        .map_err(|cause| Error::failed(format!("a log line can't be written: {cause}")))
}

/// Writes what is kept of `path` to `copy`. Whether that differs from what `path` holds.
fn cut(
    path: &Path,
    copy: File,
    first: Option<&str>,
    keep: &mut impl FnMut(usize, &str) -> bool,
) -> Result<bool> {
    let mut changed = false;
    let mut source = match open_input(path) {
        Ok((file, _)) => Some(BufReader::new(file)),
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            changed = true;
            None
        }
        Err(other) => return Err(other),
    };
    let mut copy = BufWriter::new(copy);
    let mut line = Vec::new();
    let mut number = 0;
    loop {
        line.clear();
        if let Some(source) = &mut source {
            source
                .read_until(b'\n', &mut line)
                .map_err(Error::io(path))?;
        }
        let kept = match line.strip_suffix(b"\n").map(str::from_utf8) {
            Some(Ok(text)) => keep(number, text),
            // Torn, or never text.
            _ => false,
        };
        if number == 0
            && !kept
            && let Some(first) = first
        {
            writeln!(copy, "{first}").map_err(Error::io(path))?;
            changed = true;
        }
        if line.is_empty() {
            break;
        }
        if kept {
            copy.write_all(&line).map_err(Error::io(path))?;
        } else {
            changed = true;
        }
        number += 1;
    }
    copy.flush().map_err(Error::io(path))?;
    Ok(changed)
}

/// A number as a line holds it: JSON has no word for one that is not finite, so those become `null`.
pub(crate) fn finite(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_kept_stays_as_it_is_and_no_other_file_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        fs::write(&path, "one\ntwo\nthree\nto").unwrap();
        LineFile::open(path.clone(), None, |_, line| line != "two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\nthree\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn nothing_to_cut_leaves_the_very_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        fs::write(&path, "one\ntwo\n").unwrap();
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        let mut file = LineFile::open(path.clone(), Some("head"), |_, _| true).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
        file.append(&3).unwrap();
        file.sync().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n3\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_first_line_is_put_where_it_lacks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        LineFile::open(path.clone(), Some("head"), |_, _| true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "head\n");
        fs::write(&path, "old\none\n").unwrap();
        LineFile::open(path.clone(), Some("head"), |number, _| number > 0).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "head\none\n");
        fs::write(&path, "torn head").unwrap();
        LineFile::open(path.clone(), Some("head"), |_, _| true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "head\n");
    }

    #[test]
    fn bytes_that_are_no_text_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        fs::write(&path, b"one\n\xff\xfe\ntwo\n\0\0\0").unwrap();
        LineFile::open(path.clone(), None, |_, _| true).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn a_missing_folder_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = LineFile::open(dir.path().join("none/a.txt"), None, |_, _| true).unwrap_err();
        assert!(error.to_string().contains("none"), "{error}");
    }
}
