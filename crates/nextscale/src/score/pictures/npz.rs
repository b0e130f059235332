//! Pictures in an `.npz` file: `arr_0`, uint8 `[N, H, W, 3]`, as guided diffusion keeps samples and references.

use super::{Pictures, ReadAhead};
use crate::data::Transform;
use crate::format::npy::NpyType;
use crate::format::npz::Npz;
use crate::score::PictureBatch;
use crate::{Error, Result};
use std::io::Read;
use std::path::Path;

/// The name under which numpy's `savez` keeps an array that is given none.
pub const IMAGES: &str = "arr_0";
/// Labels that guided diffusion keeps beside samples.
const LABELS: &str = "arr_1";

/// All pictures of a file in their order.
#[derive(Debug)]
pub struct NpzPictures {
    count: usize,
    ahead: ReadAhead,
}

impl NpzPictures {
    /// `batch` images at a time, as they are, or as `transform` cuts their middle.
    ///
    /// # Errors
    /// One line where the file holds no pictures.
    pub fn open(path: &Path, batch: usize, transform: Option<Transform>) -> Result<Self> {
        let mut npz = Npz::open(path)?;
        if !npz.has(IMAGES) {
            let found = npz.names().join(", ");
            return Err(Error::input(format!(
                "{}: holds no pictures ({IMAGES}); it holds {found}",
                path.display()
            )));
        }
        let labels = Self::labels(&mut npz)?;
        let source = npz.source(IMAGES);
        let (header, _) = npz.array(IMAGES)?;
        if header.dtype != NpyType::U8 {
            return Err(Error::input(format!(
                "{source}: holds floats; pictures are expected as uint8 from 0 to 255: of images from 0 to 1 save (x * 255).round().astype('uint8')"
            )));
        }
        let &[count, height, width, channels @ (1 | 3)] = &header.shape[..] else {
            return Err(Error::input(format!(
                "{source}: is of shape {:?}; pictures are expected as [N, height, width, 3]",
                header.shape
            )));
        };
        if count * height * width == 0 {
            return Err(Error::input(format!("{source}: holds no pictures")));
        }
        if labels.as_ref().is_some_and(|l| l.len() != count) {
            return Err(Error::input(format!(
                "{}: is not one label for each of the {count} pictures",
                npz.source(LABELS)
            )));
        }
        let read = move |give: &mut dyn FnMut(Vec<PictureBatch>) -> bool| {
            let (_, mut from) = npz.array(IMAGES)?;
            for first in (0..count).step_by(batch.max(1)) {
                let places: Vec<usize> = (first..(first + batch.max(1)).min(count)).collect();
                let damaged = |why: &dyn std::fmt::Display| {
                    Error::input(format!(
                        "{source}: ends at picture {first} or is damaged: {why}"
                    ))
                };
                // Room grows with what comes, whatever the header says.
                let wanted = places.len() * height * width * channels;
                let mut bytes = Vec::new();
                (&mut from)
                    .take(wanted as u64)
                    .read_to_end(&mut bytes)
                    .map_err(|e| damaged(&e))?;
                if bytes.len() != wanted {
                    return Err(damaged(&format!("{} of {wanted} bytes", bytes.len())));
                }
                if channels == 1 {
                    bytes = bytes.into_iter().flat_map(|v| [v; 3]).collect();
                }
                let labels = labels
                    .as_ref()
                    .map(|all| all[first..first + places.len()].to_vec());
                let batch = PictureBatch {
                    rgb: bytes,
                    size: (height, width),
                    places,
                    labels: labels.unwrap_or_default(),
                };
                let batch = match transform {
                    Some(transform) => batch.cut(transform)?,
                    None => batch,
                };
                if !give(vec![batch]) {
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

    /// Labels, where the file holds some in a type that is read.
    fn labels(npz: &mut Npz) -> Result<Option<Vec<u32>>> {
        if !npz.has(LABELS) || npz.array(LABELS).is_err() {
            return Ok(None);
        }
        let source = npz.source(LABELS);
        let (_, values) = npz.numbers(LABELS, |shape| shape.len() == 1)?;
        let label = |(i, v): (usize, f64)| match v.fract() == 0.0 && (0.0..1e9).contains(&v) {
            true => Ok(v as u32),
            false => Err(Error::input(format!(
                "{source}: number {i} is {v}; labels are expected to count from 0"
            ))),
        };
        values
            .into_iter()
            .enumerate()
            .map(label)
            .collect::<Result<_>>()
            .map(Some)
    }
}

impl Pictures for NpzPictures {
    fn len(&self) -> usize {
        self.count
    }

    fn next(&mut self) -> Result<Option<Vec<PictureBatch>>> {
        self.ahead.window()
    }
}
