//! How a model says what parameters it has.

use super::{ALIGN, Layout, ParamId, ParamInfo, Params, PartId};
use crate::cpu::pool::PoolVec;
use crate::tensor::Storage;
use crate::{DType, Device, Result, Shape, Tensor};
use std::collections::HashMap;
use std::sync::Arc;

/// Collects parameters before the buffer is made.
#[derive(Default)]
pub struct ParamsBuilder {
    infos: Vec<ParamInfo>,
    by_name: HashMap<String, usize>,
    len: usize,
    /// Where parts begin that are not the first.
    cuts: Vec<usize>,
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
        self.add_as(name.into(), shape.into(), layout, false)
    }

    /// Adds a matrix that only products read, in the precision that they run in: where there is a copy in half precision, that is
    /// all they need of it.
    ///
    /// # Panics
    /// As [`ParamsBuilder::add`].
    pub fn add_operand(&mut self, name: impl Into<String>, shape: impl Into<Shape>) -> ParamId {
        self.add_as(name.into(), shape.into(), Layout::Same, true)
    }

    fn add_as(&mut self, name: String, shape: Shape, layout: Layout, operand: bool) -> ParamId {
        let id = self.infos.len();
        assert!(
            self.by_name.insert(name.clone(), id).is_none(),
            "parameter {name} is declared twice"
        );
        let offset = self.len.next_multiple_of(ALIGN);
        self.len = offset + shape.numel();
        self.infos.push(ParamInfo {
            name,
            shape,
            offset,
            layout,
            operand,
        });
        ParamId(id)
    }

    /// Begins a part: what is added from here on, until another part begins. A backward pass can hand out the gradients of a part as
    /// soon as they are complete ([`crate::Cx::first_use`]).
    pub fn part(&mut self) -> PartId {
        let here = self.len.next_multiple_of(ALIGN);
        if here > self.cuts.last().copied().unwrap_or(0) {
            self.cuts.push(here);
        }
        PartId(self.cuts.len())
    }

    /// Makes the store in the CPU's memory, all zeros, trainable or frozen.
    pub fn build(self, trainable: bool) -> Params {
        let zeros = PoolVec::zeros(self.len);
        self.over(Storage::CpuF32(Arc::new(zeros)), trainable)
    }

    /// The same on a device at once, with a copy in half precision as [`Params::to_device`] makes it.
    ///
    /// # Errors
    /// When the GPU can't be used or its memory is full.
    pub fn build_on(self, trainable: bool, device: Device, half: Option<DType>) -> Result<Params> {
        let zeros = Tensor::zeros_on(device, [self.len], DType::F32)?;
        let mut params = self.over(zeros.storage, trainable);
        params.to_device(device, half)?;
        Ok(params)
    }

    fn over(self, flat: Storage, trainable: bool) -> Params {
        Params {
            flat,
            len: self.len,
            infos: Arc::new(self.infos),
            by_name: Arc::new(self.by_name),
            cuts: Arc::new(self.cuts),
            sharding: None,
            token: trainable.then(|| Arc::new(())),
            identity: Arc::new(()),
        }
    }
}
