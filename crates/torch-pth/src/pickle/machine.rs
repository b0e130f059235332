//! The stack machine: runs a pickle's instructions and leaves a flat list of nodes that refer to each other.

use std::collections::HashMap;
use std::sync::Arc;

use super::budget::Budget;
use super::globals::Global;
use super::tensor::{Storage, TensorRef};
use super::{Result, err, unsupported};
use crate::DType;

/// What an instruction is counted for: it puts at most one place on the stack, which may then move to a list, and lists grow ahead.
const STEP: usize = 6 * size_of::<Id>();
/// An entry of the memo, in a table that is half empty.
const MEMO: usize = 48;

/// A node's place in the list.
pub(super) type Id = u32;

/// One object while the machine runs. Containers hold places, not objects: sharing and even cycles are
/// harmless here, and dropping the list never recurses.
#[derive(Debug)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Arc<str>),
    Bytes(Arc<[u8]>),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Set(Vec<Id>),
    Dict(Box<NodeDict>),
    Global(Global),
    Storage(Arc<Storage>),
    Tensor(Arc<TensorRef>),
    DType(DType),
    NumpyDType(Arc<str>),
}

/// A dict while the machine runs.
#[derive(Debug, Default)]
pub(super) struct NodeDict {
    pub(super) items: Vec<(Id, Id)>,
    /// `None` until attributes are set.
    pub(super) attrs: Option<Vec<(Arc<str>, Id)>>,
    pub(super) ordered: bool,
    /// An object of a TorchScript class: its attributes become the entries.
    pub(super) object: bool,
}

/// The machine's state.
pub(super) struct Machine<'a> {
    input: &'a [u8],
    /// Whether objects of TorchScript's classes are taken, as dicts of their attributes.
    scripts: bool,
    pub(super) budget: &'a mut Budget,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Heights of the stack at which a mark was set.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

/// What a pickle has made.
pub(super) struct Run {
    pub(super) nodes: Vec<Node>,
    pub(super) root: Id,
    /// How many bytes the pickle takes.
    pub(super) len: usize,
}

/// Runs a pickle to its end. With `scripts`, objects of TorchScript's classes are taken too.
pub(super) fn run(bytes: &[u8], budget: &mut Budget, scripts: bool) -> Result<Run> {
    let mut m = Machine {
        input: bytes,
        scripts,
        budget,
        nodes: vec![],
        stack: vec![],
        marks: vec![],
        memo: HashMap::new(),
    };
    if m.input.first() != Some(&0x80) {
        return err("it is not a pickle of protocol 2 or later");
    }
    loop {
        m.budget.take(STEP)?;
        let [op] = m.take()?;
        if op == b'.' {
            let root = m.pop()?;
            let (nodes, len) = (m.nodes, bytes.len() - m.input.len());
            return Ok(Run { nodes, root, len });
        }
        m.step(op)?;
    }
}

impl Machine<'_> {
    /// One instruction.
    fn step(&mut self, op: u8) -> Result<()> {
        match op {
            // Frames and protocol numbers only matter to who reads ahead.
            0x80 => {
                let [version] = self.take()?;
                if !(2..=5).contains(&version) {
                    return unsupported(format!(
                        "it is a pickle of protocol {version}; 2 to 5 are supported"
                    ));
                }
            }
            0x95 => {
                self.take::<8>()?;
            }
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.pop_mark()?;
            }
            b'2' => {
                let top = self.peek()?;
                self.stack.push(top);
            }
            b'N' => self.push(Node::None)?,
            0x88 => self.push(Node::Bool(true))?,
            0x89 => self.push(Node::Bool(false))?,
            b'J' => {
                let v = i32::from_le_bytes(self.take()?);
                self.push(Node::Int(v.into()))?;
            }
            b'K' => {
                let [v] = self.take()?;
                self.push(Node::Int(v.into()))?;
            }
            b'M' => {
                let v = u16::from_le_bytes(self.take()?);
                self.push(Node::Int(v.into()))?;
            }
            0x8a => {
                let [n] = self.take()?;
                self.long(n.into())?;
            }
            0x8b => {
                let n = self.len4()?;
                self.long(n)?;
            }
            b'G' => {
                let v = f64::from_be_bytes(self.take()?);
                self.push(Node::Float(v))?;
            }
            b'X' => {
                let n = self.len4()?;
                self.text(n)?;
            }
            0x8c => {
                let [n] = self.take()?;
                self.text(n.into())?;
            }
            0x8d => {
                let n = self.len8()?;
                self.text(n)?;
            }
            // Python 2 text: only ASCII is unambiguous.
            b'U' => {
                let [n] = self.take()?;
                self.text(n.into())?;
            }
            b'T' => {
                let n = self.len4()?;
                self.text(n)?;
            }
            b'C' => {
                let [n] = self.take()?;
                self.bytes(n.into())?;
            }
            b'B' => {
                let n = self.len4()?;
                self.bytes(n)?;
            }
            0x8e | 0x96 => {
                let n = self.len8()?;
                self.bytes(n)?;
            }
            b']' => self.push(Node::List(vec![]))?,
            b')' => self.push(Node::Tuple(vec![]))?,
            b'}' => self.push_dict()?,
            0x8f => self.push(Node::Set(vec![]))?,
            b'l' => {
                let v = self.pop_mark()?;
                self.push(Node::List(v))?;
            }
            b't' => {
                let v = self.pop_mark()?;
                self.push(Node::Tuple(v))?;
            }
            0x91 => {
                let v = self.pop_mark()?;
                self.push(Node::Set(v))?;
            }
            0x85..=0x87 => {
                let n = usize::from(op - 0x84);
                let from = self
                    .stack
                    .len()
                    .checked_sub(n)
                    .filter(|&f| f >= self.floor());
                let Some(from) = from else {
                    return err("it is damaged: a tuple lacks elements");
                };
                let v = self.stack.split_off(from);
                self.push(Node::Tuple(v))?;
            }
            b'd' => {
                let v = self.pop_mark()?;
                self.push_dict()?;
                self.set_items(v)?;
            }
            b'a' => {
                let v = self.pop()?;
                self.append(vec![v])?;
            }
            b'e' | 0x90 => {
                let v = self.pop_mark()?;
                self.append(v)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(vec![key, value])?;
            }
            b'u' => {
                let v = self.pop_mark()?;
                self.set_items(v)?;
            }
            b'q' => {
                let [n] = self.take()?;
                self.remember(n.into())?;
            }
            b'r' => {
                let n = u32::from_le_bytes(self.take()?);
                self.remember(n.into())?;
            }
            0x94 => self.remember(self.memo.len() as u64)?,
            b'h' => {
                let [n] = self.take()?;
                self.recall(n.into())?;
            }
            b'j' => {
                let n = u32::from_le_bytes(self.take()?);
                self.recall(n.into())?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                let node = Global::find(&module, &name, self.scripts)?;
                self.push(node)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Node::Str(module), Node::Str(name)) = (self.node(module)?, self.node(name)?)
                else {
                    return err("it is damaged: a Python name is not text");
                };
                let node = Global::find(module, name, self.scripts)?;
                self.push(node)?;
            }
            b'R' | 0x81 => {
                let (list, callee) = (self.pop()?, self.pop()?);
                let (Node::Global(global), Node::Tuple(args)) =
                    (self.node(callee)?, self.node(list)?)
                else {
                    return err("it calls something that is not a function of the allowed list");
                };
                let (global, n) = (*global, args.len());
                self.budget.take_piece::<Id>(n)?;
                let args = self.sequence(list)?.to_vec();
                let result = self.call(global, &args)?;
                self.stack.push(result);
            }
            b'b' => {
                let (state, object) = (self.pop()?, self.peek()?);
                self.build(object, state)?;
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.persistent(id)?;
                self.stack.push(storage);
            }
            _ => {
                return err(format!(
                    "it is damaged or of an unsupported kind: instruction 0x{op:02x}"
                ));
            }
        }
        Ok(())
    }

    /// Adds a node that nothing refers to yet. What the node holds is counted by who made it.
    pub(super) fn add(&mut self, node: Node) -> Result<Id> {
        self.budget.take(size_of::<Node>())?;
        let id = Id::try_from(self.nodes.len()).or_else(|_| err("it has too many objects"))?;
        self.nodes.push(node);
        Ok(id)
    }

    fn push_dict(&mut self) -> Result<()> {
        self.budget.take_piece::<NodeDict>(1)?;
        self.push(Node::Dict(Box::default()))
    }

    fn push(&mut self, node: Node) -> Result<()> {
        let id = self.add(node)?;
        self.stack.push(id);
        Ok(())
    }

    pub(super) fn node(&self, id: Id) -> Result<&Node> {
        self.nodes
            .get(id as usize)
            .map_or_else(|| err("it is damaged: it refers to nothing"), Ok)
    }

    pub(super) fn node_mut(&mut self, id: Id) -> Result<&mut Node> {
        self.nodes
            .get_mut(id as usize)
            .map_or_else(|| err("it is damaged: it refers to nothing"), Ok)
    }

    /// The elements of a list, tuple or set.
    pub(super) fn sequence(&self, id: Id) -> Result<&[Id]> {
        match self.node(id)? {
            Node::List(v) | Node::Tuple(v) | Node::Set(v) => Ok(v),
            _ => err("a list is expected where there is none"),
        }
    }

    /// The height of the stack that the last mark protects.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Id> {
        if self.stack.len() <= self.floor() {
            return err("it is damaged: the stack is empty");
        }
        self.stack
            .pop()
            .map_or_else(|| err("it is damaged: the stack is empty"), Ok)
    }

    fn peek(&self) -> Result<Id> {
        match self.stack.last() {
            Some(&id) if self.stack.len() > self.floor() => Ok(id),
            _ => err("it is damaged: the stack is empty"),
        }
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>> {
        let Some(mark) = self.marks.pop() else {
            return err("it is damaged: a mark is missing");
        };
        let from = mark.min(self.stack.len());
        self.budget.take_piece::<Id>(self.stack.len() - from)?;
        Ok(self.stack.split_off(from))
    }

    fn append(&mut self, new: Vec<Id>) -> Result<()> {
        let top = self.peek()?;
        // A list grows ahead of what it holds, at first to four elements.
        self.budget.take_piece::<Id>(4)?;
        match self.node_mut(top)? {
            Node::List(v) | Node::Set(v) => v.extend(new),
            _ => return err("it is damaged: elements are added to something that is not a list"),
        }
        Ok(())
    }

    fn set_items(&mut self, new: Vec<Id>) -> Result<()> {
        let top = self.peek()?;
        let (pairs, rest) = new.as_chunks::<2>();
        self.budget.take_piece::<(Id, Id)>(2 * pairs.len())?;
        match self.node_mut(top)? {
            Node::Dict(dict) if rest.is_empty() => {
                dict.items.extend(pairs.iter().map(|&[k, v]| (k, v)))
            }
            _ => return err("it is damaged: entries are added to something that is not a dict"),
        }
        Ok(())
    }

    fn remember(&mut self, key: u64) -> Result<()> {
        let top = self.peek()?;
        self.budget.take(MEMO)?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u64) -> Result<()> {
        match self.memo.get(&key) {
            Some(&id) => self.stack.push(id),
            None => {
                return err(format!(
                    "it is damaged: it refers to entry {key}, which it did not store"
                ));
            }
        }
        Ok(())
    }

    fn take_slice(&mut self, n: usize) -> Result<&[u8]> {
        match self.input.split_at_checked(n) {
            Some((head, tail)) => {
                self.input = tail;
                Ok(head)
            }
            None => err("it ends in the middle"),
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.input.split_first_chunk::<N>() {
            Some((head, tail)) => {
                self.input = tail;
                Ok(*head)
            }
            None => err("it ends in the middle"),
        }
    }

    fn len4(&mut self) -> Result<usize> {
        Ok(u32::from_le_bytes(self.take()?) as usize)
    }

    fn len8(&mut self) -> Result<usize> {
        usize::try_from(u64::from_le_bytes(self.take()?)).or_else(|_| err("it ends in the middle"))
    }

    fn line(&mut self) -> Result<String> {
        let end = self.input.iter().take(256).position(|&b| b == b'\n');
        let Some(end) = end else {
            return err("it is damaged: a Python name does not end");
        };
        let text = String::from_utf8_lossy(self.take_slice(end)?).into_owned();
        self.take::<1>()?;
        Ok(text)
    }

    fn text(&mut self, n: usize) -> Result<()> {
        self.budget.take_piece::<u8>(n.min(self.input.len()))?;
        match std::str::from_utf8(self.take_slice(n)?) {
            Ok(s) => {
                let s = s.into();
                self.push(Node::Str(s))
            }
            Err(_) => err("it is damaged: text is not UTF-8"),
        }
    }

    fn bytes(&mut self, n: usize) -> Result<()> {
        self.budget.take_piece::<u8>(n.min(self.input.len()))?;
        let v = self.take_slice(n)?.into();
        self.push(Node::Bytes(v))
    }

    /// An integer of `n` bytes, little endian, two's complement.
    fn long(&mut self, n: usize) -> Result<()> {
        let digits = self.take_slice(n)?;
        let fill = if digits.last().is_some_and(|&b| b >= 0x80) {
            0xff
        } else {
            0
        };
        let mut word = [fill; 8];
        for (i, &b) in digits.iter().enumerate() {
            match word.get_mut(i) {
                Some(slot) => *slot = b,
                None if b == fill => {}
                None => return unsupported("it holds an integer beyond 64 bits"),
            }
        }
        let v = i64::from_le_bytes(word);
        if (v < 0) != (fill != 0) {
            return unsupported("it holds an integer beyond 64 bits");
        }
        self.push(Node::Int(v))
    }
}
