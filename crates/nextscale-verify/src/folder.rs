//! A bundle's folder: its files, gzipped or not.

use super::machine::Machine;
use super::recorded::{Looked, Recorded};
use flate2::read::MultiGzDecoder;
use nextscale::format::safetensors::read_safetensors;
use nextscale::input::open_input;
use nextscale::{Error, Result};
use serde_json::Value as Json;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// The longest safetensors header that is looked at to tell what a file is; that of a thousand tensors has a tenth of a megabyte.
const MAX_HEADER: u64 = 16 << 20;

/// The longest text that a file may unpack to: read, a JSON file takes many times as much. Those of this project have at most a megabyte.
const MAX_TEXT: u64 = 16 << 20;

/// What any other file may unpack to, and how many times as much as it takes. Numbers that training makes hardly shrink.
const MAX_UNPACKED: (u64, u64) = (256 << 20, 20);

/// A folder with the names of its files; `X.gz` counts as `X`.
pub struct Folder {
    path: PathBuf,
    /// Where what is checked against it computes.
    pub machine: Machine,
    /// Names without `.gz`, and whether the file has it.
    files: BTreeMap<String, bool>,
    /// Names of the files that were read.
    read: RefCell<BTreeSet<String>>,
    /// Tensors of the files that were read as such: all, and those that were looked at.
    opened: RefCell<BTreeMap<String, (Vec<String>, Looked)>>,
}

impl Folder {
    /// Lists a folder.
    ///
    /// # Errors
    /// When it is not there or not a folder.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(&path).map_err(Error::io(&path))? {
            let entry = entry.map_err(Error::io(&path))?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if !entry.path().is_file() {
                continue;
            }
            match name.strip_suffix(".gz") {
                // The plain file wins where both are there.
                Some(plain) => {
                    files.entry(plain.to_owned()).or_insert(true);
                }
                None => {
                    files.insert(name, false);
                }
            }
        }
        Ok(Self {
            path,
            machine: Machine::CPU,
            files,
            read: RefCell::default(),
            opened: RefCell::default(),
        })
    }

    /// Files that nobody read, but for texts about the bundle and the scripts that made it.
    pub fn unread(&self) -> Vec<&str> {
        let read = self.read.borrow();
        self.names()
            .filter(|n| {
                ![".md", ".txt", ".py"].iter().any(|e| n.ends_with(e)) && !n.starts_with('.')
            })
            .filter(|n| !read.contains(*n))
            .collect()
    }

    /// Takes a file as read, where one line says why it is not compared.
    pub fn pass_over(&self, name: &str) {
        self.read.borrow_mut().insert(name.to_owned());
    }

    /// Tensors that nobody looked at, as file and name.
    pub fn overlooked(&self) -> Vec<(String, String)> {
        let opened = self.opened.borrow();
        let all = opened.iter().flat_map(|(file, (names, looked))| {
            let looked = looked.borrow();
            let left = names.iter().filter(|n| !looked.contains(*n));
            left.map(|n| (file.clone(), n.clone())).collect::<Vec<_>>()
        });
        all.collect()
    }

    /// The same for checks on another machine.
    pub fn on(self, machine: Machine) -> Self {
        Self { machine, ..self }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the files without `.gz`, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Names that end in `extension`, without it.
    pub fn stems<'a>(&'a self, extension: &'a str) -> impl Iterator<Item = &'a str> {
        self.names().filter_map(move |n| n.strip_suffix(extension))
    }

    /// Whether there is such a file, gzipped or not.
    pub fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// The folder `name` beside this one, if there is one.
    pub fn sibling(&self, name: &str) -> Option<Self> {
        let beside = Self::open(self.path.join("..").join(name)).ok()?;
        Some(beside.on(self.machine))
    }

    /// The path as it is on disk.
    pub fn file(&self, name: &str) -> PathBuf {
        let gz = self.files.get(name).copied().unwrap_or(false);
        self.path.join(if gz {
            format!("{name}.gz")
        } else {
            name.to_owned()
        })
    }

    /// A reader of the unpacked content.
    fn reader(&self, name: &str) -> Result<Box<dyn Read>> {
        self.read.borrow_mut().insert(name.to_owned());
        self.glance(name)
    }

    /// The same for who only wants to know what it is.
    fn glance(&self, name: &str) -> Result<Box<dyn Read>> {
        let path = self.file(name);
        let (file, _) = open_input(&path)?;
        Ok(if self.files.get(name) == Some(&true) {
            Box::new(MultiGzDecoder::new(file))
        } else {
            Box::new(file)
        })
    }

    fn bad(&self, name: &str, why: impl std::fmt::Display) -> Error {
        Error::input(format!("{}: {why}", self.file(name).display()))
    }

    /// The unpacked text of a file.
    ///
    /// # Errors
    /// When it can't be read or is not UTF-8.
    pub fn text(&self, name: &str) -> Result<String> {
        let mut text = String::new();
        self.reader(name)?
            .take(MAX_TEXT + 1)
            .read_to_string(&mut text)
            .map_err(|e| self.bad(name, e))?;
        if text.len() as u64 > MAX_TEXT {
            return Err(self.bad(
                name,
                format!(
                    "it holds more than {} MiB of text, which no bundle does",
                    MAX_TEXT >> 20
                ),
            ));
        }
        Ok(text)
    }

    /// A JSON file. `NaN` and infinities, which Python writes, become null.
    ///
    /// # Errors
    /// When it can't be read or is not JSON.
    pub fn json(&self, name: &str) -> Result<Json> {
        let text = strict_json(&self.text(name)?);
        serde_json::from_str(&text).map_err(|e| self.bad(name, format!("not sound JSON: {e}")))
    }

    /// Names of the tensors of a safetensors file, without reading them.
    ///
    /// # Errors
    /// When it is no such file.
    pub fn tensor_names(&self, name: &str) -> Result<Vec<String>> {
        let mut reader = self.glance(name)?;
        let mut word = [0u8; 8];
        let mut read = |buf: &mut [u8]| {
            reader
                .read_exact(buf)
                .map_err(|e| self.bad(name, format!("truncated or not a safetensors file: {e}")))
        };
        read(&mut word)?;
        let len = u64::from_le_bytes(word);
        if len > MAX_HEADER {
            return Err(self.bad(name, "not a safetensors file"));
        }
        let mut header = vec![0u8; len as usize];
        read(&mut header)?;
        let header: serde_json::Map<String, Json> = serde_json::from_slice(&header)
            .map_err(|e| self.bad(name, format!("not a sound safetensors file: {e}")))?;
        Ok(header
            .into_iter()
            .map(|(k, _)| k)
            .filter(|k| k != "__metadata__")
            .collect())
    }

    /// All tensors of a safetensors file.
    ///
    /// # Errors
    /// When it can't be read or is no such file.
    pub fn tensors(&self, name: &str) -> Result<Recorded> {
        let source = self.file(name).display().to_string();
        let (tensors, _) = self.with_file(name, |path| read_safetensors(path))?;
        let mut opened = self.opened.borrow_mut();
        let (_, looked_at) = opened.entry(name.to_owned()).or_insert_with(|| {
            let names = tensors.names().map(str::to_owned).collect();
            (names, Looked::default())
        });
        Ok(Recorded::new(source, tensors).noting(looked_at.clone()))
    }

    /// Hands `f` a path at which the unpacked file lies: the file itself, or a temporary copy. Errors name the file itself.
    ///
    /// # Errors
    /// What `f` returns, or when unpacking fails.
    pub fn with_file<T>(&self, name: &str, f: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let real = self.file(name);
        self.read.borrow_mut().insert(name.to_owned());
        if self.files.get(name) != Some(&true) {
            return f(&real);
        }
        let temporary = |e: std::io::Error| {
            Error::failed(format!("no temporary file for {}: {e}", real.display()))
        };
        let mut copy = tempfile::NamedTempFile::new().map_err(temporary)?;
        let packed = open_input(&real)?.1;
        let most = MAX_UNPACKED.0 + packed.saturating_mul(MAX_UNPACKED.1);
        let mut unpacked = 0;
        let mut reader = self.reader(name)?;
        let mut block = vec![0u8; 1 << 16];
        loop {
            let n = reader
                .read(&mut block)
                .map_err(|e| self.bad(name, format!("damaged gzip file: {e}")))?;
            if n == 0 {
                break;
            }
            unpacked += n as u64;
            if unpacked > most {
                return Err(self.bad(
                    name,
                    format!("it unpacks to more than {} MiB, which no bundle does; unpack it first with gunzip", most >> 20),
                ));
            }
            copy.write_all(&block[..n]).map_err(temporary)?;
        }
        copy.flush().map_err(temporary)?;
        let path = copy.path();
        f(path).map_err(|e| match e {
            Error::Input(text) => {
                let shown = path.display().to_string();
                Error::Input(text.replace(&shown, &real.display().to_string()))
            }
            other => other,
        })
    }
}

/// Replaces the bare words `NaN`, `Infinity` and `-Infinity` outside strings by `null`.
fn strict_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut quoted = false;
    while let Some(c) = rest.chars().next() {
        if !quoted
            && let Some(word) = ["NaN", "-Infinity", "Infinity"]
                .into_iter()
                .find(|w| rest.starts_with(w))
        {
            out.push_str("null");
            rest = &rest[word.len()..];
            continue;
        }
        let mut len = c.len_utf8();
        if c == '\\' && quoted {
            len += rest[len..].chars().next().map_or(0, char::len_utf8);
        } else if c == '"' {
            quoted = !quoted;
        }
        out.push_str(&rest[..len]);
        rest = &rest[len..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    #[test]
    fn gzipped_files_read_like_plain_ones() {
        let dir = tempfile::tempdir().unwrap();
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        gz.write_all(b"{\"a\": NaN}").unwrap();
        let packed = gz.finish().unwrap();
        std::fs::write(dir.path().join("x.json.gz"), &packed).unwrap();
        std::fs::write(dir.path().join("y.json.gz"), &packed[..packed.len() - 9]).unwrap();
        std::fs::write(dir.path().join("z.json"), "[1").unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        assert_eq!(folder.stems(".json").collect::<Vec<_>>(), ["x", "y", "z"]);
        assert!(folder.json("x.json").unwrap()["a"].is_null());
        for (name, shown) in [("y.json", "y.json.gz"), ("z.json", "z.json")] {
            let e = folder.json(name).unwrap_err();
            assert!(e.exit_code() == 2 && e.to_string().contains(shown), "{e}");
        }
        let text = folder.with_file("x.json", |p| Ok(std::fs::read_to_string(p).unwrap()));
        assert_eq!(text.unwrap(), "{\"a\": NaN}");
        let e = folder
            .with_file("x.json", |p| read_safetensors(p).map(|_| ()))
            .unwrap_err();
        assert!(e.to_string().contains("x.json.gz"), "{e}");
        assert!(folder.with_file("y.json", |_| Ok(())).is_err());
        assert!(folder.tensor_names("z.json").is_err());
        assert!(Folder::open(dir.path().join("none")).is_err());
    }

    #[test]
    fn what_unpacks_to_more_than_a_bundle_holds_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let pack = |name: &str, bytes: usize| {
            let file = std::fs::File::create(dir.path().join(name)).unwrap();
            let mut gz = GzEncoder::new(file, Compression::best());
            std::io::copy(&mut std::io::repeat(b' ').take(bytes as u64), &mut gz).unwrap();
            gz.finish().unwrap();
        };
        pack("x.json.gz", 17 << 20);
        pack("x.safetensors.gz", 300 << 20);
        let folder = Folder::open(dir.path()).unwrap();
        let text = folder.json("x.json").unwrap_err();
        assert!(text.exit_code() == 2 && text.to_string().contains("x.json.gz: it holds more"));
        let text = folder.tensors("x.safetensors").err().unwrap();
        assert!(text.exit_code() == 2 && text.to_string().contains("unpacks to more"));
    }

    proptest! {
        #[test]
        fn sound_json_is_unchanged(words in proptest::collection::vec("[ -~é\"\\\\]{0,6}", 0..8)) {
            let text = serde_json::to_string(&words).unwrap();
            prop_assert_eq!(strict_json(&text), text);
        }
    }

    #[test]
    fn words_in_strings_stay() {
        let text = r#"{"NaN": [NaN, -Infinity, "Infinity \" NaN", Infinity]}"#;
        let want = r#"{"NaN": [null, null, "Infinity \" NaN", null]}"#;
        assert_eq!(strict_json(text), want);
    }
}
