//! A small, restricted pickle: enough for what `torch.save` writes (protocols 2 to 5), and nothing more.
//!
//! A pickle is a program for a stack machine that may name any Python function. This machine knows a short
//! list of names and refuses every other one, so reading a file runs none of its code. Hostile
//! input is bounded: in nesting, and in the bytes that it can make the reader take.
//! The result is a plain tree of [`Value`]s without cycles; only text, bytes and tensors are shared.

mod budget;
mod globals;
mod machine;
mod resolve;
mod tensor;
mod write;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

pub use tensor::{Storage, TensorRef};
pub use write::to_bytes;

use crate::DType;

/// How deep containers may lie in each other. Checkpoints need about eight levels; the limit also keeps
/// recursion over a [`Value`], dropping included, far from the end of the stack.
pub const MAX_DEPTH: usize = 64;

/// Why a pickle can't be read or written: one line without a file's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is damaged, contradicts itself, or asks for more memory than any checkpoint needs.
    #[error("{0}")]
    Invalid(String),
    /// It is sound as far as can be told, and holds what is not handled: a Python name outside the list, another protocol, an
    /// integer beyond 64 bits.
    #[error("{0}")]
    Unsupported(String),
}

/// The result of reading or writing a pickle.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The same error about a file, whose line begins with `before`.
    pub(crate) fn of_file(self, path: &Path, before: &str) -> crate::Error {
        let (path, message) = (path.to_path_buf(), format!("{before}{self}"));
        match self {
            Self::Invalid(_) => crate::Error::Invalid { path, message },
            Self::Unsupported(_) => crate::Error::Unsupported { path, message },
        }
    }
}

/// An error of what can't be right.
fn err<T>(text: impl Into<String>) -> Result<T> {
    Err(Error::Invalid(text.into()))
}

/// An error of what may be right, and is not handled.
fn unsupported<T>(text: impl Into<String>) -> Result<T> {
    Err(Error::Unsupported(text.into()))
}

/// Text of a file for a message: on one line, and not longer than a line.
fn short(text: &str) -> String {
    let mut out: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() {
        out.push('…');
    }
    out
}

/// A Python object, as far as checkpoints use them.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `None`
    None,
    /// `bool`
    Bool(bool),
    /// `int` within 64 bits
    Int(i64),
    /// `float`
    Float(f64),
    /// `str`
    Str(Arc<str>),
    /// `bytes` or `bytearray`
    Bytes(Arc<[u8]>),
    /// `list`
    List(Vec<Value>),
    /// `tuple` or `torch.Size`
    Tuple(Vec<Value>),
    /// `set` or `frozenset`, in the order in which it was stored
    Set(Vec<Value>),
    /// `dict` or `collections.OrderedDict`
    Dict(Dict),
    /// `torch.Tensor` or `torch.nn.Parameter`; the data lies elsewhere
    Tensor(Arc<TensorRef>),
    /// `torch.dtype`
    DType(DType),
}

/// A mapping in insertion order, with keys of any kind.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Dict {
    /// Keys and values.
    pub items: Vec<(Value, Value)>,
    /// Attributes of the object itself, such as `_metadata` of a state dict.
    pub attrs: Vec<(Arc<str>, Value)>,
    /// Whether it is a `collections.OrderedDict` and not a `dict`.
    pub ordered: bool,
}

impl Dict {
    /// A plain `dict` with text keys.
    pub fn from_pairs<K: Into<Arc<str>>>(pairs: impl IntoIterator<Item = (K, Value)>) -> Self {
        let items = pairs
            .into_iter()
            .map(|(k, v)| (Value::Str(k.into()), v))
            .collect();
        Self {
            items,
            ..Self::default()
        }
    }

    /// The value under a text key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.items
            .iter()
            .find(|(k, _)| matches!(k, Value::Str(s) if &**s == key))
            .map(|(_, v)| v)
    }

    /// The entries of a dict of tensors, without their data.
    ///
    /// # Errors
    /// When a key is not text or a value not a tensor; the text completes a sentence that begins with the dict's name.
    pub fn tensor_entries(&self) -> Result<Vec<(&str, &TensorRef)>> {
        self.items
            .iter()
            .map(|(k, v)| match (k, v) {
                (Value::Str(name), Value::Tensor(view)) => Ok((&**name, &**view)),
                (Value::Str(name), other) => err(format!(
                    "is not a dict of tensors: {name:?} is of type {}",
                    other.type_name()
                )),
                (other, _) => err(format!(
                    "is not a dict of tensors: a key is of type {}",
                    other.type_name()
                )),
            })
            .collect()
    }

    /// The attribute of that name.
    pub fn attr(&self, name: &str) -> Option<&Value> {
        self.attrs
            .iter()
            .find(|(k, _)| &**k == name)
            .map(|(_, v)| v)
    }
}

impl Value {
    /// A `str`.
    pub fn str(text: impl Into<Arc<str>>) -> Self {
        Self::Str(text.into())
    }

    /// The value under a text key, where this is a dict that has one. So `value.get("trainer")?.get("epoch")` walks down.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.as_dict()?.get(key)
    }

    /// This as a dict.
    pub fn as_dict(&self) -> Option<&Dict> {
        match self {
            Self::Dict(dict) => Some(dict),
            _ => None,
        }
    }

    /// This as a tensor, whose data [`PthFile::tensor`](crate::PthFile::tensor) reads.
    pub fn as_tensor(&self) -> Option<&TensorRef> {
        match self {
            Self::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// What Python calls the type, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Set(_) => "set",
            Self::Dict(_) => "dict",
            Self::Tensor(_) => "tensor",
            Self::DType(_) => "dtype",
        }
    }
}

/// Reads a pickle.
///
/// ```
/// use torch_pth::pickle::{Dict, Value, from_bytes, to_bytes};
///
/// let object = Value::Dict(Dict::from_pairs([("epoch", Value::Int(3))]));
/// let bytes = to_bytes(&object)?;
/// assert_eq!(from_bytes(&bytes)?, object);
///
/// // A pickle that would call a function when Python loads it.
/// let refused = from_bytes(b"\x80\x02cos\nsystem\nX\x04\0\0\0true\x85R.").unwrap_err();
/// assert!(refused.to_string().contains("os.system"));
/// # Ok::<(), torch_pth::pickle::Error>(())
/// ```
///
/// # Errors
/// When it is not a pickle, is cut off, names something outside the allowed list, describes a tensor that its
/// storage can't hold, or exceeds a limit.
pub fn from_bytes(bytes: &[u8]) -> Result<Value> {
    read(bytes, false)
}

/// Reads the pickle of a TorchScript program's module: as [`from_bytes`], and objects of the program's own classes become dicts of their
/// attributes.
pub(crate) fn from_script(bytes: &[u8]) -> Result<Value> {
    read(bytes, true)
}

fn read(bytes: &[u8], scripts: bool) -> Result<Value> {
    let mut budget = budget::Budget::new();
    budget.take(bytes.len())?;
    let run = machine::run(bytes, &mut budget, scripts)?;
    resolve::tree(&run.nodes, run.root, &mut budget)
}

/// Pickles that stand one behind the other.
pub(crate) struct Sequence {
    /// What they hold.
    pub(crate) values: Vec<Value>,
    /// Every storage that they name, by key.
    pub(crate) storages: HashMap<Arc<str>, Arc<Storage>>,
    /// Bytes that they take.
    pub(crate) len: usize,
}

/// Reads `count` pickles at the beginning of `bytes`, which together may take as much as one.
pub(crate) fn sequence(bytes: &[u8], count: usize) -> Result<Sequence> {
    let mut budget = budget::Budget::new();
    let (mut len, mut values) = (0, Vec::with_capacity(count));
    let mut storages: HashMap<Arc<str>, Arc<Storage>> = HashMap::new();
    for _ in 0..count {
        let rest = bytes.get(len..).unwrap_or_default();
        let run = machine::run(rest, &mut budget, false)?;
        budget.take(run.len)?;
        len += run.len;
        for node in &run.nodes {
            let machine::Node::Storage(storage) = node else {
                continue;
            };
            budget.take_piece::<[usize; 8]>(1)?;
            let known = storages
                .entry(storage.key.clone())
                .or_insert(storage.clone());
            if known != storage {
                return err(format!(
                    "it describes the storage {:?} in two ways",
                    short(&storage.key)
                ));
            }
        }
        values.push(resolve::tree(&run.nodes, run.root, &mut budget)?);
    }
    Ok(Sequence {
        values,
        storages,
        len,
    })
}
