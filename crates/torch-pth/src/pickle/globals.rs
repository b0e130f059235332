//! The list of Python names that a pickle may use, and what calling each of them does.

use std::sync::Arc;

use half::f16;

use super::machine::{Id, Machine, Node, NodeDict};
use super::tensor::{Storage, TensorRef};
use super::{Result, err, short, unsupported};
use crate::DType;

/// A Python name that is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    Dict,
    List,
    Tuple,
    Set,
    /// `_codecs.encode`, by which protocol 2 stores bytes.
    Encode,
    RebuildTensor,
    /// `torch._utils._rebuild_tensor`, of PyTorch before 0.4.
    RebuildOldTensor,
    RebuildParameter,
    Size,
    Device,
    /// `torch.FloatStorage` and its kin.
    Storage(DType),
    NumpyDType,
    NumpyScalar,
    /// A class of a TorchScript program.
    ScriptClass,
    /// `torch.jit._pickle.build_intlist` and its kin, which give the list that they take.
    ScriptList,
    /// `torch.jit._pickle.restore_type_tag`, which gives its first argument.
    ScriptTag,
}

impl Global {
    /// The node that stands for `module.name`; `scripts` where TorchScript's names are known.
    pub(super) fn find(module: &str, name: &str, scripts: bool) -> Result<Node> {
        use DType as D;
        let global = match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("builtins" | "__builtin__", "dict") => Self::Dict,
            ("builtins" | "__builtin__", "list") => Self::List,
            ("builtins" | "__builtin__", "tuple") => Self::Tuple,
            ("builtins" | "__builtin__", "set" | "frozenset") => Self::Set,
            ("_codecs", "encode") => Self::Encode,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_tensor") => Self::RebuildOldTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", "Size") => Self::Size,
            ("torch", "device") => Self::Device,
            ("torch", "DoubleStorage") => Self::Storage(D::F64),
            ("torch", "FloatStorage") => Self::Storage(D::F32),
            ("torch", "HalfStorage") => Self::Storage(D::F16),
            ("torch", "BFloat16Storage") => Self::Storage(D::BF16),
            ("torch", "LongStorage") => Self::Storage(D::I64),
            ("torch", "IntStorage") => Self::Storage(D::I32),
            ("torch", "ShortStorage") => Self::Storage(D::I16),
            ("torch", "CharStorage") => Self::Storage(D::I8),
            ("torch", "ByteStorage") => Self::Storage(D::U8),
            ("torch", "BoolStorage") => Self::Storage(D::Bool),
            ("torch", "float64" | "double") => return Ok(Node::DType(D::F64)),
            ("torch", "float32" | "float") => return Ok(Node::DType(D::F32)),
            ("torch", "float16" | "half") => return Ok(Node::DType(D::F16)),
            ("torch", "bfloat16") => return Ok(Node::DType(D::BF16)),
            ("torch", "int64" | "long") => return Ok(Node::DType(D::I64)),
            ("torch", "int32" | "int") => return Ok(Node::DType(D::I32)),
            ("torch", "int16" | "short") => return Ok(Node::DType(D::I16)),
            ("torch", "int8") => return Ok(Node::DType(D::I8)),
            ("torch", "uint8") => return Ok(Node::DType(D::U8)),
            ("torch", "bool") => return Ok(Node::DType(D::Bool)),
            ("numpy", "dtype") => Self::NumpyDType,
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Self::NumpyScalar,
            (module, _) if scripts && is_script_module(module) => Self::ScriptClass,
            (
                "torch.jit._pickle",
                "build_intlist" | "build_tensorlist" | "build_doublelist" | "build_boollist",
            ) if scripts => Self::ScriptList,
            ("torch.jit._pickle", "restore_type_tag") if scripts => Self::ScriptTag,
            _ => {
                return unsupported(format!(
                    "it uses the Python name {}.{}, which is not on the list of allowed names; \
                     save plain tensors, numbers, text, lists and dicts only",
                    short(module),
                    short(name)
                ));
            }
        };
        Ok(Node::Global(global))
    }
}

/// Whether a module's classes are those of a TorchScript program and no Python's.
fn is_script_module(module: &str) -> bool {
    module == "__torch__" || module.starts_with("__torch__.")
}

impl Global {
    /// What Python calls it.
    fn name(self) -> String {
        let name = match self {
            Self::OrderedDict => "collections.OrderedDict",
            Self::Dict => "dict",
            Self::List => "list",
            Self::Tuple => "tuple",
            Self::Set => "set",
            Self::Encode => "_codecs.encode",
            Self::RebuildTensor => "torch._utils._rebuild_tensor_v2",
            Self::RebuildOldTensor => "torch._utils._rebuild_tensor",
            Self::RebuildParameter => "torch._utils._rebuild_parameter",
            Self::Size => "torch.Size",
            Self::Device => "torch.device",
            Self::Storage(dtype) => return format!("torch's storage of {dtype}"),
            Self::NumpyDType => "numpy.dtype",
            Self::NumpyScalar => "numpy's scalar",
            Self::ScriptClass => "a class of a TorchScript program",
            Self::ScriptList => "torch.jit._pickle.build_intlist or its kin",
            Self::ScriptTag => "torch.jit._pickle.restore_type_tag",
        };
        name.to_owned()
    }
}

impl Machine<'_> {
    /// Calls `global(*args)` and returns what it gives.
    pub(super) fn call(&mut self, global: Global, args: &[Id]) -> Result<Id> {
        let node = match (global, args) {
            (Global::OrderedDict | Global::Dict, []) => self.dict(global, vec![])?,
            // Python 2 passed a list of pairs.
            (Global::OrderedDict | Global::Dict, &[pairs]) => {
                let n = self.sequence(pairs)?.len();
                self.budget.take_piece::<(Id, Id)>(n)?;
                let mut items = Vec::with_capacity(n);
                for &pair in self.sequence(pairs)? {
                    match *self.sequence(pair)? {
                        [k, v] => items.push((k, v)),
                        _ => return err("a dict is made of something that is not a list of pairs"),
                    }
                }
                self.dict(global, items)?
            }
            (Global::List, []) => Node::List(vec![]),
            (Global::Set, []) => Node::Set(vec![]),
            (Global::Tuple | Global::Size, []) => Node::Tuple(vec![]),
            (Global::List, &[s]) => Node::List(self.copy_sequence(s)?),
            (Global::Set, &[s]) => Node::Set(self.copy_sequence(s)?),
            (Global::Tuple | Global::Size, &[s]) => Node::Tuple(self.copy_sequence(s)?),
            (Global::Encode, &[text, codec]) => match (self.node(text)?, self.node(codec)?) {
                (Node::Str(text), Node::Str(codec)) if matches!(&**codec, "latin1" | "latin-1") => {
                    let text = text.clone();
                    // Once as it grows and once as what is kept.
                    self.budget.take_piece::<[u8; 3]>(text.len())?;
                    match text
                        .chars()
                        .map(|c| u8::try_from(u32::from(c)).ok())
                        .collect::<Option<Vec<_>>>()
                    {
                        Some(bytes) => Node::Bytes(bytes.into()),
                        None => return err("bytes are stored with characters beyond latin-1"),
                    }
                }
                _ => return err("_codecs.encode is called with something other than latin-1 text"),
            },
            (
                Global::RebuildTensor | Global::RebuildOldTensor,
                [storage, offset, shape, stride, rest @ ..],
            ) if match global {
                Global::RebuildOldTensor => rest.is_empty(),
                _ => (2..=3).contains(&rest.len()),
            } =>
            {
                let Node::Storage(storage) = self.node(*storage)? else {
                    return err("a tensor is built on something that is not a storage");
                };
                let storage = storage.clone();
                let (shape, stride) = (self.ints(*shape)?, self.ints(*stride)?);
                self.budget.take_piece::<TensorRef>(1)?;
                self.budget.take_piece::<usize>(shape.len())?;
                self.budget.take_piece::<usize>(stride.len())?;
                Node::Tensor(Arc::new(TensorRef::new(
                    storage,
                    self.int(*offset)?,
                    &shape,
                    &stride,
                )?))
            }
            (Global::RebuildParameter, &[tensor, _requires_grad, _hooks]) => {
                match self.node(tensor)? {
                    Node::Tensor(_) => return Ok(tensor),
                    _ => return err("a parameter is built on something that is not a tensor"),
                }
            }
            (Global::ScriptClass, []) => {
                self.budget.take_piece::<NodeDict>(1)?;
                Node::Dict(Box::new(NodeDict {
                    object: true,
                    ..NodeDict::default()
                }))
            }
            (Global::ScriptList, &[list]) | (Global::ScriptTag, &[list, _]) => return Ok(list),
            // A device is of no use here; its name stands for it.
            (Global::Device, [name, ..]) if matches!(self.node(*name)?, Node::Str(_)) => {
                return Ok(*name);
            }
            (Global::NumpyDType, [name, ..]) => match self.node(*name)? {
                Node::Str(name) => Node::NumpyDType(name.clone()),
                _ => return err("numpy.dtype is called without the name of a type"),
            },
            (Global::NumpyScalar, &[dtype, bytes]) => {
                match (self.node(dtype)?, self.node(bytes)?) {
                    (Node::NumpyDType(dtype), Node::Bytes(bytes)) => numpy_scalar(dtype, bytes)?,
                    _ => return err("a numpy number is not given as a type and its bytes"),
                }
            }
            _ => {
                return err(format!(
                    "it calls {} with {} arguments of kinds that it does not take",
                    global.name(),
                    args.len()
                ));
            }
        };
        self.add(node)
    }

    fn dict(&mut self, global: Global, items: Vec<(Id, Id)>) -> Result<Node> {
        self.budget.take_piece::<NodeDict>(1)?;
        Ok(Node::Dict(Box::new(NodeDict {
            items,
            ordered: global == Global::OrderedDict,
            ..NodeDict::default()
        })))
    }

    /// What a persistent id stands for: a storage, in the form `("storage", type, key, location, number of elements)`. The old
    /// format has a sixth element, `None` where the storage is no part of another.
    pub(super) fn persistent(&mut self, id: Id) -> Result<Id> {
        let node = match self.node(id)? {
            Node::Tuple(v) => match *v.as_slice() {
                [tag, kind, key, _location, numel, ref part @ ..] if part.len() <= 1 => {
                    if let [part] = *part
                        && !matches!(self.node(part)?, Node::None)
                    {
                        return unsupported("a storage is a part of another one");
                    }
                    let numel = self.int(numel)?;
                    match (self.node(tag)?, self.node(kind)?, self.node(key)?) {
                        (Node::Str(tag), Node::Global(Global::Storage(dtype)), Node::Str(key))
                            if &**tag == "storage" && numel >= 0 =>
                        {
                            let (dtype, key) = (*dtype, key.clone());
                            Some(Node::Storage(Arc::new(Storage {
                                dtype,
                                key,
                                numel: numel as u64,
                            })))
                        }
                        _ => None,
                    }
                }
                _ => None,
            },
            _ => None,
        };
        match node {
            Some(node) => {
                self.budget.take_piece::<Storage>(1)?;
                self.add(node)
            }
            None => err("a reference to outside data does not have the form of a tensor's storage"),
        }
    }

    /// `object.__setstate__(state)`: an ordered dict takes attributes, so does an object of a TorchScript class; a numpy type keeps its
    /// byte order.
    pub(super) fn build(&mut self, object: Id, state: Id) -> Result<()> {
        if let Node::Dict(state) = self.node(state)? {
            let n = state.items.len();
            self.budget.take_piece::<(Arc<str>, Id)>(n)?;
        }
        let mut new = Vec::new();
        match (self.node(object)?, self.node(state)?) {
            (Node::Dict(dict), Node::Dict(state)) if dict.object => {
                if !dict.items.is_empty() || state.object {
                    return err("attributes are set twice on one object");
                }
                // An item is as large as an attribute, or smaller.
                let items = state.items.clone();
                if let Node::Dict(dict) = self.node_mut(object)? {
                    dict.items = items;
                }
                return Ok(());
            }
            (Node::Dict(dict), Node::Dict(state)) if dict.ordered => {
                if dict.attrs.is_some() {
                    return err("attributes are set twice on one object");
                }
                new.reserve_exact(state.items.len());
                for &(k, v) in &state.items {
                    match self.node(k)? {
                        Node::Str(name) => new.push((name.clone(), v)),
                        _ => return err("an attribute's name is not text"),
                    }
                }
            }
            (Node::NumpyDType(_), Node::Tuple(state)) => {
                if let Some(&order) = state.get(1)
                    && matches!(self.node(order)?, Node::Str(s) if &**s == ">")
                {
                    return unsupported("a numpy number is big endian, which is not supported");
                }
                return Ok(());
            }
            _ => return err("attributes are set on an object that takes none"),
        }
        if let Node::Dict(dict) = self.node_mut(object)? {
            dict.attrs = Some(new);
        }
        Ok(())
    }

    fn copy_sequence(&mut self, id: Id) -> Result<Vec<Id>> {
        // A copy takes room without costing as many instructions.
        self.budget.take_piece::<Id>(self.sequence(id)?.len())?;
        Ok(self.sequence(id)?.to_vec())
    }

    fn int(&self, id: Id) -> Result<i64> {
        match self.node(id)? {
            Node::Int(i) => Ok(*i),
            _ => err("a number is missing in the description of a tensor"),
        }
    }

    fn ints(&self, id: Id) -> Result<Vec<i64>> {
        let ids = self.sequence(id)?;
        // Far more than a tensor's axes: refused later with a better message, but not copied.
        ids.iter().take(64).map(|&i| self.int(i)).collect()
    }
}

/// A number that numpy stored as its bytes.
fn numpy_scalar(dtype: &str, bytes: &[u8]) -> Result<Node> {
    let node = match (dtype, bytes) {
        ("f8", &[a, b, c, d, e, f, g, h]) => {
            Node::Float(f64::from_le_bytes([a, b, c, d, e, f, g, h]))
        }
        ("f4", &[a, b, c, d]) => Node::Float(f64::from(f32::from_le_bytes([a, b, c, d]))),
        ("f2", &[a, b]) => Node::Float(f16::from_le_bytes([a, b]).to_f64()),
        ("i8", &[a, b, c, d, e, f, g, h]) => {
            Node::Int(i64::from_le_bytes([a, b, c, d, e, f, g, h]))
        }
        ("i4", &[a, b, c, d]) => Node::Int(i64::from(i32::from_le_bytes([a, b, c, d]))),
        ("i2", &[a, b]) => Node::Int(i64::from(i16::from_le_bytes([a, b]))),
        ("i1", &[a]) => Node::Int(i64::from(a as i8)),
        ("u4", &[a, b, c, d]) => Node::Int(i64::from(u32::from_le_bytes([a, b, c, d]))),
        ("u2", &[a, b]) => Node::Int(i64::from(u16::from_le_bytes([a, b]))),
        ("u1", &[a]) => Node::Int(i64::from(a)),
        ("b1", &[a]) => Node::Bool(a != 0),
        _ => {
            return unsupported(format!(
                "a numpy number of type {} is not supported",
                short(dtype)
            ));
        }
    };
    Ok(node)
}
