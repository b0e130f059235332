//! Reading a `.pth` file.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::legacy::{self, HEAD, is_legacy, is_legacy_tar};
use crate::members::{Members, ZipMembers, invalid, unsupported};
use crate::pickle::{self, Dict, TensorRef, Value};
use crate::{Error, Result, Tensor};

/// The longest pickle that is read into memory. That of a thousand tensors takes a quarter of a megabyte.
pub(crate) const MAX_PICKLE: u64 = 64 << 20;

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
    members: Members<R>,
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
    /// When it can't be opened, is no file, is truncated, is one of the tar archives from before PyTorch 0.1.10, is compressed,
    /// or its pickle is refused (see [`pickle::from_bytes`]).
    pub fn open(path: impl AsRef<Path>) -> Result<(Self, Value)> {
        let path = path.as_ref();
        Self::new(Self::reader(path)?, path)
    }

    /// Opens a TorchScript program (`torch.jit.save`) and returns it with its module, whose attributes are dicts in dicts;
    /// [`Value::module_tensors`] lists the tensors. The program itself is not looked at.
    ///
    /// # Errors
    /// As [`PthFile::open`], and when the file is no such program.
    pub fn open_script(path: impl AsRef<Path>) -> Result<(Self, Value)> {
        let path = path.as_ref();
        Self::new_script(Self::reader(path)?, path)
    }

    fn reader(path: &Path) -> Result<BufReader<File>> {
        // Told without opening it: a pipe that nobody writes to would never open.
        if !std::fs::metadata(path).map_err(Error::io(path))?.is_file() {
            return Err(invalid(path, "is not a file"));
        }
        let file = File::open(path).map_err(Error::io(path))?;
        Ok(BufReader::with_capacity(1 << 16, file))
    }
}

impl<R: Read + Seek> PthFile<R> {
    /// Reads a file from anywhere: one that is open already, or bytes in memory behind a [`Cursor`](std::io::Cursor). `name` is what
    /// errors call it.
    ///
    /// # Errors
    /// As [`PthFile::open`].
    pub fn new(mut reader: R, name: impl Into<PathBuf>) -> Result<(Self, Value)> {
        let path = name.into();
        let len = reader.seek(SeekFrom::End(0)).map_err(Error::io(&path))?;
        let mut head = Vec::new();
        reader.rewind().map_err(Error::io(&path))?;
        let start = reader.by_ref().take(HEAD).read_to_end(&mut head);
        start.map_err(Error::io(&path))?;
        if is_legacy_tar(&head) {
            return Err(unsupported(
                &path,
                "is in PyTorch's old format from before version 0.1.10; in Python, load it and save it again: torch.save(torch.load(FILE), FILE)",
            ));
        }
        if is_legacy(&head) {
            let (value, places, big_endian) = legacy::read(&mut reader, len, &path)?;
            let members = Members::Stream {
                reader,
                path: path.clone(),
                places,
            };
            return Ok((Self::of(members, path, len, big_endian), value));
        }
        Self::zip(reader, path, len, false)
    }

    /// As [`PthFile::open_script`], from anywhere.
    ///
    /// # Errors
    /// As [`PthFile::open_script`].
    pub fn new_script(mut reader: R, name: impl Into<PathBuf>) -> Result<(Self, Value)> {
        let path = name.into();
        let len = reader.seek(SeekFrom::End(0)).map_err(Error::io(&path))?;
        Self::zip(reader, path, len, true)
    }

    /// Whether what is read is a TorchScript program, as far as names in its archive tell.
    pub fn is_script(reader: R) -> bool {
        ZipMembers::new(reader, Path::new(""), 0).is_ok_and(|zip| zip.has("constants.pkl"))
    }

    fn zip(reader: R, path: PathBuf, len: u64, script: bool) -> Result<(Self, Value)> {
        let mut zip = ZipMembers::new(reader, &path, len)?;
        match (zip.has("constants.pkl"), script) {
            (true, false) => {
                return Err(unsupported(
                    &path,
                    "a TorchScript program; save the model's state_dict() with torch.save instead",
                ));
            }
            (false, true) => return Err(invalid(&path, "is no TorchScript program")),
            _ => {}
        }
        let mut big_endian = false;
        if zip.has("byteorder") {
            big_endian = match zip.member("byteorder", 16)?.trim_ascii() {
                b"little" => false,
                b"big" => true,
                _ => {
                    return Err(invalid(&path, "its byte order is neither little nor big"));
                }
            };
        }
        let bytes = zip.member("data.pkl", MAX_PICKLE)?;
        let value = match script {
            true => pickle::from_script(&bytes),
            false => pickle::from_bytes(&bytes),
        };
        let value = value.map_err(|e| e.of_file(&path, "its pickle can't be read: "))?;
        Ok((Self::of(Members::Zip(zip), path, len, big_endian), value))
    }

    fn of(members: Members<R>, path: PathBuf, file_bytes: u64, big_endian: bool) -> Self {
        Self {
            path,
            members,
            big_endian,
            budget: SHARED,
            seen: HashSet::new(),
            seen_bytes: 0,
            file_bytes,
            last: None,
        }
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
        self.members.check(view.storage())?;
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
            self.members.storage(view.storage())?
        } else {
            let kept = self
                .last
                .take()
                .filter(|(key, _)| *key == view.storage().key);
            let (key, storage) = match kept {
                Some(kept) if Some(kept.1.len() as u64) == view.storage().num_bytes() => kept,
                _ => (
                    view.storage().key.clone(),
                    self.members.storage(view.storage())?,
                ),
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

    fn bad(&self, why: String) -> Error {
        invalid(&self.path, why)
    }
}
