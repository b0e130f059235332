//! Writing a `.pth` file as `torch.save` lays it out.

use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use zip::write::{SimpleFileOptions, ZipWriter};
use zip::{CompressionMethod, DateTime};

use super::metadata_value;
use crate::checkpoint::atomic::{WriteSeek, write_atomic};
use crate::checkpoint::host::HostTensor;
use crate::checkpoint::pickle::{self, Dict, Storage, TensorRef, Value};
use crate::checkpoint::state_dict::StateDict;
use crate::{Error, Result};

/// Tensor data begins at multiples of this, so that it can be mapped into memory.
const ALIGNMENT: u16 = 64;

/// Collects the tensors of an object while it is put together, then writes both.
#[derive(Debug, Default)]
pub struct PthBuilder<'a> {
    tensors: Vec<&'a HostTensor>,
}

impl<'a> PthBuilder<'a> {
    /// Without tensors yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a tensor in and returns what stands for it in the object.
    pub fn tensor(&mut self, tensor: &'a HostTensor) -> Value {
        let storage = Storage {
            dtype: tensor.dtype,
            key: self.tensors.len().to_string().into(),
            numel: tensor.numel() as u64,
        };
        self.tensors.push(tensor);
        Value::Tensor(TensorRef::contiguous(storage, &tensor.shape).into())
    }

    /// Takes all tensors of a state dict in and returns the ordered dict that stands for it, with `_metadata`.
    pub fn state_dict(&mut self, dict: &'a StateDict) -> Value {
        let items = dict
            .iter()
            .map(|(name, t)| (Value::str(name), self.tensor(t)))
            .collect();
        let attrs = vec![("_metadata".into(), metadata_value(dict))];
        Value::Dict(Dict {
            items,
            attrs,
            ordered: true,
        })
    }

    /// Writes the file atomically (see [`write_atomic`]). `torch.load(weights_only=True)` reads it.
    ///
    /// # Errors
    /// When writing fails; an existing file is then unchanged.
    pub fn write(&self, path: impl AsRef<Path>, object: &Value) -> Result<()> {
        let path = path.as_ref();
        let pickle = pickle::to_bytes(object)
            .map_err(|e| Error::input(format!("{}: {e}", path.display())))?;
        // torch.save names the folder inside the archive after the file.
        let stem = path
            .file_stem()
            .map(|s| s.to_string_lossy().into_owned())
            .filter(|s| !s.is_empty());
        let folder = stem.unwrap_or_else(|| "archive".into());
        write_atomic(path, |w| self.write_to(w, &folder, &pickle))
    }

    /// Writes the archive's bytes.
    pub(super) fn write_to(
        &self,
        out: &mut dyn WriteSeek,
        folder: &str,
        pickle: &[u8],
    ) -> io::Result<()> {
        let mut zip = ZipWriter::new(FailsOnce {
            pos: out.stream_position()?,
            end: 0,
            out,
            failed: false,
        });
        self.write_members(&mut zip, folder, pickle)?;
        zip.finish()?;
        Ok(())
    }

    fn write_members(
        &self,
        zip: &mut ZipWriter<FailsOnce<'_>>,
        folder: &str,
        pickle: &[u8],
    ) -> io::Result<()> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            // A fixed time: the same content gives the same bytes.
            .last_modified_time(DateTime::default())
            .with_alignment(ALIGNMENT);
        let mut put = |name: &str, bytes: &[u8]| {
            let large = bytes.len() as u64 >= u64::from(u32::MAX) - (1 << 16);
            zip.start_file(format!("{folder}/{name}"), options.large_file(large))?;
            zip.write_all(bytes)
        };
        put("data.pkl", pickle)?;
        put("byteorder", b"little")?;
        for (key, tensor) in self.tensors.iter().enumerate() {
            put(&format!("data/{key}"), &tensor.data)?;
        }
        put("version", b"3\n")
    }
}

/// Reports the first error and from then on only pretends to write. An archive writer that is dropped after an error
/// tries to finish the archive, and would print the second error to the terminal.
struct FailsOnce<'a> {
    out: &'a mut dyn WriteSeek,
    pos: u64,
    end: u64,
    failed: bool,
}

impl Write for FailsOnce<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = if self.failed {
            buf.len()
        } else {
            self.out.write(buf).inspect_err(|_| self.failed = true)?
        };
        self.pos += n as u64;
        self.end = self.end.max(self.pos);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.failed {
            Ok(())
        } else {
            self.out.flush().inspect_err(|_| self.failed = true)
        }
    }
}

impl Seek for FailsOnce<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.pos = if self.failed {
            match to {
                SeekFrom::Start(n) => n,
                SeekFrom::Current(d) => self.pos.saturating_add_signed(d),
                SeekFrom::End(d) => self.end.saturating_add_signed(d),
            }
        } else {
            self.out.seek(to).inspect_err(|_| self.failed = true)?
        };
        Ok(self.pos)
    }
}
