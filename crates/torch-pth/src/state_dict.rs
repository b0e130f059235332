//! Files that are one dict of names and tensors.

use std::path::Path;

use crate::{Error, PthFile, PthWriter, Result, Tensor, TensorView, Value};

/// Reads a file whose object is a state dict: names and tensors in its order, all of them in memory.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("model.pth");
/// # let byte = torch_pth::TensorView::new(torch_pth::DType::U8, &[1], &[7]).expect("one byte");
/// # torch_pth::write_state_dict(&path, [("fc.weight", byte)])?;
/// for (name, tensor) in torch_pth::read_state_dict(&path)? {
///     println!("{name} {:?}", tensor.shape());
///     # assert_eq!((name.as_str(), tensor.data()), ("fc.weight", [7].as_slice()));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// As [`PthFile::open`] and [`PthFile::tensor`], and when the object is no dict or holds other things than tensors: training checkpoints
/// do; open them with [`PthFile`].
pub fn read_state_dict(path: impl AsRef<Path>) -> Result<Vec<(String, Tensor)>> {
    let (mut file, value) = PthFile::open(path)?;
    match &value {
        Value::Dict(dict) => file.state_dict(dict, "the file"),
        other => Err(Error::Invalid {
            path: file.path().to_path_buf(),
            message: format!("holds a {} and not a dict of tensors", other.type_name()),
        }),
    }
}

/// Writes a file whose object is a state dict, for `model.load_state_dict(torch.load(path))`, as [`PthWriter::write`] writes it.
///
/// ```
/// use torch_pth::{DType, TensorView, write_state_dict};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("model.pth");
/// let tensor = TensorView::new(DType::U8, &[2, 2], &[1, 2, 3, 4]).expect("four bytes");
/// write_state_dict(&path, [("table", tensor)])?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When the file can't be written.
pub fn write_state_dict<'a>(
    path: impl AsRef<Path>,
    entries: impl IntoIterator<Item = (&'a str, TensorView<'a>)>,
) -> Result<()> {
    let mut writer = PthWriter::new();
    let dict = writer.state_dict(entries, None);
    writer.write(path, &dict)
}
