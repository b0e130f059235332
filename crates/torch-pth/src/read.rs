//! Reading a `.pth` file.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zip::CompressionMethod;
use zip::read::ZipArchive;
use zip::result::ZipError;

use crate::legacy::{HEAD, is_legacy};
use crate::pickle::{self, Dict, Storage, TensorRef, Value};
use crate::{Error, Result, Tensor};

/// The longest pickle that is read into memory. That of a thousand tensors takes a quarter of a megabyte.
const MAX_PICKLE: u64 = 64 << 20;

/// What tensors may take beyond the storages that they look at: tied weights and expanded numbers are views that share one.
const SHARED: u64 = 64 << 20;
/// How often a storage may be looked at in whole.
const LOOKS: u64 = 4;

/// An open `.pth` file. Opening reads the pickle; tensor data is read on demand.
///
/// ```
/// use torch_pth::{PthFile, Value};
/// # use torch_pth::{DType, Dict, PthWriter, TensorView};
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("checkpoint.pth");
/// # let mut writer = PthWriter::new();
/// # let byte = TensorView::new(DType::U8, &[1], &[7]).expect("one byte");
/// # let model = writer.state_dict([("fc.weight", byte)], None);
/// # let object = Dict::from_pairs([("epoch", Value::Int(3)), ("model", model)]);
/// # writer.write(&path, &Value::Dict(object))?;
///
/// let (mut file, object) = PthFile::open(&path)?;
/// assert_eq!(object.get("epoch"), Some(&Value::Int(3)));
/// if let Some(Value::Dict(model)) = object.get("model") {
///     for (name, tensor) in file.state_dict(model, "model")? {
///         println!("{name}: {} {:?}", tensor.dtype(), tensor.shape());
///         # assert_eq!((name.as_str(), tensor.data()), ("fc.weight", [7].as_slice()));
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PthFile<R = BufReader<File>> {
    path: PathBuf,
    archive: ZipArchive<R>,
    /// The folder inside the archive, with its slash.
    prefix: String,
    big_endian: bool,
    /// Bytes of tensor data that may still be made: views can share a storage, so that a small file could
    /// otherwise ask for any amount of memory. Only storages that were looked at count, so that padding buys nothing.
    budget: u64,
    /// The storages looked at, and the sum of their bytes, which can't be more than the file has.
    seen: HashSet<Arc<str>>,
    seen_bytes: u64,
    file_bytes: u64,
    /// The storage that was read last, kept while views share it.
    last: Option<(Arc<str>, Vec<u8>)>,
}

impl<R> fmt::Debug for PthFile<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PthFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl PthFile {
    /// Opens a file and returns it with the object that it holds.
    ///
    /// # Errors
    /// When it can't be opened, is no file, is truncated, has the old format from before PyTorch 1.6, is compressed,
    /// or its pickle is refused (see [`pickle::from_bytes`]).
    pub fn open(path: impl AsRef<Path>) -> Result<(Self, Value)> {
        let path = path.as_ref();
        // Told without opening it: a pipe that nobody writes to would never open.
        if !std::fs::metadata(path).map_err(Error::io(path))?.is_file() {
            return Err(invalid(path, "is not a file"));
        }
        let mut file = File::open(path).map_err(Error::io(path))?;
        let mut head = Vec::new();
        let start = Read::by_ref(&mut file).take(HEAD).read_to_end(&mut head);
        start.map_err(Error::io(path))?;
        if is_legacy(&head) {
            return Err(unsupported(
                path,
                "is in PyTorch's old format from before version 1.6; in Python, load it and save it again: torch.save(torch.load(FILE), FILE)",
            ));
        }
        Self::new(BufReader::with_capacity(1 << 16, file), path)
    }
}

impl<R: Read + Seek> PthFile<R> {
    /// Reads an archive from anywhere: a file that is open already, or bytes in memory behind a [`Cursor`](io::Cursor). `name` is what
    /// errors call it.
    ///
    /// # Errors
    /// As [`PthFile::open`]; the old format is not told apart here, see [`is_legacy`].
    pub fn new(mut reader: R, name: impl Into<PathBuf>) -> Result<(Self, Value)> {
        let path = name.into();
        let len = reader.seek(SeekFrom::End(0)).map_err(Error::io(&path))?;
        let bad = |why: String| invalid(&path, why);
        let archive = ZipArchive::new(reader).map_err(|e| {
            bad(format!(
                "truncated or not a .pth file: {}; get or save it again",
                zip_text(&e)
            ))
        })?;
        if archive.has_duplicate_names() {
            return Err(bad(
                "not a sound .pth file: a member's name occurs twice".into()
            ));
        }
        let mut pickles: Vec<String> = archive
            .file_names()
            .filter_map(|n| Some(n.ok()?.strip_suffix("data.pkl")?.to_owned()))
            .filter(|p| p.len() > 1 && p.find('/') == Some(p.len() - 1))
            .collect();
        let prefix = match (pickles.pop(), pickles.is_empty()) {
            (Some(prefix), true) => prefix,
            (None, _) => {
                return Err(bad(
                    "a zip archive without data.pkl, so not a .pth file".into()
                ));
            }
            _ => {
                return Err(bad(
                    "a zip archive with several data.pkl, so not a .pth file".into(),
                ));
            }
        };
        let mut pth = Self {
            archive,
            prefix,
            big_endian: false,
            budget: SHARED,
            seen: HashSet::new(),
            seen_bytes: 0,
            file_bytes: len,
            last: None,
            path: path.clone(),
        };
        if pth
            .archive
            .index_for_name(&format!("{}constants.pkl", pth.prefix))
            .is_some()
        {
            return Err(unsupported(
                &path,
                "a TorchScript program; save the model's state_dict() with torch.save instead",
            ));
        }
        if pth
            .archive
            .index_for_name(&format!("{}byteorder", pth.prefix))
            .is_some()
        {
            pth.big_endian = match pth.member("byteorder", 16)?.trim_ascii() {
                b"little" => false,
                b"big" => true,
                _ => return Err(bad("its byte order is neither little nor big".into())),
            };
        }
        let bytes = pth.member("data.pkl", MAX_PICKLE)?;
        let value = pickle::from_bytes(&bytes)
            .map_err(|e| e.of_file(&path, "its pickle can't be read: "))?;
        Ok((pth, value))
    }

    /// The file's path, or the name that stands for it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads one tensor's data and makes it contiguous.
    ///
    /// # Errors
    /// When the storage is missing, damaged, or not of the size that the pickle states.
    pub fn tensor(&mut self, view: &TensorRef) -> Result<Tensor> {
        self.check_storage(view.storage())?;
        if !self.seen.contains(&view.storage().key) {
            let bytes = view.storage().num_bytes().unwrap_or(u64::MAX);
            self.seen.insert(view.storage().key.clone());
            self.seen_bytes = self.seen_bytes.saturating_add(bytes);
            if self.seen_bytes > self.file_bytes {
                return Err(self.bad("its members lie over each other".into()));
            }
            self.budget = self.budget.saturating_add(bytes.saturating_mul(LOOKS));
        }
        let bytes = (view.numel() as u64).saturating_mul(view.dtype().size() as u64);
        self.budget = self.budget.checked_sub(bytes).ok_or_else(|| {
            self.bad("its tensors look at the same data so often that they would be far larger than the file".into())
        })?;
        let whole = view.numel() as u64 == view.storage().numel && view.is_contiguous();
        let data = if whole {
            self.storage(view.storage())?
        } else {
            let kept = self
                .last
                .take()
                .filter(|(key, _)| *key == view.storage().key);
            let (key, storage) = match kept {
                Some(kept) if Some(kept.1.len() as u64) == view.storage().num_bytes() => kept,
                _ => (view.storage().key.clone(), self.storage(view.storage())?),
            };
            let data = view.gather(&storage);
            self.last = Some((key, storage));
            data
        };
        let mut data = data;
        if self.big_endian {
            data.chunks_exact_mut(view.dtype().size())
                .for_each(<[u8]>::reverse);
        }
        let found = data.len();
        Tensor::new(view.dtype(), view.shape().to_vec(), data).ok_or_else(|| {
            let shape = view.shape();
            self.bad(format!("its tensor of shape {shape:?} has {found} bytes"))
        })
    }

    /// Reads a dict of names and tensors, in its order. `what` names the dict in messages.
    ///
    /// # Errors
    /// When a key is not text or a value not a tensor, or as [`Self::tensor`].
    pub fn state_dict(&mut self, dict: &Dict, what: &str) -> Result<Vec<(String, Tensor)>> {
        let mut out = Vec::with_capacity(dict.items.len());
        let entries = dict.tensor_entries();
        for (name, view) in entries.map_err(|e| self.bad(format!("{what} {e}")))? {
            out.push((name.to_owned(), self.tensor(view)?));
        }
        self.last = None;
        Ok(out)
    }

    fn storage(&mut self, storage: &Storage) -> Result<Vec<u8>> {
        self.member(
            &format!("data/{}", storage.key),
            storage.num_bytes().unwrap_or(u64::MAX),
        )
    }

    /// That the archive states the size for a storage that the pickle states.
    fn check_storage(&self, storage: &Storage) -> Result<()> {
        let name = format!("{}data/{}", self.prefix, storage.key);
        let want = storage.num_bytes().unwrap_or(u64::MAX);
        let entry = self
            .archive
            .index_for_name(&name)
            .map(|i| self.archive.by_index_data(i));
        match entry {
            Some(Ok(entry)) if entry.size() == want => Ok(()),
            Some(Ok(entry)) => Err(self.bad(format!(
                "its member {name:?} holds {} bytes, but its tensor needs {want}",
                entry.size()
            ))),
            _ => Err(self.bad(format!("its member {name:?} is missing"))),
        }
    }

    /// A member's bytes, checked against its checksum.
    fn member(&mut self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let path = self.path.clone();
        let bad = |why: String| invalid(&path, why);
        let file_len = self.file_bytes;
        let mut member = self
            .archive
            .by_name(&format!("{}{name}", self.prefix))
            .map_err(|e| {
                bad(format!(
                    "its member {name:?} can't be read: {}",
                    zip_text(&e)
                ))
            })?;
        if member.compression() != CompressionMethod::Stored
            || member.size() != member.compressed_size()
        {
            let text = format!(
                "its member {name:?} is compressed, which torch.save never does; unpack the archive and pack it again with zip -0"
            );
            return Err(unsupported(&path, text));
        }
        let size = member.size();
        if size > limit.min(file_len) {
            return Err(bad(format!(
                "its member {name:?} claims {size} bytes, more than can be right"
            )));
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(size as usize).map_err(|_| {
            let text = format!("there is no memory for {size} bytes");
            Error::io(&path)(io::Error::new(ErrorKind::OutOfMemory, text))
        })?;
        member.read_to_end(&mut bytes).map_err(|e| {
            bad(format!(
                "its member {name:?} is damaged ({e}); get or save the file again"
            ))
        })?;
        if bytes.len() as u64 != size {
            return Err(bad(format!(
                "its member {name:?} is cut off; get or save the file again"
            )));
        }
        Ok(bytes)
    }

    fn bad(&self, why: String) -> Error {
        invalid(&self.path, why)
    }
}

fn invalid(path: &Path, message: impl Into<String>) -> Error {
    let (path, message) = (path.to_path_buf(), message.into());
    Error::Invalid { path, message }
}

fn unsupported(path: &Path, message: impl Into<String>) -> Error {
    let (path, message) = (path.to_path_buf(), message.into());
    Error::Unsupported { path, message }
}

/// A zip error in a few words.
fn zip_text(e: &ZipError) -> String {
    match e {
        ZipError::FileNotFound => "it is missing".into(),
        other => other.to_string(),
    }
}
