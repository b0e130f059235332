//! What lies in a data folder, by its names.

use std::fs;
use std::path::{Path, PathBuf};

use crate::data::folder::metadata;
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
    /// A folder whose images a file of metadata gives classes.
    Listed(PathBuf, PathBuf),
    /// Shards, all of one kind.
    Shards(Vec<PathBuf>),
}

/// Both splits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub train: Part,
    /// `None` where no name tells of validation images.
    pub val: Option<Part>,
    /// Whether the training images lie in the data folder itself, among whatever else is there.
    pub is_bare: bool,
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

/// The parts of a data folder.
///
/// # Errors
/// One line for what can be understood in two ways, for compressed tar files, and where there is no folder or nothing in it.
pub(super) fn find(root: &Path) -> Result<Parts> {
    let shown = root.display();
    if !root.is_dir() {
        let what = if root.exists() {
            "not a folder"
        } else {
            "no such folder"
        };
        return Err(Error::field(
            "data_path",
            shown,
            format!("{what}; give a folder of images: CLASS/*, or train/CLASS/* and val/CLASS/*"),
        ));
    }
    let loose = list(root)?;
    let data = root.join("data");
    let below = if data.is_dir() {
        list(&data)?
    } else {
        Listing::default()
    };
    let folders_of = |names: &[&str]| -> Option<PathBuf> {
        let paths = names.iter().map(|name| root.join(name));
        paths.into_iter().find(|path| path.is_dir())
    };
    let train = folders_of(&TRAIN);
    let val = folders_of(&VAL).or_else(|| folders_of(&TEST));
    let Some(train) = train else {
        if let Some(val) = folders_of(&VAL) {
            return Err(Error::input(format!(
                "`data_path`={shown}: there is {}, but no train/ beside it",
                val.display()
            )));
        }
        return bare(root, loose, &data, below);
    };
    if let Some(shard) = loose.shards.iter().chain(&below.shards).next() {
        return Err(ambiguous(
            root,
            &format!(
                "there are both the folder {} and the shard {}",
                train.display(),
                shard.display()
            ),
        ));
    }
    if val.is_none()
        && let Some(other) = beside(root)?
    {
        return Err(Error::input(format!(
            "`data_path`={shown}: there are images in {} and in {}: if one of the classes is called {}, give its folder another name; if it holds all training images, give it as the data folder, or put val/ beside it",
            train.display(),
            other.display(),
            train.file_name().unwrap_or_default().display(),
        )));
    }
    Ok(Parts {
        train: part(&train, root)?,
        val: val.map(|val| part(&val, root)).transpose()?,
        is_bare: false,
    })
}

fn ambiguous(root: &Path, what: &str) -> Error {
    Error::input(format!("`data_path`={}: {what}; leave one", root.display()))
}

/// A folder beside train/ that holds images or folders and has no split's name.
fn beside(root: &Path) -> Result<Option<PathBuf>> {
    let known = [&TRAIN[..], &VAL, &TEST].concat();
    let mut found = Vec::new();
    for entry in fs::read_dir(root).map_err(Error::io(root))? {
        let path = entry.map_err(Error::io(root))?.path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() && !is_hidden(name) && !known.iter().any(|word| name == *word) {
            found.push(path);
        }
    }
    found.sort();
    for path in found {
        if list(&path)?.images > 0 {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// A folder without folders for its splits.
fn bare(root: &Path, loose: Listing, data: &Path, below: Listing) -> Result<Parts> {
    let shards = match (loose.shards.first(), below.shards.first()) {
        (Some(here), Some(there)) => {
            return Err(ambiguous(
                root,
                &format!("there are both {} and {}", here.display(), there.display()),
            ));
        }
        (Some(_), None) => loose.shards,
        (None, Some(_)) => below.shards,
        (None, None) => {
            // What was unpacked from somewhere may lie one folder down.
            let is_only = loose.folders == 1 && loose.images == 0;
            let inner = if is_only && data.is_dir() { data } else { root };
            return Ok(Parts {
                train: part(inner, root)?,
                val: None,
                is_bare: true,
            });
        }
    };
    by_name(root, shards)
}

/// What a split's own folder is; a file of metadata may also lie in the data folder.
pub(super) fn part(folder: &Path, root: &Path) -> Result<Part> {
    let found = list(folder)?;
    let Some(shard) = found.shards.first() else {
        let metadata = match metadata::find(folder)? {
            None if folder != root => metadata::find(root)?,
            found => found,
        };
        let own = folder.to_path_buf();
        return Ok(match metadata {
            Some(metadata) => Part::Listed(own, metadata),
            None => unlisted(own, &found),
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

/// A folder of images or of class folders.
fn unlisted(folder: PathBuf, found: &Listing) -> Part {
    match found.folders == 0 && found.images > 0 {
        true => Part::Flat(folder),
        false => Part::Folders(folder),
    }
}

/// What a folder is when nothing is made of its metadata.
pub(super) fn without_metadata(folder: PathBuf) -> Result<Part> {
    let found = list(&folder)?;
    Ok(unlisted(folder, &found))
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
    let words_of = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.to_lowercase();
        let words = name.split(|c: char| !c.is_ascii_alphabetic());
        words.map(String::from).collect::<Vec<_>>()
    };
    let known = [&TRAIN[..], &VAL, &TEST].concat();
    let tells = |path: &PathBuf| words_of(path).iter().any(|w| known.contains(&w.as_str()));
    if !shards.iter().any(tells) {
        return Ok(Parts {
            train: Part::Shards(one_kind(root, shards)?),
            val: None,
            is_bare: true,
        });
    }
    for path in shards {
        let words = words_of(&path);
        let has = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
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
    if train.is_empty() {
        return Err(Error::input(format!(
            "`data_path`={}: there are no shards of training images; expected train-*",
            root.display()
        )));
    }
    let val = (!val.is_empty()).then(|| one_kind(root, val).map(Part::Shards));
    Ok(Parts {
        train: Part::Shards(one_kind(root, train)?),
        val: val.transpose()?,
        is_bare: false,
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
