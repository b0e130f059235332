//! Names, types and shapes of a file's tensors, without their data.

use std::collections::HashMap;

use super::host::{HostDType, HostTensor, checked_numel};
use super::safetensors::SafetensorsFile;
use super::state_dict::StateDict;
use crate::Result;
use torch_pth::TensorRef;

/// One tensor's description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorOutline {
    /// Its name in the state dict.
    pub name: String,
    /// Its element type.
    pub dtype: HostDType,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl TensorOutline {
    /// The number of elements.
    pub fn numel(&self) -> u64 {
        checked_numel(&self.shape).map_or(u64::MAX, |n| n as u64)
    }
}

/// The description of a state dict.
#[derive(Debug, Clone, Default)]
pub struct Outline {
    tensors: Vec<TensorOutline>,
    index: HashMap<String, usize>,
    /// How many tokens each level has, from the buffer `lvl_1L`, where there is one.
    pub level_sizes: Option<Vec<usize>>,
}

impl Outline {
    /// The tensors in order.
    pub fn tensors(&self) -> &[TensorOutline] {
        &self.tensors
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.index
            .get(name)
            .and_then(|&i| self.tensors.get(i))
            .map(|t| t.shape.as_slice())
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// The sizes of a tensor that must have `N` axes; the error completes a sentence that begins with the file's name.
    pub(crate) fn dims<const N: usize>(&self, name: &str) -> Result<[usize; N], String> {
        let shape = self
            .shape(name)
            .ok_or_else(|| format!("lacks the tensor {name:?}"))?;
        match shape.try_into() {
            Ok(dims) if !shape.contains(&0) => Ok(dims),
            Ok(_) => Err(format!(
                "its tensor {name:?} has the shape {shape:?}: a size is 0"
            )),
            Err(_) => Err(format!(
                "its tensor {name:?} has the shape {shape:?}, {N} axes are expected"
            )),
        }
    }

    /// How many of 0, 1, 2, … in a row make a name that is there.
    pub(crate) fn count(&self, name: impl Fn(usize) -> String) -> usize {
        (0..).take_while(|&i| self.contains(&name(i))).count()
    }

    /// A product or quotient that the shape of a tensor must give.
    pub(crate) fn check(&self, holds: bool, name: &str, expected: &str) -> Result<(), String> {
        if holds {
            return Ok(());
        }
        let shape = self.shape(name).unwrap_or_default();
        Err(format!(
            "its tensor {name:?} has the shape {shape:?}, but {expected}"
        ))
    }

    pub(crate) fn push(&mut self, name: &str, dtype: HostDType, shape: &[usize]) {
        self.index.insert(name.to_owned(), self.tensors.len());
        self.tensors.push(TensorOutline {
            name: name.to_owned(),
            dtype,
            shape: shape.to_vec(),
        });
    }

    pub(crate) fn set_levels(&mut self, lvl_1l: &HostTensor) {
        self.level_sizes = level_sizes(lvl_1l);
    }

    /// Of the tensors of an open safetensors file whose names begin with `prefix`, which is taken off.
    ///
    /// # Errors
    /// When an element type is not handled or reading fails.
    pub fn of_safetensors(file: &mut SafetensorsFile, prefix: &str) -> Result<Self> {
        let mut out = Self::default();
        for name in file.names() {
            if let (Some(short), Some((dtype, shape))) =
                (name.strip_prefix(prefix), file.info(name)?)
            {
                out.push(short, dtype, shape);
            }
        }
        if out.contains("lvl_1L") {
            out.set_levels(&file.read(&format!("{prefix}lvl_1L"))?);
        }
        Ok(out)
    }

    /// Of some tensors of an open safetensors file: each one's name there, and in the outline.
    ///
    /// # Errors
    /// As [`Self::of_safetensors`].
    pub(crate) fn of_place(file: &mut SafetensorsFile, names: &[(String, String)]) -> Result<Self> {
        let mut out = Self::default();
        for (from, to) in names {
            if let Some((dtype, shape)) = file.info(from)? {
                out.push(to, dtype, shape);
            }
            if to == "lvl_1L" {
                out.set_levels(&file.read(from)?);
            }
        }
        Ok(out)
    }

    /// Of a pickle's tensors.
    pub(crate) fn of_views<'a>(views: impl IntoIterator<Item = (&'a str, &'a TensorRef)>) -> Self {
        let mut out = Self::default();
        for (name, view) in views {
            out.push(name, view.dtype().into(), view.shape());
        }
        out
    }
}

impl From<&StateDict> for Outline {
    fn from(dict: &StateDict) -> Self {
        let mut out = Self::default();
        for (name, t) in dict.iter() {
            out.push(name, t.dtype, &t.shape);
        }
        if let Some(t) = dict.get("lvl_1L") {
            out.set_levels(t);
        }
        out
    }
}

/// The number of tokens of each level, where the levels run 0, 0, …, 1, … without going back.
fn level_sizes(lvl_1l: &HostTensor) -> Option<Vec<usize>> {
    let mut sizes: Vec<usize> = Vec::new();
    for level in lvl_1l.to_i64_vec().ok()? {
        let level = usize::try_from(level).ok()?;
        if level == sizes.len() {
            sizes.push(0);
        }
        if level + 1 != sizes.len() {
            return None;
        }
        *sizes.last_mut()? += 1;
    }
    Some(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_counted() {
        let of = |v: &[i64]| level_sizes(&HostTensor::from_i64(&[1, v.len()], v).unwrap());
        assert_eq!(of(&[0, 1, 1, 1, 1, 2]), Some(vec![1, 4, 1]));
        assert_eq!(of(&[]), Some(vec![]));
        assert_eq!(of(&[1]), None);
        assert_eq!(of(&[0, 1, 0]), None);
        assert_eq!(of(&[0, 2]), None);
        assert_eq!(of(&[-1]), None);
        assert_eq!(
            level_sizes(&HostTensor::from_f32(&[1], &[0.0]).unwrap()),
            None
        );
    }
}
