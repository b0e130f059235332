//! Validation losses of the transformer.

use crate::Result;
use crate::data::{Batch, ValLoader};
use crate::train::var_trainer::{Measures, VarTrainer};
use nextscale_tensor::{Tensor, ops};

/// Losses and accuracies by scale over all images of a loader.
///
/// # Errors
/// When an image can't be loaded or shapes do not fit.
pub fn evaluate_losses(
    trainer: &VarTrainer,
    loader: &mut ValLoader,
    side: usize,
    mut each: impl FnMut(usize) -> Result<()>,
) -> Result<Measures> {
    let mut all = Measures::default();
    while let Some(batch) = loader.next_batch()? {
        let (images, labels) = tensors(&batch, side)?;
        all.add(&trainer.evaluate(&images, &labels)?);
        each(batch.len())?;
    }
    Ok(all)
}

/// A batch as images \[B, R, R, 3\] in \[−1, 1\] and labels.
///
/// # Errors
/// When the batch is not of side `side`.
pub(crate) fn tensors(batch: &Batch, side: usize) -> Result<(Tensor, Vec<i32>)> {
    let images = ops::from_pixels([batch.len(), side, side, 3], &batch.images)?;
    Ok((images, batch.labels.iter().map(|&l| l as i32).collect()))
}
