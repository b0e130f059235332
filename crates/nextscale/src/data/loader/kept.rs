//! Resized pictures that are kept in memory, so that later epochs decode no files for them.
//!
//! A crop of a kept picture is the crop that decoding and resizing it again would give, bit for bit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::data::{CropWindow, RgbImage8};

/// What a picture takes beside its pixels.
const BESIDE: usize = 128;

/// Pictures by their places in the source and whether they are mirrored, as many as a given memory holds.
#[derive(Debug)]
pub(super) struct Kept {
    pictures: RwLock<HashMap<(usize, bool), Arc<RgbImage8>>>,
    /// Bytes that are left.
    left: Mutex<usize>,
}

impl Kept {
    /// None yet; so many bytes at most.
    pub(super) fn within(bytes: usize) -> Self {
        Self {
            pictures: RwLock::default(),
            left: Mutex::new(bytes),
        }
    }

    /// A picture, where it is there.
    pub(super) fn get(&self, index: usize, mirrored: bool) -> Option<Arc<RgbImage8>> {
        let pictures = self.pictures.read().unwrap_or_else(PoisonError::into_inner);
        pictures.get(&(index, mirrored)).cloned()
    }

    /// Takes room for a picture of this size; whether there was some.
    pub(super) fn claim(&self, (width, height): (usize, usize)) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = left.checked_sub(bytes(width, height));
        *left = rest.unwrap_or(*left);
        rest.is_some()
    }

    /// Puts a picture in for which room was taken. One that was there already gives its room back.
    pub(super) fn put(&self, index: usize, mirrored: bool, picture: RgbImage8) -> Arc<RgbImage8> {
        let picture = Arc::new(picture);
        let mut pictures = self
            .pictures
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = pictures.insert((index, mirrored), Arc::clone(&picture)) {
            self.give_back((before.width(), before.height()));
        }
        picture
    }

    /// Gives room back that was taken.
    pub(super) fn give_back(&self, (width, height): (usize, usize)) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) += bytes(width, height);
    }
}

fn bytes(width: usize, height: usize) -> usize {
    3 * width * height + BESIDE
}

/// Copies a part of a picture to `out` (`[window.height, window.width, 3]`).
pub(super) fn cut(picture: &RgbImage8, window: CropWindow, out: &mut [u8]) {
    let from = 3 * window.left;
    let rows = out.chunks_exact_mut(3 * window.width);
    for (y, row) in rows.take(window.height).enumerate() {
        row.copy_from_slice(&picture.row(window.top + y)[from..from + 3 * window.width]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_kept_while_there_is_room() {
        let kept = Kept::within(2 * (12 + BESIDE) + 11);
        let picture = |v: u8| RgbImage8::new(2, 2, vec![v; 12]).unwrap();
        assert!(kept.claim((2, 2)) && kept.claim((2, 2)) && !kept.claim((2, 2)));
        kept.put(3, false, picture(1));
        kept.put(3, true, picture(2));
        assert_eq!(*kept.get(3, false).unwrap(), picture(1));
        assert_eq!(*kept.get(3, true).unwrap(), picture(2));
        assert_eq!(kept.get(4, true), None);
        kept.put(3, true, picture(2));
        assert!(kept.claim((2, 2)) && !kept.claim((2, 2)));
    }

    #[test]
    fn a_part_is_cut_out() {
        let picture = RgbImage8::new(3, 3, (0..27).collect()).unwrap();
        let window = CropWindow {
            left: 1,
            top: 1,
            width: 2,
            height: 2,
        };
        let mut out = vec![0; 12];
        cut(&picture, window, &mut out);
        assert_eq!(out, [12, 13, 14, 15, 16, 17, 21, 22, 23, 24, 25, 26]);
    }
}
