//! PyTorch's `.pth` files: a zip archive with a pickle (`NAME/data.pkl`) and one uncompressed member for
//! every tensor's storage (`NAME/data/KEY`).

mod read;
mod write;

#[cfg(test)]
mod tests;

pub use read::PthFile;
pub(crate) use read::tensor_entries;
pub use write::PthBuilder;

use super::pickle::{Dict, Value};
use super::state_dict::StateDict;

/// The `_metadata` of a state dict: a version for every module path.
pub(super) fn module_versions(dict: &Dict) -> Option<Vec<(String, i64)>> {
    let Some(Value::Dict(modules)) = dict.attr("_metadata") else {
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

/// The `_metadata` that belongs to a state dict: what its file stated or, failing that, version 1 for every module
/// that the names show.
pub(super) fn metadata_value(dict: &StateDict) -> Value {
    let derived;
    let versions = match &dict.module_versions {
        Some(v) => v,
        None => {
            derived = derive_versions(dict);
            &derived
        }
    };
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

fn derive_versions(dict: &StateDict) -> Vec<(String, i64)> {
    let mut seen = std::collections::HashSet::new();
    let mut versions = vec![(String::new(), 1)];
    for name in dict.names() {
        for (dot, _) in name.match_indices('.') {
            let path = name.get(..dot).unwrap_or_default();
            if seen.insert(path) {
                versions.push((path.to_owned(), 1));
            }
        }
    }
    versions
}
