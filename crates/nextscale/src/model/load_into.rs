//! Matching a file's tensors with those that a model expects.

use std::fmt::Write as _;

use super::var::state_dict::is_buffer;
use super::vqvae::state_dict::HITS;
use crate::format::host::{HostTensor, count_non_finite};
use crate::format::state_dict::StateDict;
use crate::{Error, Result};

/// How many names of a kind a message lists.
const LISTED: usize = 3;

/// Finds the tensor for every expected name, in the order of `expected` (name, shape). `source` names the file in messages.
///
/// Official files carry buffers that can be derived (`lvl_1L`, `attn_bias_for_masking`, `zero_k_bias`): they may be there
/// or missing whatever is expected. `quantize.ema_vocab_hit_SV` may be missing or have another number of rows. For
/// such a tensor the result is `None`: the model keeps its own value.
///
/// # Errors
/// When a tensor is missing, has another shape, or is there without being expected: one line that names it.
pub fn match_tensors<'a>(
    expected: &[(String, Vec<usize>)],
    found: &'a StateDict,
    source: &str,
) -> Result<Vec<Option<&'a HostTensor>>> {
    let mut out = Vec::with_capacity(expected.len());
    let (mut missing, mut shapes) = (Vec::new(), Vec::new());
    for (name, shape) in expected {
        let optional = is_buffer(name) || name == HITS;
        out.push(match found.get(name) {
            Some(t) if t.shape == *shape => Some(t),
            Some(t) if name == HITS && t.shape.get(1..) == shape.get(1..) => None,
            Some(t) => {
                shapes.push(format!(
                    "tensor {name:?} has the shape {:?}, the model needs {shape:?}",
                    t.shape
                ));
                None
            }
            None => {
                if !optional {
                    missing.push(format!("{name:?} {shape:?}"));
                }
                None
            }
        });
    }
    let wanted: std::collections::HashSet<&str> =
        expected.iter().map(|(n, _)| n.as_str()).collect();
    let unexpected: Vec<String> = found
        .iter()
        .filter(|(n, _)| !wanted.contains(n) && !is_buffer(n) && *n != HITS)
        .map(|(n, t)| format!("{n:?} {:?}", t.shape))
        .collect();

    let mut text = String::new();
    let lists = [
        ("", shapes, "; "),
        ("lacks ", missing, ", "),
        ("has, but the model does not, ", unexpected, ", "),
    ];
    for (lead, list, join) in lists {
        if list.is_empty() {
            continue;
        }
        let sep = if text.is_empty() { "" } else { "; " };
        let shown = list
            .iter()
            .take(LISTED)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(join);
        // Writing to a String can't fail.
        let _ = write!(text, "{sep}{lead}{shown}");
        if list.len() > LISTED {
            let _ = write!(text, " and {} more", list.len() - LISTED);
        }
    }
    if text.is_empty() {
        Ok(out)
    } else {
        Err(Error::input(format!("{source}: {text}")))
    }
}

/// Matches like [`match_tensors`] and hands every found tensor to `put` as float32 in row-major order, with its place in
/// `expected`.
///
/// # Errors
/// As [`match_tensors`], when weights are no finite numbers as float32, or what `put` returns.
pub fn load_into(
    expected: &[(String, Vec<usize>)],
    found: &StateDict,
    source: &str,
    mut put: impl FnMut(usize, Vec<f32>) -> Result<()>,
) -> Result<()> {
    let mut lost = NonFinite::default();
    for (i, tensor) in match_tensors(expected, found, source)?
        .into_iter()
        .enumerate()
    {
        if let Some(t) = tensor {
            let values = t.to_f32_vec();
            let name = &expected[i].0;
            if !is_buffer(name) {
                if !t.dtype.is_float() {
                    return Err(Error::input(format!(
                        "{source}: tensor {name:?} is of type {}, and weights are floating-point numbers; save them as such",
                        t.dtype
                    )));
                }
                let bad = values.iter().filter(|v| !v.is_finite()).count();
                lost.add(name, bad as u64, values.len() as u64);
            }
            put(i, values)?;
        }
    }
    if lost.is_empty() {
        return Ok(());
    }
    Err(Error::input(format!(
        "{source}: {lost}; the run that made it has diverged, or the file is damaged: use an earlier checkpoint"
    )))
}

/// Values of tensors that are no finite numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NonFinite {
    /// Name, how many values are no finite numbers, and how many there are.
    pub tensors: Vec<(String, u64, u64)>,
}

impl NonFinite {
    /// Notes a tensor of `all` values, `bad` of which are no numbers.
    pub fn add(&mut self, name: &str, bad: u64, all: u64) {
        if bad > 0 {
            self.tensors.push((name.to_owned(), bad, all));
        }
    }

    /// Counts in a tensor. Masks hold −∞ by right, so that only NaN counts there.
    pub fn look_at(&mut self, name: &str, tensor: &HostTensor) {
        let bad = count_non_finite(tensor.dtype, &tensor.data, !may_be_infinite(name));
        self.add(name, bad, tensor.numel() as u64);
    }

    /// Whether all were finite.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }
}

/// Whether a tensor, whatever its name begins with, holds infinite values by right.
pub(crate) fn may_be_infinite(name: &str) -> bool {
    name.ends_with("attn_bias_for_masking")
}

/// In words: what tensor, how many of its values, and how many more tensors.
impl std::fmt::Display for NonFinite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (name, bad, all)) in self.tensors.iter().take(LISTED).enumerate() {
            let lead = if i > 0 { ", " } else { "" };
            write!(f, "{lead}{bad} of the {all} values of tensor {name:?}")?;
        }
        if let more @ 1.. = self.tensors.len().saturating_sub(LISTED) {
            write!(f, " and values of {more} more")?;
        }
        f.write_str(" are no finite numbers (NaN or infinite)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_that_are_whole_numbers_are_refused() {
        let mut dict = StateDict::new();
        dict.insert("w", HostTensor::from_i64(&[2], &[1, 2]).unwrap());
        let expected = [("w".to_owned(), vec![2])];
        let e = load_into(&expected, &dict, "f", |_, _| Ok(())).unwrap_err();
        assert!(
            e.to_string().starts_with("f: tensor \"w\" is of type I64"),
            "{e}"
        );
    }

    fn dict(entries: &[(&str, &[usize])]) -> StateDict {
        entries
            .iter()
            .map(|(n, s)| ((*n).to_owned(), HostTensor::zeros_f32(s).unwrap()))
            .collect()
    }

    fn expected(entries: &[(&str, &[usize])]) -> Vec<(String, Vec<usize>)> {
        entries
            .iter()
            .map(|(n, s)| ((*n).to_owned(), s.to_vec()))
            .collect()
    }

    #[test]
    fn buffers_and_other_hit_counts_are_tolerated() {
        let want = expected(&[
            ("b", &[2]),
            ("a", &[1, 3]),
            (HITS, &[10, 4]),
            ("blocks.0.attn.zero_k_bias", &[2]),
        ]);
        let mut found = dict(&[
            ("a", &[1, 3]),
            ("b", &[2]),
            ("lvl_1L", &[1, 5]),
            (HITS, &[4, 4]),
        ]);
        let got = match_tensors(&want, &found, "f").unwrap();
        assert_eq!(got, [found.get("b"), found.get("a"), None, None]);
        found.insert(HITS, HostTensor::zeros_f32(&[10, 4]).unwrap());
        assert!(match_tensors(&want, &found, "f").unwrap()[2].is_some());
        found.insert(HITS, HostTensor::zeros_f32(&[10, 5]).unwrap());
        assert!(
            match_tensors(&want, &found, "f").is_err(),
            "another number of codes is another model"
        );
    }

    #[test]
    fn values_arrive_in_the_expected_order() {
        let found: StateDict = [("a", 1.0), ("b", 2.0)]
            .map(|(n, v)| (n.to_owned(), HostTensor::from_f32(&[1], &[v]).unwrap()))
            .into_iter()
            .collect();
        let mut got = vec![];
        load_into(
            &expected(&[("b", &[1]), ("a", &[1])]),
            &found,
            "f",
            |i, v| {
                got.push((i, v));
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(got, [(0, vec![2.0]), (1, vec![1.0])]);
    }

    #[test]
    fn weights_that_are_no_numbers_are_refused() {
        let want = expected(&[("a", &[2]), ("b", &[2]), ("attn_bias_for_masking", &[2])]);
        let with = |a: [f32; 2], b: [f32; 2]| -> String {
            let found: StateDict = [
                ("a", a),
                ("b", b),
                ("attn_bias_for_masking", [0.0, f32::NEG_INFINITY]),
            ]
            .map(|(n, v)| (n.to_owned(), HostTensor::from_f32(&[2], &v).unwrap()))
            .into_iter()
            .collect();
            match load_into(&want, &found, "f", |_, _| Ok(())) {
                Ok(()) => String::new(),
                Err(e) => e.to_string(),
            }
        };
        assert_eq!(with([0.0, f32::MAX], [-1.0, 1e-40]), "");
        let text = with([0.0, f32::NAN], [f32::INFINITY, f32::NEG_INFINITY]);
        assert_eq!(
            text,
            "f: 1 of the 2 values of tensor \"a\", 2 of the 2 values of tensor \"b\" are no finite numbers (NaN or infinite); \
             the run that made it has diverged, or the file is damaged: use an earlier checkpoint"
        );
        // A double beyond float32 would be infinite in the model.
        let double = HostTensor::new(
            crate::format::HostDType::F64,
            vec![1],
            1e300f64.to_le_bytes().to_vec(),
        );
        let found: StateDict = [("a".to_owned(), double.unwrap())].into_iter().collect();
        assert!(load_into(&expected(&[("a", &[1])]), &found, "f", |_, _| Ok(())).is_err());
    }

    #[test]
    fn the_error_names_tensors_and_shapes() {
        let want = expected(&[
            ("a", &[2, 2]),
            ("m0", &[1]),
            ("m1", &[1]),
            ("m2", &[1]),
            ("m3", &[1]),
        ]);
        let found = dict(&[("a", &[2, 3]), ("odd", &[7])]);
        let err = match_tensors(&want, &found, "x.pth").unwrap_err();
        assert_eq!(err.exit_code(), 2);
        assert_eq!(
            err.to_string(),
            "x.pth: tensor \"a\" has the shape [2, 3], the model needs [2, 2]; lacks \"m0\" [1], \"m1\" [1], \"m2\" [1] \
             and 1 more; has, but the model does not, \"odd\" [7]"
        );
    }
}
