//! What kind of file something is, told by its first bytes and not by its name.

use std::io::Read;
use std::path::Path;

use crate::input::open_input;
use crate::{Error, Result};

/// A file format for weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// safetensors
    Safetensors,
    /// PyTorch's zip archive
    Pth,
}

impl std::fmt::Display for FileFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::Pth => "pth",
        })
    }
}

/// The number that a torch.save file from before version 1.6 begins with, as pickles of protocol 2 and later hold it, after their
/// protocol and, from 4 on, the length of a frame.
const LEGACY_MAGIC: [u8; 12] = [
    0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19,
];
/// The same in protocols 0 and 1.
const LEGACY_TEXT: &[u8] = b"L119547037146038801333356L";

/// Whether a file begins as torch.save wrote before version 1.6.
fn is_legacy(head: &[u8]) -> bool {
    let pickled = head.strip_prefix(&[0x80]).and_then(|rest| rest.get(1..));
    let framed = |rest: &[u8]| rest.first() == Some(&0x95) && rest.get(9..).is_some_and(is_magic);
    let is_magic_number = pickled.is_some_and(|rest| is_magic(rest) || framed(rest));
    is_magic_number || head.starts_with(LEGACY_TEXT)
}

/// Whether a tar archive's first member is one of those in which PyTorch kept tensors before version 0.1.10.
fn is_legacy_tar(head: &[u8]) -> bool {
    let name = head.split(|&b| b == 0).next().unwrap_or_default();
    is_tar(head) && [b"sys_info".as_slice(), b"pickle", b"tensors", b"storages"].contains(&name)
}

fn is_tar(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar")
}

fn is_magic(rest: &[u8]) -> bool {
    rest.starts_with(&LEGACY_MAGIC)
}

/// The format of a file that should hold weights.
///
/// # Errors
/// When there is no such file, it is a folder, is empty, or is of another kind; common other kinds are named.
pub fn sniff(path: impl AsRef<Path>) -> Result<FileFormat> {
    let path = path.as_ref();
    let bad = |why: &str| Error::input(format!("{}: {why}", path.display()));
    let meta = match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(bad("there is no such file"));
        }
        other => other.map_err(Error::io(path))?,
    };
    if meta.is_dir() {
        return Err(bad("is a folder; name a .safetensors or .pth file in it"));
    }
    let mut head = Vec::new();
    let (file, _) = open_input(path)?;
    file.take(512)
        .read_to_end(&mut head)
        .map_err(Error::io(path))?;
    let text = head.trim_ascii_start();
    let starts = |magic: &[u8]| head.starts_with(magic);
    if head.is_empty() {
        return Err(bad("is empty; get or save it again"));
    }
    if starts(b"PK\x03\x04") {
        return Ok(FileFormat::Pth);
    }
    if head.get(8) == Some(&b'{') {
        return Ok(FileFormat::Safetensors);
    }
    Err(bad(if is_legacy(&head) || is_legacy_tar(&head) {
        "is in PyTorch's old format from before version 1.6; in Python, load it and save it again: torch.save(torch.load(FILE), FILE)"
    } else if starts(&[0x1f, 0x8b]) {
        "is compressed with gzip; unpack it first with gunzip"
    } else if is_tar(&head) {
        "is a tar archive; unpack it first with tar -xf"
    } else if starts(b"version https://git-lfs") {
        "is a Git LFS pointer and not the file itself; fetch it with git lfs pull"
    } else if text.starts_with(b"<") {
        "is a web page, so the download went wrong; get it again"
    } else if starts(&[0x80]) {
        "is a bare Python pickle; save it with torch.save"
    } else {
        "is neither a .safetensors nor a .pth file, or is damaged at its very beginning"
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_named_for_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.pth");
        let text = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let err = sniff(&path).unwrap_err();
            assert_eq!(err.exit_code(), 2);
            assert!(err.to_string().contains("w.pth: "));
            err.to_string()
        };
        let mut tar = vec![0u8; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert!(text(b"").contains("empty"));
        // As Python pickles the number in protocols 0 to 5.
        let frame = b"\x95\x0d\0\0\0\0\0\0\0";
        for start in [
            [b"\x80\x02".as_slice(), &LEGACY_MAGIC, b"."].concat(),
            [b"\x80\x03".as_slice(), &LEGACY_MAGIC, b"."].concat(),
            [b"\x80\x04".as_slice(), frame, &LEGACY_MAGIC, b"."].concat(),
            [b"\x80\x05".as_slice(), frame, &LEGACY_MAGIC, b"."].concat(),
            b"L119547037146038801333356L\n.".to_vec(),
        ] {
            assert!(text(&start).contains("old format"), "{start:?}");
        }
        assert!(text(&tar).contains("tar archive"));
        tar[..8].copy_from_slice(b"sys_info");
        assert!(text(&tar).contains("old format"));
        assert!(text(b"\x1f\x8b\x08").contains("gzip"));
        assert!(text(b"version https://git-lfs.github.com/spec/v1\n").contains("LFS"));
        assert!(text(b"\n<!DOCTYPE html>").contains("web page"));
        assert!(text(b"\x80\x04}.").contains("pickle"));
        assert!(text(b"GIF89a").contains("neither"));
        assert!(
            sniff(dir.path())
                .unwrap_err()
                .to_string()
                .contains("folder")
        );
        let err = sniff(dir.path().join("none.pth")).unwrap_err();
        assert!(err.exit_code() == 2 && err.to_string().contains("no such file"));
    }
}
