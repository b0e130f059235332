//! What PyTorch keeps beside a state dict (`_metadata`): a version for every module path.

use std::collections::HashSet;

use crate::{Dict, Value};

impl Dict {
    /// What PyTorch keeps beside a state dict (`_metadata`): a version for every module path, in order; `None` where there is no such
    /// thing or it has another form.
    pub fn module_versions(&self) -> Option<Vec<(String, i64)>> {
        let Some(Value::Dict(modules)) = self.attr("_metadata") else {
            return None;
        };
        modules
            .items
            .iter()
            .map(|(path, info)| match (path, info) {
                (Value::Str(path), Value::Dict(info)) => match info.get("version") {
                    Some(Value::Int(v)) => Some((path.to_string(), *v)),
                    _ => None,
                },
                _ => None,
            })
            .collect()
    }
}

/// The module paths that names show, each once.
pub(crate) struct Modules {
    seen: HashSet<String>,
    versions: Vec<(String, i64)>,
}

impl Default for Modules {
    fn default() -> Self {
        Self {
            seen: HashSet::new(),
            versions: vec![(String::new(), 1)],
        }
    }
}

impl Modules {
    pub(crate) fn versions(&self) -> &[(String, i64)] {
        &self.versions
    }

    pub(crate) fn see(&mut self, name: &str) {
        for (dot, _) in name.match_indices('.') {
            let path = name.get(..dot).unwrap_or_default();
            if !self.seen.contains(path) {
                self.seen.insert(path.to_owned());
                self.versions.push((path.to_owned(), 1));
            }
        }
    }
}

/// `_metadata` of a state dict.
pub(crate) fn metadata_value(versions: &[(String, i64)]) -> Value {
    let items = versions.iter().map(|(path, version)| {
        (
            path.as_str(),
            Value::Dict(Dict::from_pairs([("version", Value::Int(*version))])),
        )
    });
    Value::Dict(Dict {
        ordered: true,
        ..Dict::from_pairs(items)
    })
}
