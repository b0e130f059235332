//! An ordered map from tensor names to tensors: a model's weights as one value.

use std::collections::HashMap;

use super::host::HostTensor;

/// Tensors by name, in the order in which they were inserted. The order matters: the reference numbers its
/// optimizer states by it.
///
/// `module_versions` carries what PyTorch keeps beside a state dict (`_metadata`): a version number for every
/// module path. It is `None` for a dict that did not come from a `.pth` file; writing one then derives it.
#[derive(Debug, Clone, Default)]
pub struct StateDict {
    entries: Vec<(String, HostTensor)>,
    index: HashMap<String, usize>,
    /// Version number of every module path, in order, as the `.pth` file stated them.
    pub module_versions: Option<Vec<(String, i64)>>,
}

impl StateDict {
    /// An empty dict.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&HostTensor> {
        self.index
            .get(name)
            .and_then(|&i| self.entries.get(i))
            .map(|(_, t)| t)
    }

    /// The tensor of that name, to be changed in place.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut HostTensor> {
        let i = *self.index.get(name)?;
        self.entries.get_mut(i).map(|(_, t)| t)
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// Adds a tensor at the end. A name that is there already keeps its place; its old tensor is returned.
    pub fn insert(&mut self, name: impl Into<String>, tensor: HostTensor) -> Option<HostTensor> {
        let name = name.into();
        if let Some(slot) = self.get_mut(&name) {
            return Some(std::mem::replace(slot, tensor));
        }
        self.index.insert(name.clone(), self.entries.len());
        self.entries.push((name, tensor));
        None
    }

    /// Names and tensors in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &HostTensor)> {
        self.entries.iter().map(|(n, t)| (n.as_str(), t))
    }

    /// Names in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries.iter().map(|(n, _)| n.as_str())
    }

    /// Sorts the tensors by a key of their names; equal keys keep their order.
    pub fn sort_by_key<K: Ord>(&mut self, mut key: impl FnMut(&str) -> K) {
        self.entries.sort_by_cached_key(|(n, _)| key(n));
        self.index = self
            .entries
            .iter()
            .enumerate()
            .map(|(i, (n, _))| (n.clone(), i))
            .collect();
    }

    /// Bytes of all tensor data.
    pub fn num_bytes(&self) -> usize {
        self.entries.iter().map(|(_, t)| t.data.len()).sum()
    }
}

/// Equal when they hold the same tensors, bit for bit, in the same order.
impl PartialEq for StateDict {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl FromIterator<(String, HostTensor)> for StateDict {
    fn from_iter<I: IntoIterator<Item = (String, HostTensor)>>(iter: I) -> Self {
        let mut dict = Self::new();
        dict.extend(iter);
        dict
    }
}

impl Extend<(String, HostTensor)> for StateDict {
    fn extend<I: IntoIterator<Item = (String, HostTensor)>>(&mut self, iter: I) {
        for (name, tensor) in iter {
            self.insert(name, tensor);
        }
    }
}

impl IntoIterator for StateDict {
    type Item = (String, HostTensor);
    type IntoIter = std::vec::IntoIter<(String, HostTensor)>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(v: f32) -> HostTensor {
        HostTensor::from_f32(&[1], &[v]).unwrap()
    }

    #[test]
    fn order_is_insertion_order_and_replacing_keeps_the_place() {
        let mut d = StateDict::new();
        assert!(d.insert("b", t(1.0)).is_none());
        d.insert("a", t(2.0));
        assert_eq!(d.insert("b", t(3.0)).unwrap(), t(1.0));
        assert_eq!(d.names().collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(
            (d.get("b"), d.get("c"), d.len(), d.num_bytes()),
            (Some(&t(3.0)), None, 2, 8)
        );
        d.sort_by_key(str::to_owned);
        assert_eq!(d.names().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((d.get("a"), d.get("b")), (Some(&t(2.0)), Some(&t(3.0))));
    }
}
