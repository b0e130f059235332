//! Which images make which batch, in the order of a run.

use crate::data::{TrainSampler, ValSampler};

/// Which images come when.
#[derive(Debug)]
pub(in crate::data) enum Order {
    /// Epoch after epoch; `next` is the place of the next batch, `images` the order of its epoch once drawn.
    Train {
        sampler: TrainSampler,
        next: (u64, usize),
        images: Vec<u32>,
    },
    /// Once through; `next` is the next batch.
    Val { sampler: ValSampler, next: usize },
}

impl Order {
    pub(in crate::data) fn train(sampler: TrainSampler, start: (u64, usize)) -> Self {
        let iterations = sampler.iterations();
        let next = (
            start.0 + (start.1 / iterations) as u64,
            start.1 % iterations,
        );
        Self::Train {
            sampler,
            next,
            images: Vec::new(),
        }
    }

    pub(in crate::data) fn val(sampler: ValSampler) -> Self {
        Self::Val { sampler, next: 0 }
    }

    pub(super) fn batch(&self) -> usize {
        match self {
            Self::Train { sampler, .. } => sampler.batch(),
            Self::Val { sampler, .. } => sampler.batch().min(sampler.images()).max(1),
        }
    }

    pub(super) fn dataset_len(&self) -> usize {
        match self {
            Self::Train { sampler, .. } => sampler.dataset_len(),
            Self::Val { sampler, .. } => sampler.dataset_len(),
        }
    }

    /// Epoch, iteration and images of the next batch.
    pub(in crate::data) fn advance(&mut self) -> Option<(u64, usize, Vec<u32>)> {
        match self {
            Self::Train {
                sampler,
                next,
                images,
            } => {
                if images.is_empty() {
                    *images = sampler.epoch(next.0);
                }
                let (epoch, iteration) = *next;
                let from = iteration * sampler.batch();
                let taken = images[from..from + sampler.batch()].to_vec();
                next.1 += 1;
                if next.1 == sampler.iterations() {
                    *next = (epoch + 1, 0);
                    images.clear();
                }
                Some((epoch, iteration, taken))
            }
            Self::Val { sampler, next } => {
                let taken: Vec<u32> = sampler.indices(*next).map(|i| i as u32).collect();
                *next += 1;
                (!taken.is_empty()).then_some((0, *next - 1, taken))
            }
        }
    }
}
