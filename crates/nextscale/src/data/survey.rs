//! What the images of a folder are like: sizes, shapes, transparency, what is bad, what is there twice.

use super::{BadImage, ImageSource, LoadBuffers, is_of_the_file};
use crate::Result;
use rayon::prelude::*;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much of a folder is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Images of a split at most, spread over all of it where time is enough.
    pub most: usize,
    /// For how long at most.
    pub time: Duration,
}

impl Look {
    /// A glance at the start of a run.
    pub const SHORT: Self = Self {
        most: 400,
        time: Duration::from_secs(1),
    };
    /// Always the same ones, for what must not depend on the machine's speed.
    pub const SOME: Self = Self {
        most: 100,
        time: Duration::MAX,
    };
    /// All of an ordinary folder, a part of a very large one.
    pub const LONG: Self = Self {
        most: 200_000,
        time: Duration::from_secs(20 * 60),
    };
}

/// An image that was decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    index: usize,
    width: usize,
    height: usize,
    is_transparent: bool,
    is_gray: bool,
    /// Of its pixels.
    hash: u64,
}

impl Seen {
    fn of(index: usize, buffers: &LoadBuffers) -> Self {
        let image = &buffers.image;
        let mut hasher = DefaultHasher::new();
        (image.width(), image.height(), image.data()).hash(&mut hasher);
        let (pixels, _) = image.data().as_chunks::<3>();
        Self {
            index,
            width: image.width(),
            height: image.height(),
            is_transparent: buffers.is_transparent,
            is_gray: pixels.iter().all(|&[r, g, b]| r == g && g == b),
            hash: hasher.finish(),
        }
    }

    fn short(&self) -> usize {
        self.width.min(self.height)
    }

    /// The share of it that a square leaves out.
    fn beyond_square(&self) -> f64 {
        1.0 - self.short() as f64 / self.width.max(self.height).max(1) as f64
    }
}

/// What came of an image, and the seconds that it took.
struct Found {
    seconds: f64,
    image: std::result::Result<Seen, BadImage>,
}

/// What is to be known of one split.
#[derive(Clone, Debug, Default)]
pub struct SplitSurvey {
    /// Images that there are.
    pub images: usize,
    /// Images of each class.
    pub by_class: Vec<usize>,
    seen: Vec<Seen>,
    /// Images that can't be read, among those that were looked at.
    pub bad: Vec<BadImage>,
    /// Seconds that one thread takes to read an image.
    pub seconds: f64,
}

impl SplitSurvey {
    /// Looks at the images of a source.
    ///
    /// # Errors
    /// Whatever else than a bad file goes wrong.
    pub fn of(source: &dyn ImageSource, look: Look) -> Result<Self> {
        let images = source.len();
        let mut by_class = vec![0; source.class_names().len()];
        for index in 0..images {
            if let Some(count) = by_class.get_mut(source.label(index) as usize) {
                *count += 1;
            }
        }
        let step = images.div_ceil(look.most.max(1)).max(1);
        let begun = Instant::now();
        let found: Vec<Option<Found>> = (0..images.div_ceil(step))
            .into_par_iter()
            .map_init(LoadBuffers::default, |buffers, place| {
                if begun.elapsed() >= look.time {
                    return Ok(None);
                }
                let (index, start) = (place * step, Instant::now());
                let loaded = source.load(index, buffers);
                let image = match loaded {
                    Ok(()) => Ok(Seen::of(index, buffers)),
                    Err(e) if is_of_the_file(&e) => Err(BadImage {
                        index,
                        reason: e.to_string(),
                    }),
                    Err(e) => return Err(e),
                };
                buffers.let_go();
                let seconds = start.elapsed().as_secs_f64();
                Ok(Some(Found { seconds, image }))
            })
            .collect::<Result<_>>()?;
        let mut out = Self {
            images,
            by_class,
            ..Self::default()
        };
        let mut seconds = 0.0;
        for found in found.into_iter().flatten() {
            seconds += found.seconds;
            match found.image {
                Ok(seen) => out.seen.push(seen),
                Err(bad) => out.bad.push(bad),
            }
        }
        out.seconds = seconds / out.looked_at().max(1) as f64;
        Ok(out)
    }

    /// Images that were looked at.
    pub fn looked_at(&self) -> usize {
        self.seen.len() + self.bad.len()
    }

    /// Images with transparent parts.
    pub fn transparent(&self) -> usize {
        self.seen.iter().filter(|s| s.is_transparent).count()
    }

    /// Images without colours.
    pub fn gray(&self) -> usize {
        self.seen.iter().filter(|s| s.is_gray).count()
    }

    /// Images whose shorter side has fewer pixels than `side`, so that they are enlarged.
    pub fn smaller_than(&self, side: usize) -> usize {
        self.seen.iter().filter(|s| s.short() < side).count()
    }

    /// The middle one of the shorter sides.
    pub fn median_side(&self) -> Option<usize> {
        self.side_at(0.5)
    }

    /// The shorter side below which a share of the images is; 0 gives the smallest, 1 the largest.
    pub fn side_at(&self, share: f64) -> Option<usize> {
        let mut sides: Vec<usize> = self.seen.iter().map(Seen::short).collect();
        sides.sort_unstable();
        let last = sides.len().checked_sub(1)?;
        sides.get((share * last as f64).round() as usize).copied()
    }

    /// The sizes that most images have, with how many.
    pub fn sizes(&self, most: usize) -> Vec<((usize, usize), usize)> {
        let mut counts = HashMap::<_, usize>::new();
        for s in &self.seen {
            *counts.entry((s.width, s.height)).or_default() += 1;
        }
        let mut sizes: Vec<_> = counts.into_iter().collect();
        sizes.sort_by_key(|&(size, n)| (std::cmp::Reverse(n), size));
        sizes.truncate(most);
        sizes
    }

    /// Images that are no squares; what a square leaves out of an image, on average and at most, as a share.
    pub fn beyond_square(&self) -> (usize, f64, f64) {
        let shares: Vec<f64> = self.seen.iter().map(Seen::beyond_square).collect();
        let odd = shares.iter().filter(|&&share| share > 0.0).count();
        let mean = shares.iter().sum::<f64>() / shares.len().max(1) as f64;
        (odd, mean, shares.iter().copied().fold(0.0, f64::max))
    }

    /// Places of images that have the same pixels as one before them, with those of the first ones.
    pub fn repeated(&self) -> Vec<(usize, usize)> {
        let mut first = HashMap::new();
        let seen = self.seen.iter();
        seen.filter_map(|s| match first.entry(s.hash) {
            Entry::Occupied(before) => Some((s.index, *before.get())),
            Entry::Vacant(place) => {
                place.insert(s.index);
                None
            }
        })
        .collect()
    }

    /// The place of the image that a square leaves most out of.
    fn longest(&self) -> Option<usize> {
        let all = self.seen.iter();
        let longest = all.max_by(|a, b| a.beyond_square().total_cmp(&b.beyond_square()))?;
        Some(longest.index)
    }

    /// Places of images that `other` has too, here and there.
    pub fn shared_with(&self, other: &Self) -> Vec<(usize, usize)> {
        let there: HashMap<u64, usize> = other.seen.iter().map(|s| (s.hash, s.index)).collect();
        let here = self.seen.iter();
        here.filter_map(|s| Some((s.index, *there.get(&s.hash)?)))
            .collect()
    }
}

/// What is to be known of a data folder.
#[derive(Clone)]
pub struct Survey {
    /// Training images.
    pub train: SplitSurvey,
    /// Validation images.
    pub val: SplitSurvey,
    sources: [Arc<dyn ImageSource>; 2],
}

impl Survey {
    /// Looks at both splits; sizes are those of the sources, which should be laid on no square.
    ///
    /// # Errors
    /// Whatever else than a bad file goes wrong.
    pub fn of(
        train: &Arc<dyn ImageSource>,
        val: &Arc<dyn ImageSource>,
        look: Look,
    ) -> Result<Self> {
        Ok(Self {
            train: SplitSurvey::of(&**train, look)?,
            val: SplitSurvey::of(&**val, look)?,
            sources: [Arc::clone(train), Arc::clone(val)],
        })
    }

    /// The classes' names.
    pub fn classes(&self) -> &[String] {
        self.sources[0].class_names()
    }

    /// Training images with the same pixels as another: how many there are, and the first such pair.
    pub fn twins(&self) -> Option<(usize, [String; 2])> {
        let repeated = self.train.repeated();
        let &(again, first) = repeated.first()?;
        let names = [first, again].map(|index| self.sources[0].name(index));
        Some((repeated.len(), names))
    }

    /// The training image that a square leaves most out of.
    pub fn longest(&self) -> Option<String> {
        Some(self.sources[0].name(self.train.longest()?))
    }

    /// A pair of names for images that validate and train: the first found, and how many there are.
    pub fn in_both(&self) -> Option<(usize, [String; 2])> {
        let shared = self.val.shared_with(&self.train);
        let &(val, train) = shared.first()?;
        let [of_train, of_val] = &self.sources;
        Some((shared.len(), [of_val.name(val), of_train.name(train)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::FolderSource;
    use std::path::Path;

    fn write(path: &Path, width: usize, height: usize, color: [u8; 3]) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut bytes = format!("P6 {width} {height} 255\n").into_bytes();
        bytes.extend(color.repeat(width * height));
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn a_folder_is_told_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        write(&at("train/a/1.ppm"), 4, 4, [9, 9, 9]);
        write(&at("train/a/2.ppm"), 8, 4, [1, 2, 3]);
        write(&at("train/b/3.ppm"), 4, 4, [9, 9, 9]);
        std::fs::write(at("train/b/4.ppm"), b"P6 nothing").unwrap();
        write(&at("val/a/1.ppm"), 4, 4, [9, 9, 9]);
        write(&at("val/b/2.ppm"), 6, 3, [7, 0, 0]);
        let open = |name: &str| -> Arc<dyn ImageSource> {
            Arc::new(FolderSource::open(at(name)).unwrap())
        };
        let survey = Survey::of(&open("train"), &open("val"), Look::LONG).unwrap();
        let train = &survey.train;
        assert_eq!((train.images, train.looked_at()), (4, 4));
        assert_eq!(train.by_class, [2, 2]);
        assert_eq!(
            (train.gray(), train.transparent(), train.repeated()),
            (2, 0, vec![(2, 0)])
        );
        let (count, [first, again]) = survey.twins().unwrap();
        assert!(count == 1 && first.contains("1.ppm") && again.contains("3.ppm"));
        assert!(survey.longest().unwrap().contains("2.ppm"));
        assert_eq!(train.bad.len(), 1);
        assert!(train.bad[0].index == 3 && train.bad[0].reason.contains("4.ppm"));
        assert_eq!(train.beyond_square(), (1, 0.5 / 3.0, 0.5));
        assert_eq!(
            (train.median_side(), train.side_at(1.0)),
            (Some(4), Some(4))
        );
        assert_eq!(train.sizes(1), [((4, 4), 2)]);
        assert_eq!((train.smaller_than(4), train.smaller_than(5)), (0, 3));
        let (count, names) = survey.in_both().unwrap();
        assert!(count == 1 && names[0].contains("val") && names[1].contains("train"));
        assert_eq!(survey.val.side_at(0.0), Some(3));
    }

    #[test]
    fn a_short_look_is_spread_over_all_images() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..20usize {
            write(&dir.path().join(format!("a/{i:02}.ppm")), i + 1, 30, [0; 3]);
        }
        let source = FolderSource::open(dir.path()).unwrap();
        let look = Look {
            most: 5,
            ..Look::LONG
        };
        let survey = SplitSurvey::of(&source, look).unwrap();
        assert_eq!((survey.images, survey.looked_at()), (20, 5));
        assert_eq!(survey.side_at(1.0), Some(17));
        let none = Look {
            time: Duration::ZERO,
            ..look
        };
        assert_eq!(SplitSurvey::of(&source, none).unwrap().looked_at(), 0);
    }
}
