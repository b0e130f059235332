//! The Inception network from the files that people have: those of the PyTorch ports, the same as safetensors, NVIDIA's TorchScript
//! program that `clean-fid` uses, and TensorFlow's frozen graph that ADM uses. A file is told by its content, and nothing in it is run.

mod graph_def;
mod graph_weights;
mod lpips;
#[cfg(test)]
mod made;
mod names;
#[cfg(test)]
mod tests;
mod words;

use std::io::Read;
use std::path::Path;

use crate::format::pth::PthFile;
use crate::format::safetensors::SafetensorsFile;
use crate::format::sniff::{FileFormat, sniff};
use crate::format::{StateDict, sha256_of};
use crate::input::open_input;
use crate::model::inception::{Inception, LOGITS, state_dict};
use crate::{Error, Result};
use torch_pth::{Dict, Value};

pub use lpips::{LpipsInfo, open_lpips};
pub use words::{LPIPS_HEADS, Release, VGG16, where_features_come_from};

/// What kind of file a network came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetworkKind {
    /// A `.pth` file with the names of `pytorch-fid` and `torch-fidelity`.
    Pth,
    /// A safetensors file with the same names.
    Safetensors,
    /// NVIDIA's TorchScript program, which `clean-fid` uses.
    TorchScript,
    /// TensorFlow's frozen graph, which ADM uses.
    TensorFlow,
}

impl NetworkKind {
    /// The file that was published in this form; safetensors was not.
    pub fn release(self) -> Option<&'static Release> {
        match self {
            Self::Pth => Some(&words::PTH),
            Self::TorchScript => Some(&words::SCRIPT),
            Self::TensorFlow => Some(&words::GRAPH),
            Self::Safetensors => None,
        }
    }

    /// What it is, in a few words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Pth => "Inception of 2015-12-05, PyTorch weights",
            Self::Safetensors => "Inception of 2015-12-05, safetensors",
            Self::TorchScript => "Inception of 2015-12-05, NVIDIA's TorchScript program",
            Self::TensorFlow => "Inception of 2015-12-05, TensorFlow's graph",
        }
    }
}

/// Which file a network came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkInfo {
    /// What kind of file it is.
    pub kind: NetworkKind,
    /// SHA-256 of the file in hexadecimal digits.
    pub sha256: String,
}

impl NetworkInfo {
    /// Whether the file is the published one, by its sum; `None` where no sum of such a file is known.
    pub fn is_published(&self) -> Option<bool> {
        let sum = self.kind.release()?.sha256?;
        Some(self.sha256 == sum)
    }

    /// What to say of numbers that come of it, where that is anything.
    pub fn remark(&self) -> Option<String> {
        match self.is_published() {
            Some(true) => None,
            Some(false) => Some(format!(
                "weights differ from the published network: numbers are not comparable with papers (SHA-256 {}…)",
                self.sha256.get(..8).unwrap_or_default()
            )),
            None => Some(format!(
                "no sum of the published file of this form is known, so that weights were not checked against it (SHA-256 {}…)",
                self.sha256.get(..8).unwrap_or_default()
            )),
        }
    }
}

/// Opens the network on the CPU.
///
/// # Errors
/// One line that names the file and says what it seems to be, where it holds no such network; where there is no file, where one gets it.
pub fn open_inception(path: impl AsRef<Path>) -> Result<(Inception, NetworkInfo)> {
    let path = path.as_ref();
    let (kind, dict) = read_inception(path)?;
    let mut net = Inception::new()?;
    state_dict::load(&mut net, &dict, &path.display().to_string())?;
    let sha256 = sha256_of(path)?;
    Ok((net, NetworkInfo { kind, sha256 }))
}

/// The network's tensors under the names of the PyTorch ports.
fn read_inception(path: &Path) -> Result<(NetworkKind, StateDict)> {
    if matches!(path.try_exists(), Ok(false)) {
        return Err(words::missing_features(path));
    }
    if path.is_file() && graph_def::is_graph(&head_of(path)?) {
        return Ok((NetworkKind::TensorFlow, graph_weights::read(path)?));
    }
    let format = sniff(path)?;
    if format == FileFormat::Pth && PthFile::is_script(path)? {
        let (file, module) = PthFile::open_script(path)?;
        return Ok((NetworkKind::TorchScript, read_program(file, &module)?));
    }
    let fits = |names: &[&str]| state_dict::fits_names(names.iter().copied());
    let dict = weights_of(
        path,
        format,
        fits,
        |_| true,
        (words::INCEPTION, &words::PTH),
    )?;
    check_outputs(path, &dict)?;
    Ok(match format {
        FileFormat::Pth => (NetworkKind::Pth, dict),
        FileFormat::Safetensors => (NetworkKind::Safetensors, dict),
    })
}

/// The tensors of a file, or of the dict in it whose names fit, those of names that are needed. `wanted` is what it should hold, in words
/// and as a file.
fn weights_of(
    path: &Path,
    format: FileFormat,
    fits: impl Fn(&[&str]) -> bool,
    needed: impl Fn(&str) -> bool,
    (wanted, release): (&str, &Release),
) -> Result<StateDict> {
    let refused = |names: &[&str]| {
        let what = words::what(names.iter().copied(), wanted, release);
        Error::input(format!("{}: {what}", path.display()))
    };
    match format {
        FileFormat::Safetensors => {
            let mut file = SafetensorsFile::open(path)?;
            let names: Vec<&str> = file.names().collect();
            if !fits(&names) {
                return Err(refused(&names));
            }
            let names = names.into_iter().filter(|name| needed(name));
            let names: Vec<String> = names.map(str::to_owned).collect();
            names
                .into_iter()
                .map(|name| file.read(&name).map(|tensor| (name, tensor)))
                .collect()
        }
        FileFormat::Pth => {
            let (mut file, object) = PthFile::open(path)?;
            match find_weights(&object, &fits, 0) {
                Some(found) => {
                    let is_needed = |key: &Value| matches!(key, Value::Str(name) if needed(name));
                    let mut part = found.clone();
                    part.items.retain(|(key, _)| is_needed(key));
                    file.state_dict(&part, "the network")
                }
                None => {
                    let mut names = Vec::new();
                    names_below(&object, &mut names);
                    Err(refused(&names))
                }
            }
        }
    }
}

/// The tensors of NVIDIA's program.
fn read_program(mut file: PthFile, module: &Value) -> Result<StateDict> {
    let tensors = module.module_tensors();
    if !names::is_program(tensors.iter().map(|(name, _)| name.as_str())) {
        let names = tensors.iter().map(|(name, _)| name.as_str());
        let what = words::what(names, words::INCEPTION, &words::SCRIPT);
        return Err(file.bad(format!("is a TorchScript program, and {what}")));
    }
    let mut found = StateDict::new();
    for (name, view) in tensors {
        // Numbers of a program, such as a constant's, are no weights.
        if !view.shape().is_empty() {
            found.insert(name, file.tensor(view)?);
        }
    }
    Ok(names::from_program(found))
}

/// The bytes by which a graph is told.
fn head_of(path: &Path) -> Result<Vec<u8>> {
    let (file, _) = open_input(path)?;
    let mut head = Vec::new();
    file.take(512)
        .read_to_end(&mut head)
        .map_err(Error::io(path))?;
    Ok(head)
}

/// Dicts in dicts that are looked into for the weights.
const DEPTH: usize = 4;

/// The dict of tensors whose names fit: the object, or one in the dicts that it holds.
fn find_weights<'a>(
    value: &'a Value,
    fits: &impl Fn(&[&str]) -> bool,
    depth: usize,
) -> Option<&'a Dict> {
    let dict = value.as_dict()?;
    let names: Vec<&str> = dict
        .items
        .iter()
        .filter_map(|(key, value)| match (key, value) {
            (Value::Str(name), Value::Tensor(_)) => Some(&**name),
            _ => None,
        })
        .collect();
    if fits(&names) {
        return Some(dict);
    }
    if depth == DEPTH {
        return None;
    }
    let mut inner = dict.items.iter();
    inner.find_map(|(_, value)| find_weights(value, fits, depth + 1))
}

/// The names of all tensors in dicts, each without those of the dicts around it.
fn names_below<'a>(value: &'a Value, names: &mut Vec<&'a str>) {
    for (key, value) in value.as_dict().into_iter().flat_map(|dict| &dict.items) {
        match (key, value) {
            (Value::Str(name), Value::Tensor(_)) => names.push(name),
            _ => names_below(value, names),
        }
    }
}

/// That a network with the right names is not the one of the frameworks, which has these names too.
fn check_outputs(path: &Path, dict: &StateDict) -> Result<()> {
    match dict.get("fc.weight").map(|t| t.shape.first().copied()) {
        Some(Some(n)) if n != LOGITS => Err(Error::input(format!(
            "{}: is an Inception v3 with {n} outputs, as torchvision's; scores use the network of 2015-12-05, which has {LOGITS} and other weights: {}",
            path.display(),
            words::PTH.words()
        ))),
        _ => Ok(()),
    }
}
