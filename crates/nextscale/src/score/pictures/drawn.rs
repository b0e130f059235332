//! Pictures that a model draws while they are scored: none is kept.

use super::Pictures;
use crate::generate::{BatchSampler, SampleOptions, Sampler};
use crate::score::PictureBatch;
use crate::{Error, Result};

/// Samples of a model, its classes in turn: picture i is of class `classes[i mod n]`, drawn with the random numbers of image i.
pub struct DrawnPictures<'a> {
    batches: BatchSampler<'a>,
    classes: Vec<u32>,
    size: (usize, usize),
    batch: usize,
    drawn: usize,
    count: usize,
}

impl<'a> DrawnPictures<'a> {
    /// `count` pictures, `batch` at a time.
    ///
    /// # Errors
    /// Without classes.
    pub fn new(
        sampler: Sampler<'a>,
        options: SampleOptions,
        classes: Vec<u32>,
        (count, batch): (usize, usize),
    ) -> Result<Self> {
        if classes.is_empty() {
            return Err(Error::field("classes", "", "no class is given"));
        }
        let (h, w) = sampler.var.config.pyramid.finest();
        let step = sampler.vqvae.config.downsample();
        let batch = batch.clamp(1, count.max(1));
        Ok(Self {
            batches: BatchSampler::new(sampler, options, batch),
            classes,
            size: (h * step, w * step),
            batch,
            drawn: 0,
            count,
        })
    }
}

impl Pictures for DrawnPictures<'_> {
    fn len(&self) -> usize {
        self.count
    }

    fn next(&mut self) -> Result<Option<Vec<PictureBatch>>> {
        let first = self.drawn;
        let places: Vec<usize> = (first..(first + self.batch).min(self.count)).collect();
        if places.is_empty() {
            return Ok(None);
        }
        let class = |place: &usize| self.classes[place % self.classes.len()];
        let labels: Vec<u32> = places.iter().map(class).collect();
        let rows: Vec<i32> = labels.iter().map(|&label| label as i32).collect();
        let rgb = self.batches.draw(&rows, first as u64)?.pixels()?;
        self.drawn += places.len();
        Ok(Some(vec![PictureBatch {
            rgb,
            size: self.size,
            places,
            labels,
        }]))
    }
}
