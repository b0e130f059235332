//! Writes a [`Value`] as a protocol 2 pickle, with the instructions that `torch.save` uses, so that
//! `torch.load(weights_only=True)` takes it.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Dict, Result, TensorRef, Value, err, unsupported};
use crate::DType;

/// The pickle of a value, of protocol 2. Tensors are described; their data belongs beside it, as [`PthWriter`](crate::PthWriter) puts it.
///
/// # Errors
/// For attributes on a plain dict, text or containers beyond 4 GiB, and deeper nesting than can be read back.
pub fn to_bytes(value: &Value) -> Result<Vec<u8>> {
    let mut w = Writer {
        out: vec![0x80, 2],
        memo: HashMap::new(),
    };
    w.value(value, 0)?;
    w.out.push(b'.');
    Ok(w.out)
}

struct Writer {
    out: Vec<u8>,
    /// Texts and Python names that were written once and can be referred to.
    memo: HashMap<Key, u32>,
}

/// What can be referred to again.
#[derive(PartialEq, Eq, Hash)]
enum Key {
    Text(Arc<str>),
    Global(&'static str, &'static str),
}

impl Writer {
    fn value(&mut self, value: &Value, depth: usize) -> Result<()> {
        if depth > super::MAX_DEPTH {
            return err(format!(
                "objects lie more than {} deep in each other",
                super::MAX_DEPTH
            ));
        }
        match value {
            Value::None => self.out.push(b'N'),
            Value::Bool(b) => self.out.push(if *b { 0x88 } else { 0x89 }),
            Value::Int(i) => self.int(*i),
            Value::Float(f) => {
                self.out.push(b'G');
                self.out.extend(f.to_be_bytes());
            }
            Value::Str(s) => self.text(s)?,
            Value::Bytes(b) => {
                // Protocol 2 has no bytes: they are text that is encoded again.
                self.global("_codecs", "encode");
                let text: String = b.iter().map(|&b| char::from(b)).collect();
                self.text(&text.into())?;
                self.text(&"latin1".into())?;
                self.out.extend([0x86, b'R']);
            }
            Value::List(v) => {
                self.out.push(b']');
                self.fill(v, b'e', depth)?;
            }
            Value::Tuple(v) => self.tuple(v, depth)?,
            Value::Set(v) => {
                self.global("__builtin__", "set");
                self.out.push(b']');
                self.fill(v, b'e', depth)?;
                self.out.extend([0x85, b'R']);
            }
            Value::Dict(d) => self.dict(d, depth)?,
            Value::Tensor(t) => self.tensor(t)?,
            Value::DType(d) => self.global("torch", d.torch_name()),
        }
        Ok(())
    }

    /// The elements of a container that lies on the stack.
    fn fill(&mut self, v: &[Value], op: u8, depth: usize) -> Result<()> {
        if v.is_empty() {
            return Ok(());
        }
        self.out.push(b'(');
        for x in v {
            self.value(x, depth + 1)?;
        }
        self.out.push(op);
        Ok(())
    }

    fn tuple(&mut self, v: &[Value], depth: usize) -> Result<()> {
        if v.is_empty() {
            self.out.push(b')');
            return Ok(());
        }
        if v.len() > 3 {
            self.out.push(b'(');
        }
        for x in v {
            self.value(x, depth + 1)?;
        }
        self.out.push(match v.len() {
            1 => 0x85,
            2 => 0x86,
            3 => 0x87,
            _ => b't',
        });
        Ok(())
    }

    fn dict(&mut self, d: &Dict, depth: usize) -> Result<()> {
        if d.ordered {
            self.global("collections", "OrderedDict");
            self.out.extend([b')', b'R']);
        } else {
            self.out.push(b'}');
        }
        if !d.items.is_empty() {
            self.out.push(b'(');
            for (k, v) in &d.items {
                self.value(k, depth + 1)?;
                self.value(v, depth + 1)?;
            }
            self.out.push(b'u');
        }
        if !d.attrs.is_empty() {
            if !d.ordered {
                return err("a plain dict can't have attributes");
            }
            self.out.extend([b'}', b'(']);
            for (k, v) in &d.attrs {
                self.text(k)?;
                self.value(v, depth + 1)?;
            }
            self.out.extend([b'u', b'b']);
        }
        Ok(())
    }

    fn tensor(&mut self, t: &TensorRef) -> Result<()> {
        let sizes = |v: &[usize]| v.iter().map(|&n| Value::Int(n as i64)).collect::<Vec<_>>();
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.out.extend([b'(', b'(']);
        self.text(&"storage".into())?;
        self.global("torch", storage_name(t.storage().dtype));
        self.text(&t.storage().key)?;
        self.text(&"cpu".into())?;
        self.int(t.storage().numel as i64);
        self.out.extend([b't', b'Q']);
        self.int(t.offset() as i64);
        self.tuple(&sizes(t.shape()), 0)?;
        self.tuple(&sizes(t.stride()), 0)?;
        self.out.push(0x89);
        self.global("collections", "OrderedDict");
        self.out.extend([b')', b'R', b't', b'R']);
        Ok(())
    }

    fn int(&mut self, i: i64) {
        if let Ok(b) = u8::try_from(i) {
            self.out.extend([b'K', b]);
        } else if let Ok(h) = u16::try_from(i) {
            self.out.push(b'M');
            self.out.extend(h.to_le_bytes());
        } else if let Ok(w) = i32::try_from(i) {
            self.out.push(b'J');
            self.out.extend(w.to_le_bytes());
        } else {
            self.out.extend([0x8a, 8]);
            self.out.extend(i.to_le_bytes());
        }
    }

    fn text(&mut self, s: &Arc<str>) -> Result<()> {
        let key = Key::Text(s.clone());
        if self.recall(&key) {
            return Ok(());
        }
        let Ok(len) = u32::try_from(s.len()) else {
            return unsupported("a text is longer than 4 GiB");
        };
        self.out.push(b'X');
        self.out.extend(len.to_le_bytes());
        self.out.extend(s.as_bytes());
        self.remember(key);
        Ok(())
    }

    fn global(&mut self, module: &'static str, name: &'static str) {
        let key = Key::Global(module, name);
        if self.recall(&key) {
            return;
        }
        self.out.push(b'c');
        self.out.extend(format!("{module}\n{name}\n").as_bytes());
        self.remember(key);
    }

    fn recall(&mut self, key: &Key) -> bool {
        let Some(&n) = self.memo.get(key) else {
            return false;
        };
        match u8::try_from(n) {
            Ok(b) => self.out.extend([b'h', b]),
            Err(_) => {
                self.out.push(b'j');
                self.out.extend(n.to_le_bytes());
            }
        }
        true
    }

    fn remember(&mut self, key: Key) {
        let n = self.memo.len() as u32;
        match u8::try_from(n) {
            Ok(b) => self.out.extend([b'q', b]),
            Err(_) => {
                self.out.push(b'r');
                self.out.extend(n.to_le_bytes());
            }
        }
        self.memo.insert(key, n);
    }
}

/// What PyTorch calls the storage of an element type.
fn storage_name(d: DType) -> &'static str {
    match d {
        DType::F64 => "DoubleStorage",
        DType::F32 => "FloatStorage",
        DType::F16 => "HalfStorage",
        DType::BF16 => "BFloat16Storage",
        DType::I64 => "LongStorage",
        DType::I32 => "IntStorage",
        DType::I16 => "ShortStorage",
        DType::I8 => "CharStorage",
        DType::U8 => "ByteStorage",
        DType::Bool => "BoolStorage",
    }
}
