//! The two splits of a data folder, whatever their images lie in.

mod layout;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::folder::same_classes;
use super::shards::{Own, ShardSource};
use super::{FolderSource, FolderSplits, ImageSource, Relabelled};
use crate::checkpoint::class_names::first_difference;
use crate::{Error, Result};
use layout::Part;

/// Files with the classes' names, one a line, for shards that only number them.
const CLASS_LISTS: [&str; 2] = ["classes.txt", "classnames.txt"];

/// Training and validation images with the same classes.
///
/// Each split is a folder of class folders, of tar shards (`*.tar`) or of Parquet files (`*.parquet`): `DIR/train` and `DIR/val`. Shards may
/// also lie in `DIR` or `DIR/data` with names that tell their split, as the Hugging Face hub has them: `train-*`, `validation-*`.
/// Validation images may lie in `DIR/val` without class folders beside a file of labels, as ImageNet's do.
pub struct Splits {
    /// Training images.
    pub train: Arc<dyn ImageSource>,
    /// Validation images.
    pub val: Arc<dyn ImageSource>,
    /// What lies among them and was left out, in words.
    pub left_out: Vec<String>,
}

impl Splits {
    /// Finds the images of both splits. Nothing is decoded yet.
    ///
    /// # Errors
    /// [`Error::Input`] (one line that says what is missing and where) where there are no such splits, something in them can't be used, or
    /// their classes are not the same; [`Error::Io`] where something can't be read.
    pub fn open(root: &Path) -> Result<Self> {
        let Some(parts) = layout::find(root)? else {
            let FolderSplits { train, val } = FolderSplits::open(root)?;
            return Ok(Self {
                left_out: [train.left_out(), val.left_out()]
                    .into_iter()
                    .flatten()
                    .collect(),
                train: Arc::new(train),
                val: Arc::new(val),
            });
        };
        let mut left_out = Vec::new();
        let train: Arc<dyn ImageSource> = match parts.train {
            Part::Folders(folder) | Part::Flat(folder) => {
                let source = FolderSource::open(folder)?;
                left_out.extend(source.left_out());
                Arc::new(source)
            }
            Part::Shards(files) => {
                let mut source = ShardSource::raw(root, "train", &files)?;
                name_classes(root, &mut source)?;
                left_out.extend(source.left_out());
                Arc::new(source)
            }
        };
        let classes = train.class_names();
        let val: Arc<dyn ImageSource> = match parts.val {
            Part::Folders(folder) => {
                let source = FolderSource::open(folder)?;
                left_out.extend(source.left_out());
                let labels = places(root, classes, source.class_names())?;
                Arc::new(Relabelled::new(Arc::new(source), labels, classes.into()))
            }
            Part::Flat(folder) => {
                let source = FolderSource::flat(&folder, classes)?;
                left_out.extend(source.left_out());
                Arc::new(source)
            }
            Part::Shards(files) => {
                let mut source = ShardSource::raw(root, "val", &files)?;
                match source.own() {
                    Own::Names(names) => {
                        let labels = places(root, classes, names)?;
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
                left_out.extend(source.left_out());
                Arc::new(source)
            }
        };
        Ok(Self {
            train,
            val,
            left_out,
        })
    }
}

/// The place of each of `names` among the classes, which are the same.
fn places(root: &Path, classes: &[String], names: &[String]) -> Result<Vec<u32>> {
    same_classes(root, classes, names)?;
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
