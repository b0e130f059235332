//! The format of `torch.save` from before PyTorch 1.6: pickles one behind the other, then the storages' bytes. Files of published weights
//! often have it.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use crate::members::{invalid, unsupported};
use crate::pickle::{self, Storage, Value};
use crate::read::MAX_PICKLE;
use crate::{Error, Result};

/// How many bytes of a file's beginning tell it.
pub(crate) const HEAD: u64 = 512;

/// The number that such a file begins with, as pickles of protocol 2 and later hold it, after their protocol and, from 4 on, the length
/// of a frame.
const MAGIC: [u8; 12] = [
    0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19,
];
/// The same in protocols 0 and 1.
const TEXT: &[u8] = b"L119547037146038801333356L";
/// The only version of the format.
const VERSION: i64 = 1001;
/// How much of a file is read at first to find its pickles. Those of a thousand tensors take a quarter of a megabyte.
const FIRST_READ: u64 = 1 << 20;

/// Whether a file that begins with `head` (its first 512 bytes or more) is as `torch.save` wrote before version 1.6, or in the tar archives
/// of before version 0.1.10 ([`is_legacy_tar`]).
///
/// ```
/// assert!(torch_pth::is_legacy(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."));
/// assert!(!torch_pth::is_legacy(b"PK\x03\x04"));
/// ```
pub fn is_legacy(head: &[u8]) -> bool {
    magic_len(head).is_some() || head.starts_with(TEXT) || is_legacy_tar(head)
}

/// Where a file begins with the magic number: how many bytes its pickle takes.
fn magic_len(head: &[u8]) -> Option<usize> {
    let rest = head.strip_prefix(&[0x80])?.get(1..)?;
    let (start, rest) = match rest.first() {
        Some(0x95) => (11, rest.get(9..)?),
        _ => (2, rest),
    };
    rest.starts_with(&MAGIC).then_some(start + MAGIC.len() + 1)
}

/// Whether a tar archive's first member is one of those in which PyTorch kept tensors before version 0.1.10. Such files are not read.
pub fn is_legacy_tar(head: &[u8]) -> bool {
    let name = head.split(|&b| b == 0).next().unwrap_or_default();
    let is_tar = head.get(257..262) == Some(b"ustar");
    is_tar && [b"sys_info".as_slice(), b"pickle", b"tensors", b"storages"].contains(&name)
}

/// Where the bytes of every storage begin.
pub(crate) struct Places(HashMap<Arc<str>, (Arc<Storage>, u64)>);

impl Places {
    /// The place of a storage, which must be the one that the file holds under its key.
    pub(crate) fn get(&self, storage: &Storage) -> Option<u64> {
        let (known, at) = self.0.get(&storage.key)?;
        (**known == *storage).then_some(*at)
    }
}

/// What such a file holds, where its storages lie, and whether its numbers are big endian. `len` is the file's length.
pub(crate) fn read<R: Read + Seek>(
    reader: &mut R,
    len: u64,
    path: &Path,
) -> Result<(Value, Places, bool)> {
    let (found, start) = pickles(reader, len, path)?;
    let mut places = HashMap::new();
    let bad = |why: String| invalid(path, why);
    let [version, system, object, keys]: [Value; 4] = found
        .values
        .try_into()
        .map_err(|_| bad("lacks a pickle".into()))?;
    if version != Value::Int(VERSION) {
        let text = "is in a version of PyTorch's old format that is not known; in Python, load it and save it again: torch.save(torch.load(FILE), FILE)";
        return Err(unsupported(path, text));
    }
    let big_endian = system.get("little_endian") == Some(&Value::Bool(false));
    let Value::List(keys) = keys else {
        return Err(bad("its list of storages is damaged; get it again".into()));
    };
    let mut storages = found.storages;
    let mut at = start;
    for key in &keys {
        let known = match key {
            Value::Str(key) => storages.remove(key),
            _ => None,
        };
        let Some(storage) = known else {
            return Err(bad(
                "its list of storages names one that no tensor looks at, or one twice; get it again"
                    .into(),
            ));
        };
        let mut count = [0; 8];
        reader.seek(SeekFrom::Start(at)).map_err(Error::io(path))?;
        let cut = || bad("is cut off; get or save it again".into());
        reader.read_exact(&mut count).map_err(|_| cut())?;
        let count = match big_endian {
            true => u64::from_be_bytes(count),
            false => u64::from_le_bytes(count),
        };
        if count != storage.numel {
            return Err(bad(format!(
                "its storage {:?} has {count} elements, but its tensors need {}; the file is damaged: get it again",
                storage.key, storage.numel
            )));
        }
        let end = storage
            .num_bytes()
            .and_then(|bytes| bytes.checked_add(at)?.checked_add(8))
            .filter(|&end| end <= len)
            .ok_or_else(cut)?;
        places.insert(storage.key.clone(), (storage, at + 8));
        at = end;
    }
    Ok((object, Places(places), big_endian))
}

/// The pickles behind the magic number, and where they end. The file does not say how long they are.
fn pickles<R: Read + Seek>(
    reader: &mut R,
    len: u64,
    path: &Path,
) -> Result<(pickle::Sequence, u64)> {
    let mut size = FIRST_READ;
    loop {
        let mut bytes = Vec::new();
        reader.rewind().map_err(Error::io(path))?;
        let read = reader.by_ref().take(size).read_to_end(&mut bytes);
        read.map_err(Error::io(path))?;
        let start = magic_len(&bytes).ok_or_else(|| {
            unsupported(
                path,
                "is in PyTorch's old format, pickled with protocol 0 or 1, which is not read; in Python, load it and save it again: torch.save(torch.load(FILE), FILE)",
            )
        })?;
        match pickle::sequence(bytes.get(start..).unwrap_or_default(), 4) {
            Ok(found) => {
                let end = (start + found.len) as u64;
                return Ok((found, end));
            }
            Err(_) if size < len.min(MAX_PICKLE) => size = (size * 8).min(MAX_PICKLE),
            Err(e) => return Err(e.of_file(path, "its pickle can't be read: ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_formats_are_told_by_their_beginning() {
        // As Python pickles the number in protocols 0 to 5.
        let frame = b"\x95\x0d\0\0\0\0\0\0\0";
        for start in [
            [b"\x80\x02".as_slice(), &MAGIC, b"."].concat(),
            [b"\x80\x03".as_slice(), &MAGIC, b"."].concat(),
            [b"\x80\x04".as_slice(), frame, &MAGIC, b"."].concat(),
            [b"\x80\x05".as_slice(), frame, &MAGIC, b"."].concat(),
            b"L119547037146038801333356L\n.".to_vec(),
        ] {
            assert!(is_legacy(&start), "{start:?}");
            let path = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(path.path(), &start).unwrap();
            let error = crate::PthFile::open(path.path()).err().unwrap();
            assert!(!error.to_string().contains("zip"), "{error}");
        }
        let mut tar = vec![0u8; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert!(!is_legacy(&tar));
        tar[..8].copy_from_slice(b"sys_info");
        assert!(is_legacy(&tar));
        for other in [
            b"".as_slice(),
            b"PK\x03\x04",
            b"\x80\x04}.",
            b"\x80\x04\x95",
        ] {
            assert!(!is_legacy(other), "{other:?}");
        }
    }
}
