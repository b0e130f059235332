//! What lies in a data folder, by its names.

use std::path::{Path, PathBuf};

use super::listing::{Listing, images_below};
use crate::data::folder::metadata;
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
    /// The folder in which they were found: the data folder, or one that is alone in it.
    pub root: PathBuf,
    pub train: Part,
    /// `None` where no name tells of validation images.
    pub val: Option<Part>,
    /// Whether the training images lie in the data folder itself, among whatever else is there.
    pub is_bare: bool,
    /// What was left out, in words.
    pub remarks: Vec<String>,
}

/// Words in a file's name that tell its split, as the hub has them.
const TRAIN: [&str; 2] = ["train", "training"];
const VAL: [&str; 4] = ["val", "validation", "valid", "dev"];
const TEST: [&str; 3] = ["test", "testing", "eval"];

/// How far down a folder that is alone in another one is followed.
const DEPTH: usize = 3;

/// The parts of a data folder. `has_val` says that validation images are found elsewhere.
///
/// # Errors
/// One line for what can be understood in two ways, for compressed tar files, and where there is no folder or nothing in it.
pub(super) fn find(root: &Path, has_val: bool) -> Result<Parts> {
    if !root.is_dir() {
        let what = if root.exists() {
            "not a folder"
        } else {
            "no such folder"
        };
        return Err(Error::field(
            "data_path",
            root.display(),
            format!("{what}; give a folder of images: CLASS/*, or train/CLASS/* and val/CLASS/*"),
        ));
    }
    find_in(root, has_val, DEPTH)
}

fn find_in(root: &Path, has_val: bool, depth: usize) -> Result<Parts> {
    let shown = root.display();
    let loose = Listing::of(root)?;
    let data = root.join("data");
    let below = if data.is_dir() {
        Listing::of(&data)?
    } else {
        Listing::default()
    };
    let train = folder_of(root, &loose, &TRAIN)?;
    let val = folder_of(root, &loose, &VAL)?;
    let test = folder_of(root, &loose, &TEST)?;
    let Some(train) = train else {
        if let Some(val) = val {
            return Err(Error::input(format!(
                "`data_path`={shown}: there is {}, but no train/ beside it: if it is one of the classes, give its folder another name; if it holds validation images, put train/ beside it, or give `data_path` and `val_path`",
                val.display()
            )));
        }
        return bare(root, loose, below, (has_val, depth));
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
    let own = part(&train, root)?;
    let mut remarks = Vec::new();
    let val = match (has_val, val, test) {
        (true, _, _) => None,
        (false, Some(val), _) => Some(part(&val, root)?),
        (false, None, None) => None,
        (false, None, Some(test)) => match (part(&test, root)?, &own) {
            // Images to be sorted by whoever takes part in a contest.
            (Part::Flat(_), Part::Folders(_) | Part::Shards(_)) => {
                let test = test.display();
                remarks.push(format!(
                    "{test} is left out: its images lie in no class folders"
                ));
                None
            }
            (part, _) => Some(part),
        },
    };
    if !has_val
        && val.is_none()
        && let Some(other) = beside(&loose)
    {
        return Err(Error::input(format!(
            "`data_path`={shown}: there are images in {} and in {}: if one of the classes is called {}, give its folder another name; if it holds all training images, give it as the data folder, or put val/ beside it",
            train.display(),
            other.display(),
            train.file_name().unwrap_or_default().display(),
        )));
    }
    Ok(Parts {
        root: root.to_path_buf(),
        train: own,
        val,
        is_bare: false,
        remarks,
    })
}

fn ambiguous(root: &Path, what: &str) -> Error {
    Error::input(format!("`data_path`={}: {what}; leave one", root.display()))
}

/// A folder's name as names of splits are compared.
fn lower(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().to_lowercase()
}

/// The words in a name.
fn words_of(path: &Path) -> Vec<String> {
    let name = lower(path);
    let words = name.split(|c: char| !c.is_ascii_alphabetic());
    words.map(String::from).collect()
}

/// The folder that one of `names` is the name of, the first of them that there is.
fn folder_of(root: &Path, loose: &Listing, names: &[&str]) -> Result<Option<PathBuf>> {
    for name in names {
        let found: Vec<&PathBuf> = loose.folders.iter().filter(|f| lower(f) == *name).collect();
        match &found[..] {
            [] => {}
            [one] => return Ok(Some((*one).clone())),
            [a, b, ..] => {
                let what = format!("there are both {} and {}", a.display(), b.display());
                return Err(ambiguous(root, &what));
            }
        }
    }
    Ok(None)
}

/// A folder beside train/ that holds images and has no split's name.
fn beside(loose: &Listing) -> Option<&PathBuf> {
    let known = [&TRAIN[..], &VAL, &TEST].concat();
    let mut others = loose.folders.iter();
    others.find(|folder| !known.contains(&lower(folder).as_str()) && images_below(folder, 1) > 0)
}

/// A folder without folders for its splits.
fn bare(
    root: &Path,
    loose: Listing,
    below: Listing,
    (has_val, depth): (bool, usize),
) -> Result<Parts> {
    let shards = match (loose.shards.first(), below.shards.first()) {
        (Some(here), Some(there)) => {
            return Err(ambiguous(
                root,
                &format!("there are both {} and {}", here.display(), there.display()),
            ));
        }
        (Some(shard), None) if loose.images > 0 || loose.images_in_folders(1) > 0 => {
            let what = format!("there are both images and the shard {}", shard.display());
            return Err(ambiguous(root, &what));
        }
        (Some(_), None) => loose.shards,
        (None, Some(_)) => below.shards,
        (None, None) => return of_pictures(root, &loose.unpacked()?, (has_val, depth)),
    };
    by_name(root, shards)
}

/// A folder of class folders or of images.
fn of_pictures(root: &Path, loose: &Listing, (has_val, depth): (bool, usize)) -> Result<Parts> {
    if loose.images == 0 && loose.folders.is_empty() {
        let foreign = loose.foreign.as_ref().map_or_else(String::new, |path| {
            format!(
                " (pictures as {} are of a format that is not read; as PNG they would be)",
                path.display()
            )
        });
        return Err(Error::input(format!(
            "`data_path`={}: there are no images in it{foreign}; give a folder with CLASS/*, or train/CLASS/* and val/CLASS/*, or images of one class",
            root.display()
        )));
    }
    // What was unpacked from somewhere may lie one folder down.
    if let ([only], 0, true) = (&loose.folders[..], loose.images, depth > 0) {
        let inner = Listing::of(only)?;
        if inner.images == 0 && !(inner.folders.is_empty() && inner.shards.is_empty()) {
            return find_in(only, has_val, depth - 1);
        }
    }
    let named = |names: &[&str]| {
        let is_one =
            |folder: &&PathBuf| words_of(folder).iter().any(|w| names.contains(&w.as_str()));
        loose.folders.iter().find(is_one)
    };
    if let (Some(train), Some(val)) = (named(&TRAIN), named(&[&VAL[..], &TEST].concat())) {
        return Err(Error::input(format!(
            "`data_path`={}: are {} and {} classes, or training and validation images? Name them train/ and val/, or give `data_path`={} `val_path`={}",
            root.display(),
            train.display(),
            val.display(),
            train.display(),
            val.display()
        )));
    }
    Ok(Parts {
        root: root.to_path_buf(),
        train: part(root, root)?,
        val: None,
        is_bare: true,
        remarks: Vec::new(),
    })
}

/// What a split's own folder is; a file of metadata may also lie in the data folder.
pub(super) fn part(folder: &Path, root: &Path) -> Result<Part> {
    let found = Listing::of(folder)?.unpacked()?;
    let Some(shard) = found.shards.first() else {
        let metadata = match metadata::find(folder)? {
            None if folder != root => metadata::find(root)?,
            found => found,
        };
        let own = folder.to_path_buf();
        return Ok(match metadata {
            Some(metadata) => Part::Listed(own, metadata),
            None => unlisted(own, &found)?,
        });
    };
    if !found.folders.is_empty() || found.images > 0 {
        let other = if !found.folders.is_empty() {
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
fn unlisted(folder: PathBuf, found: &Listing) -> Result<Part> {
    if found.images == 0 {
        return Ok(Part::Folders(folder));
    }
    match found.images_in_folders(found.images) {
        0 => Ok(Part::Flat(folder)),
        inside if inside >= found.images => Ok(Part::Folders(folder)),
        inside => Err(Error::input(format!(
            "{}: {} images lie beside its folders and {inside} in them: move the images into class folders, or the folders away",
            folder.display(),
            found.images
        ))),
    }
}

/// What a folder is when nothing is made of its metadata.
pub(super) fn without_metadata(folder: PathBuf) -> Result<Part> {
    let found = Listing::of(&folder)?;
    unlisted(folder, &found)
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
    let known = [&TRAIN[..], &VAL, &TEST].concat();
    let tells = |path: &PathBuf| words_of(path).iter().any(|w| known.contains(&w.as_str()));
    if !shards.iter().any(tells) {
        return Ok(Parts {
            train: Part::Shards(one_kind(root, shards)?),
            val: None,
            is_bare: true,
            root: root.to_path_buf(),
            remarks: Vec::new(),
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
        root: root.to_path_buf(),
        remarks: Vec::new(),
    })
}
