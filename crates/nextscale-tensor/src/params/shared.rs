//! Parameters of which processes have shares.

use super::{Exchange, GradBuffer, ParamInfo, Params, Sharding, held, sharding};
use crate::cpu::pool::PoolVec;
use crate::tensor::Storage;
use crate::{DType, Result, Tensor};
use std::sync::Arc;

impl Params {
    /// Exchanges what this process updates with a buffer of the same.
    pub(super) fn swap_shares(
        &mut self,
        sharding: &Sharding,
        buffer: &mut GradBuffer,
    ) -> Result<()> {
        for range in sharding.updated() {
            if let Storage::CpuF32(flat) = &mut self.flat {
                let flat = Arc::get_mut(flat).ok_or_else(held)?;
                flat[range.clone()].swap_with_slice(&mut buffer.cpu_mut()?[range]);
                continue;
            }
            let ours = self.whole().narrow(range.start, range.len())?;
            let theirs = buffer.tensor()?.narrow(range.start, range.len())?;
            let kept = ours.copied()?;
            sharding::copy(&theirs, &ours)?;
            sharding::copy(&kept, &theirs)?;
            if let Some(half) = self.half() {
                sharding::copy_to_half(&self.whole(), &half, &range)?;
            }
        }
        Ok(())
    }

    /// A zeroed buffer for what belongs to an update, such as moments: where processes have shares, of the own alone.
    ///
    /// # Errors
    /// When the GPU's memory is full.
    pub fn update_buffer(&self) -> Result<GradBuffer> {
        match &self.sharding {
            None => self.buffer(),
            Some(sharding) => {
                let zeros = sharding.zeros(self.device())?;
                Ok(GradBuffer::new(zeros, Some(Arc::clone(sharding))))
            }
        }
    }

    /// Shares the parameters out among processes, all of which have the same now, and lays them out anew. From here on what asks for
    /// their numbers, exchanges or updates them has to be called by all processes in the same order.
    ///
    /// # Errors
    /// While a tape or tensor still holds a parameter, or when the memory is full; nothing is changed then.
    pub fn share_out(&mut self, exchange: Arc<dyn Exchange>) -> Result<()> {
        self.must_be_free()?;
        let half = self.half();
        let parts: Vec<_> = self.parts().collect();
        let (offsets, len) = sharding::lay_out(&self.infos, &parts, half.is_some());
        let mut infos = self.infos.to_vec();
        for (info, offset) in infos.iter_mut().zip(offsets) {
            info.offset = offset;
        }
        let sharding = Sharding::new(&infos, &parts, len, half.is_some(), exchange);
        let places: Vec<_> = self.infos.iter().map(ParamInfo::range).collect();
        let moved = || places.iter().cloned().zip(infos.iter().map(|i| i.offset));
        self.flat = match (&self.flat, half) {
            (Storage::Cuda(_), half) => {
                let old = self.whole();
                let gpu = old.gpu()?;
                let flat = match &half {
                    Some(_) => Tensor::with_gaps(gpu, len, &sharding.kept())?,
                    None => Tensor::zeros_on(old.device(), [len], DType::F32)?,
                };
                for (info, (from, to)) in infos.iter().zip(moved()) {
                    let kept = match sharding.is_alone(info) {
                        true => sharding.kept_of(info),
                        false => Vec::from([info.range()]),
                    };
                    for range in kept {
                        let start = from.start + range.start - to;
                        sharding::copy(
                            &old.narrow(start, range.len())?,
                            &flat.narrow(range.start, range.len())?,
                        )?;
                    }
                }
                let mut on = flat.on_gpu()?.clone();
                if let Some(old) = half {
                    let new = Tensor::zeros_on(old.device(), [len], old.dtype())?;
                    for (from, to) in moved() {
                        let there = new.narrow(to, from.len())?;
                        sharding::copy(&old.narrow(from.start, from.len())?, &there)?;
                    }
                    on.half = Some((Arc::clone(&new.on_gpu()?.buffer), new.dtype()));
                }
                Storage::Cuda(on)
            }
            _ => {
                let old = self.flat()?;
                let mut flat = PoolVec::zeros(len);
                for (from, to) in moved() {
                    flat[to..to + from.len()].copy_from_slice(&old[from]);
                }
                Storage::CpuF32(Arc::new(flat))
            }
        };
        (self.infos, self.len) = (Arc::new(infos), len);
        self.sharding = Some(Arc::new(sharding));
        Ok(())
    }

    /// Who has which numbers, where processes have shares.
    pub fn sharding(&self) -> Option<&Arc<Sharding>> {
        self.sharding.as_ref()
    }

    /// What an update of this process changes, ascending.
    pub(crate) fn updated(&self) -> Vec<std::ops::Range<usize>> {
        match &self.sharding {
            None => std::iter::once(0..self.len).collect(),
            Some(sharding) => sharding.updated(),
        }
    }

    /// Brings weights that their owners have changed to everybody.
    ///
    /// # Errors
    /// When another process is gone or the GPU refuses.
    pub(crate) fn publish(&mut self) -> Result<()> {
        let Some(sharding) = self.sharding.clone() else {
            return Ok(());
        };
        let half = self.half();
        if let Storage::CpuF32(flat) = &mut self.flat {
            let flat = Arc::get_mut(flat).ok_or_else(held)?;
            return sharding.publish_on_cpu(flat);
        }
        let whole = self.whole();
        sharding.publish(&(0..self.len), &whole, half.as_ref())?;
        sharding.published(&whole, half.as_ref())
    }
}
