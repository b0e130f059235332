//! PyTorch's `.pth` files with the tensors and errors of this library: the files are read and written by the crate `torch_pth`.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use torch_pth::{DType, Dict, PthWriter, Tensor, TensorRef, TensorView, Value, folder_name};

use super::atomic::write_atomic;
use super::host::{HostDType, HostTensor};
use super::state_dict::StateDict;
use crate::input::open_input;
use crate::{Error, Result};

impl From<DType> for HostDType {
    fn from(dtype: DType) -> Self {
        match dtype {
            DType::F64 => Self::F64,
            DType::F32 => Self::F32,
            DType::F16 => Self::F16,
            DType::BF16 => Self::BF16,
            DType::I64 => Self::I64,
            DType::I32 => Self::I32,
            DType::I16 => Self::I16,
            DType::I8 => Self::I8,
            DType::U8 => Self::U8,
            DType::Bool => Self::Bool,
        }
    }
}

/// A tensor as PyTorch's files hold it; the error completes a sentence.
fn view(tensor: &HostTensor) -> Result<TensorView<'_>, String> {
    let dtype = match tensor.dtype {
        HostDType::F64 => DType::F64,
        HostDType::F32 => DType::F32,
        HostDType::F16 => DType::F16,
        HostDType::BF16 => DType::BF16,
        HostDType::I64 => DType::I64,
        HostDType::I32 => DType::I32,
        HostDType::I16 => DType::I16,
        HostDType::I8 => DType::I8,
        HostDType::U8 => DType::U8,
        HostDType::Bool => DType::Bool,
        HostDType::U16 => {
            return Err("PyTorch's files have no storage of 16-bit unsigned integers".into());
        }
    };
    TensorView::new(dtype, &tensor.shape, &tensor.data)
        .ok_or_else(|| "a tensor's shape does not fit its data".into())
}

/// The same tensor; its bytes are not copied.
impl From<Tensor> for HostTensor {
    fn from(tensor: Tensor) -> Self {
        let (dtype, shape, data) = tensor.into_parts();
        Self {
            dtype: dtype.into(),
            shape,
            data,
        }
    }
}

impl From<torch_pth::Error> for Error {
    fn from(error: torch_pth::Error) -> Self {
        match error {
            torch_pth::Error::Io { path, source } => Self::Io { path, source },
            other => Self::input(other.to_string()),
        }
    }
}

/// An open `.pth` file.
pub(crate) struct PthFile(torch_pth::PthFile<BufReader<File>>);

impl PthFile {
    /// Opens a file and returns it with the object that it holds.
    ///
    /// # Errors
    /// When it can't be opened or read; see [`torch_pth::PthFile::open`].
    pub(crate) fn open(path: impl AsRef<Path>) -> Result<(Self, Value)> {
        let path = path.as_ref();
        let (file, _) = open_input(path)?;
        let (file, value) = torch_pth::PthFile::new(BufReader::with_capacity(1 << 16, file), path)?;
        Ok((Self(file), value))
    }

    /// Whether a file is a TorchScript program.
    ///
    /// # Errors
    /// When it can't be opened.
    pub(crate) fn is_script(path: &Path) -> Result<bool> {
        let (file, _) = open_input(path)?;
        let reader = BufReader::with_capacity(1 << 16, file);
        Ok(torch_pth::PthFile::is_script(reader))
    }

    /// Opens a TorchScript program and returns it with its module; see [`torch_pth::PthFile::open_script`].
    ///
    /// # Errors
    /// When it can't be opened or read, or is none.
    pub(crate) fn open_script(path: &Path) -> Result<(Self, Value)> {
        let (file, _) = open_input(path)?;
        let reader = BufReader::with_capacity(1 << 16, file);
        let (file, value) = torch_pth::PthFile::new_script(reader, path)?;
        Ok((Self(file), value))
    }

    /// Reads one tensor's data and makes it contiguous.
    ///
    /// # Errors
    /// When the storage is missing, damaged, or not of the size that the pickle states.
    pub(crate) fn tensor(&mut self, view: &TensorRef) -> Result<HostTensor> {
        Ok(self.0.tensor(view)?.into())
    }

    /// Reads a dict of names and tensors as a state dict. `what` names the dict in messages.
    ///
    /// # Errors
    /// When a key is not text or a value not a tensor, or as [`Self::tensor`].
    pub(crate) fn state_dict(&mut self, dict: &Dict, what: &str) -> Result<StateDict> {
        let tensors = self.0.state_dict(dict, what)?;
        let mut out: StateDict = tensors.into_iter().map(|(n, t)| (n, t.into())).collect();
        out.module_versions = dict.module_versions();
        Ok(out)
    }

    /// An error about this file.
    pub(crate) fn bad(&self, why: impl std::fmt::Display) -> Error {
        Error::input(format!("{}: {why}", self.0.path().display()))
    }
}

/// Collects the tensors of an object while it is put together, then writes both.
#[derive(Debug, Default)]
pub(crate) struct PthBuilder<'a> {
    writer: PthWriter<'a>,
    /// Why it can't be written, where it holds a tensor that such files don't.
    refused: Option<String>,
}

impl<'a> PthBuilder<'a> {
    /// Without tensors yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn view(&mut self, tensor: &'a HostTensor) -> Option<TensorView<'a>> {
        let view = view(tensor);
        view.map_err(|why| self.refused.get_or_insert(why)).ok()
    }

    /// Takes a tensor in and returns what stands for it in the object.
    pub(crate) fn tensor(&mut self, tensor: &'a HostTensor) -> Value {
        let view = self.view(tensor);
        view.map_or(Value::None, |view| self.writer.tensor(view))
    }

    /// Takes all tensors of a state dict in and returns the ordered dict that stands for it, with `_metadata`.
    pub(crate) fn state_dict(&mut self, dict: &'a StateDict) -> Value {
        let entries: Vec<(&str, TensorView<'a>)> = dict
            .iter()
            .filter_map(|(name, tensor)| Some((name, self.view(tensor)?)))
            .collect();
        let versions = dict.module_versions.as_deref();
        self.writer.state_dict(entries, versions)
    }

    /// Writes the file atomically (see [`write_atomic`]). `torch.load(weights_only=True)` reads it.
    ///
    /// # Errors
    /// When a tensor is of a type that such files don't hold, or writing fails; an existing file is then unchanged.
    pub(crate) fn write(&self, path: impl AsRef<Path>, object: &Value) -> Result<()> {
        let path = path.as_ref();
        let bad = |why: String| Error::input(format!("{}: {why}", path.display()));
        if let Some(why) = &self.refused {
            return Err(bad(why.clone()));
        }
        let archive = self
            .writer
            .archive(object)
            .map_err(|e| bad(e.to_string()))?;
        write_atomic(path, |w| archive.write_to(w, &folder_name(path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::fixtures::unpacked;
    use crate::format::safetensors::read_safetensors;

    fn read_state(path: &Path) -> Result<StateDict> {
        let (mut file, value) = PthFile::open(path)?;
        let dict = value.as_dict().ok_or_else(|| file.bad("not a dict"))?;
        file.state_dict(dict, "the file")
    }

    #[test]
    fn pytorch_s_files_equal_their_safetensors() {
        for name in ["vae/vae_weights", "var/l2_weights", "var/saln_weights"] {
            let (_a, pth) = unpacked(&format!("{name}.pth"));
            let (_b, st) = unpacked(&format!("{name}.safetensors"));
            let from_pth = read_state(&pth).unwrap();
            let (mut from_st, _) = read_safetensors(&st).unwrap();
            let order: Vec<String> = from_pth.names().map(str::to_owned).collect();
            from_st.sort_by_key(|n| order.iter().position(|o| o == n));
            assert!(from_pth == from_st, "{name}");
            let versions = from_pth.module_versions.unwrap();
            assert!(versions.iter().all(|(_, v)| *v == 1));
        }
    }

    #[test]
    fn every_type_is_written_and_read_but_the_one_that_pytorch_lacks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.pth");
        let all = [
            HostDType::F64,
            HostDType::F32,
            HostDType::F16,
            HostDType::BF16,
            HostDType::I64,
            HostDType::I32,
            HostDType::I16,
            HostDType::I8,
            HostDType::U8,
            HostDType::Bool,
        ];
        let of = |dtype: HostDType| {
            let tensor = HostTensor::new(dtype, vec![1], vec![1; dtype.size()]);
            (dtype.name().to_owned(), tensor.unwrap())
        };
        let mut dict: StateDict = all.into_iter().map(of).collect();
        let mut b = PthBuilder::new();
        let value = b.state_dict(&dict);
        b.write(&path, &value).unwrap();
        assert!(read_state(&path).unwrap() == dict);
        let before = std::fs::read(&path).unwrap();
        dict.extend([of(HostDType::U16)]);
        let mut b = PthBuilder::new();
        let value = b.state_dict(&dict);
        let error = b.write(&path, &value).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(
            error
                .to_string()
                .ends_with("w.pth: PyTorch's files have no storage of 16-bit unsigned integers"),
            "{error}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
}
