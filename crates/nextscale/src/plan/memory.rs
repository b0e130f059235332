//! Memory by part.

use crate::memory::{RESERVE, TrainParts};
use serde::Serialize;

/// Bytes that the driver's context and libraries have before a run asks what is free.
pub const CONTEXT: usize = 1 << 29;

/// Numbers from which on a parameter's moments are shared out.
const LARGE: usize = 1 << 14;

/// What a process takes of its GPU's memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryParts {
    /// The frozen tokenizer.
    pub tokenizer: usize,
    /// Float32 weights of the transformer.
    pub weights: usize,
    /// Their copies in half precision.
    pub half: usize,
    /// Gradients.
    pub gradients: usize,
    /// Both moments of AdamW.
    pub moments: usize,
    /// The average of the weights.
    pub average: usize,
    /// What a step keeps for its backward pass, and images.
    pub activations: usize,
    /// What the first step, in which algorithms are tried, or an evaluation takes beside.
    pub first: usize,
    /// What is left free for libraries, NCCL among them, and for scratch memory of convolutions.
    pub libraries: usize,
    /// The driver's context.
    pub context: usize,
    /// What the pool holds in the long run, free memory in it included: with less, it has to ask the driver again and again.
    pub held: usize,
}

impl MemoryParts {
    /// The most that is alive at once in steps, as `peak_gpu_mib` of `bench` counts it.
    pub fn peak_of_steps(&self) -> usize {
        self.standing() + self.activations
    }

    fn standing(&self) -> usize {
        self.tokenizer + self.weights + self.half + self.gradients + self.moments + self.average
    }

    /// All that must be there.
    pub fn needed(&self) -> usize {
        self.peak_of_steps() + self.first + self.libraries + self.context
    }

    /// Whether it fits into a GPU's memory.
    pub fn fits(&self, memory: usize) -> bool {
        self.needed() <= memory
    }

    /// Whether it does without giving memory back and asking for it again.
    pub fn fits_well(&self, memory: usize) -> bool {
        self.fits(memory) && self.held + self.libraries + self.context <= memory
    }
}

/// Numbers in a transformer's parameters, as sharing them out tells them apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    /// In matrices of blocks.
    pub(super) matrices: usize,
    /// In other large parameters.
    pub(super) large: usize,
    /// In what is not shared out.
    pub(super) small: usize,
    /// In what comes last in the backward pass: the embeddings and the first block.
    pub(super) last: usize,
}

impl Numbers {
    pub(super) fn of(parts: &TrainParts) -> Self {
        let mut n = Self::default();
        for (name, count) in &parts.tensors {
            let in_block = name.starts_with("blocks.");
            if *count < LARGE {
                n.small += count;
            } else if in_block && name.ends_with(".weight") {
                n.matrices += count;
            } else {
                n.large += count;
            }
            if name.starts_with("blocks.0.") || !(in_block || name.starts_with("head")) {
                n.last += count;
            }
        }
        n
    }

    pub(super) fn all(&self) -> usize {
        self.matrices + self.large + self.small
    }
}

/// The parts by a dry run.
pub(super) fn parts(p: &TrainParts) -> MemoryParts {
    let steps = p.standing() + p.activations;
    let peak = p.need.least.max(p.need.first);
    MemoryParts {
        tokenizer: p.tokenizer,
        weights: p.weights,
        half: p.half,
        gradients: p.gradients,
        moments: p.moments,
        average: p.average,
        activations: p.activations,
        first: peak.saturating_sub(steps),
        libraries: RESERVE,
        context: CONTEXT,
        held: p.need.held,
    }
}
