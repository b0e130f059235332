//! What a training run learns from, batch by batch, on the device that computes.

use super::Dataset;
use crate::Result;
use crate::data::{BadImage, Feed, LoaderConfig, TrainLoader};
use nextscale_tensor::{Device, Tensor};
use std::time::Duration;

/// One iteration's inputs.
pub(super) struct Inputs {
    /// \[B, R, R, 3\] in \[−1, 1\].
    pub(super) images: Tensor,
    /// Classes.
    pub(super) labels: Vec<i32>,
}

/// Training images in the order of the run.
pub(super) struct Source {
    loader: TrainLoader,
    feed: Feed,
    side: usize,
}

impl Source {
    /// From (epoch, iteration) `start` on.
    pub(super) fn open(
        dataset: &Dataset,
        batch: usize,
        start: (u64, usize),
        config: LoaderConfig,
        device: Device,
    ) -> Result<Self> {
        Ok(Self {
            loader: dataset.train_loader(batch, start, config)?,
            feed: Feed::new(device)?,
            side: dataset.side,
        })
    }

    /// The next iteration's inputs.
    pub(super) fn next(&mut self) -> Result<Inputs> {
        let batch = self.loader.next_batch()?;
        let (images, labels) = self.feed.batch(&batch, self.side)?;
        Ok(Inputs { images, labels })
    }

    /// Time spent waiting for images so far.
    pub(super) fn waited(&self) -> Duration {
        self.loader.waited()
    }

    /// Images that could not be read so far.
    pub(super) fn bad_images(&self) -> Vec<BadImage> {
        self.loader.bad_images()
    }
}
