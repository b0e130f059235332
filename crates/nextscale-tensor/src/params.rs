//! Flat parameters: every weight of a model in one buffer, a parameter being a named view of it.
//!
//! The optimizer, the gradient norm, clipping, checkpoints and, later, all-reduce and sharding are then each
//! one pass over a range.

use crate::cpu::pool::PoolVec;
use crate::tape::Var;
use crate::{Error, Result, Shape, Tensor};
use std::collections::HashMap;
use std::sync::Arc;

/// How a parameter's elements lie in checkpoints, as against in the flat buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The same order in both.
    Same,
    /// A convolution: `[out, in, kh, kw]` in checkpoints, `[out, kh, kw, in]` here (channels last).
    Conv,
}

/// A parameter's name, place and shape.
#[derive(Clone, Debug)]
pub struct ParamInfo {
    /// The reference's state-dict key.
    pub name: String,
    /// The shape in checkpoints.
    pub shape: Shape,
    /// First element in the flat buffer.
    pub offset: usize,
    /// How checkpoints order the elements.
    pub layout: Layout,
}

impl ParamInfo {
    /// The elements' range in the flat buffer.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.shape.numel()
    }
}

/// A handle to one parameter of a [`Params`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParamId(usize);

/// Collects parameters before the buffer is made.
#[derive(Default)]
pub struct ParamsBuilder {
    infos: Vec<ParamInfo>,
    by_name: HashMap<String, usize>,
    len: usize,
}

impl ParamsBuilder {
    /// An empty collection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a parameter. Its offset is rounded up to 16 floats, so that vector loads are aligned; the gaps are
    /// zero and stay zero.
    ///
    /// # Panics
    /// When the name is taken: a programming error in a model.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        shape: impl Into<Shape>,
        layout: Layout,
    ) -> ParamId {
        let name = name.into();
        let shape = shape.into();
        let id = self.infos.len();
        assert!(
            self.by_name.insert(name.clone(), id).is_none(),
            "parameter {name} is declared twice"
        );
        let offset = self.len.next_multiple_of(16);
        self.len = offset + shape.numel();
        self.infos.push(ParamInfo {
            name,
            shape,
            offset,
            layout,
        });
        ParamId(id)
    }

    /// Makes the store, all zeros, trainable or frozen.
    pub fn build(self, trainable: bool) -> Params {
        Params {
            flat: Arc::new(PoolVec::zeros(self.len)),
            infos: self.infos,
            by_name: self.by_name,
            token: trainable.then(|| Arc::new(())),
            identity: Arc::new(()),
        }
    }
}

/// All parameters of one model in one float32 buffer.
pub struct Params {
    flat: Arc<PoolVec>,
    infos: Vec<ParamInfo>,
    by_name: HashMap<String, usize>,
    // Present when gradients are wanted; the same Arc as `identity` would do, kept apart for clarity of intent.
    token: Option<Arc<()>>,
    identity: Arc<()>,
}

impl Params {
    pub(crate) fn token(&self) -> Arc<()> {
        Arc::clone(self.token.as_ref().unwrap_or(&self.identity))
    }

    /// The parameter as a tensor in the flat buffer's layout (convolutions: `[out, kh, kw, in]`), sharing memory.
    pub fn get(&self, id: ParamId) -> Tensor {
        let info = &self.infos[id.0];
        let shape = match (info.layout, info.shape.dims()) {
            (Layout::Conv, &[o, i, kh, kw]) => Shape::from([o, kh, kw, i]),
            _ => info.shape,
        };
        let var = self.token.as_ref().map(|t| Var::Param(Arc::clone(t)));
        Tensor::view_of(&self.flat, info.offset, shape, var)
    }

    /// What is known of every parameter, in declaration order (the reference's order of parameters).
    pub fn infos(&self) -> &[ParamInfo] {
        &self.infos
    }

    /// What is known of the parameter called `name`.
    pub fn info(&self, name: &str) -> Option<&ParamInfo> {
        self.by_name.get(name).map(|&i| &self.infos[i])
    }

    /// Length of the flat buffer in floats, gaps included.
    pub fn flat_len(&self) -> usize {
        self.flat.len()
    }

    /// Number of trainable numbers, gaps not counted.
    pub fn count(&self) -> usize {
        self.infos.iter().map(|i| i.shape.numel()).sum()
    }

    /// The flat buffer.
    pub fn flat(&self) -> &[f32] {
        &self.flat
    }

    /// The flat buffer for writing.
    ///
    /// # Errors
    /// While a tape or tensor still holds a parameter.
    pub fn flat_mut(&mut self) -> Result<&mut [f32]> {
        Arc::get_mut(&mut self.flat)
            .map(|v| &mut v[..])
            .ok_or_else(|| Error::Params("still held by a tape or a tensor".into()))
    }

    /// The elements of `name` in the checkpoint's order.
    ///
    /// # Errors
    /// When there is no such parameter.
    pub fn export(&self, name: &str) -> Result<Vec<f32>> {
        let info = self.known(name)?;
        Ok(export_from(info, &self.flat))
    }

    /// Overwrites `name` with elements in the checkpoint's order.
    ///
    /// # Errors
    /// When there is no such parameter, the count differs, or the buffer is held.
    pub fn import(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let info = self.known(name)?.clone();
        import_into(&info, self.flat_mut()?, values)
    }

    fn known(&self, name: &str) -> Result<&ParamInfo> {
        self.info(name)
            .ok_or_else(|| Error::Params(format!("there is none called {name}")))
    }

    /// A zeroed gradient (or moment) buffer of the same layout.
    pub fn buffer(&self) -> GradBuffer {
        GradBuffer(PoolVec::zeros(self.flat.len()))
    }
}

/// A flat buffer laid out as a [`Params`]: gradients or an optimizer's moments.
#[derive(Debug)]
pub struct GradBuffer(PoolVec);

impl GradBuffer {
    /// The elements.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    /// The elements for writing.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.0
    }

    /// Sets everything to zero.
    pub fn zero(&mut self) {
        crate::cpu::fill_zero(&mut self.0);
    }

    /// The elements of a parameter in the checkpoint's order.
    pub fn export(&self, info: &ParamInfo) -> Vec<f32> {
        export_from(info, &self.0)
    }

    /// Overwrites a parameter's elements, given in the checkpoint's order.
    ///
    /// # Errors
    /// When the count differs.
    pub fn import(&mut self, info: &ParamInfo, values: &[f32]) -> Result<()> {
        import_into(info, &mut self.0, values)
    }
}

fn export_from(info: &ParamInfo, flat: &[f32]) -> Vec<f32> {
    let src = &flat[info.range()];
    match (info.layout, info.shape.dims()) {
        (Layout::Conv, &[o, i, kh, kw]) => {
            let mut out = vec![0.0; src.len()];
            for_conv(o, i, kh * kw, |oihw, ohwi| out[oihw] = src[ohwi]);
            out
        }
        _ => src.to_vec(),
    }
}

fn import_into(info: &ParamInfo, flat: &mut [f32], values: &[f32]) -> Result<()> {
    let dst = &mut flat[info.range()];
    if values.len() != dst.len() {
        return Err(Error::Params(format!(
            "{} has {} elements, not {}",
            info.name,
            dst.len(),
            values.len()
        )));
    }
    match (info.layout, info.shape.dims()) {
        (Layout::Conv, &[o, i, kh, kw]) => {
            for_conv(o, i, kh * kw, |oihw, ohwi| dst[ohwi] = values[oihw]);
        }
        _ => dst.copy_from_slice(values),
    }
    Ok(())
}

/// Visits the pairs (index in `[o, i, k]`, index in `[o, k, i]`).
fn for_conv(o: usize, i: usize, k: usize, mut f: impl FnMut(usize, usize)) {
    for a in 0..o {
        for b in 0..i {
            for c in 0..k {
                f((a * i + b) * k + c, (a * k + c) * i + b);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_round_trip_and_views() {
        let mut b = ParamsBuilder::new();
        let bias = b.add("bias", [3], Layout::Same);
        let conv = b.add("conv", [2, 3, 3, 3], Layout::Conv);
        let mut p = b.build(true);
        let values: Vec<f32> = (0..54).map(|x| x as f32).collect();
        p.import("conv", &values).unwrap();
        p.import("bias", &[1.0, 2.0, 3.0]).unwrap();
        assert_eq!(p.export("conv").unwrap(), values);
        let w = p.get(conv);
        assert_eq!(w.dims(), &[2, 3, 3, 3]);
        // Element [o=1, kh=2, kw=0, i=1] is [o=1, i=1, kh=2, kw=0] of the checkpoint.
        let here = ((3 + 2) * 3) * 3 + 1;
        assert_eq!(w.f32().unwrap()[here], values[((3 + 1) * 3 + 2) * 3]);
        assert!(p.flat_mut().is_err(), "held by w");
        drop(w);
        assert!(p.flat_mut().is_ok());
        assert_eq!(p.get(bias).f32().unwrap(), &[1.0, 2.0, 3.0]);
        assert_eq!(p.count(), 57);
        assert!(p.import("conv", &[0.0]).is_err());
        assert!(p.export("none").is_err());
    }
}
