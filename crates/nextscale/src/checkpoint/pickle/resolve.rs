//! From the machine's flat nodes to a tree, within limits.

use std::collections::HashSet;
use std::sync::Arc;

use super::machine::{Id, Node};
use super::{Dict, MAX_DEPTH, Result, Value, err, short};

/// The tree under `root`. What the pickle shares is copied, except text and bytes; the number of copies is bounded
/// by the pickle's own length, and a container inside itself is refused.
pub(super) fn tree(nodes: &[Node], root: Id, pickle_len: usize) -> Result<Value> {
    let budget = pickle_len.saturating_mul(4).saturating_add(1000);
    Resolver {
        nodes,
        budget,
        open: vec![],
    }
    .value(root)
}

struct Resolver<'a> {
    nodes: &'a [Node],
    budget: usize,
    /// The containers that enclose the current one.
    open: Vec<Id>,
}

impl Resolver<'_> {
    fn value(&mut self, id: Id) -> Result<Value> {
        if self.budget == 0 {
            return err(
                "it uses the same objects over and over: unfolded, it would be far larger than the file",
            );
        }
        self.budget -= 1;
        let nodes = self.nodes;
        let Some(node) = nodes.get(id) else {
            return err("it is damaged: it refers to nothing");
        };
        Ok(match node {
            Node::None => Value::None,
            Node::Bool(b) => Value::Bool(*b),
            Node::Int(i) => Value::Int(*i),
            Node::Float(f) => Value::Float(*f),
            Node::Str(s) => Value::Str(s.clone()),
            Node::Bytes(b) => Value::Bytes(b.clone()),
            Node::Tensor(t) => Value::Tensor((**t).clone()),
            Node::DType(d) => Value::DType(*d),
            Node::List(v) => Value::List(self.list(id, v)?),
            Node::Tuple(v) => Value::Tuple(self.list(id, v)?),
            Node::Set(v) => Value::Set(self.list(id, v)?),
            Node::Dict {
                items,
                attrs,
                ordered,
            } => {
                self.enter(id)?;
                let items = items
                    .iter()
                    .map(|&(k, v)| Ok((self.value(k)?, self.value(v)?)))
                    .collect::<Result<Vec<_>>>()?;
                let attrs = attrs
                    .iter()
                    .map(|(k, v)| Ok((k.clone(), self.value(*v)?)))
                    .collect::<Result<Vec<(Arc<str>, _)>>>()?;
                self.open.pop();
                no_key_twice(&items)?;
                Value::Dict(Dict {
                    items,
                    attrs,
                    ordered: *ordered,
                })
            }
            Node::Global(_) | Node::Storage(_) | Node::NumpyDType(_) => {
                return err("it holds a bare type or storage where a value is expected");
            }
        })
    }

    fn list(&mut self, id: Id, v: &[Id]) -> Result<Vec<Value>> {
        self.enter(id)?;
        let out = v.iter().map(|&i| self.value(i)).collect();
        self.open.pop();
        out
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
