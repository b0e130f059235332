//! Batches of images, made ahead of time by worker threads.
//!
//! What a batch holds depends on the source, the sampler, the seed and its place (epoch, iteration) alone, never
//! on the number of workers or on timing. So a run can be resumed at any place by starting a loader there.

mod bad;
mod engine;
mod kept;
pub(in crate::data) mod order;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use super::{ImageSource, TrainSampler, Transform, ValSampler};
use crate::Result;
use crate::Share;

pub use bad::{BadImage, BadImages, is_of_the_file};
use engine::{Crops, Engine, Recycler};
use order::Order;

/// The most worker threads that are started without being asked for.
const AUTO_WORKERS: usize = 32;

/// How a loader works.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoaderConfig {
    /// Worker threads; 0 for as many as there are cores (at most 32).
    pub workers: usize,
    /// Batches made ahead; 0 to choose by workers and batch size.
    pub prefetch: usize,
    /// The run's seed, from which crops and mirroring are drawn.
    pub seed: u64,
    /// What to do with images that can't be decoded.
    pub bad_images: BadImages,
    /// Bytes of memory for resized pictures that later epochs of training take their crops from; 0 keeps none.
    pub keep: usize,
    /// The part of the images that this process takes.
    pub share: Share,
    /// In one pass over all images, whether the process takes whole batches in turn, which are then those of one process alone, and not
    /// a piece of the images.
    pub in_turn: bool,
}

impl LoaderConfig {
    /// The usual one, which leaves bad images out: others tell of them.
    pub(crate) fn patient() -> Self {
        Self {
            bad_images: BadImages::Skip,
            ..Self::default()
        }
    }

    /// The order of one pass over `len` images.
    ///
    /// # Errors
    /// As [`ValSampler::new`].
    pub fn pass_over(&self, len: usize, batch: usize) -> Result<ValSampler> {
        match self.in_turn {
            true => ValSampler::in_turn(len, batch, self.share),
            false => ValSampler::new(len, batch, self.share),
        }
    }

    fn threads(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get().min(AUTO_WORKERS)),
            n => n,
        }
    }

    /// Batches in the making or waiting. Enough for every worker to have two images to do.
    fn depth(&self, batch: usize) -> usize {
        match self.prefetch {
            0 => 1 + (2 * self.threads()).div_ceil(batch),
            n => n,
        }
    }
}

/// Images with their labels. Its buffer goes back to the loader when the batch is dropped.
#[derive(Debug)]
pub struct Batch {
    /// 8-bit RGB, `[B, R, R, 3]`; with several crops of an image `[B·crops, R, R, 3]`.
    pub images: Vec<u8>,
    /// The classes, `[B]`.
    pub labels: Vec<u32>,
    /// The places of the images in their source, `[B]`.
    pub indices: Vec<u32>,
    /// The epoch; 0 in validation.
    pub epoch: u64,
    /// The iteration within the epoch.
    pub iteration: usize,
    recycler: Arc<Recycler>,
}

impl Batch {
    /// How many images there are (B).
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.recycler.give(std::mem::take(&mut self.images));
    }
}

/// Training batches without end, epoch after epoch.
#[derive(Debug)]
pub struct TrainLoader {
    engine: Engine,
}

impl TrainLoader {
    /// Starts the workers. The first batch is iteration `start.1` of epoch `start.0` (an iteration beyond the
    /// epoch's last counts on into the following epochs).
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) where the sampler was made for another number of images;
    /// [`Error::Failed`](crate::Error::Failed) where no thread can be started.
    pub fn new(
        source: Arc<dyn ImageSource>,
        transform: Transform,
        sampler: TrainSampler,
        start: (u64, usize),
        config: LoaderConfig,
    ) -> Result<Self> {
        let order = Order::train(sampler, start);
        Ok(Self {
            engine: Engine::new(source, transform, order, Crops::OfEpoch, config)?,
        })
    }

    /// The next batch; waits until it is made.
    ///
    /// # Errors
    /// Where an image of this batch can't be loaded: the error of the first such image. The following call gives
    /// the following batch.
    pub fn next_batch(&mut self) -> Result<Batch> {
        loop {
            // Training never ends and its batches are never empty.
            if let Some(batch) = self.engine.next_batch()? {
                return Ok(batch);
            }
        }
    }

    /// How long callers have waited for batches in all.
    pub fn waited(&self) -> Duration {
        self.engine.waited()
    }

    /// The images skipped so far under [`BadImages::Skip`], in the order of their places.
    pub fn bad_images(&self) -> Vec<BadImage> {
        self.engine.bad_images()
    }
}

/// One pass over this rank's validation images.
#[derive(Debug)]
pub struct ValLoader {
    engine: Engine,
}

impl ValLoader {
    /// Starts the workers.
    ///
    /// # Errors
    /// As [`TrainLoader::new`].
    pub fn new(
        source: Arc<dyn ImageSource>,
        transform: Transform,
        sampler: ValSampler,
        config: LoaderConfig,
    ) -> Result<Self> {
        Ok(Self {
            engine: Engine::new(
                source,
                transform,
                Order::val(sampler),
                Crops::Center,
                config,
            )?,
        })
    }

    /// The same pass with `crops` random crops of every image, one after the other in [`Batch::images`]: crop v is the one
    /// that training with this seed sees in epoch v.
    ///
    /// # Errors
    /// As [`TrainLoader::new`].
    pub fn with_crops(
        source: Arc<dyn ImageSource>,
        transform: Transform,
        sampler: ValSampler,
        crops: usize,
        config: LoaderConfig,
    ) -> Result<Self> {
        let order = Order::val(sampler);
        Ok(Self {
            engine: Engine::new(source, transform, order, Crops::Drawn(crops), config)?,
        })
    }

    /// The next batch; `None` after the last. Under [`BadImages::Skip`] bad images are left out, so that a batch
    /// may be smaller than the others, but never empty.
    ///
    /// # Errors
    /// As [`TrainLoader::next_batch`].
    pub fn next_batch(&mut self) -> Result<Option<Batch>> {
        self.engine.next_batch()
    }

    /// How long callers have waited for batches in all.
    pub fn waited(&self) -> Duration {
        self.engine.waited()
    }

    /// The images left out so far under [`BadImages::Skip`], in the order of their places.
    pub fn bad_images(&self) -> Vec<BadImage> {
        self.engine.bad_images()
    }
}
