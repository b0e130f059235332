//! What lies in a folder, by its names.

use std::fs;
use std::path::{Path, PathBuf};

use crate::data::folder::{foreign_ending, is_hidden, is_image_name};
use crate::data::shards::shard_ending;
use crate::{Error, Result};

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

/// Folders that are looked into for images, at most: what lies beside a data folder may be anything.
const MOST_FOLDERS: usize = 10_000;

/// What a folder holds, without what is hidden.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) shards: Vec<PathBuf>,
    pub(super) folders: Vec<PathBuf>,
    pub(super) images: usize,
    /// A picture whose format is not read.
    pub(super) foreign: Option<PathBuf>,
    /// A compressed tar file, and what unpacks it.
    compressed: Option<(PathBuf, &'static str)>,
}

impl Listing {
    /// Lists a folder.
    ///
    /// # Errors
    /// When it can't be read.
    pub(super) fn of(folder: &Path) -> Result<Self> {
        let mut found = Self::default();
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
                found.folders.push(entry.path());
            } else if shard_ending(&name).is_some() {
                found.shards.push(entry.path());
            } else if is_image_name(&name) {
                found.images += 1;
            } else if let Some((_, tool)) = COMPRESSED
                .iter()
                .find(|(end, _)| name.to_lowercase().ends_with(end))
            {
                found.compressed = Some((entry.path(), tool));
            } else if foreign_ending(&entry.file_name()).is_some() {
                let least = found.foreign.take().into_iter().chain([entry.path()]).min();
                found.foreign = least;
            }
        }
        found.shards.sort();
        found.folders.sort();
        Ok(found)
    }

    /// Refuses a compressed tar file that nothing lies beside into which it could have been unpacked.
    ///
    /// # Errors
    /// One line that says what unpacks it.
    pub(super) fn unpacked(self) -> Result<Self> {
        match &self.compressed {
            Some((path, tool)) if self.folders.is_empty() && self.images == 0 => {
                Err(Error::input(format!(
                    "{}: compressed tar files can't be read in place; unpack it once ({tool})",
                    path.display()
                )))
            }
            _ => Ok(self),
        }
    }

    /// How many images lie in the folders, counted up to `most`.
    pub(super) fn images_in_folders(&self, most: usize) -> usize {
        let mut count = 0;
        for folder in &self.folders {
            if count < most {
                count += images_below(folder, most - count);
            }
        }
        count
    }
}

/// How many images lie in a folder and below it, counted up to `most`; what can't be read holds none.
pub(super) fn images_below(folder: &Path, most: usize) -> usize {
    let mut left = vec![folder.to_path_buf()];
    let mut count = 0;
    for _ in 0..MOST_FOLDERS {
        let Some(folder) = left.pop().filter(|_| count < most) else {
            break;
        };
        if let Ok(found) = Listing::of(&folder) {
            count += found.images;
            left.extend(found.folders);
        }
    }
    count.min(most)
}
