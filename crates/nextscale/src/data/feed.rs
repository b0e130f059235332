//! Batches onto the device that computes.

use super::Batch;
use crate::Result;
use nextscale_tensor::Uploads;
use nextscale_tensor::{Device, Tensor, ops};

/// Turns loaded batches into tensors on a device. Onto a GPU they travel while it computes.
#[derive(Debug)]
pub struct Feed {
    uploads: Option<Uploads>,
}

impl Feed {
    /// For this device.
    ///
    /// # Errors
    /// When the GPU can't be used.
    pub fn new(device: Device) -> Result<Self> {
        Ok(Self {
            uploads: device.gpu()?.map(Uploads::new).transpose()?,
        })
    }

    /// The images of a batch, \[B, side, side, 3\] in \[−1, 1\], and its labels.
    ///
    /// # Errors
    /// When the batch is not of side `side`, or the GPU refuses.
    pub fn batch(&mut self, batch: &Batch, side: usize) -> Result<(Tensor, Vec<i32>)> {
        let images = self.images([batch.len(), side, side, 3], &batch.images)?;
        Ok((images, batch.labels.iter().map(|&l| l as i32).collect()))
    }

    /// 8-bit images of the shape \[B, H, W, 3\], in \[−1, 1\].
    ///
    /// # Errors
    /// When the count does not fit, or the GPU refuses.
    pub fn images(&mut self, shape: [usize; 4], pixels: &[u8]) -> Result<Tensor> {
        Ok(match &mut self.uploads {
            Some(uploads) => uploads.images(shape, pixels)?,
            None => ops::from_pixels(shape, pixels)?,
        })
    }

    /// Integers of a shape.
    ///
    /// # Errors
    /// When the count does not fit, or the GPU refuses.
    pub fn integers(&mut self, shape: [usize; 2], values: Vec<i32>) -> Result<Tensor> {
        Ok(match &mut self.uploads {
            Some(uploads) => uploads.integers(shape, &values)?,
            None => Tensor::from_i32(shape, values),
        })
    }
}
