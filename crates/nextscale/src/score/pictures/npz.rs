//! Pictures in an `.npz` file: `arr_0`, uint8 `[N, H, W, 3]`, as guided diffusion keeps samples and references.

use super::{Pictures, ReadAhead};
use crate::data::Transform;
use crate::format::npy::{NpyType, ended};
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
                    return Ok(());
                }
            }
            ended(&mut from, &source)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::npy::NpyHeader;
    use std::fs;
    use std::io::Write;
    use zip::write::SimpleFileOptions;

    /// Pixels of two pictures of 3×4.
    fn pixels() -> Vec<u8> {
        (0..2 * 3 * 4 * 3).map(|i| (i * 37 % 251) as u8).collect()
    }

    fn write(path: &Path, arrays: &[(&str, NpyHeader, Vec<u8>)]) {
        let mut zip = zip::ZipWriter::new(fs::File::create(path).unwrap());
        let stored =
            SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        for (name, header, bytes) in arrays {
            zip.start_file(format!("{name}.npy"), stored).unwrap();
            zip.write_all(&header.to_bytes()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
    }

    fn images() -> (&'static str, NpyHeader, Vec<u8>) {
        (IMAGES, NpyHeader::new(NpyType::U8, &[2, 3, 4, 3]), pixels())
    }

    fn all(path: &Path, transform: Option<Transform>) -> Result<Vec<PictureBatch>> {
        let mut pictures = NpzPictures::open(path, 1, transform)?;
        let mut found = Vec::new();
        while let Some(window) = pictures.next()? {
            found.extend(window);
        }
        Ok(found)
    }

    #[test]
    fn pictures_and_labels_come_as_they_lie() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npz");
        let labels = |values: [i64; 2]| {
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            (LABELS, NpyHeader::new(NpyType::I64, &[2]), bytes)
        };
        write(&path, &[images(), labels([7, 0])]);
        let found = all(&path, None).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!([&found[0].rgb[..], &found[1].rgb].concat(), pixels());
        assert_eq!((found[0].size, found[1].size), ((3, 4), (3, 4)));
        assert_eq!(
            (&found[0].labels[..], &found[1].labels[..]),
            (&[7][..], &[0][..])
        );
        // Cut as the trainings cut: the same as of the picture itself.
        let transform = Transform::new(2, 1.0, false).unwrap();
        let cut = all(&path, Some(transform)).unwrap();
        assert_eq!(
            (cut[1].size, &cut[1].rgb),
            ((2, 2), &found[1].cut(transform).unwrap().rgb)
        );
        write(&path, &[images(), labels([7, -1])]);
        let told = all(&path, None).unwrap_err().to_string();
        assert!(told.contains("arr_1: number 1 is -1"), "{told}");
    }

    #[test]
    fn damage_is_found_by_its_checksum_and_sizes_are_believed_by_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npz");
        write(&path, &[images()]);
        let mut bytes = fs::read(&path).unwrap();
        let start = pixels();
        let at = bytes.windows(start.len()).position(|w| w == start).unwrap();
        bytes[at + 30] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let told = all(&path, None).unwrap_err().to_string();
        assert!(told.contains("a.npz: arr_0: is damaged"), "{told}");
        let huge = NpyHeader::new(NpyType::U8, &[1_000_000_000_000, 3, 4, 3]);
        write(&path, &[(IMAGES, huge, pixels())]);
        let told = all(&path, None).unwrap_err().to_string();
        assert!(
            told.contains("takes 36000000000000 bytes, and holds"),
            "{told}"
        );
    }
}
