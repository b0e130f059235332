//! Where a run's images come from.

use super::threads_of;
use crate::advice::at_start;
use crate::checkpoint::class_names::ModelClasses;
use crate::data::{
    ImageSource, LoaderConfig, Look, OnCanvas, Relabelled, Resizer, ShapesSource, SplitSurvey,
    Splits, Subset, TrainLoader, TrainSampler, Transform, ValLoader,
};
use crate::memory::Room;
use crate::options::FolderOptions;
use crate::options::values::BadImages;
use crate::{Result, Share, World, data};
use nextscale_tensor::Device;
use std::path::Path;
use std::sync::Arc;

/// The value of `--data_path` that stands for the built-in images.
pub const BUILTIN_SHAPES: &str = "builtin:shapes";

/// Seed of the built-in images: the same pictures for every run.
pub const SHAPES_SEED: u64 = 0;

/// Training and validation images with their transform.
#[derive(Clone)]
pub struct Dataset {
    /// Training images.
    pub train: Arc<dyn ImageSource>,
    /// Validation images.
    pub val: Arc<dyn ImageSource>,
    /// Resize, crop and flip.
    pub transform: Transform,
    /// Side of the images that come out.
    pub side: usize,
    /// What was left out of the folder and how it was cut, in words.
    pub remarks: Vec<String>,
}

impl Dataset {
    /// Opens `data_path`, a folder (see [`Splits`]) that is read as `folder` says, or [`BUILTIN_SHAPES`], for images of side `side`.
    ///
    /// # Errors
    /// One line naming what is wrong with the folder or the flags.
    pub fn open(
        data_path: &str,
        folder: &FolderOptions,
        side: usize,
        mid_reso: f64,
        hflip: bool,
    ) -> Result<Self> {
        let transform = Transform::new(side, mid_reso, hflip)?;
        let mut remarks = Vec::new();
        let (train, val): (Arc<dyn ImageSource>, Arc<dyn ImageSource>) =
            if data_path == BUILTIN_SHAPES {
                // Drawn at the size before the crop, so that nothing is resampled.
                let drawn = (mid_reso * side as f64).round_ties_even() as usize;
                let (a, b) = ShapesSource::splits(drawn, SHAPES_SEED)?;
                (Arc::new(a), Arc::new(b))
            } else {
                let splits = Splits::open(Path::new(data_path), &folder.cut()?)?;
                remarks = splits.remarks;
                let on_canvas = |source| -> Arc<dyn ImageSource> {
                    Arc::new(OnCanvas::new(source, folder.canvas.chosen()))
                };
                (on_canvas(splits.train), on_canvas(splits.val))
            };
        Ok(Self {
            train,
            val,
            transform,
            side,
            remarks,
        })
    }

    /// The same with at most so many images to validate with, spread over all of them.
    pub(crate) fn with_fewer_to_validate(&self, most: usize) -> Self {
        let (all, most) = (self.val.len(), most.max(1));
        let val: Arc<dyn ImageSource> = match all > most {
            true => {
                let spread = (0..most).map(|i| (i * all / most) as u32);
                Arc::new(Subset::new(Arc::clone(&self.val), spread.collect()))
            }
            false => Arc::clone(&self.val),
        };
        Self {
            train: Arc::clone(&self.train),
            val,
            transform: self.transform,
            side: self.side,
            remarks: self.remarks.clone(),
        }
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.train.class_names().len()
    }

    /// What to know of the training images, of some that are looked at for a second at most: transparency, what a square leaves out,
    /// small ones.
    pub fn glance(&self, folder: &FolderOptions) -> Vec<String> {
        if !self.train.is_stored() {
            return Vec::new();
        }
        // Whoever trains on it says what is wrong with a bad one.
        let survey = SplitSurvey::of(&*self.train, Look::SHORT);
        survey.map_or_else(
            |_| Vec::new(),
            |survey| at_start(&survey, self.side, folder),
        )
    }

    /// Gives the images the labels that a model knows their classes by, for any part of its classes; how many of them the images have.
    ///
    /// # Errors
    /// As [`ModelClasses::of`]; `source` says where the images are from.
    pub fn label_as(&mut self, model: &ModelClasses<'_>, source: &str) -> Result<usize> {
        let places = model.of(self.train.class_names(), source)?;
        let names: Arc<[String]> = match model.names {
            Some(names) => names.into(),
            None => self.train.class_names().into(),
        };
        for split in [&mut self.train, &mut self.val] {
            let labels = places.iter().map(|&p| p as u32).collect();
            *split = Arc::new(Relabelled::new(
                Arc::clone(split),
                labels,
                Arc::clone(&names),
            ));
        }
        Ok(places.len())
    }

    /// The first images of a class, validation images before others, as they validate (`[n, side, side, 3]`): `count` of them, or fewer
    /// where there are no more that can be read.
    pub fn first_of(&self, class: u32, count: usize) -> Vec<u8> {
        let mut pixels = Vec::new();
        let mut resizer = Resizer::default();
        for source in [&self.val, &self.train] {
            let own = (0..source.len()).filter(|&index| source.label(index) == class);
            // A bad one is told of where it is trained on.
            for index in own.take(2 * count) {
                let start = pixels.len();
                if start >= count * self.transform.bytes() {
                    return pixels;
                }
                let Ok(image) = source.image(index) else {
                    continue;
                };
                pixels.resize(start + self.transform.bytes(), 0);
                let made = self
                    .transform
                    .center(&image, &mut resizer, &mut pixels[start..]);
                if made.is_err() {
                    pixels.truncate(start);
                }
            }
        }
        pixels
    }

    /// Training batches from (epoch, iteration) `start` on.
    ///
    /// # Errors
    /// When threads can't be started.
    pub fn train_loader(
        &self,
        batch: usize,
        start: (u64, usize),
        config: LoaderConfig,
    ) -> Result<TrainLoader> {
        let sampler = TrainSampler::new(self.train.len(), batch, config.share, config.seed)?;
        TrainLoader::new(
            Arc::clone(&self.train),
            self.transform,
            sampler,
            start,
            config,
        )
    }

    /// One pass over the validation images.
    ///
    /// # Errors
    /// When threads can't be started.
    pub fn val_loader(&self, batch: usize, config: LoaderConfig) -> Result<ValLoader> {
        let sampler = config.pass_over(self.val.len(), batch)?;
        ValLoader::new(Arc::clone(&self.val), self.transform, sampler, config)
    }

    /// One pass over the training images in their order, `crops` random crops of each (see [`ValLoader::with_crops`]); with one
    /// it is the middle.
    ///
    /// # Errors
    /// When threads can't be started.
    pub fn crops_loader(
        &self,
        batch: usize,
        crops: usize,
        config: LoaderConfig,
    ) -> Result<ValLoader> {
        let sampler = config.pass_over(self.train.len(), batch)?;
        let source = Arc::clone(&self.train);
        if crops == 1 {
            return ValLoader::new(source, self.transform, sampler, config);
        }
        ValLoader::with_crops(source, self.transform, sampler, crops, config)
    }
}

impl From<BadImages> for data::BadImages {
    fn from(flag: BadImages) -> Self {
        match flag {
            BadImages::Skip => Self::Skip,
            BadImages::Fail => Self::Stop,
        }
    }
}

/// Memory for resized pictures: a share of what the machine has left, and bytes at most.
const KEPT_SHARE: usize = 8;
const KEPT_AT_MOST: usize = 2 << 30;

/// Bytes that a process may keep pictures in, beside the `need` of its training in the machine's memory.
fn room_to_keep(world: &World, need: usize) -> usize {
    let room = Room::of(Device::Cpu).ok().flatten();
    let own = room.map_or(0, |room| room.bytes / world.local_size().max(1));
    (own.saturating_sub(need) / KEPT_SHARE).min(KEPT_AT_MOST)
}

/// The loader's settings for these flags, of a run of so many epochs that needs so much of the machine's memory.
pub(crate) fn loader_config(
    workers: usize,
    seed: u64,
    bad: BadImages,
    world: &World,
    (epochs, need): (u64, Option<usize>),
) -> LoaderConfig {
    LoaderConfig {
        workers: threads_of(world, workers),
        prefetch: 0,
        // A picture that is seen once is not worth it.
        keep: match epochs {
            0 | 1 => 0,
            _ => room_to_keep(world, need.unwrap_or(0)),
        },
        seed,
        bad_images: bad.into(),
        share: Share::from(world),
        in_turn: false,
    }
}
