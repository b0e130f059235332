//! Batches onto the device that computes.

use super::Batch;
use crate::Result;
use nextscale_tensor::{Device, Shape, Tensor, Uploads, Values};

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

    /// The same with the labels \[B\] on the device, where they travel with the images.
    ///
    /// # Errors
    /// As [`Feed::batch`].
    pub fn labelled(&mut self, batch: &Batch, side: usize) -> Result<[Tensor; 2]> {
        let labels: Vec<i32> = batch.labels.iter().map(|&l| l as i32).collect();
        let images = Shape::from([batch.len(), side, side, 3]);
        self.together([
            (images, Values::Pixels(&batch.images)),
            (Shape::from([labels.len()]), Values::Integers(&labels)),
        ])
    }

    /// 8-bit images of the shape \[B, H, W, 3\], in \[−1, 1\].
    ///
    /// # Errors
    /// When the count does not fit, or the GPU refuses.
    pub fn images(&mut self, shape: [usize; 4], pixels: &[u8]) -> Result<Tensor> {
        let [images] = self.together([(shape.into(), Values::Pixels(pixels))])?;
        Ok(images)
    }

    /// Integers of a shape.
    ///
    /// # Errors
    /// When the count does not fit, or the GPU refuses.
    pub fn integers(&mut self, shape: [usize; 2], values: &[i32]) -> Result<Tensor> {
        let [integers] = self.together([(shape.into(), Values::Integers(values))])?;
        Ok(integers)
    }

    /// Tensors of these shapes and values, in one copy.
    ///
    /// # Errors
    /// When a count does not fit its shape, or the GPU refuses.
    pub fn together<const N: usize>(
        &mut self,
        tensors: [(Shape, Values<'_>); N],
    ) -> Result<[Tensor; N]> {
        if let Some(uploads) = &mut self.uploads {
            return Ok(uploads.together(tensors)?);
        }
        let made = tensors.iter().map(|(shape, v)| Ok(v.on_cpu(*shape)?));
        let made = made.collect::<Result<Vec<_>>>()?;
        Ok(<[Tensor; N]>::try_from(made).expect("one for each"))
    }
}
