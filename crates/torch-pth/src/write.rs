//! Putting an object and its tensors together, to be written.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::pickle::{self, Dict, Storage, TensorRef, Value};
use crate::versions::{Modules, metadata_value};
use crate::{Archive, Error, Result, TensorView};

/// Collects the tensors of an object while it is put together, then writes both. Tensors stay where they are: nothing is
/// copied.
///
/// ```
/// use torch_pth::{DType, Dict, PthFile, PthWriter, TensorView, Value};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("checkpoint.pth");
/// let weight = 2.5f32.to_le_bytes();
/// let mut writer = PthWriter::new();
/// let view = TensorView::new(DType::F32, &[1, 1], &weight).expect("one number of four bytes");
/// let model = writer.state_dict([("fc.weight", view)], None);
/// let object = Dict::from_pairs([("epoch", Value::Int(3)), ("model", model)]);
/// writer.write(&path, &Value::Dict(object))?;
///
/// // In Python: torch.load(path, weights_only=True)["model"]["fc.weight"]
/// let (mut file, object) = PthFile::open(&path)?;
/// assert_eq!(object.get("epoch"), Some(&Value::Int(3)));
/// let tensor = object.get("model").and_then(|m| m.get("fc.weight")).and_then(Value::as_tensor);
/// assert_eq!(file.tensor(tensor.expect("it is there"))?.data(), weight);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct PthWriter<'a> {
    tensors: Vec<&'a [u8]>,
}

impl<'a> PthWriter<'a> {
    /// Without tensors yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a tensor in and returns what stands for it in the object. Only tensors that this writer has given out belong there.
    pub fn tensor(&mut self, tensor: TensorView<'a>) -> Value {
        let dtype = tensor.dtype();
        let storage = Storage {
            dtype,
            key: self.tensors.len().to_string().into(),
            numel: (tensor.data().len() / dtype.size()) as u64,
        };
        self.tensors.push(tensor.data());
        Value::Tensor(TensorRef::whole(storage, tensor.shape()).into())
    }

    /// Takes the tensors of a state dict in and returns the ordered dict that stands for it. PyTorch keeps a version for every module
    /// path beside it (`_metadata`): `versions`, as [`Dict::module_versions`] gives them, or 1 for every module that the names show.
    pub fn state_dict<'n>(
        &mut self,
        entries: impl IntoIterator<Item = (&'n str, TensorView<'a>)>,
        versions: Option<&[(String, i64)]>,
    ) -> Value {
        let mut modules = Modules::default();
        let mut items = Vec::new();
        for (name, tensor) in entries {
            if versions.is_none() {
                modules.see(name);
            }
            items.push((Value::str(name), self.tensor(tensor)));
        }
        let metadata = metadata_value(versions.unwrap_or(modules.versions()));
        Value::Dict(Dict {
            items,
            attrs: vec![("_metadata".into(), metadata)],
            ordered: true,
        })
    }

    /// Writes the file. `torch.load(weights_only=True)` reads it. A file of that name is overwritten as the bytes come; where it must stay
    /// whole until then, write elsewhere with [`Self::archive`] and give the result its name.
    ///
    /// # Errors
    /// When the file can't be written, or as [`pickle::to_bytes`].
    pub fn write(&self, path: impl AsRef<Path>, object: &Value) -> Result<()> {
        let path = path.as_ref();
        let archive = self.archive(object).map_err(|e| e.of_file(path, ""))?;
        let file = File::create(path).map_err(Error::io(path))?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        archive
            .write_to(&mut out, &folder_name(path))
            .and_then(|()| out.flush())
            .map_err(Error::io(path))
    }

    /// The object with its tensors, ready to be written anywhere.
    ///
    /// # Errors
    /// As [`pickle::to_bytes`].
    pub fn archive(&self, object: &Value) -> pickle::Result<Archive<'_>> {
        Ok(Archive {
            pickle: pickle::to_bytes(object)?,
            tensors: &self.tensors,
        })
    }
}

/// What `torch.save` names the folder inside the archive: after the file.
pub fn folder_name(path: &Path) -> String {
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned());
    stem.filter(|s| !s.is_empty())
        .unwrap_or_else(|| "archive".into())
}
