//! What processes exchange while they train one model: sums of gradients, and where each has its share of the model, weights.

use super::optimizer::Optimizer;
use crate::world::World;
use crate::{Error, Result};
use nextscale_tensor::cuda::matmul::DevicePtr;
use nextscale_tensor::cuda::nccl::{Collective, Communicator, Element, Kind, UniqueId, unique_id};
use nextscale_tensor::cuda::{self, Gpu};
use nextscale_tensor::params::{Exchange, Move, Number, Values};
use nextscale_tensor::{DType, Device, GradBuffer, Params, Tape, Tensor};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Until the GPUs of all processes have found each other.
const MEETING: Duration = Duration::from_secs(600);
/// How long the word may take that says which process was lost, once GPUs have noticed that one was.
const WORD: Duration = Duration::from_secs(5);

/// The processes that train one model, and the way in which they add up gradients: around a ring of CPUs, or by NCCL.
#[derive(Clone, Debug)]
pub struct GradientSum {
    world: World,
    gpus: Option<Arc<Communicator>>,
}

impl GradientSum {
    /// One process, which has nothing to add.
    pub fn alone() -> Self {
        Self {
            world: World::alone(),
            gpus: None,
        }
    }

    /// Connects the devices of all processes.
    ///
    /// # Errors
    /// When another process is gone, or GPUs can't reach each other.
    pub fn new(world: &World, device: Device) -> Result<Self> {
        let gpus = match device {
            Device::Cuda(number) if world.size() > 1 => Some(meet(world, number)?),
            _ => None,
        };
        Ok(Self {
            world: world.clone(),
            gpus,
        })
    }

    /// The processes.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Adds the gradients of `loss` to those of the optimizer, which are the sums of `accumulate` iterations by all processes, of which
    /// `update` ends the last: then all get the sums of all, bit for bit the same. On GPUs a part of the parameters is on its way as soon
    /// as the pass has nothing more to add to it.
    ///
    /// # Errors
    /// When the pass fails or another process is gone.
    pub(super) fn backward(
        &self,
        tape: Tape,
        loss: &Tensor,
        (params, opt): (&Params, &mut Optimizer),
        (accumulate, update): (usize, bool),
    ) -> Result<()> {
        let seed = opt.seed(accumulate * self.world.size())?;
        let grads = &mut opt.grads;
        if !update || self.world.size() == 1 {
            tape.backward_from(loss, seed, Some((params, grads)), &[])?;
            return Ok(());
        }
        let moves = |part: Range<usize>| match params.sharding() {
            None => vec![Move::Sum(part)],
            Some(sharding) => sharding.sums(part),
        };
        if self.gpus.is_none() {
            tape.backward_from(loss, seed, Some((params, grads)), &[])?;
            let all = moves(0..grads.len());
            return Ok(self.exchange(Values::Cpu(grads.cpu_mut()?), &all)?);
        }
        let sums = grads.on_gpu()?;
        tape.backward_by_parts(loss, seed, (params, grads), &[], &mut |part| {
            self.exchange(Values::Gpu(&sums), &moves(part.range()))
        })?;
        Ok(self.join()?)
    }

    /// Has the first process alone hold what all processes have added up since the last update: so a checkpoint between two updates
    /// can hold it, whatever the number of processes.
    ///
    /// # Errors
    /// When another process is gone.
    pub fn hand_to_first(&self, grads: &mut GradBuffer) -> Result<()> {
        if self.world.size() == 1 {
            return Ok(());
        }
        let all = [Move::Sum(0..grads.len())];
        match self.gpus {
            None => self.exchange(Values::Cpu(grads.cpu_mut()?), &all)?,
            Some(_) => self.exchange(Values::Gpu(&grads.on_gpu()?), &all)?,
        }
        self.join()?;
        match self.world.is_first() {
            true => Ok(()),
            false => Ok(grads.zero()?),
        }
    }

    /// An error of an exchange; it names the process that was lost where that is behind it.
    fn lost(&self, e: impl std::fmt::Display) -> nextscale_tensor::Error {
        let known = self.world.wait_for_failure(WORD);
        nextscale_tensor::Error::Exchange(known.map_or_else(|| e.to_string(), |e| e.to_string()))
    }

    fn gpus(&self) -> nextscale_tensor::Result<&Communicator> {
        let none = || nextscale_tensor::Error::Exchange("the GPUs were not connected".into());
        self.gpus.as_deref().ok_or_else(none)
    }

    fn exchange_on_cpu(&self, values: &mut [f32], one: &Move) -> nextscale_world::Result<()> {
        let size = self.world.size();
        let shares = |each: usize| -> Vec<_> {
            (0..size)
                .map(|rank| rank * each..(rank + 1) * each)
                .collect()
        };
        match *one {
            Move::Sum(ref range) => self.world.all_reduce(&mut values[range.clone()]),
            Move::SumShares { from, each } => {
                let values = &mut values[from..from + size * each];
                self.world.reduce_scatter(values, &shares(each))
            }
            Move::GatherShares { from, each } => {
                let values = &mut values[from..from + size * each];
                self.world.all_gather(values, &shares(each))
            }
        }
    }
}

impl Exchange for GradientSum {
    fn rank(&self) -> usize {
        self.world.rank()
    }

    fn size(&self) -> usize {
        self.world.size()
    }

    fn exchange(&self, values: Values<'_>, moves: &[Move]) -> nextscale_tensor::Result<()> {
        let values = match values {
            Values::Cpu(values) => {
                return moves
                    .iter()
                    .try_for_each(|one| self.exchange_on_cpu(values, one))
                    .map_err(|e| self.lost(e));
            }
            Values::Gpu(values) => values,
        };
        let gpus = self.gpus()?;
        let element = match values.dtype() {
            DType::F16 => Element::F16,
            DType::Bf16 => Element::Bf16,
            _ => Element::F32,
        };
        let parts = moves.iter().map(|one| match *one {
            Move::Sum(ref range) => (Kind::AllReduce, range.start, range.len()),
            Move::SumShares { from, each } => (Kind::ReduceScatter, from, each),
            Move::GatherShares { from, each } => (Kind::AllGather, from, each),
        });
        let whole = values.device_ptr()?;
        let calls = parts.map(|(kind, from, count)| Collective {
            kind,
            values: DevicePtr(whole.0, whole.1 + from * values.dtype().bytes()),
            count,
            element,
        });
        let calls: Vec<_> = calls.collect();
        gpus.together(&calls).map_err(|e| self.lost(e))
    }

    fn join(&self) -> nextscale_tensor::Result<()> {
        match &self.gpus {
            Some(gpus) => gpus.join().map_err(|e| self.lost(e)),
            None => Ok(()),
        }
    }

    fn sum(&self, number: Number<'_>) -> nextscale_tensor::Result<()> {
        let number = match number {
            Number::Cpu(number) => {
                let summed = self.world.sum(std::slice::from_mut(number));
                return summed.map_err(|e| self.lost(e));
            }
            Number::Gpu(number) => number,
        };
        let gpus = self.gpus()?;
        let call = Collective {
            kind: Kind::AllReduce,
            values: number.device_ptr()?,
            count: 1,
            element: Element::F64,
        };
        gpus.together(&[call]).map_err(|e| self.lost(e))?;
        self.join()
    }
}

fn meet(world: &World, number: usize) -> Result<Arc<Communicator>> {
    let mut id = match world.is_first() {
        true => unique_id()?.bytes().to_vec(),
        false => Vec::new(),
    };
    world.broadcast(&mut id)?;
    let id: [u8; 128] = id
        .try_into()
        .map_err(|_| Error::failed("the first process has sent no name of a group of GPUs"))?;
    let wait = || {
        world
            .check()
            .map_err(|e| cuda::Error::Device(e.to_string()))
    };
    let gpus = Communicator::new(
        Gpu::get(number)?,
        world.rank(),
        world.size(),
        &UniqueId::from_bytes(id),
        &wait,
        MEETING,
    )?;
    let gpus = Arc::new(gpus);
    // Sums that wait for a lost process would keep the GPU for ever.
    let given_up = Arc::clone(&gpus);
    world.on_loss(move |_| given_up.abort());
    Ok(gpus)
}
