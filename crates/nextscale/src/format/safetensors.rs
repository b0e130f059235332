//! The safetensors format: an eight-byte length, a JSON header, then the bytes of all tensors.
//!
//! Files that we write list the names in the header in the order of the [`StateDict`], so that the order
//! survives; the bytes lie sorted by element size, so that every tensor is aligned. Readers of the format
//! rely on neither.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::atomic::write_atomic;
use super::host::{HostDType, HostTensor};
use super::state_dict::StateDict;
use crate::input::open_input;
use crate::{Error, Result};

/// Free text by key that a safetensors file carries beside its tensors.
pub type TextMetadata = BTreeMap<String, String>;

/// The longest header that is accepted: read, it takes ten times as much memory. That of a thousand tensors has a tenth of a megabyte.
const MAX_HEADER: u64 = 16 << 20;

/// An open safetensors file: its header is read and checked, its tensors are read on demand.
#[derive(Debug)]
pub struct SafetensorsFile {
    path: PathBuf,
    file: File,
    data_start: u64,
    names: Vec<String>,
    info: Metadata,
}

impl SafetensorsFile {
    /// Opens a file and checks that the header describes exactly the bytes that follow it.
    ///
    /// # Errors
    /// When the file can't be opened, is truncated, or is not a safetensors file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let (mut file, file_len) = open_input(&path)?;
        let bad = |why: String| Error::input(format!("{}: {why}", path.display()));

        let mut word = [0u8; 8];
        if file_len < 8 {
            return Err(bad(format!(
                "not a safetensors file: it has only {file_len} bytes"
            )));
        }
        file.read_exact(&mut word).map_err(Error::io(&path))?;
        let header_len = u64::from_le_bytes(word);
        if header_len > MAX_HEADER {
            return Err(bad(
                "not a safetensors file: it does not begin with a plausible header length".into(),
            ));
        }
        let data_start = header_len + 8;
        if data_start > file_len {
            return Err(bad(format!(
                "truncated or not a safetensors file: the header should take {header_len} bytes, the file has {file_len}"
            )));
        }
        let mut header = vec![0u8; header_len as usize];
        file.read_exact(&mut header).map_err(Error::io(&path))?;
        let info: Metadata = serde_json::from_slice(&header)
            .map_err(|e| bad(format!("not a sound safetensors file: {e}")))?;
        let want = data_start.saturating_add(info.data_len() as u64);
        if want != file_len {
            let what = if want > file_len {
                "truncated"
            } else {
                "longer than its header says"
            };
            return Err(bad(format!(
                "{what}: it should have {want} bytes and has {file_len}; get or save it again"
            )));
        }
        let names: HeaderNames = serde_json::from_slice(&header).map_err(|e| bad(e.to_string()))?;
        if names.0.len() != info.tensors().len() {
            return Err(bad(
                "not a sound safetensors file: a tensor name occurs twice".into(),
            ));
        }
        Ok(Self {
            data_start,
            names: names.0,
            info,
            file,
            path,
        })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of the tensors, in the order of the header.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Element type and shape of a tensor; `None` where there is none of that name.
    ///
    /// # Errors
    /// For an element type that nextscale does not handle.
    pub fn info(&self, name: &str) -> Result<Option<(HostDType, &[usize])>> {
        let Some(info) = self.info.info(name) else {
            return Ok(None);
        };
        Ok(Some((self.dtype(name, info)?, &info.shape)))
    }

    /// The free text that the file carries.
    pub fn metadata(&self) -> TextMetadata {
        let map: Option<&HashMap<_, _>> = self.info.metadata().as_ref();
        map.into_iter()
            .flatten()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    }

    /// Reads one tensor.
    ///
    /// # Errors
    /// When there is none of that name, its element type is not handled, or reading fails.
    pub fn read(&mut self, name: &str) -> Result<HostTensor> {
        let info = self.info.info(name).ok_or_else(|| {
            Error::input(format!(
                "{}: there is no tensor {name:?}",
                self.path.display()
            ))
        })?;
        let dtype = self.dtype(name, info)?;
        let (from, to) = info.data_offsets;
        let shape = info.shape.clone();
        self.file
            .seek(SeekFrom::Start(self.data_start + from as u64))
            .map_err(Error::io(&self.path))?;
        // The header was checked against the file's length: this allocates no more than the file holds.
        let mut data = vec![0u8; to - from];
        self.file
            .read_exact(&mut data)
            .map_err(Error::io(&self.path))?;
        HostTensor::new(dtype, shape, data)
    }

    /// Reads `out.len()` bytes of one tensor from its byte `from` on.
    ///
    /// # Errors
    /// When there is none of that name, it has not so many bytes, or reading fails.
    pub fn read_part(&mut self, name: &str, from: u64, out: &mut [u8]) -> Result<()> {
        let bad = |what: &str| Error::input(format!("{}: {what} {name:?}", self.path.display()));
        let info = self
            .info
            .info(name)
            .ok_or_else(|| bad("there is no tensor"))?;
        let (start, end) = info.data_offsets;
        let inside = from
            .checked_add(out.len() as u64)
            .is_some_and(|to| to <= (end - start) as u64);
        if !inside {
            return Err(bad("such a part is not in tensor"));
        }
        self.file
            .seek(SeekFrom::Start(self.data_start + start as u64 + from))
            .map_err(Error::io(&self.path))?;
        self.file.read_exact(out).map_err(Error::io(&self.path))
    }

    /// Reads all tensors whose names begin with `prefix`, with the prefix taken off.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_prefix(&mut self, prefix: &str) -> Result<StateDict> {
        let names: Vec<String> = self
            .names
            .iter()
            .filter(|n| n.starts_with(prefix))
            .cloned()
            .collect();
        let mut dict = StateDict::new();
        for name in names {
            let tensor = self.read(&name)?;
            dict.insert(name.get(prefix.len()..).unwrap_or_default(), tensor);
        }
        Ok(dict)
    }

    fn dtype(&self, name: &str, info: &TensorInfo) -> Result<HostDType> {
        Ok(match info.dtype {
            Dtype::F64 => HostDType::F64,
            Dtype::F32 => HostDType::F32,
            Dtype::F16 => HostDType::F16,
            Dtype::BF16 => HostDType::BF16,
            Dtype::I64 => HostDType::I64,
            Dtype::I32 => HostDType::I32,
            Dtype::I16 => HostDType::I16,
            Dtype::U16 => HostDType::U16,
            Dtype::I8 => HostDType::I8,
            Dtype::U8 => HostDType::U8,
            Dtype::BOOL => HostDType::Bool,
            other => {
                return Err(Error::input(format!(
                    "{}: tensor {name:?} has element type {other:?}, which is not supported",
                    self.path.display()
                )));
            }
        })
    }
}

/// Tensor names of a header in the order in which it lists them.
struct HeaderNames(Vec<String>);

impl<'de> serde::Deserialize<'de> for HeaderNames {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = HeaderNames;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<HeaderNames, A::Error> {
                let mut names = Vec::new();
                while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
                    if name != "__metadata__" {
                        names.push(name);
                    }
                }
                Ok(HeaderNames(names))
            }
        }
        d.deserialize_map(Names)
    }
}

/// Reads a whole file: tensors in the order of the header, and the free text.
///
/// # Errors
/// As [`SafetensorsFile::open`] and [`SafetensorsFile::read`].
pub fn read_safetensors(path: impl AsRef<Path>) -> Result<(StateDict, TextMetadata)> {
    let mut file = SafetensorsFile::open(path)?;
    Ok((file.read_prefix("")?, file.metadata()))
}

/// Writes a file atomically (see [`write_atomic`]).
///
/// # Errors
/// When writing fails; an existing file is then unchanged.
pub fn write_safetensors(
    path: impl AsRef<Path>,
    tensors: &StateDict,
    metadata: &TextMetadata,
) -> Result<()> {
    let list: Vec<_> = tensors.iter().map(|(n, t)| (n.to_owned(), t)).collect();
    write_atomic(path, |w| write_to(w, &list, metadata))
}

/// Writes the bytes of a file: the tensors under the given names, which must differ.
///
/// # Errors
/// When writing fails, or a name occurs twice or is reserved.
pub fn write_to<W: Write + ?Sized>(
    out: &mut W,
    tensors: &[(String, &HostTensor)],
    metadata: &TextMetadata,
) -> io::Result<()> {
    let all: Vec<Coming> = tensors.iter().map(Coming::of).collect();
    write_made(out, &all, metadata, |i| {
        Ok(Cow::Borrowed(tensors[i].1.data.as_slice()))
    })
}

/// A tensor whose bytes are written as they are made.
#[derive(Debug, Clone)]
pub struct Coming {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: HostDType,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl Coming {
    fn of((name, tensor): &(String, &HostTensor)) -> Self {
        Self {
            name: name.clone(),
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
        }
    }

    fn bytes(&self) -> io::Result<usize> {
        let bytes =
            super::host::checked_numel(&self.shape).and_then(|n| n.checked_mul(self.dtype.size()));
        bytes.ok_or_else(|| invalid(format!("{:?} would be too large", self.name)))
    }
}

/// Writes a file of tensors that are made one at a time: `bytes` makes those of the tensor at a place of `tensors`.
///
/// # Errors
/// As [`write_to`], of `bytes`, and where it makes another number than the shape says.
pub fn write_made<'a, W: Write + ?Sized>(
    out: &mut W,
    tensors: &[Coming],
    metadata: &TextMetadata,
    mut bytes: impl FnMut(usize) -> io::Result<Cow<'a, [u8]>>,
) -> io::Result<()> {
    let order = write_header(out, tensors, None, metadata)?;
    for i in order {
        let made = bytes(i)?;
        let tensor = &tensors[i];
        if made.len() != tensor.bytes()? {
            let (name, shape) = (&tensor.name, &tensor.shape);
            return Err(invalid(format!(
                "{} bytes were made for {name:?} of shape {shape:?}",
                made.len()
            )));
        }
        out.write_all(&made)?;
    }
    Ok(())
}

/// Writes what stands before the bytes of `last`: the header, which names it too, and the other tensors. Its bytes,
/// as many as its shape says, are for the caller to write after. Its element type is none wider than those of the others.
///
/// # Errors
/// As [`write_to`].
pub fn write_before<W: Write + ?Sized>(
    out: &mut W,
    tensors: &[(String, &HostTensor)],
    last: &Coming,
    metadata: &TextMetadata,
) -> io::Result<()> {
    let all: Vec<Coming> = tensors.iter().map(Coming::of).collect();
    for i in write_header(out, &all, Some(last), metadata)? {
        out.write_all(&tensors[i].1.data)?;
    }
    Ok(())
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// The order in which [`write_made`] asks for tensors: the widest element types come first.
pub fn written_order(tensors: &[Coming]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(tensors[i].dtype.size()));
    order
}

/// Writes the header; the order in which the tensors' bytes are to follow.
fn write_header<W: Write + ?Sized>(
    out: &mut W,
    tensors: &[Coming],
    last: Option<&Coming>,
    metadata: &TextMetadata,
) -> io::Result<Vec<usize>> {
    let order = written_order(tensors);
    let mut offsets = vec![(0usize, 0usize); tensors.len()];
    let mut end = 0usize;
    let mut place = |tensor: &Coming| {
        let start = end;
        let too_large = || invalid(format!("{:?} would be too large", tensor.name));
        end = end.checked_add(tensor.bytes()?).ok_or_else(too_large)?;
        io::Result::Ok((start, end))
    };
    for &i in &order {
        offsets[i] = place(&tensors[i])?;
    }
    let mut all: Vec<_> = tensors.iter().zip(offsets).collect();
    if let Some(last) = last {
        all.push((last, place(last)?));
    }

    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), serde_json::to_value(metadata)?);
    }
    for (tensor, (from, to)) in all {
        let (name, shape) = (&tensor.name, &tensor.shape);
        let info = serde_json::json!({
            "dtype": tensor.dtype.name(), "shape": shape, "data_offsets": [from, to],
        });
        if name == "__metadata__" || header.insert(name.clone(), info).is_some() {
            return Err(invalid(format!(
                "a tensor can't be named {name:?}: that name is taken"
            )));
        }
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    if header.len() as u64 > MAX_HEADER {
        return Err(invalid(
            "the header would be too long for the safetensors format".into(),
        ));
    }
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    Ok(order)
}

#[cfg(test)]
mod tests;
