//! Validation losses of the transformer.

use crate::Result;
use crate::data::{Feed, ValLoader};
use crate::train::measures::{LateMeasures, Measures};
use crate::train::var_trainer::VarTrainer;

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
    let mut feed = Feed::new(trainer.var.device())?;
    let mut all = Measures::default();
    // A batch's figures are read when the next one was asked for, so that a GPU never waits.
    let mut out: Option<LateMeasures> = None;
    while let Some(batch) = loader.next_batch()? {
        let (images, labels) = feed.batch(&batch, side)?;
        let late = trainer.evaluate(&images, &labels)?;
        if let Some(before) = out.replace(late) {
            all.add(&before.read()?);
        }
        each(batch.len())?;
    }
    if let Some(last) = out {
        all.add(&last.read()?);
    }
    Ok(all)
}
