//! Images whose classes are named in a file of metadata.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use super::metadata::Metadata;
use super::{File, FolderSource, LeftOut, text_order, walk};
use crate::{Error, Result};

impl FolderSource {
    /// The images below `folder` that `metadata` names (from its own folder on), with the labels of `classes`.
    ///
    /// # Errors
    /// [`Error::Input`] (one line) for an image that is not there or leads out of the folder, for one that is named twice with different
    /// classes, and for a class that is none of `classes`.
    pub(in crate::data) fn listed(
        folder: &Path,
        metadata: &Metadata,
        classes: &[String],
    ) -> Result<Self> {
        let shown = metadata.path.display();
        let base = metadata.path.parent().unwrap_or(Path::new(""));
        let by_name: HashMap<&str, u32> = classes.iter().map(String::as_str).zip(0..).collect();
        let mut left_out = LeftOut::default();
        let mut there: HashSet<PathBuf> = HashSet::new();
        for (folder, names) in walk(folder, &mut left_out)? {
            there.extend(names.iter().map(|name| folder.join(name)));
        }
        let mut found: BTreeMap<PathBuf, u32> = BTreeMap::new();
        for (file, class) in &metadata.rows {
            let path = base.join(file);
            if Path::new(file)
                .components()
                .any(|c| !matches!(c, Component::Normal(_)))
            {
                return Err(Error::input(format!(
                    "{shown}: {file} is no path below the file's folder"
                )));
            }
            // Of a file for several folders only this one's images are meant.
            if !path.starts_with(folder) {
                continue;
            }
            let class = class.as_deref().unwrap_or_default();
            let label = by_name.get(class).copied().ok_or_else(|| {
                Error::input(format!(
                    "{shown}: {file} has the class {class:?}, which is none of the {} classes of the training images",
                    classes.len()
                ))
            })?;
            if !there.remove(&path) && !found.contains_key(&path) {
                return Err(Error::input(format!(
                    "{shown}: names {file}, and there is no such image"
                )));
            }
            if found
                .insert(path, label)
                .is_some_and(|other| other != label)
            {
                return Err(Error::input(format!(
                    "{shown}: {file} has had another class before"
                )));
            }
        }
        let mut rest: Vec<PathBuf> = there.into_iter().collect();
        rest.sort();
        rest.into_iter().for_each(|path| left_out.unlisted(path));
        let mut by_folder: BTreeMap<PathBuf, Vec<(OsString, u32)>> = BTreeMap::new();
        for (path, label) in found {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                continue;
            };
            let images = by_folder.entry(parent.to_path_buf()).or_default();
            images.push((name.to_os_string(), label));
        }
        let mut source = Self {
            root: folder.to_path_buf(),
            classes: classes.to_vec(),
            folders: Vec::new(),
            files: Vec::new(),
            left_out,
        };
        for (folder, mut images) in by_folder {
            images.sort_by(|a, b| text_order(&a.0, &b.0));
            let place = source.folders.len() as u32;
            source.folders.push(folder);
            source
                .files
                .extend(images.into_iter().map(|(name, label)| File {
                    folder: place,
                    label,
                    name,
                }));
        }
        if source.files.is_empty() {
            return Err(Error::input(format!(
                "{shown}: names no image in {}",
                folder.display()
            )));
        }
        Ok(source)
    }
}
