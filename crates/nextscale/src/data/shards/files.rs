//! Pieces of many files, of which a few stay open.

use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use crate::input::open_input;
use crate::{Error, Result};

/// Shards that stay open at once; systems allow a process 1024 files or, rarely, 256.
const OPEN: usize = 128;

/// By what a file is known to be the one that was indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Bytes.
    pub size: u64,
    /// When it was last written, in nanoseconds since 1970.
    pub modified: i64,
}

impl Stamp {
    /// Of a file's metadata. Where a file system knows no times the size has to do.
    pub fn of(found: &Metadata) -> Self {
        let since = found
            .modified()
            .ok()
            .map(|at| at.duration_since(UNIX_EPOCH));
        let modified = match since {
            Some(Ok(after)) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
            _ => 0,
        };
        Self {
            size: found.len(),
            modified,
        }
    }

    /// Of the file at `path`.
    ///
    /// # Errors
    /// Where it is not there, or is no file.
    pub fn at(path: &Path) -> Result<Self> {
        let found = std::fs::metadata(path).map_err(Error::io(path))?;
        if !found.is_file() {
            // Says what it is, without opening it.
            open_input(path)?;
        }
        Ok(Self::of(&found))
    }
}

/// A file opened to read pieces of it.
#[derive(Debug)]
pub(super) struct Shard {
    file: File,
    path: PathBuf,
    size: u64,
}

impl Shard {
    /// Opens the file at `path`, with what it is known by.
    ///
    /// # Errors
    /// Where it can't be opened, or is no file.
    pub fn open(path: &Path) -> Result<(Self, Stamp)> {
        let (file, size) = open_input(path)?;
        let mut shard = Self {
            file,
            path: path.to_path_buf(),
            size,
        };
        let stamp = shard.stamp()?;
        shard.size = stamp.size;
        Ok((shard, stamp))
    }

    /// What the file is known by now.
    fn stamp(&self) -> Result<Stamp> {
        let found = self.file.metadata().map_err(Error::io(&self.path))?;
        Ok(Stamp::of(&found))
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills `bytes` with what stands from `offset` on.
    ///
    /// # Errors
    /// One line for a piece that reaches beyond the file's end; [`Error::Io`] where it can't be read.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(self.bad("it is truncated"));
        }
        read_at(&self.file, bytes, offset).map_err(Error::io(&self.path))
    }

    /// Up to `most` bytes from `offset` on, fewer at the file's end.
    ///
    /// # Errors
    /// [`Error::Io`] where it can't be read.
    pub fn up_to(&self, offset: u64, most: usize, bytes: &mut Vec<u8>) -> Result<()> {
        let left = self.size.saturating_sub(offset).min(most as u64);
        bytes.resize(left as usize, 0);
        self.read(offset, bytes)
    }

    /// Bad input: this file's name, and what is wrong with it.
    pub fn bad(&self, what: impl std::fmt::Display) -> Error {
        Error::input(format!("{}: {what}", self.path.display()))
    }
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => {
                bytes = &mut bytes[n..];
                offset += n as u64;
            }
        }
    }
    Ok(())
}

/// The shards of a split by their numbers. Those opened last stay open.
#[derive(Debug)]
pub(super) struct Files {
    shards: Vec<(PathBuf, Stamp)>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    by_shard: Vec<Option<Arc<Shard>>>,
    /// In the order in which they were opened.
    order: VecDeque<usize>,
}

impl Files {
    /// The files with what they were known by when they were indexed.
    pub fn new(shards: Vec<(PathBuf, Stamp)>) -> Self {
        let open = Open {
            by_shard: vec![None; shards.len()],
            order: VecDeque::new(),
        };
        Self {
            shards,
            open: Mutex::new(open),
        }
    }

    /// Where shard `n` lies.
    pub fn path(&self, n: usize) -> &Path {
        &self.shards[n].0
    }

    /// Shard `n`, opened where it is not open.
    ///
    /// # Errors
    /// Where it can't be opened, or is not the file any more that was indexed.
    pub fn get(&self, n: usize) -> Result<Arc<Shard>> {
        let lock = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (path, known) = &self.shards[n];
        // Not of one image: nothing of such a shard can be trusted, and none of it may be skipped.
        let changed = || {
            Error::field(
                "data_path",
                path.display(),
                "the shard has changed since its index was made; start again, and it is indexed anew",
            )
        };
        let open = lock().by_shard[n].clone();
        if let Some(shard) = open {
            // Somebody may write into it while it is open.
            return match shard.stamp()? == *known {
                true => Ok(shard),
                false => Err(changed()),
            };
        }
        // Others need not wait while a disk answers; that two threads open one file does no harm.
        let (shard, stamp) = Shard::open(path)?;
        if stamp != *known {
            return Err(changed());
        }
        let shard = Arc::new(shard);
        let mut open = lock();
        if open.by_shard[n].replace(Arc::clone(&shard)).is_none() {
            open.order.push_back(n);
        }
        if open.order.len() > OPEN
            && let Some(first) = open.order.pop_front()
        {
            open.by_shard[first] = None;
        }
        Ok(shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_files_stay_open_and_a_changed_one_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let shards: Vec<_> = (0..OPEN + 20)
            .map(|i| {
                let path = dir.path().join(format!("{i}.tar"));
                std::fs::write(&path, format!("{i:04}")).unwrap();
                let stamp = Stamp::at(&path).unwrap();
                (path, stamp)
            })
            .collect();
        let files = Files::new(shards);
        for round in 0..2 {
            for n in 0..OPEN + 20 {
                let mut bytes = [0; 4];
                files.get(n).unwrap().read(0, &mut bytes).unwrap();
                assert_eq!(bytes, *format!("{n:04}").as_bytes(), "{round}");
                let open = files.open.lock().unwrap();
                assert!(open.by_shard.iter().flatten().count() <= OPEN);
            }
        }
        let error = files.get(3).unwrap().read(1, &mut [0; 4]).unwrap_err();
        assert!(error.to_string().contains("3.tar: it is truncated"));
        // Shard 30 is open; shard 0 was closed since, and is opened again.
        for n in [30, 0] {
            let open = files.open.lock().unwrap().by_shard[n].is_some();
            assert_eq!(open, n == 30);
            std::fs::write(files.path(n), "another").unwrap();
            let error = files.get(n).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let text = error.to_string();
            let want = format!("{n}.tar: the shard has changed since its index");
            assert!(text.contains(&want), "{text}");
        }
    }
}
