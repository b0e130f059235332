//! Files of metadata beside images, as the Hugging Face hub has them: `metadata.jsonl` or `metadata.csv`, whose `file_name` names an
//! image and whose `label` is its class.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::list;
use crate::input::open_input;
use crate::{Error, Result};

/// The names that such a file has.
const NAMES: [&str; 2] = ["metadata.jsonl", "metadata.csv"];

/// Columns that name the class, the first that is there.
const CLASSES: [&str; 5] = ["label", "labels", "class", "class_name", "category"];

/// The column with the image's path.
const FILE: &str = "file_name";

/// The longest of these files, in bytes.
const MAX_BYTES: u64 = 1 << 30;

/// What a file of metadata says.
#[derive(Debug)]
pub(in crate::data) struct Metadata {
    pub(in crate::data) path: PathBuf,
    /// Images by their path from the file's folder, with the class; without one where no column names it.
    pub(super) rows: Vec<(String, Option<String>)>,
    /// The columns.
    columns: Vec<String>,
}

/// The file of metadata in a folder, where there is one.
///
/// # Errors
/// One line where there are two.
pub(in crate::data) fn find(folder: &Path) -> Result<Option<PathBuf>> {
    let found: Vec<PathBuf> = NAMES
        .iter()
        .map(|name| folder.join(name))
        .filter(|path| path.is_file())
        .collect();
    match &found[..] {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        [a, b, ..] => Err(Error::input(format!(
            "{}: there are both {} and {}; leave one",
            folder.display(),
            a.display(),
            b.display()
        ))),
    }
}

impl Metadata {
    /// Reads a file.
    ///
    /// # Errors
    /// One line that names the file and the line in it.
    pub(in crate::data) fn read(path: &Path) -> Result<Self> {
        let (_, length) = open_input(path)?;
        if length > MAX_BYTES {
            return Err(Error::input(format!(
                "{}: has {length} bytes; at most {MAX_BYTES} are read",
                path.display()
            )));
        }
        let bytes = fs::read(path).map_err(Error::io(path))?;
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let table = match path.extension().is_some_and(|e| e == "csv") {
            true => of_csv(bytes),
            false => of_lines(bytes),
        };
        let (columns, table) = table.map_err(|(line, what)| {
            Error::input(format!("{}: line {line}: {what}", path.display()))
        })?;
        if !columns.iter().any(|c| c == FILE) {
            return Ok(Self {
                path: path.to_path_buf(),
                rows: Vec::new(),
                columns,
            });
        }
        let class = CLASSES
            .iter()
            .find(|c| columns.iter().any(|have| have == *c));
        let mut rows = Vec::with_capacity(table.len());
        for (line, mut row) in table {
            let text =
                |what: String| Error::input(format!("{}: line {line}: {what}", path.display()));
            let file = row.remove(FILE).unwrap_or_default();
            let file = file.strip_prefix("./").unwrap_or(&file).to_owned();
            if file.is_empty() {
                return Err(text(format!("has no {FILE}")));
            }
            let class = match class {
                None => None,
                Some(column) => match row.remove(*column).filter(|c| !c.is_empty()) {
                    Some(class) => Some(class),
                    None => {
                        return Err(text(format!(
                            "{file} has no {column} that is a name or a number"
                        )));
                    }
                },
            };
            rows.push((file, class));
        }
        Ok(Self {
            path: path.to_path_buf(),
            rows,
            columns,
        })
    }

    /// Whether a column names classes.
    pub(in crate::data) fn has_classes(&self) -> bool {
        self.rows.iter().any(|(_, class)| class.is_some())
    }

    /// Whether a column names images.
    pub(in crate::data) fn names_images(&self) -> bool {
        self.columns.iter().any(|c| c == FILE)
    }

    /// The file.
    pub(in crate::data) fn path(&self) -> &Path {
        &self.path
    }

    /// What to say of a file without classes.
    pub(in crate::data) fn without_classes(&self) -> String {
        let columns: Vec<&str> = self.columns.iter().map(String::as_str).collect();
        let (path, columns) = (self.path.display(), list(&columns));
        match self.names_images() {
            true => format!(
                "{path}: none of its columns ({columns}) is called {}",
                CLASSES.join(" or ")
            ),
            false => format!(
                "{path}: none of its columns ({columns}) is called {FILE}, which names the images"
            ),
        }
    }

    /// The classes of the images in `folder`: by number where all are numbers, else by name.
    pub(in crate::data) fn classes(&self, folder: &Path) -> Vec<String> {
        let base = self.path.parent().unwrap_or(Path::new(""));
        let inside = self
            .rows
            .iter()
            .filter(|(file, _)| base.join(file).starts_with(folder));
        let mut all: Vec<&String> = inside.filter_map(|(_, c)| c.as_ref()).collect();
        all.sort_unstable();
        all.dedup();
        let number = |class: &String| class.parse::<i64>();
        if all.iter().all(|class| number(class).is_ok()) {
            all.sort_by_key(|class| number(class).unwrap_or_default());
        }
        all.into_iter().cloned().collect()
    }
}

/// A row's values by column, with its line.
type Row = (u64, BTreeMap<String, String>);
/// Columns and rows; or a line, and what is wrong with it.
type Table = std::result::Result<(Vec<String>, Vec<Row>), (u64, String)>;

fn of_csv(bytes: &[u8]) -> Table {
    let wrong = |e: csv::Error| {
        let line = e.position().map_or(1, csv::Position::line);
        (line, format!("is no CSV: {e}"))
    };
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(bytes);
    let columns: Vec<String> = reader
        .headers()
        .map_err(wrong)?
        .iter()
        .map(String::from)
        .collect();
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(wrong)?;
        let line = record.position().map_or(0, csv::Position::line);
        let values = columns.iter().cloned().zip(record.iter().map(String::from));
        rows.push((line, values.collect()));
    }
    Ok((columns, rows))
}

fn of_lines(bytes: &[u8]) -> Table {
    let mut columns: Vec<String> = Vec::new();
    let mut rows = Vec::new();
    for (number, line) in (1..).zip(bytes.split(|b| *b == b'\n')) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let value: Value =
            serde_json::from_slice(line).map_err(|e| (number, format!("is no JSON: {e}")))?;
        let Value::Object(fields) = value else {
            return Err((number, "is no JSON object".into()));
        };
        let mut row = BTreeMap::new();
        for (name, value) in fields {
            if !columns.contains(&name) {
                columns.push(name.clone());
            }
            let text = match value {
                Value::String(text) => text,
                // Several classes are none.
                Value::Null | Value::Array(_) | Value::Object(_) => continue,
                other => other.to_string(),
            };
            row.insert(name, text);
        }
        rows.push((number, row));
    }
    Ok((columns, rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(name: &str, text: &str) -> Result<Metadata> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        Metadata::read(&path)
    }

    #[test]
    fn both_kinds_say_the_same() {
        let csv =
            "\u{feff}file_name,text,label\r\na/1.png,\"one, two\",10\r\nb.png,\"\"\"x\"\"\",9\r\n";
        let lines = "{\"file_name\": \"a/1.png\", \"label\": 10}\n\n{\"label\": \"9\", \"file_name\": \"b.png\", \"text\": null}";
        for (name, text) in [("m.csv", csv), ("m.jsonl", lines)] {
            let found = read(name, text).unwrap();
            let rows = [("a/1.png", "10"), ("b.png", "9")];
            let rows = rows.map(|(f, c)| (f.to_owned(), Some(c.to_owned())));
            assert_eq!(found.rows, rows, "{name}");
            assert_eq!(found.classes(Path::new("")), ["9", "10"]);
        }
        let named = read(
            "m.csv",
            "file_name,class\n1.png,zoo\n2.png,ant\n3.png,zoo\n",
        )
        .unwrap();
        assert_eq!(named.classes(Path::new("")), ["ant", "zoo"]);
        let captions = read("m.csv", "file_name,text\n1.png,a dog\n").unwrap();
        assert!(!captions.has_classes());
        assert!(captions.without_classes().contains("file_name, text"));
        let other = read("m.csv", "image_id,label\n1,2\n").unwrap();
        assert!(captions.names_images() && !other.names_images() && !other.has_classes());
        assert!(
            other
                .without_classes()
                .ends_with("(image_id, label) is called file_name, which names the images")
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (name, text, part) in [
            (
                "m.csv",
                "file_name,label\n1.png,a\n2.png\n",
                "line 3: is no CSV",
            ),
            (
                "m.csv",
                "file_name,label\n1.png,\n",
                "line 2: 1.png has no label that is",
            ),
            (
                "m.jsonl",
                "{\"file_name\": \"a\"}\n[1]\n",
                "line 2: is no JSON object",
            ),
            (
                "m.jsonl",
                "{\"label\": 1, \"file_name\": \"\"}",
                "line 1: has no file_name",
            ),
            ("m.jsonl", "{", "line 1: is no JSON"),
            (
                "m.jsonl",
                "\u{feff}{\"file_name\": \"a\", \"label\": [1, 2]}",
                "line 1: a has no label that is a name or a number",
            ),
        ] {
            let error = read(name, text).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(part), "{error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }

    proptest! {
        #[test]
        fn noise_is_an_error_or_rows(bytes in prop::collection::vec(any::<u8>(), 0..200), csv in any::<bool>()) {
            let table = if csv { of_csv(&bytes) } else { of_lines(&bytes) };
            if let Ok((columns, rows)) = table {
                prop_assert!(rows.iter().all(|(_, row)| row.keys().all(|k| columns.contains(k))));
            }
        }
    }
}
