//! Whether pictures can be recognised: a nearest-neighbour classifier of a folder's own classes.

use crate::Result;
use crate::data::KnnClassifier;

/// Neighbours that vote.
const NEIGHBOURS: usize = 5;
/// Larger pictures are shrunk to this side or less before they are compared: it is shapes and colours that tell classes.
const SIDE: usize = 64;

/// Names pictures by those that are nearest among some that are known ([`KnnClassifier`]).
///
/// With pictures of noise among the known ones, what looks like noise is of no class, so that a folder of one class can be judged too.
pub struct Judge {
    knn: KnnClassifier,
    side: usize,
}

impl Judge {
    /// Remembers `images` (`[N, side, side, 3]`) with their labels, and `noise` (`[M, side, side, 3]`), which is of no class.
    ///
    /// # Errors
    /// When lengths do not fit, or there are no images.
    pub fn fit(images: &[u8], labels: &[u32], noise: &[u8], side: usize) -> Result<Self> {
        let of_none = labels.iter().max().map_or(0, |last| last + 1);
        let count = noise.len() / (side * side * 3).max(1);
        let mut all = shrunk(images, side);
        all.extend(shrunk(noise, side));
        let mut labels = labels.to_vec();
        labels.resize(labels.len() + count, of_none);
        let small = side / factor(side);
        let k = NEIGHBOURS.min(labels.len().max(1));
        let knn = KnnClassifier::fit(all, labels, small * small * 3, k)?;
        Ok(Self { knn, side })
    }

    /// How many of `images` (`[n, side, side, 3]`) it names as their labels do.
    ///
    /// # Errors
    /// When lengths do not fit.
    pub fn right(&self, images: &[u8], labels: &[u32]) -> Result<usize> {
        let named = self.knn.predict(&shrunk(images, self.side))?;
        Ok(named.iter().zip(labels).filter(|(a, b)| a == b).count())
    }
}

/// By how much pictures of a side are shrunk.
fn factor(side: usize) -> usize {
    let least = side.div_ceil(SIDE).max(1);
    (least..=side.max(1))
        .find(|factor| side.is_multiple_of(*factor))
        .unwrap_or(1)
}

/// Square pictures as the means of their tiles.
fn shrunk(images: &[u8], side: usize) -> Vec<u8> {
    let by = factor(side);
    if by == 1 {
        return images.to_vec();
    }
    let (small, area) = (side / by, (by * by) as u32);
    let mut out = Vec::with_capacity(images.len() / (by * by));
    for image in images.chunks_exact(side * side * 3) {
        for y in 0..small {
            for x in 0..small {
                for c in 0..3 {
                    let mut sum = area / 2;
                    for row in 0..by {
                        for col in 0..by {
                            let at = ((y * by + row) * side + x * by + col) * 3 + c;
                            sum += u32::from(image[at]);
                        }
                    }
                    out.push((sum / area) as u8);
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_noise_are_told_apart() {
        let flat = |value: u8| vec![value; 128 * 128 * 3];
        let known = [flat(0), flat(200)].concat();
        let judge = Judge::fit(&known, &[0, 1], &flat(100), 128).unwrap();
        // Five neighbours of three: the nearest decides a tie.
        assert_eq!(
            judge
                .right(&[flat(10), flat(190)].concat(), &[0, 1])
                .unwrap(),
            2
        );
        assert_eq!(judge.right(&flat(110), &[0]).unwrap(), 0);
        assert_eq!(judge.right(&flat(110), &[2]).unwrap(), 1);
    }

    #[test]
    fn pictures_are_shrunk_by_the_means_of_their_tiles() {
        assert_eq!(
            [factor(32), factor(64), factor(96), factor(128), factor(256)],
            [1, 1, 2, 2, 4]
        );
        let mut image = vec![0u8; 128 * 128 * 3];
        image[..3].copy_from_slice(&[8, 4, 3]);
        let small = shrunk(&image, 128);
        assert_eq!(small.len(), 64 * 64 * 3);
        // Thirds are rounded: (3 + 2) / 4.
        assert_eq!(small[..4], [2, 1, 1, 0]);
    }
}
