//! The reference's image transforms: resize the shorter side, crop, optionally mirror.

use nextscale_tensor::rng::Stream;

use super::{CropWindow, Resizer, RgbImage8};
use crate::model::MAX_SIDE;
use crate::{Error, Result};

/// Resizes the shorter side to `round(mid_reso·R)`, then crops R × R: anywhere for training, in the middle for
/// validation. The longer side becomes the truncated `short·long_in/short_in`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transform {
    side: usize,
    short: usize,
    hflip: bool,
}

impl Transform {
    /// The transform to images of `side` × `side` pixels by way of a shorter side of `mid_reso`·`side` (rounded,
    /// halves to even). With `hflip`, training mirrors every second image by chance, before the resize.
    ///
    /// # Errors
    /// [`Error::Input`] where `side` is 0 or above 16384, or `mid_reso` is not in 1..=16: the crop must fit.
    pub fn new(side: usize, mid_reso: f64, hflip: bool) -> Result<Self> {
        if side == 0 || side > MAX_SIDE {
            return Err(Error::input(format!(
                "`pn`: images would have {side} pixels a side; 1 to {MAX_SIDE} can be made"
            )));
        }
        if !(1.0..=16.0).contains(&mid_reso) {
            return Err(Error::field(
                "mid_reso",
                mid_reso,
                "the shorter side must be at least the crop; use a value from 1 to 16",
            ));
        }
        Ok(Self {
            side,
            short: (mid_reso * side as f64).round_ties_even() as usize,
            hflip,
        })
    }

    /// R, the side of the result in pixels.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Bytes of one result: 3·R².
    pub fn bytes(&self) -> usize {
        3 * self.side * self.side
    }

    /// The size (width, height) to which a picture of `width` × `height` is resized before the crop.
    pub fn resized(&self, width: usize, height: usize) -> (usize, usize) {
        let long = |long: usize, short: usize| {
            (self.short as u64 * long as u64 / (short as u64).max(1)) as usize
        };
        if width <= height {
            (self.short, long(height, width))
        } else {
            (long(width, height), self.short)
        }
    }

    /// The training transform of `image` into `out` (`[R, R, 3]`), with the crop and the mirroring drawn from
    /// `stream`. The crop drawn does not depend on whether mirroring is on.
    ///
    /// # Errors
    /// [`Error::Input`] where the image is empty or `out` has another length than [`Transform::bytes`].
    pub fn random(
        &self,
        image: &RgbImage8,
        stream: &mut Stream,
        resizer: &mut Resizer,
        out: &mut [u8],
    ) -> Result<()> {
        let mirrored = self.mirrors(stream);
        let size = self.resized(image.width(), image.height());
        let window = self.anywhere(size, stream);
        resizer.resize_crop(image, size, window, mirrored, out)
    }

    /// The first draw of a training transform: whether the image is mirrored.
    pub(super) fn mirrors(&self, stream: &mut Stream) -> bool {
        let mirrored = stream.uniform() < 0.5;
        self.hflip && mirrored
    }

    /// Its further draws: the crop of a picture that was resized to this size.
    pub(super) fn anywhere(
        &self,
        (width, height): (usize, usize),
        stream: &mut Stream,
    ) -> CropWindow {
        let mut draw = |side: usize| {
            let room = side.saturating_sub(self.side);
            stream.below(u32::try_from(room + 1).unwrap_or(u32::MAX)) as usize
        };
        let (top, left) = (draw(height), draw(width));
        self.window(left, top)
    }

    /// The validation transform of `image` into `out` (`[R, R, 3]`): the crop in the middle, halves of a pixel
    /// rounded to even.
    ///
    /// # Errors
    /// As [`Transform::random`].
    pub fn center(&self, image: &RgbImage8, resizer: &mut Resizer, out: &mut [u8]) -> Result<()> {
        let (width, height) = self.resized(image.width(), image.height());
        let middle =
            |side: usize| (side.saturating_sub(self.side) as f64 / 2.0).round_ties_even() as usize;
        let window = self.window(middle(width), middle(height));
        resizer.resize_crop(image, (width, height), window, false, out)
    }

    fn window(&self, left: usize, top: usize) -> CropWindow {
        CropWindow {
            left,
            top,
            width: self.side,
            height: self.side,
        }
    }
}

#[cfg(test)]
mod tests;
