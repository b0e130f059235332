//! Recorded tensors.

use nextscale::format::{HostDType, HostTensor, StateDict};
use nextscale::{Error, Result};
use nextscale_tensor::{Tensor, ops};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

/// Most axes that a tensor here may have.
const MAX_AXES: usize = 6;

/// The tensors of one file.
pub struct Recorded {
    source: String,
    tensors: StateDict,
    /// Names of those that were looked at.
    looked_at: Looked,
}

/// Names that were looked at, shared with the folder that wants to know what was left out.
pub type Looked = Rc<RefCell<BTreeSet<String>>>;

impl Recorded {
    /// Tensors of the file that messages call `source`.
    pub fn new(source: String, tensors: StateDict) -> Self {
        Self {
            source,
            tensors,
            looked_at: Looked::default(),
        }
    }

    /// The same with names that are looked at taken down in `looked_at`.
    pub fn noting(self, looked_at: Looked) -> Self {
        Self { looked_at, ..self }
    }

    /// Takes all as looked at, where one line says why none is compared.
    pub fn pass_over(&self) {
        let all = self.names().map(str::to_owned);
        self.looked_at.borrow_mut().extend(all);
    }

    /// What messages call the file.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Names in the file's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.names()
    }

    /// Whether there is such a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains(name)
    }

    /// The shape of a tensor.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.get(name)?.shape)
    }

    /// An error about a tensor.
    pub fn bad(&self, name: &str, why: impl std::fmt::Display) -> Error {
        Error::input(format!("{}: tensor {name}: {why}", self.source))
    }

    fn get(&self, name: &str) -> Result<&HostTensor> {
        self.looked_at.borrow_mut().insert(name.to_owned());
        self.tensors
            .get(name)
            .ok_or_else(|| Error::input(format!("{}: lacks the tensor {name}", self.source)))
    }

    /// Numbers of any element type in float64.
    ///
    /// # Errors
    /// When there is no such tensor.
    pub fn f64(&self, name: &str) -> Result<Vec<f64>> {
        let t = self.get(name)?;
        Ok(match t.dtype {
            HostDType::F64 => t
                .data
                .as_chunks::<8>()
                .0
                .iter()
                .map(|b| f64::from_le_bytes(*b))
                .collect(),
            HostDType::I64 => t.to_i64_vec()?.iter().map(|&v| v as f64).collect(),
            _ => t.to_f32_vec().into_iter().map(f64::from).collect(),
        })
    }

    /// Numbers of a float tensor in float32.
    ///
    /// # Errors
    /// When there is no such tensor or it holds integers.
    pub fn f32(&self, name: &str) -> Result<Vec<f32>> {
        let t = self.get(name)?;
        if !t.dtype.is_float() {
            return Err(self.bad(name, format!("holds {}, expected floats", t.dtype)));
        }
        Ok(t.to_f32_vec())
    }

    /// The only number of a tensor.
    ///
    /// # Errors
    /// When there is no such tensor or it has another size.
    pub fn scalar(&self, name: &str) -> Result<f64> {
        match self.f64(name)?.as_slice() {
            &[x] => Ok(x),
            other => Err(self.bad(name, format!("has {} elements, expected 1", other.len()))),
        }
    }

    /// A float tensor as it is recorded.
    ///
    /// # Errors
    /// When there is no such tensor, it holds integers or has too many axes.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let shape = self.shape(name)?;
        if shape.len() > MAX_AXES {
            return Err(self.bad(
                name,
                format!("has {} axes, at most {MAX_AXES} fit", shape.len()),
            ));
        }
        Ok(Tensor::from_vec(shape, self.f32(name)?))
    }

    /// A float tensor that is recorded as \[B, C, h, w\], as \[B, h, w, C\].
    ///
    /// # Errors
    /// When there is no such tensor or it has another number of axes.
    pub fn channels_last(&self, name: &str) -> Result<Tensor> {
        let &[b, c, h, w] = self.shape(name)? else {
            return Err(self.bad(
                name,
                format!(
                    "has the shape {:?}, expected [B, C, h, w]",
                    self.shape(name)?
                ),
            ));
        };
        Ok(Tensor::from_vec(
            [b, h, w, c],
            to_channels_last(&self.f32(name)?, (b, c, h * w)),
        ))
    }

    /// Bytes of a U8 tensor.
    ///
    /// # Errors
    /// When there is no such tensor or it holds something else.
    pub fn bytes(&self, name: &str) -> Result<&[u8]> {
        let t = self.get(name)?;
        match t.dtype {
            HostDType::U8 => Ok(&t.data),
            other => Err(self.bad(name, format!("holds {other}, expected U8"))),
        }
    }

    /// Integers in 0..`below`.
    ///
    /// # Errors
    /// When there is no such tensor, it holds floats, or one is out of range.
    pub fn ints(&self, name: &str, below: usize) -> Result<Vec<i32>> {
        let values = self
            .get(name)?
            .to_i64_vec()
            .map_err(|_| self.bad(name, "expected integers"))?;
        values
            .into_iter()
            .map(|v| match i32::try_from(v) {
                Ok(i) if v >= 0 && (v as usize) < below => Ok(i),
                _ => Err(self.bad(
                    name,
                    format!("holds {v}, expected 0 to {}", below.saturating_sub(1)),
                )),
            })
            .collect()
    }

    /// Images in \[−1, 1\], \[B, H, W, 3\], from a U8 tensor \[B, 3, H, W\] (extents before these are taken as more samples).
    ///
    /// # Errors
    /// When there is no such tensor or it is something else.
    pub fn images(&self, name: &str) -> Result<Tensor> {
        let shape = self.shape(name)?;
        let &[.., 3, h, w] = shape else {
            return Err(self.bad(
                name,
                format!("has the shape {shape:?}, expected [B, 3, H, W]"),
            ));
        };
        let b: usize = shape[..shape.len() - 3].iter().product();
        let pixels = to_channels_last(self.bytes(name)?, (b, 3, h * w));
        Ok(ops::from_pixels([b, h, w, 3], &pixels)?)
    }
}

/// \[B, C, n\] to \[B, n, C\].
fn to_channels_last<T: Copy + Default>(values: &[T], (b, c, n): (usize, usize, usize)) -> Vec<T> {
    let mut out = vec![T::default(); values.len()];
    for s in 0..b {
        for i in 0..c {
            for p in 0..n {
                out[(s * n + p) * c + i] = values[(s * c + i) * n + p];
            }
        }
    }
    out
}

/// Token maps one after another, \[B, Σ lengths\], as one \[B, length\] tensor a scale.
pub fn split_tokens(ints: &[i32], lengths: &[usize]) -> Vec<Tensor> {
    let total: usize = lengths.iter().sum();
    let b = ints.len() / total.max(1);
    let mut start = 0;
    lengths
        .iter()
        .map(|&len| {
            let rows = ints.chunks_exact(total.max(1));
            let map = rows
                .flat_map(|r| r[start..start + len].iter().copied())
                .collect();
            start += len;
            Tensor::from_i32([b, len], map)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Recorded {
        let mut d = StateDict::new();
        d.insert(
            "x",
            HostTensor::from_f32(&[1, 2, 1, 2], &[1.0, 2.0, 3.0, 4.0]).unwrap(),
        );
        d.insert(
            "i",
            HostTensor::from_i64(&[2, 3], &[0, 1, 2, 3, 4, 5]).unwrap(),
        );
        d.insert(
            "u",
            HostTensor::new(HostDType::U8, vec![1, 3, 1, 1], vec![0, 255, 51]).unwrap(),
        );
        d.insert(
            "d",
            HostTensor::new(HostDType::F64, vec![1], 0.1f64.to_le_bytes().to_vec()).unwrap(),
        );
        Recorded::new("file".into(), d)
    }

    #[test]
    fn layouts_and_types() {
        let r = sample();
        let x = r.channels_last("x").unwrap();
        assert_eq!(
            (x.dims(), x.f32().unwrap()),
            (&[1, 1, 2, 2][..], &[1.0, 3.0, 2.0, 4.0][..])
        );
        let maps = split_tokens(&r.ints("i", 6).unwrap(), &[1, 2]);
        assert_eq!(maps[1].i32().unwrap(), [1, 2, 4, 5]);
        assert_eq!(
            r.images("u").unwrap().f32().unwrap(),
            [-1.0, 1.0, 51.0 / 255.0 * 2.0 - 1.0]
        );
        assert_eq!(r.scalar("d").unwrap(), 0.1);
        assert_eq!(r.f64("i").unwrap()[5], 5.0);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let r = sample();
        for e in [
            r.tensor("none").unwrap_err(),
            r.tensor("i").unwrap_err(),
            r.channels_last("d").unwrap_err(),
            r.ints("i", 5).unwrap_err(),
            r.ints("x", 5).unwrap_err(),
            r.images("i").unwrap_err(),
            r.bytes("x").unwrap_err(),
            r.scalar("x").unwrap_err(),
        ] {
            assert!(
                e.exit_code() == 2 && e.to_string().starts_with("file: "),
                "{e}"
            );
        }
    }
}
