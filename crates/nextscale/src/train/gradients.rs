//! A backward pass that ends with the same gradients in all processes.

use super::optimizer::Optimizer;
use crate::world::World;
use crate::{Error, Result};
use nextscale_tensor::cuda::nccl::{Communicator, UniqueId, unique_id};
use nextscale_tensor::cuda::{self, Gpu};
use nextscale_tensor::{Device, Params, Tape, Tensor};
use std::sync::Arc;
use std::time::Duration;

/// Until the GPUs of all processes have found each other.
const MEETING: Duration = Duration::from_secs(600);
/// How long the word may take that says which process was lost, once GPUs have noticed that one was.
const WORD: Duration = Duration::from_secs(5);

/// The processes that train one model, and the way in which they add up gradients: around a ring of CPUs, or by NCCL.
#[derive(Debug)]
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
        match &self.gpus {
            Some(gpus) if update => {
                let summed =
                    tape.backward_by_parts(loss, seed, (params, grads), &[], &mut |part| {
                        let sums = part.on_gpu()?;
                        Ok(gpus.all_reduce(sums.device_ptr()?, sums.numel())?)
                    });
                let joined = summed.and_then(|_| Ok(gpus.join()?));
                joined.map_err(|e| self.or_lost(e.into()))
            }
            _ => {
                tape.backward_from(loss, seed, Some((params, grads)), &[])?;
                if update && self.world.size() > 1 {
                    self.world.all_reduce(grads.cpu_mut()?)?;
                }
                Ok(())
            }
        }
    }

    /// Which process was lost, where that is behind an error of NCCL.
    fn or_lost(&self, e: Error) -> Error {
        self.world.wait_for_failure(WORD).map_or(e, Error::from)
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
