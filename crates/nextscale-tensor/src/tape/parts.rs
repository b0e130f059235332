//! Gradients that are complete before the backward pass is: they can be summed over processes beside the rest of it.

use super::{Flat, Grads};
use crate::params::{Params, PartId};
use crate::{Error, Result, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// The parts that were marked on a tape, by store.
#[derive(Default)]
pub(super) struct Marks(Vec<(Arc<()>, PartId)>);

impl Marks {
    /// Whether this is the first mark of the part.
    pub(super) fn add(&mut self, token: &Arc<()>, part: PartId) -> bool {
        let known = |(t, p): &(Arc<()>, PartId)| *p == part && Arc::ptr_eq(t, token);
        if self.0.iter().any(known) {
            return false;
        }
        self.0.push((Arc::clone(token), part));
        true
    }
}

/// Who is told of complete parts, and which it has not been told of.
pub(super) struct Sink<'p> {
    tell: &'p mut dyn FnMut(CompletePart<'_>) -> Result<()>,
    left: Vec<Option<Range<usize>>>,
}

impl<'p> Sink<'p> {
    pub(super) fn new(
        params: &Params,
        tell: &'p mut dyn FnMut(CompletePart<'_>) -> Result<()>,
    ) -> Self {
        Self {
            tell,
            left: params.parts().map(Some).collect(),
        }
    }
}

/// The gradients of one part of the parameters, to which a backward pass adds nothing more.
///
/// They may be changed in place, as a sum over processes does.
pub struct CompletePart<'a> {
    range: Range<usize>,
    sums: Sums<'a>,
}

enum Sums<'a> {
    Cpu(&'a mut [f32]),
    Cuda(Tensor),
}

impl CompletePart<'_> {
    /// Where they lie in the flat buffer.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// The sums, on the CPU.
    ///
    /// # Errors
    /// When they are on a GPU.
    pub fn cpu_mut(&mut self) -> Result<&mut [f32]> {
        match &mut self.sums {
            Sums::Cpu(sums) => Ok(sums),
            Sums::Cuda(_) => Err(Error::Params(
                "gradients are on a GPU, not in this memory".into(),
            )),
        }
    }

    /// The sums \[n\] on a GPU, float32, as a tensor that shares their memory. What makes them is in the GPU's stream and need not be
    /// done yet: work in another stream has to wait for an event in that one.
    ///
    /// # Errors
    /// When they are on the CPU.
    pub fn on_gpu(&self) -> Result<Tensor> {
        match &self.sums {
            Sums::Cuda(sums) => Ok(sums.clone()),
            Sums::Cpu(_) => Err(Error::Params(
                "gradients are in this memory, not on a GPU".into(),
            )),
        }
    }
}

impl Grads<'_> {
    /// Hands a marked part of `token`'s store to the sink, where there is one and the store is the one whose gradients are wanted.
    pub(super) fn complete(&mut self, token: &Arc<()>, part: PartId) -> Result<()> {
        if self.sink.is_some() && self.owns(token) {
            self.hand_out(part.0)?;
        }
        Ok(())
    }

    /// Hands out what was not marked.
    pub(super) fn complete_rest(&mut self) -> Result<()> {
        let parts = self.sink.as_ref().map_or(0, |s| s.left.len());
        (0..parts).try_for_each(|part| self.hand_out(part))
    }

    fn hand_out(&mut self, part: usize) -> Result<()> {
        let Some(sink) = &mut self.sink else {
            return Ok(());
        };
        let Some(range) = sink.left.get_mut(part).and_then(Option::take) else {
            return Ok(());
        };
        let sums = match &mut self.flat {
            Flat::None => return Ok(()),
            Flat::Cpu(flat) => Sums::Cpu(&mut flat[range.clone()]),
            Flat::Cuda(flat) => Sums::Cuda(flat.narrow(range.start, range.len())?),
        };
        (sink.tell)(CompletePart { range, sums })
    }
}
