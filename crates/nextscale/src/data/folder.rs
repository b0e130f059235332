//! Images in folders: a folder a class, one folder of them all, or named in a file of metadata.

use std::collections::{BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

mod flat;
mod left_out;
mod listed;
pub(super) mod metadata;

pub(super) use left_out::foreign_ending;

use super::{ImageSource, LoadBuffers, decode_file};
use crate::checkpoint::class_names::named_twice;
use crate::{Error, Result};
use left_out::LeftOut;

/// The endings (in any case) of files that count as images.
pub const IMAGE_EXTENSIONS: [&str; 10] = [
    ".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif",
];

/// Names listed in a message before the rest is only counted.
const LISTED: usize = 3;

/// The images of one split: one folder a class, classes in the order of their names.
///
/// Within a class all folders below it are searched (links are followed); images are ordered by the folder they
/// lie in, then by name, as torchvision's `DatasetFolder` orders them.
#[derive(Debug)]
pub struct FolderSource {
    /// What all of them lie in.
    root: PathBuf,
    classes: Vec<String>,
    folders: Vec<PathBuf>,
    files: Vec<File>,
    left_out: LeftOut,
}

/// What class folders without an image are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Empty {
    /// An error: somebody has made the folder for a class.
    Refused,
    /// No class: the folder is one of whatever lies there.
    LeftOut,
}

/// One image: the folder that holds it (a place in `folders`), its name and its class.
#[derive(Debug)]
struct File {
    folder: u32,
    label: u32,
    name: OsString,
}

/// What the two parts of the images are called in messages, which begin with `head`.
pub(super) struct Sides<'a> {
    pub(super) head: String,
    pub(super) train: &'a str,
    pub(super) val: &'a str,
}

impl Sides<'_> {
    /// Demands that both parts have the same classes.
    ///
    /// # Errors
    /// One line that names those that only one has.
    pub(super) fn same_classes(&self, train: &[String], val: &[String]) -> Result<()> {
        let [in_train, in_val] = [train, val].map(|names| names.iter().collect::<BTreeSet<_>>());
        if in_train == in_val {
            return Ok(());
        }
        let only = |a: &BTreeSet<&String>, b: &BTreeSet<&String>, side: &str| {
            let names: Vec<&str> = a.difference(b).map(|name| name.as_str()).collect();
            (!names.is_empty()).then(|| format!("only {side} has {}", list(&names)))
        };
        let parts = [
            only(&in_train, &in_val, self.train),
            only(&in_val, &in_train, self.val),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        let Self { head, train, val } = self;
        Err(Error::input(format!(
            "{head}: {train} and {val} must hold the same classes, but {}",
            parts.join(" and ")
        )))
    }
}

impl FolderSource {
    /// Lists the images of one split, `folder/<class>/**`.
    ///
    /// # Errors
    /// [`Error::Input`] without class folders or with an empty one, or beyond `u32::MAX` images; [`Error::Io`]
    /// where a folder can't be read.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        Self::of_classes(folder.as_ref(), Empty::Refused)
    }

    /// The same, with a choice for class folders without an image.
    pub(in crate::data) fn of_classes(folder: &Path, empties: Empty) -> Result<Self> {
        let shown = folder.display();
        let mut class_folders = Vec::new();
        let mut source = Self {
            root: folder.to_path_buf(),
            classes: Vec::new(),
            folders: Vec::new(),
            files: Vec::new(),
            left_out: LeftOut::default(),
        };
        for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
            let path = entry.map_err(Error::io(folder))?.path();
            let name = file_name(&path);
            if path.is_dir() && is_hidden(&name) {
                source.left_out.hidden(path);
            } else if path.is_dir() {
                class_folders.push(path);
            } else if is_image(&name) && !is_hidden(&name) {
                source.left_out.beside(path);
            }
        }
        class_folders.sort_by_cached_key(|path| file_name(path).into_encoded_bytes());
        if class_folders.is_empty() {
            return Err(Error::input(format!(
                "{shown}: no class folders in it; images are expected as {shown}/<class>/*"
            )));
        }
        let mut empty = Vec::new();
        for path in class_folders {
            let class = class_name(&file_name(&path));
            let before = source.files.len();
            source.add_class(source.classes.len() as u32, &path)?;
            match source.files.len() == before {
                true if empties == Empty::LeftOut => {
                    source.left_out.empty(path);
                    continue;
                }
                true => empty.push(class.clone()),
                false => {}
            }
            source.classes.push(class);
        }
        if source.classes.is_empty() {
            let others = source.left_out.foreign_in_words();
            return Err(Error::input(format!(
                "{shown}: no images ({}) in its folders{}",
                IMAGE_EXTENSIONS.join(" "),
                others.map_or_else(String::new, |others| format!(", but {others}"))
            )));
        }
        if !empty.is_empty() {
            let names: Vec<&str> = empty.iter().map(String::as_str).collect();
            return Err(Error::input(format!(
                "{shown}: no image in the class folder {}; put images ({}) there or remove it",
                list(&names),
                IMAGE_EXTENSIONS.join(" ")
            )));
        }
        if let Some(class) = named_twice(&source.classes) {
            return Err(Error::input(format!(
                "{shown}: two class folders come to the name {class:?}; rename one of them"
            )));
        }
        if u32::try_from(source.files.len()).is_err() {
            return Err(Error::input(format!(
                "{shown}: {} images are more than can be numbered",
                source.files.len()
            )));
        }
        Ok(source)
    }

    fn add_class(&mut self, label: u32, top: &Path) -> Result<()> {
        let mut found = walk(top, &mut self.left_out)?;
        found.sort_by(|a, b| text_order(a.0.as_os_str(), b.0.as_os_str()));
        for (folder, mut names) in found {
            if names.is_empty() {
                continue;
            }
            names.sort_by(|a, b| text_order(a, b));
            let place = self.folders.len() as u32;
            self.folders.push(folder);
            self.files.extend(names.into_iter().map(|name| File {
                folder: place,
                label,
                name,
            }));
        }
        Ok(())
    }
}

impl FolderSource {
    /// A hint where a folder one level too high may have been given: the first class without images of its own whose folder holds
    /// several folders with images.
    pub(super) fn one_too_high(&self) -> Option<String> {
        let class = |label: usize| -> Option<String> {
            let own = self.files.iter().filter(|f| f.label as usize == label);
            let mut below = BTreeSet::new();
            for file in own {
                let folder = self.folders.get(file.folder as usize)?;
                let mut parts = folder.strip_prefix(&self.root).ok()?.components().skip(1);
                below.insert(parts.next()?.as_os_str().to_os_string());
            }
            (below.len() > 1).then(|| {
                format!(
                    "class {}: its images lie in {} folders, which count as one class; if they are classes, give {} as the folder",
                    self.classes[label],
                    below.len(),
                    self.root.join(&self.classes[label]).display()
                )
            })
        };
        (0..self.classes.len().min(LOOKED_INTO)).find_map(class)
    }

    /// What was left out of the folder, in words; `None` where that is nothing.
    pub fn left_out(&self) -> Option<String> {
        self.left_out.in_words()
    }
}

impl ImageSource for FolderSource {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn class_names(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> u32 {
        self.files.get(index).map_or(0, |file| file.label)
    }

    fn key(&self, index: usize) -> Result<String> {
        let path = self.path(index).unwrap_or_default();
        let below = path.strip_prefix(&self.root).unwrap_or(&path);
        Ok(class_name(below.as_os_str()))
    }

    fn path(&self, index: usize) -> Option<PathBuf> {
        let file = self.files.get(index)?;
        Some(self.folders.get(file.folder as usize)?.join(&file.name))
    }

    fn name(&self, index: usize) -> String {
        self.path(index)
            .map_or_else(|| format!("image {index}"), |p| p.display().to_string())
    }

    fn load(&self, index: usize, buffers: &mut LoadBuffers) -> Result<()> {
        let path = self.path(index).ok_or_else(|| {
            Error::input(format!("there is no image {index} among {}", self.len()))
        })?;
        decode_file(&path, buffers)
    }
}

/// Classes that are looked into for classes of their own.
const LOOKED_INTO: usize = 20;

/// How often a folder may be reached, on average. Links that lead to folders with further links double the ways at every step.
const WAYS: usize = 1000;

/// A folder with the names of its images.
type Listed = (PathBuf, Vec<OsString>);

/// Every folder at and below `top` with the image files that lie in it. Links are followed, as the reference does: what several
/// lead to is there several times. A link back to a folder in which it lies, which would never end, is left out, and then every
/// folder of the class is taken once, for there would be as many ways through the circles as there are orders of the folders.
fn walk(top: &Path, left_out: &mut LeftOut) -> Result<Vec<Listed>> {
    let before = left_out.clone();
    let mut once = Walk {
        left_out,
        above: Vec::new(),
        seen: HashSet::new(),
        again: false,
        most: None,
        found: Vec::new(),
    };
    once.enter(top)?;
    if !once.again || once.left_out.circles > before.circles {
        return Ok(once.found);
    }
    let most = Some(once.found.len().saturating_mul(WAYS));
    *once.left_out = before;
    let mut whole = Walk {
        above: Vec::new(),
        seen: HashSet::new(),
        found: Vec::new(),
        most,
        ..once
    };
    whole.enter(top)?;
    Ok(whole.found)
}

/// A search through the folders of a class.
struct Walk<'a> {
    left_out: &'a mut LeftOut,
    /// The folders being walked, by what they are and not by name.
    above: Vec<PathBuf>,
    /// The folders walked so far.
    seen: HashSet<PathBuf>,
    /// Whether one was reached again.
    again: bool,
    /// Folders at most, where they are walked as often as they are reached.
    most: Option<usize>,
    found: Vec<Listed>,
}

impl Walk<'_> {
    fn enter(&mut self, folder: &Path) -> Result<()> {
        let real = fs::canonicalize(folder).map_err(Error::io(folder))?;
        if self.above.contains(&real) {
            self.left_out.circle(folder.to_path_buf());
            return Ok(());
        }
        match self.most {
            None if !self.seen.insert(real.clone()) => {
                self.again = true;
                return Ok(());
            }
            Some(most) if self.found.len() >= most => {
                return Err(Error::input(format!(
                    "{}: links lead to the same folders more than {WAYS} times over; remove some",
                    folder.display()
                )));
            }
            _ => {}
        }
        self.above.push(real);
        let (names, below) = self.list(folder)?;
        self.found.push((folder.to_path_buf(), names));
        for folder in below {
            self.enter(&folder)?;
        }
        self.above.pop();
        Ok(())
    }

    /// The images in a folder, and the folders in it.
    fn list(&mut self, folder: &Path) -> Result<(Vec<OsString>, Vec<PathBuf>)> {
        let mut names = Vec::new();
        let mut below = Vec::new();
        for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
            let entry = entry.map_err(Error::io(folder))?;
            let kind = entry.file_type().map_err(Error::io(entry.path()))?;
            let is_dir = kind.is_dir() || (kind.is_symlink() && entry.path().is_dir());
            let name = entry.file_name();
            if !is_dir && !is_image(&name) {
                self.left_out.other(&name, entry.path());
                continue;
            }
            if is_hidden(&name) {
                self.left_out.hidden(entry.path());
            } else if is_dir {
                below.push(entry.path());
            } else if is_special(&entry.path(), kind) {
                self.left_out.no_file(entry.path());
            } else {
                names.push(name);
            }
        }
        // By which way a folder is found first does not depend on the disk.
        below.sort();
        Ok((names, below))
    }
}

/// Whether programs put files and folders of this name beside a user's own.
pub(super) fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".") || name == "__MACOSX"
}

/// Whether there is something that must not be opened. A link that leads nowhere is none: reading it says so.
fn is_special(path: &Path, kind: fs::FileType) -> bool {
    let kind = if kind.is_symlink() {
        fs::metadata(path).map(|found| found.file_type())
    } else {
        Ok(kind)
    };
    kind.is_ok_and(|kind| !kind.is_file())
}

fn is_image(name: &OsString) -> bool {
    is_image_name(&name.to_string_lossy())
}

/// Whether a file is an image by its name.
pub(super) fn is_image_name(name: &str) -> bool {
    let name = name.to_lowercase();
    IMAGE_EXTENSIONS.iter().any(|end| name.ends_with(end))
}

/// A folder's name as a class. Bytes that are no UTF-8 are written as `\xff`, so that different folders keep different names.
pub(super) fn class_name(folder: &OsStr) -> String {
    let mut name = String::new();
    for part in folder.as_encoded_bytes().utf8_chunks() {
        name.push_str(part.valid());
        for byte in part.invalid() {
            name.push_str(&format!("\\x{byte:02x}"));
        }
    }
    name
}

fn file_name(path: &Path) -> OsString {
    path.file_name().unwrap_or(path.as_os_str()).to_os_string()
}

/// Orders as plain text, character by character (a path's separators are characters like others).
fn text_order(a: &OsStr, b: &OsStr) -> std::cmp::Ordering {
    a.as_encoded_bytes().cmp(b.as_encoded_bytes())
}

/// The first few names, and how many more there are.
fn list(names: &[&str]) -> String {
    let shown = names[..names.len().min(LISTED)].join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests;
