//! Validation images in one folder, with their labels in a file, as ImageNet's `val` comes.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::left_out::LeftOut;
use super::{File, FolderSource, is_hidden, is_image, is_special, list, text_order};
use crate::input::open_input;
use crate::{Error, Result};

/// Files of labels that are looked for, in the images' folder and beside it.
const LABEL_FILES: [&str; 5] = [
    "val_labels.txt",
    "val_labels.csv",
    "val.txt",
    "LOC_val_solution.csv",
    "ILSVRC2012_validation_ground_truth.txt",
];

/// ImageNet's own numbers of its classes, which are in another order than their names: `SYNSET NUMBER WORDS` lines.
const NUMBERS: &str = "map_clsloc.txt";

/// The longest of these files, in bytes.
const MAX_BYTES: u64 = 256 << 20;

impl FolderSource {
    /// The images that lie in `folder` itself, in the order of their names, with labels from a file in it or beside it; of one class none are
    /// needed.
    ///
    /// A line of the file has the image's name (its ending may be left away) and its class, with blanks or a comma between them and anything
    /// behind a comma's first word; or every line has a class alone, in the order of the images' names. A class is one of the names
    /// `classes`, or a number: its place among them from 0 on, or, where `map_clsloc.txt` lies beside the labels, ImageNet's own.
    ///
    /// # Errors
    /// [`Error::Input`] (one line) without such a file, for an image without label, and for a label that is no class.
    pub(in crate::data) fn flat(folder: &Path, classes: &[String]) -> Result<Self> {
        let mut left_out = LeftOut::default();
        let names = images_in(folder, &mut left_out)?;
        let labels = match classes {
            // There is nothing to tell.
            [_] => vec![0; names.len()],
            _ => Labels::find(folder)?.of(folder, &names, classes)?,
        };
        Ok(Self {
            root: folder.to_path_buf(),
            classes: classes.to_vec(),
            folders: vec![folder.to_path_buf()],
            files: names
                .into_iter()
                .zip(labels)
                .map(|(name, label)| File {
                    folder: 0,
                    label,
                    name,
                })
                .collect(),
            left_out,
        })
    }
}

/// The images that lie in `folder` itself, in the order of their names.
pub(super) fn images_in(folder: &Path, left_out: &mut LeftOut) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        let name = entry.file_name();
        if !is_image(&name) {
            left_out.other(&name, entry.path());
            continue;
        }
        let kind = entry.file_type().map_err(Error::io(entry.path()))?;
        if is_hidden(&name) {
            left_out.hidden(entry.path());
        } else if is_special(&entry.path(), kind) {
            left_out.no_file(entry.path());
        } else {
            names.push(name);
        }
    }
    names.sort_by(|a, b| text_order(a, b));
    Ok(names)
}

/// A file of labels.
struct Labels {
    path: PathBuf,
    text: String,
    /// ImageNet's numbers of classes.
    numbers: Option<HashMap<i64, String>>,
}

impl Labels {
    fn find(folder: &Path) -> Result<Self> {
        let beside = folder.parent().map(Path::to_path_buf);
        let places: Vec<PathBuf> = [Some(folder.to_path_buf()), beside]
            .into_iter()
            .flatten()
            .collect();
        let all = |names: &[&str]| -> Vec<PathBuf> {
            let at = |place: &PathBuf| {
                names
                    .iter()
                    .map(|name| place.join(name))
                    .collect::<Vec<_>>()
            };
            places
                .iter()
                .flat_map(at)
                .filter(|path| path.exists())
                .collect()
        };
        let found = all(&LABEL_FILES);
        let shown = folder.display();
        let path = match found.as_slice() {
            [path] => path.clone(),
            [] => {
                return Err(Error::input(format!(
                    "{shown}: images without class folders need a file of labels; expected {shown}/{} or {} beside {shown}, with lines like \"NAME.JPEG CLASS\"",
                    LABEL_FILES[0], LABEL_FILES[0]
                )));
            }
            [a, b, ..] => {
                return Err(Error::input(format!(
                    "{shown}: there are two files of labels, {} and {}; leave one",
                    a.display(),
                    b.display()
                )));
            }
        };
        let numbers = match all(&[NUMBERS]).first() {
            Some(path) => Some(numbers(path)?),
            None => None,
        };
        Ok(Self {
            text: read(&path)?,
            path,
            numbers,
        })
    }

    fn bad(&self, line: usize, what: impl std::fmt::Display) -> Error {
        Error::input(format!(
            "{}: line {}: {what}",
            self.path.display(),
            line + 1
        ))
    }

    /// The label of each image.
    fn of(&self, folder: &Path, names: &[OsString], classes: &[String]) -> Result<Vec<u32>> {
        let mut lines: Vec<(usize, Option<&str>, &str)> = Vec::new();
        for (number, line) in self.text.lines().enumerate() {
            let line = line.trim();
            // The first line of a table names its columns.
            let is_head = number == 0 && line.starts_with("ImageId");
            if line.is_empty() || is_head {
                continue;
            }
            let (name, class) = match line.split_once(',') {
                Some((name, rest)) => (
                    Some(name.trim()),
                    rest.split_whitespace().next().unwrap_or_default(),
                ),
                None => match line.rsplit_once(char::is_whitespace) {
                    Some((name, class)) => (Some(name.trim_end()), class),
                    None => (None, line),
                },
            };
            if lines
                .first()
                .is_some_and(|first| first.1.is_some() != name.is_some())
            {
                return Err(self.bad(
                    number,
                    "some lines have an image and its class, others one word alone",
                ));
            }
            lines.push((number, name, class));
        }
        let by_name: HashMap<&str, u32> = classes.iter().map(String::as_str).zip(0..).collect();
        let mut labels = Vec::with_capacity(lines.len());
        for &(number, _, class) in &lines {
            labels.push(
                self.label(&by_name, class)
                    .map_err(|what| self.bad(number, what))?,
            );
        }
        self.counts_from_zero(
            &lines.iter().map(|line| line.2).collect::<Vec<_>>(),
            &by_name,
        )?;
        if lines.first().is_some_and(|first| first.1.is_none()) {
            if lines.len() != names.len() {
                return Err(Error::input(format!(
                    "{}: has {} labels, and {} has {} images",
                    self.path.display(),
                    lines.len(),
                    folder.display(),
                    names.len()
                )));
            }
            return Ok(labels);
        }
        let mut of_image: HashMap<&str, u32> = HashMap::with_capacity(lines.len());
        for (&(number, name, _), label) in lines.iter().zip(labels) {
            let name = name.unwrap_or_default();
            if of_image
                .insert(name, label)
                .is_some_and(|other| other != label)
            {
                return Err(self.bad(number, format!("{name} has had another class before")));
            }
        }
        let label = |name: &OsString| {
            let whole = name.to_string_lossy();
            let stem = Path::new(name)
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy();
            let found = of_image.get(&*whole).or_else(|| of_image.get(&*stem));
            found.copied().ok_or_else(|| {
                let image = folder.join(name);
                Error::input(format!(
                    "{}: {} has no label for it",
                    image.display(),
                    self.path.display()
                ))
            })
        };
        names.iter().map(label).collect()
    }

    /// A class by its name or number.
    fn label(&self, by_name: &HashMap<&str, u32>, class: &str) -> Result<u32, String> {
        if let Some(label) = by_name.get(class) {
            return Ok(*label);
        }
        let count = by_name.len();
        let Ok(number) = class.parse::<i64>() else {
            let classes: Vec<&str> = by_name.keys().copied().take(1).collect();
            return Err(format!(
                "{class:?} is none of the {count} classes of the training images, such as {}",
                list(&classes)
            ));
        };
        if let Some(numbers) = &self.numbers {
            let name = numbers
                .get(&number)
                .ok_or_else(|| format!("{NUMBERS} has no class {number}"))?;
            return by_name.get(name.as_str()).copied().ok_or_else(|| {
                format!("class {number} is {name:?}, which is none of the {count} classes of the training images")
            });
        }
        // The highest number of those that count from 1 is told of when all are known.
        let label = u32::try_from(number).ok().filter(|n| *n as usize <= count);
        label.ok_or_else(|| {
            format!(
                "label {number} is out of range; there are {count} classes (0 to {})",
                count.saturating_sub(1)
            )
        })
    }

    /// Refuses numbers that count from 1: which class they mean is not known. ImageNet's do, in an order of their own.
    fn counts_from_zero(&self, words: &[&str], by_name: &HashMap<&str, u32>) -> Result<()> {
        if self.numbers.is_some() {
            return Ok(());
        }
        let number = |word: &&str| {
            (!by_name.contains_key(word))
                .then(|| word.parse::<usize>().ok())
                .flatten()
        };
        match words
            .iter()
            .position(|word| number(word) == Some(by_name.len()))
        {
            Some(_) => Err(Error::input(format!(
                "{}: labels seem to be counted from 1 (one is {}, for {} classes); ImageNet's own numbers are in another order than its classes' names: put {NUMBERS} of its development kit beside this file, or write the classes' names or their places from 0 on",
                self.path.display(),
                by_name.len(),
                by_name.len()
            ))),
            None => Ok(()),
        }
    }
}

/// ImageNet's numbers of its classes.
fn numbers(path: &Path) -> Result<HashMap<i64, String>> {
    let mut found = HashMap::new();
    for (i, line) in read(path)?.lines().enumerate() {
        let mut words = line.split_whitespace();
        let (Some(name), number) = (words.next(), words.next()) else {
            continue;
        };
        let number = number.and_then(|word| word.parse().ok()).ok_or_else(|| {
            Error::input(format!(
                "{}: line {}: expected SYNSET NUMBER WORDS",
                path.display(),
                i + 1
            ))
        })?;
        found.insert(number, name.to_owned());
    }
    Ok(found)
}

fn read(path: &Path) -> Result<String> {
    let (_, length) = open_input(path)?;
    if length > MAX_BYTES {
        return Err(Error::input(format!(
            "{}: has {length} bytes; at most {MAX_BYTES} are read",
            path.display()
        )));
    }
    let bytes = fs::read(path).map_err(Error::io(path))?;
    String::from_utf8(bytes)
        .map_err(|_| Error::input(format!("{}: is no text in UTF-8", path.display())))
}

#[cfg(test)]
mod tests;
