//! Pictures of a folder, of shards, or built-in ones.

use super::{Pictures, ReadAhead};
use crate::data::{ImageSource, LoadBuffers, Resizer, RgbImage8, Transform};
use crate::score::PictureBatch;
use crate::{Error, Result};
use rayon::prelude::*;
use std::sync::Arc;

/// All images of a source in their order, decoded ahead.
#[derive(Debug)]
pub struct StoredPictures {
    count: usize,
    ahead: ReadAhead,
}

impl StoredPictures {
    /// `batch` images at a time, as they are, or as `transform` cuts their middle.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn new(
        source: Arc<dyn ImageSource>,
        batch: usize,
        transform: Option<Transform>,
    ) -> Result<Self> {
        let count = source.len();
        let read = move |give: &mut dyn FnMut(Vec<PictureBatch>) -> bool| {
            let step = batch.max(1);
            for first in (0..count).step_by(step) {
                let last = (first + step).min(count);
                let images = (first..last)
                    .into_par_iter()
                    .map_init(Buffers::default, |buffers, i| {
                        buffers.load(&*source, i, transform)
                    })
                    .collect::<Result<Vec<_>>>()?;
                let labels = (first..last).map(|i| source.label(i));
                if !give(by_size(images, first, labels.collect())) {
                    break;
                }
            }
            Ok(())
        };
        Ok(Self {
            count,
            ahead: ReadAhead::start(read)?,
        })
    }
}

impl Pictures for StoredPictures {
    fn len(&self) -> usize {
        self.count
    }

    fn next(&mut self) -> Result<Option<Vec<PictureBatch>>> {
        self.ahead.window()
    }
}

/// What a thread decodes with.
#[derive(Default)]
struct Buffers {
    load: LoadBuffers,
    resizer: Resizer,
}

impl Buffers {
    fn load(
        &mut self,
        source: &dyn ImageSource,
        index: usize,
        transform: Option<Transform>,
    ) -> Result<RgbImage8> {
        source.load(index, &mut self.load)?;
        let Some(transform) = transform else {
            return Ok(std::mem::take(&mut self.load.image));
        };
        let mut rgb = vec![0; transform.bytes()];
        transform
            .center(&self.load.image, &mut self.resizer, &mut rgb)
            .map_err(|e| match e {
                Error::Input(text) => Error::input(format!("{}: {text}", source.name(index))),
                other => other,
            })?;
        RgbImage8::new(transform.side(), transform.side(), rgb)
    }
}

/// Images in batches of one size each, in the order in which sizes come first.
fn by_size(images: Vec<RgbImage8>, first: usize, labels: Vec<u32>) -> Vec<PictureBatch> {
    let mut batches: Vec<PictureBatch> = Vec::new();
    for (i, (image, label)) in images.into_iter().zip(labels).enumerate() {
        let size = (image.height(), image.width());
        let batch = match batches.iter_mut().find(|batch| batch.size == size) {
            Some(batch) => batch,
            None => {
                batches.push(PictureBatch {
                    rgb: Vec::new(),
                    size,
                    places: Vec::new(),
                    labels: Vec::new(),
                });
                let last = batches.len() - 1;
                &mut batches[last]
            }
        };
        batch.rgb.extend_from_slice(image.data());
        batch.places.push(first + i);
        batch.labels.push(label);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::ShapesSource;

    #[test]
    fn sizes_are_kept_apart_and_places_known() {
        let image = |side: usize, v: u8| RgbImage8::new(side, side, vec![v; side * side * 3]);
        let images = vec![
            image(2, 1).unwrap(),
            image(3, 2).unwrap(),
            image(2, 3).unwrap(),
        ];
        let batches = by_size(images, 7, vec![4, 5, 6]);
        assert_eq!(batches.len(), 2);
        assert_eq!(batches[0].size, (2, 2));
        assert_eq!(batches[0].places, [7, 9]);
        assert_eq!(batches[0].labels, [4, 6]);
        assert_eq!(batches[0].rgb, [[1; 12], [3; 12]].concat());
        assert_eq!(batches[1].places, [8]);
    }

    #[test]
    fn every_image_comes_once_in_order() {
        let (_, val) = ShapesSource::splits(16, 0).unwrap();
        let source: Arc<dyn ImageSource> = Arc::new(val);
        let mut pictures = StoredPictures::new(Arc::clone(&source), 7, None).unwrap();
        assert_eq!(pictures.len(), source.len());
        let mut places: Vec<usize> = Vec::new();
        while let Some(window) = pictures.next().unwrap() {
            let [batch] = &window[..] else {
                panic!("images of one size come in one batch")
            };
            let of = |place: &usize| source.image(*place).unwrap().into_data();
            assert_eq!(
                batch.rgb,
                batch.places.iter().flat_map(of).collect::<Vec<_>>()
            );
            places.extend(&batch.places);
        }
        assert_eq!(places, (0..source.len()).collect::<Vec<_>>());
        // Whoever stops early leaves no thread that waits for ever.
        let mut pictures = StoredPictures::new(source, 1, None).unwrap();
        assert!(pictures.next().unwrap().is_some());
    }
}
