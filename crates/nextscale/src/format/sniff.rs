//! What kind of file something is, told by its first bytes and not by its name.

use std::fs::DirEntry;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::input::open_input;
use crate::{Error, Result};

/// A file format for weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// safetensors
    Safetensors,
    /// PyTorch's zip archive, or its format from before version 1.6
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

fn is_tar(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar")
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
            let folder = match path.parent() {
                Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
                Some(folder) => folder,
                None => path,
            };
            let beside = files_in(folder, false);
            return Err(bad(&match beside.is_empty() {
                true => "there is no such file".to_owned(),
                false => format!("there is no such file; there are {}", beside.join(", ")),
            }));
        }
        other => other.map_err(Error::io(path))?,
    };
    if meta.is_dir() {
        let files = files_in(path, true);
        return Err(bad(&match files.is_empty() {
            true => "is a folder, and no .safetensors or .pth file lies in it".to_owned(),
            false => format!("is a folder; name a file in it: {}", files.join(", ")),
        }));
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
    if starts(b"PK\x03\x04") || torch_pth::is_legacy(&head) && !torch_pth::is_legacy_tar(&head) {
        return Ok(FileFormat::Pth);
    }
    if head.get(8) == Some(&b'{') {
        return Ok(FileFormat::Safetensors);
    }
    Err(bad(if torch_pth::is_legacy_tar(&head) {
        "is in PyTorch's old format from before version 0.1.10; in Python, load it and save it again: torch.save(torch.load(FILE), FILE)"
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

/// Files of a folder, and with `below` of the folders in it, that may be meant, those first that one most often wants; a few of them.
fn files_in(folder: &Path, below: bool) -> Vec<String> {
    const SHOWN: usize = 4;
    /// Folders in it that are looked into: runs have few.
    const FOLDERS: usize = 100;
    let list = |folder: &Path| -> Vec<DirEntry> {
        let entries = folder.read_dir().into_iter().flatten().flatten();
        let mut entries: Vec<DirEntry> = entries.collect();
        entries.sort_by_key(DirEntry::file_name);
        entries
    };
    let is_dir = |entry: &DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let (folders, mut entries): (Vec<_>, Vec<_>) = list(folder).into_iter().partition(is_dir);
    if below {
        let folders = folders.iter().take(FOLDERS);
        entries.extend(folders.flat_map(|folder| list(&folder.path())));
    }
    let name = |path: &Path| {
        path.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let ends = |path: &PathBuf| {
        let name = name(path).to_lowercase();
        [".safetensors", ".pth", ".pt"]
            .iter()
            .any(|end| name.ends_with(end))
    };
    let paths = entries.iter().map(DirEntry::path);
    let mut files: Vec<PathBuf> = paths.filter(|path| ends(path) && path.is_file()).collect();
    files.sort_by_key(|path| {
        let place = USUAL.iter().position(|usual| *usual == name(path));
        place.unwrap_or(USUAL.len())
    });
    files.truncate(SHOWN);
    let shown = |path: &PathBuf| path.strip_prefix(".").unwrap_or(path).display().to_string();
    files.iter().map(shown).collect()
}

/// Names that runs give to what one draws from or goes on with.
const USUAL: [&str; 4] = [
    "ar-ckpt-best.safetensors",
    "ar-ckpt-last.safetensors",
    "tokenizer.safetensors",
    "tokenizer-best.safetensors",
];

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
        std::fs::write(
            &path,
            b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.",
        )
        .unwrap();
        assert_eq!(sniff(&path).unwrap(), FileFormat::Pth);
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
                .contains("is a folder; name a file in it: ")
        );
        let empty = tempfile::tempdir().unwrap();
        assert!(
            sniff(empty.path())
                .unwrap_err()
                .to_string()
                .contains("no .safetensors or .pth file lies in it")
        );
        let below = dir.path().join("model");
        std::fs::create_dir(&below).unwrap();
        for name in ["a.pth", "model/ar-ckpt-best.safetensors", "model/x.txt"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let told = sniff(dir.path()).unwrap_err().to_string();
        let best = told.find("ar-ckpt-best").unwrap();
        assert!(
            best < told.find("a.pth").unwrap() && !told.contains("x.txt"),
            "{told}"
        );
        let err = sniff(dir.path().join("none.pth")).unwrap_err();
        let told = err.to_string();
        assert!(
            err.exit_code() == 2 && told.contains("no such file; there are "),
            "{told}"
        );
        assert!(
            told.contains("a.pth") && !told.contains("ar-ckpt-best"),
            "{told}"
        );
    }
}
