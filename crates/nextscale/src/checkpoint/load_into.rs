//! Matching a file's tensors with those that a model expects.

use std::fmt::Write as _;

use super::host::HostTensor;
use super::param_groups::is_buffer;
use super::state_dict::StateDict;
use crate::{Error, Result};

/// The tokenizer's record of how often codes were used. A file made with another number of scales has other rows.
const HIT_COUNTS: &str = "quantize.ema_vocab_hit_SV";

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
        let optional = is_buffer(name) || name == HIT_COUNTS;
        out.push(match found.get(name) {
            Some(t) if t.shape == *shape => Some(t),
            Some(t) if name == HIT_COUNTS && t.shape.get(1..) == shape.get(1..) => None,
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
        .filter(|(n, _)| !wanted.contains(n) && !is_buffer(n) && *n != HIT_COUNTS)
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
/// As [`match_tensors`], or what `put` returns.
pub fn load_into(
    expected: &[(String, Vec<usize>)],
    found: &StateDict,
    source: &str,
    mut put: impl FnMut(usize, Vec<f32>) -> Result<()>,
) -> Result<()> {
    for (i, tensor) in match_tensors(expected, found, source)?
        .into_iter()
        .enumerate()
    {
        if let Some(t) = tensor {
            put(i, t.to_f32_vec())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (HIT_COUNTS, &[10, 4]),
            ("blocks.0.attn.zero_k_bias", &[2]),
        ]);
        let mut found = dict(&[
            ("a", &[1, 3]),
            ("b", &[2]),
            ("lvl_1L", &[1, 5]),
            (HIT_COUNTS, &[4, 4]),
        ]);
        let got = match_tensors(&want, &found, "f").unwrap();
        assert_eq!(got, [found.get("b"), found.get("a"), None, None]);
        found.insert(HIT_COUNTS, HostTensor::zeros_f32(&[10, 4]).unwrap());
        assert!(match_tensors(&want, &found, "f").unwrap()[2].is_some());
        found.insert(HIT_COUNTS, HostTensor::zeros_f32(&[10, 5]).unwrap());
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
