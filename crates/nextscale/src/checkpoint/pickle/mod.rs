//! A small, restricted pickle: enough for what `torch.save` writes (protocols 2 to 5), and nothing more.
//!
//! A pickle is a program for a stack machine that may name any Python function. This machine knows a short
//! list of names (`globals.rs`) and refuses every other one, so reading a file runs none of its code. Hostile
//! input is bounded: in nesting, and in the bytes that it can make the reader take (`budget.rs`).
//! The result is a plain tree of [`Value`]s without cycles; only text, bytes and tensors are shared.

mod budget;
mod globals;
mod machine;
mod resolve;
mod tensor;
mod write;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use tensor::{Storage, TensorRef};
pub use write::to_bytes;

use super::host::HostDType;

/// How deep containers may lie in each other. Checkpoints need about eight levels; the limit also keeps
/// recursion over a [`Value`], dropping included, far from the end of the stack.
pub const MAX_DEPTH: usize = 64;

/// Why a pickle can't be read: one line without the file's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PickleError(pub(super) String);

type Result<T, E = PickleError> = std::result::Result<T, E>;

/// An error from anything that formats.
fn err<T>(text: impl Into<String>) -> Result<T> {
    Err(PickleError(text.into()))
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
    DType(HostDType),
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
/// # Errors
/// When it is not a pickle, is cut off, names something outside the allowed list, describes a tensor that its
/// storage can't hold, or exceeds a limit.
pub fn from_bytes(bytes: &[u8]) -> Result<Value> {
    let mut budget = budget::Budget::new();
    budget.take(bytes.len())?;
    let (nodes, root) = machine::run(bytes, &mut budget)?;
    resolve::tree(&nodes, root, &mut budget)
}
