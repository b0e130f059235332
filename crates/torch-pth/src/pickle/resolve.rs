//! From the machine's flat nodes to a tree, within limits.

use std::collections::HashSet;
use std::sync::Arc;

use super::budget::Budget;
use super::machine::{Id, Node};
use super::{Dict, MAX_DEPTH, Result, Value, err, short};

/// The tree under `root`. What the pickle shares is copied, except text, bytes and tensors; copies are counted, and a
/// container inside itself is refused.
pub(super) fn tree(nodes: &[Node], root: Id, budget: &mut Budget) -> Result<Value> {
    let mut resolver = Resolver {
        nodes,
        budget,
        open: vec![],
        way: 0,
    };
    resolver.value(root)
}

/// What looking for a key that stands twice takes for a key.
const KEY: usize = 48;

/// The longest name of a tensor, with those of the dicts around it. Whoever looks for tensors gives each of them its whole name, so
/// that a long one around many would be copied for each.
const MAX_NAME: usize = 4096;

/// How many copies of a tensor's whole name its readers hold at once.
const NAMES: usize = 6;

struct Resolver<'a> {
    nodes: &'a [Node],
    budget: &'a mut Budget,
    /// The containers that enclose the current one.
    open: Vec<Id>,
    /// Bytes of the keys on the way to the current value, with a dot behind each.
    way: usize,
}

impl Resolver<'_> {
    fn value(&mut self, id: Id) -> Result<Value> {
        let nodes = self.nodes;
        let Some(node) = nodes.get(id as usize) else {
            return err("it is damaged: it refers to nothing");
        };
        Ok(match node {
            Node::None => Value::None,
            Node::Bool(b) => Value::Bool(*b),
            Node::Int(i) => Value::Int(*i),
            Node::Float(f) => Value::Float(*f),
            Node::Str(s) => Value::Str(s.clone()),
            Node::Bytes(b) => Value::Bytes(b.clone()),
            Node::Tensor(t) => {
                self.budget.take(NAMES * self.way)?;
                Value::Tensor(t.clone())
            }
            Node::DType(d) => Value::DType(*d),
            Node::List(v) => Value::List(self.list(id, v)?),
            Node::Tuple(v) => Value::Tuple(self.list(id, v)?),
            Node::Set(v) => Value::Set(self.list(id, v)?),
            Node::Dict(dict) => {
                self.enter(id)?;
                let stated = dict.attrs.as_deref().unwrap_or_default();
                self.budget.take_piece::<(Value, Value)>(dict.items.len())?;
                self.budget.take_piece::<(Arc<str>, Value)>(stated.len())?;
                self.budget
                    .take(KEY * (dict.items.len() + stated.len()) + self.way)?;
                let mut items = Vec::with_capacity(dict.items.len());
                let above = self.way;
                for &(k, v) in &dict.items {
                    let key = self.value(k)?;
                    self.way = above.saturating_add(key_bytes(&key));
                    if self.way > MAX_NAME {
                        return err(format!(
                            "it holds a name of {} bytes; names of at most {MAX_NAME} bytes are read",
                            self.way
                        ));
                    }
                    let value = self.value(v)?;
                    self.way = above;
                    items.push((key, value));
                }
                let mut attrs = Vec::with_capacity(stated.len());
                for (k, v) in stated {
                    attrs.push((k.clone(), self.value(*v)?));
                }
                self.open.pop();
                no_key_twice(&items)?;
                no_attribute_twice(&attrs)?;
                Value::Dict(Dict {
                    items,
                    attrs,
                    ordered: dict.ordered,
                })
            }
            Node::Global(_) | Node::Storage(_) | Node::NumpyDType(_) => {
                return err("it holds a bare type or storage where a value is expected");
            }
        })
    }

    fn list(&mut self, id: Id, v: &[Id]) -> Result<Vec<Value>> {
        self.enter(id)?;
        self.budget.take_piece::<Value>(v.len())?;
        let mut out = Vec::with_capacity(v.len());
        for &i in v {
            out.push(self.value(i)?);
        }
        self.open.pop();
        Ok(out)
    }

    fn enter(&mut self, id: Id) -> Result<()> {
        if self.open.contains(&id) {
            return err("it holds an object that contains itself");
        }
        if self.open.len() >= MAX_DEPTH {
            return err(format!(
                "its objects lie more than {MAX_DEPTH} deep in each other"
            ));
        }
        self.open.push(id);
        Ok(())
    }
}

/// What a key adds to the names of what lies below it.
fn key_bytes(key: &Value) -> usize {
    match key {
        Value::Str(s) => s.len().saturating_add(1),
        Value::Int(i) => i.to_string().len() + 1,
        _ => 0,
    }
}

/// No sound writer stores a key twice; which of the two counts would be a guess.
fn no_key_twice(items: &[(Value, Value)]) -> Result<()> {
    let (mut texts, mut ints) = (HashSet::new(), HashSet::new());
    for (k, _) in items {
        let twice = match k {
            Value::Str(s) => (!texts.insert(&**s)).then(|| short(s)),
            Value::Int(i) => (!ints.insert(*i)).then(|| i.to_string()),
            _ => None,
        };
        if let Some(key) = twice {
            return err(format!("it holds a dict with the key {key} twice"));
        }
    }
    Ok(())
}

fn no_attribute_twice(attrs: &[(Arc<str>, Value)]) -> Result<()> {
    let mut names = HashSet::new();
    match attrs.iter().find(|(name, _)| !names.insert(&**name)) {
        Some((name, _)) => err(format!("it sets the attribute {} twice", short(name))),
        None => Ok(()),
    }
}
