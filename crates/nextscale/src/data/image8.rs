//! A decoded picture: 8-bit RGB, row by row.

use crate::{Error, Result};

/// A picture of `height` × `width` pixels, 3 bytes (red, green, blue) each, rows from the top, no padding.
///
/// The buffer is kept when the picture is replaced by another one through [`RgbImage8::reset`], so that a
/// worker that loads thousands of files allocates once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RgbImage8 {
    width: usize,
    height: usize,
    data: Vec<u8>,
}

/// Buffers above this size are given back after use instead of being kept for the next picture.
const KEPT_BYTES: usize = 64 << 20;

impl RgbImage8 {
    /// A picture from its pixels.
    ///
    /// # Errors
    /// [`Error::Input`] where a side is 0 or `data` does not hold `3·width·height` bytes.
    pub fn new(width: usize, height: usize, data: Vec<u8>) -> Result<Self> {
        let bytes = width
            .checked_mul(height)
            .and_then(|pixels| pixels.checked_mul(3));
        if bytes != Some(data.len()) || data.is_empty() {
            return Err(Error::input(format!(
                "an image of {width}x{height} pixels can't be made of {} bytes; give 3 bytes a pixel",
                data.len()
            )));
        }
        Ok(Self {
            width,
            height,
            data,
        })
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// All pixels, `[height, width, 3]`.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The bytes of row `y`; empty where there is no such row.
    #[inline]
    pub fn row(&self, y: usize) -> &[u8] {
        let stride = 3 * self.width;
        self.data.get(y * stride..(y + 1) * stride).unwrap_or(&[])
    }

    /// Takes a new size and gives the whole buffer to be filled. The bytes in it are unspecified.
    pub fn reset(&mut self, width: usize, height: usize) -> &mut [u8] {
        let bytes = 3 * width * height;
        if bytes > self.data.capacity()
            || (self.data.capacity() > KEPT_BYTES && bytes <= KEPT_BYTES)
        {
            // The old one first. The system gives the new one's memory when it is written to: what a file claims
            // and does not bring takes none.
            self.data = Vec::new();
            self.data = vec![0; bytes];
        }
        self.width = width;
        self.height = height;
        self.data.resize(bytes, 0);
        &mut self.data
    }

    /// The picture in the middle of a square of this colour.
    ///
    /// # Errors
    /// As [`RgbImage8::new`].
    pub fn in_square(&self, color: [u8; 3]) -> Result<Self> {
        let (width, height) = (self.width, self.height);
        let side = width.max(height);
        let mut square = color.repeat(side * side);
        let (left, top) = ((side - width) / 2, (side - height) / 2);
        for y in 0..height {
            let at = 3 * ((top + y) * side + left);
            square[at..at + 3 * width].copy_from_slice(self.row(y));
        }
        Self::new(side, side, square)
    }

    /// Gives back the buffer of a large picture, which then has no pixels.
    pub(super) fn shrink(&mut self) {
        if self.data.capacity() > KEPT_BYTES {
            *self = Self::default();
        }
    }

    /// The pixels, taken out; the picture has none then.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(self).into_data()
    }

    /// The pixels, taken out.
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }
}
