//! What lies in a data folder, by its names.

use std::fs;
use std::path::{Path, PathBuf};

use crate::data::folder::{is_hidden, is_image_name};
use crate::data::shards::shard_ending;
use crate::{Error, Result};

/// What a split's images lie in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A folder of class folders.
    Folders(PathBuf),
    /// A folder of images.
    Flat(PathBuf),
    /// Shards, all of one kind.
    Shards(Vec<PathBuf>),
}

/// Both splits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub train: Part,
    pub val: Part,
}

/// Words in a file's name that tell its split, as the hub has them.
const TRAIN: [&str; 2] = ["train", "training"];
const VAL: [&str; 4] = ["val", "validation", "valid", "dev"];
const TEST: [&str; 3] = ["test", "testing", "eval"];

/// Endings of tar files that are compressed, with what unpacks them.
const COMPRESSED: [(&str, &str); 7] = [
    (".tar.gz", "gunzip"),
    (".tgz", "gunzip"),
    (".tar.zst", "unzstd"),
    (".tar.bz2", "bunzip2"),
    (".tbz2", "bunzip2"),
    (".tar.xz", "unxz"),
    (".txz", "unxz"),
];

/// What a folder holds.
#[derive(Default)]
struct Listing {
    shards: Vec<PathBuf>,
    folders: usize,
    images: usize,
}

/// The parts of a data folder; `None` where it has class folders for both splits, or nothing at all.
///
/// # Errors
/// One line for what can be understood in two ways, and for compressed tar files.
pub(super) fn find(root: &Path) -> Result<Option<Parts>> {
    if !root.is_dir() {
        return Ok(None);
    }
    let loose = list(root)?;
    let data = root.join("data");
    let below = if data.is_dir() {
        list(&data)?
    } else {
        Listing::default()
    };
    let [train, val] = ["train", "val"].map(|name| root.join(name));
    if train.is_dir() || val.is_dir() {
        if let Some(shard) = loose.shards.iter().chain(&below.shards).next() {
            return Err(ambiguous(
                root,
                &format!(
                    "there are both the folder {}/ and the shard {}",
                    if train.is_dir() { "train" } else { "val" },
                    shard.display()
                ),
            ));
        }
        return in_folders(&train, &val);
    }
    let shards = match (loose.shards.first(), below.shards.first()) {
        (Some(here), Some(there)) => {
            return Err(ambiguous(
                root,
                &format!("there are both {} and {}", here.display(), there.display()),
            ));
        }
        (Some(_), None) => loose.shards,
        (None, Some(_)) => below.shards,
        (None, None) => return Ok(None),
    };
    by_name(root, shards).map(Some)
}

fn ambiguous(root: &Path, what: &str) -> Error {
    Error::input(format!("`data_path`={}: {what}; leave one", root.display()))
}

fn in_folders(train: &Path, val: &Path) -> Result<Option<Parts>> {
    // Whoever opens class folders says what is missing.
    let mut val = val.to_path_buf();
    if train.is_dir() && !val.is_dir() {
        let other = val.with_file_name("validation");
        if !other.is_dir() || list(&other)?.shards.is_empty() {
            return Ok(None);
        }
        val = other;
    }
    if !train.is_dir() {
        return Ok(None);
    }
    let parts = Parts {
        train: part(train)?,
        val: part(&val)?,
    };
    Ok(match parts {
        Parts {
            train: Part::Folders(_) | Part::Flat(_),
            val: Part::Folders(_),
        } => None,
        parts => Some(parts),
    })
}

/// What a split's own folder is.
fn part(folder: &Path) -> Result<Part> {
    let found = list(folder)?;
    let Some(shard) = found.shards.first() else {
        return Ok(match found.folders == 0 && found.images > 0 {
            true => Part::Flat(folder.to_path_buf()),
            false => Part::Folders(folder.to_path_buf()),
        });
    };
    if found.folders > 0 || found.images > 0 {
        let other = if found.folders > 0 {
            "folders"
        } else {
            "images"
        };
        return Err(ambiguous(
            folder,
            &format!("there are both {other} and the shard {}", shard.display()),
        ));
    }
    one_kind(folder, found.shards).map(Part::Shards)
}

/// Demands shards of one kind.
fn one_kind(folder: &Path, shards: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    let kind = |path: &PathBuf| shard_ending(&path.to_string_lossy());
    match shards.iter().find(|path| kind(path) != kind(&shards[0])) {
        Some(other) => Err(ambiguous(
            folder,
            &format!(
                "there are both {} and {}",
                shards[0].display(),
                other.display()
            ),
        )),
        None => Ok(shards),
    }
}

/// Sorts shards into splits by words in their names.
fn by_name(root: &Path, shards: Vec<PathBuf>) -> Result<Parts> {
    let [mut train, mut val, mut test] = [const { Vec::new() }; 3];
    for path in shards {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_lowercase();
        let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphabetic()).collect();
        let has = |list: &[&str]| words.iter().any(|word| list.contains(word));
        match (has(&TRAIN), has(&VAL), has(&TEST)) {
            (true, false, false) => train.push(path),
            (false, true, false) => val.push(path),
            (false, false, true) => test.push(path),
            (false, false, false) => {
                return Err(Error::input(format!(
                    "{}: its name does not tell its split; expected train-* or validation-*, or shards in train/ and val/",
                    path.display()
                )));
            }
            _ => {
                return Err(Error::input(format!(
                    "{}: its name tells several splits; expected train-* or validation-*",
                    path.display()
                )));
            }
        }
    }
    if val.is_empty() {
        val = test;
    }
    for (files, what, names) in [
        (&train, "training", "train-*"),
        (&val, "validation", "validation-*, val-* or test-*"),
    ] {
        if files.is_empty() {
            return Err(Error::input(format!(
                "`data_path`={}: there are no shards of {what} images; expected {names}",
                root.display()
            )));
        }
    }
    Ok(Parts {
        train: Part::Shards(one_kind(root, train)?),
        val: Part::Shards(one_kind(root, val)?),
    })
}

/// Counts what is in a folder, without what is hidden.
fn list(folder: &Path) -> Result<Listing> {
    let mut found = Listing::default();
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        let name = entry.file_name();
        if is_hidden(&name) {
            continue;
        }
        let kind = entry.file_type().map_err(Error::io(entry.path()))?;
        let is_dir = kind.is_dir() || (kind.is_symlink() && entry.path().is_dir());
        let name = name.to_string_lossy();
        if is_dir {
            found.folders += 1;
        } else if shard_ending(&name).is_some() {
            found.shards.push(entry.path());
        } else if is_image_name(&name) {
            found.images += 1;
        } else if let Some((_, tool)) = COMPRESSED
            .iter()
            .find(|(end, _)| name.to_lowercase().ends_with(end))
        {
            return Err(Error::input(format!(
                "{}: compressed tar files can't be read in place; unpack it once ({tool})",
                entry.path().display()
            )));
        }
    }
    found.shards.sort();
    Ok(found)
}
