//! The two splits of a data folder, whatever their images lie in.

mod cut;
mod layout;
mod listing;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::folder::metadata::Metadata;
use super::folder::{Empty, Sides, class_name};
use super::shards::{Own, ShardSource};
use super::{FolderSource, ImageSource, Relabelled};
use crate::checkpoint::class_names::first_difference;
use crate::{Error, Result};
use cut::VAL_SHARE;
use layout::Part;

/// Files with the classes' names, one a line, for shards that only number them.
const CLASS_LISTS: [&str; 2] = ["classes.txt", "classnames.txt"];

/// Which images validate, where a folder's names do not say it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cut {
    /// The folder of the validation images.
    pub val_path: Option<PathBuf>,
    /// The share of images that is taken to validate, more than 0 and less than 1.
    pub val_share: Option<f64>,
}

/// Training and validation images with the same classes.
///
/// Each split is a folder of class folders, of tar shards (`*.tar`) or of Parquet files (`*.parquet`): `DIR/train` and `DIR/val`. Shards may
/// also lie in `DIR` or `DIR/data` with names that tell their split, as the Hugging Face hub has them: `train-*`, `validation-*`.
/// Validation images may lie in `DIR/val` without class folders beside a file of labels, as ImageNet's do. A file of metadata
/// (`metadata.jsonl`, `metadata.csv`) in a folder or in `DIR` names classes too.
///
/// Where there are no validation images, `DIR` itself may hold class folders, images of one class, or shards, and some of the images are
/// taken to validate ([`Cut`]).
pub struct Splits {
    /// Training images.
    pub train: Arc<dyn ImageSource>,
    /// Validation images.
    pub val: Arc<dyn ImageSource>,
    /// What was left out, and what was taken to validate, in words.
    pub remarks: Vec<String>,
}

impl Splits {
    /// Finds the images of both splits. Nothing is decoded yet.
    ///
    /// # Errors
    /// [`Error::Input`] (one line that says what is missing and where) where there are no such splits, something in them can't be used, or
    /// their classes are not the same; [`Error::Io`] where something can't be read.
    pub fn open(root: &Path, cut: &Cut) -> Result<Self> {
        let parts = layout::find(root, cut.val_path.is_some())?;
        let mut remarks = parts.remarks;
        if parts.root != root {
            remarks.push(format!("images are those of {}", parts.root.display()));
        }
        let (root, is_bare) = (&*parts.root, parts.is_bare);
        let empties = match is_bare {
            true => Empty::LeftOut,
            false => Empty::Refused,
        };
        let part = settled(parts.train, &mut remarks)?;
        let is_flat = matches!(part, Settled::Flat(_));
        let train = train_of(root, part, empties, &mut remarks)?;
        let val = match &cut.val_path {
            Some(path) if !path.is_dir() => {
                return Err(Error::field(
                    "val_path",
                    path.display(),
                    "no such folder; give one of class folders as the training images have them",
                ));
            }
            Some(path) => Some(layout::part(path, path)?),
            None => parts.val,
        };
        let sides = match &cut.val_path {
            Some(path) => Sides {
                head: format!("`val_path`={}", path.display()),
                train: "the training images",
                val: "this folder",
            },
            None => Sides {
                head: format!("`data_path`={}", root.display()),
                train: "train/",
                val: "val/",
            },
        };
        if let (true, Some(Part::Folders(folder))) = (is_flat, &val) {
            return Err(Error::input(format!(
                "`data_path`={}: the training images lie in no class folders, those of {} do; images are expected as <class>/* in both, or in neither",
                root.display(),
                folder.display()
            )));
        }
        if is_bare && is_flat {
            remarks.push(format!(
                "all images are of one class, {}; for several put them into a folder each, or name them in metadata.csv (columns file_name and label)",
                some_names(train.class_names())
            ));
        } else if is_bare {
            remarks.push(format!("classes: {}", some_names(train.class_names())));
        }
        let Some(val) = val else {
            let share = cut.val_share.unwrap_or(VAL_SHARE);
            let all = train.len();
            let [train, val] = cut::cut(train, share, &root.display().to_string())?;
            remarks.push(format!(
                "{} of {all} images are taken to validate, by a hash of their names (--val_share={share}); the others train",
                val.len()
            ));
            return Ok(Self {
                train,
                val,
                remarks,
            });
        };
        if let Some(share) = cut.val_share {
            return Err(Error::input(format!(
                "`val_share`={share}: there are validation images; leave the flag out, or give the folder of the training images as `data_path`"
            )));
        }
        let val = settled(val, &mut remarks)?;
        let val = val_of((root, &sides), val, train.class_names(), &mut remarks)?;
        Ok(Self {
            train,
            val,
            remarks,
        })
    }
}

/// All images of a folder as one set, which [`Splits`] would divide, with what there is to say of it: class folders, images of one class, or
/// shards.
///
/// # Errors
/// As [`Splits::open`], and where the folder holds training and validation images apart.
pub fn whole(root: &Path) -> Result<(Arc<dyn ImageSource>, Vec<String>)> {
    let parts = layout::find(root, false)?;
    if !parts.is_bare {
        let names = [Some(&parts.train), parts.val.as_ref()].map(|part| part.and_then(folder_of));
        let named: Vec<String> = names.into_iter().flatten().collect();
        return Err(Error::input(format!(
            "`data_path`={}: holds training images and others apart; give the folder of one of them{}{}",
            root.display(),
            if named.is_empty() { "" } else { ": " },
            named.join(" or ")
        )));
    }
    let mut remarks = parts.remarks;
    let part = settled(parts.train, &mut remarks)?;
    let source = train_of(&parts.root, part, Empty::LeftOut, &mut remarks)?;
    Ok((source, remarks))
}

/// The folder of a part, for messages.
fn folder_of(part: &Part) -> Option<String> {
    match part {
        Part::Folders(folder) | Part::Flat(folder) | Part::Listed(folder, _) => {
            Some(folder.display().to_string())
        }
        Part::Shards(_) => None,
    }
}

/// The first names, and how many more there are.
fn some_names(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Where images are, once it is known whether a table names their classes.
enum Settled {
    Folders(PathBuf),
    Flat(PathBuf),
    /// Those of the folder, of the classes that the table has.
    Listed(PathBuf, Metadata),
    Shards(Vec<PathBuf>),
}

/// A table without classes does not count.
fn settled(part: Part, remarks: &mut Vec<String>) -> Result<Settled> {
    let (folder, file) = match part {
        Part::Folders(folder) => return Ok(Settled::Folders(folder)),
        Part::Flat(folder) => return Ok(Settled::Flat(folder)),
        Part::Shards(files) => return Ok(Settled::Shards(files)),
        Part::Listed(folder, file) => (folder, file),
    };
    let metadata = Metadata::read(&file)?;
    if metadata.has_classes() {
        return Ok(Settled::Listed(folder, metadata));
    }
    let part = layout::without_metadata(folder)?;
    let remark = metadata.without_classes();
    // Beside images in no class folders it was meant to name their classes.
    if matches!(part, Part::Flat(_)) && !metadata.names_images() {
        return Err(Error::input(format!(
            "{remark}; rename the column that does, or the file if it is about something else"
        )));
    }
    remarks.push(format!("{remark}: it is not used"));
    settled(part, remarks)
}

/// The training images, which say what classes there are.
fn train_of(
    root: &Path,
    part: Settled,
    empties: Empty,
    remarks: &mut Vec<String>,
) -> Result<Arc<dyn ImageSource>> {
    Ok(match part {
        Settled::Folders(folder) => {
            let source = FolderSource::of_classes(&folder, empties)?;
            remarks.extend(source.left_out());
            remarks.extend(source.one_too_high());
            Arc::new(source)
        }
        Settled::Flat(folder) => {
            let class = class_name_of(root);
            let source = FolderSource::flat(&folder, &[class])?;
            remarks.extend(source.left_out());
            Arc::new(source)
        }
        Settled::Listed(folder, metadata) => {
            let classes = metadata.classes(&folder);
            let source = FolderSource::listed(&folder, &metadata, &classes)?;
            remarks.push(format!(
                "classes are those of {}",
                metadata.path().display()
            ));
            remarks.extend(source.left_out());
            Arc::new(source)
        }
        Settled::Shards(files) => {
            let mut source = ShardSource::raw(root, "train", &files)?;
            name_classes(root, &mut source)?;
            remarks.extend(source.left_out());
            Arc::new(source)
        }
    })
}

/// The validation images, with the classes of the training images.
fn val_of(
    (root, sides): (&Path, &Sides<'_>),
    part: Settled,
    classes: &[String],
    remarks: &mut Vec<String>,
) -> Result<Arc<dyn ImageSource>> {
    Ok(match part {
        Settled::Folders(folder) => {
            let source = FolderSource::open(folder)?;
            remarks.extend(source.left_out());
            let labels = places(sides, classes, source.class_names())?;
            match source.class_names() == classes {
                true => Arc::new(source),
                false => Arc::new(Relabelled::new(Arc::new(source), labels, classes.into())),
            }
        }
        Settled::Flat(folder) => {
            let source = FolderSource::flat(&folder, classes)?;
            remarks.extend(source.left_out());
            Arc::new(source)
        }
        Settled::Listed(folder, metadata) => {
            let source = FolderSource::listed(&folder, &metadata, classes)?;
            remarks.extend(source.left_out());
            Arc::new(source)
        }
        Settled::Shards(files) => {
            let mut source = ShardSource::raw(root, "val", &files)?;
            match source.own() {
                Own::Names(names) => {
                    let labels = places(sides, classes, names)?;
                    source.relabel(&labels);
                }
                Own::Numbers(Some(names)) => {
                    if let Some(text) = first_difference(classes, names) {
                        return Err(Error::input(format!(
                            "`data_path`={}: the classes of training images and of validation images differ: {text}",
                            root.display()
                        )));
                    }
                }
                Own::Numbers(None) => {}
            }
            source.set_classes(classes.to_vec())?;
            remarks.extend(source.left_out());
            Arc::new(source)
        }
    })
}

/// What the one class of a folder of images is called: as the folder.
fn class_name_of(root: &Path) -> String {
    let whole = std::fs::canonicalize(root);
    let whole = whole.as_deref().unwrap_or(root);
    let name = whole.file_name().map(class_name);
    name.unwrap_or_else(|| "images".to_owned())
}

/// The place of each of `names` among the classes, which are the same.
fn places(sides: &Sides<'_>, classes: &[String], names: &[String]) -> Result<Vec<u32>> {
    sides.same_classes(classes, names)?;
    let by_name: HashMap<&str, u32> = classes.iter().map(String::as_str).zip(0..).collect();
    Ok(names
        .iter()
        .map(|name| by_name.get(name.as_str()).copied().unwrap_or(0))
        .collect())
}

/// Names the classes of training images in shards.
fn name_classes(root: &Path, source: &mut ShardSource) -> Result<()> {
    let names = match source.own().clone() {
        Own::Names(names) | Own::Numbers(Some(names)) => names,
        Own::Numbers(None) => match CLASS_LISTS
            .iter()
            .map(|name| root.join(name))
            .find(|path| path.exists())
        {
            Some(path) => {
                crate::input::open_input(&path)?;
                let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
                let text = String::from_utf8(bytes).map_err(|_| {
                    Error::input(format!("{}: is no text in UTF-8", path.display()))
                })?;
                let names: Vec<String> = text
                    .trim_end()
                    .lines()
                    .map(|line| line.trim().to_owned())
                    .collect();
                if let Some(line) = names.iter().position(String::is_empty) {
                    return Err(Error::input(format!(
                        "{}: line {} is empty; expected the name of class {line}",
                        path.display(),
                        line + 1
                    )));
                }
                names
            }
            None => {
                // A class without images would be a mistake in numbering, such as counting from 1.
                let labels = source.labels();
                let last = labels.last().copied().unwrap_or(0);
                if let Some(gap) = (0..=last).find(|label| !labels.contains(label)) {
                    return Err(Error::input(format!(
                        "`data_path`={}: labels of training images go up to {last}, but none is {gap}; number the classes from 0 without gaps, or name all of them, one a line, in {}",
                        root.display(),
                        root.join(CLASS_LISTS[0]).display()
                    )));
                }
                (0..=last).map(|label| label.to_string()).collect()
            }
        },
    };
    source.set_classes(names)
}
