//! Validation losses of the transformer.

use super::{Measures, PendingMeasures, TeacherForcing};
use crate::Result;
use crate::data::tokens::TokenLoader;
use crate::data::{Feed, ValLoader};
use nextscale_tensor::Values;

/// Losses and accuracies by scale over all images of a loader; `each` is told of every batch's images.
///
/// # Errors
/// When an image can't be loaded or shapes do not fit, and those of `each`, which so ends it.
pub fn evaluate_losses(
    model: TeacherForcing<'_>,
    loader: &mut ValLoader,
    side: usize,
    mut each: impl FnMut(usize) -> Result<()>,
) -> Result<Measures> {
    let mut feed = Feed::new(model.var.device())?;
    let mut seen = 0;
    let measures = sum(|| {
        let Some(batch) = loader.next_batch()? else {
            return Ok(None);
        };
        seen += batch.len();
        let labels: Vec<i32> = batch.labels.iter().map(|&l| l as i32).collect();
        model.var.check_labels(&labels)?;
        let [images, labels] = feed.labelled(&batch, side)?;
        let pending = model.measure(&images, &labels)?;
        each(batch.len())?;
        Ok(Some(pending))
    })?;
    super::some_images(seen, loader)?;
    Ok(measures)
}

/// The same over images that were tokenized before.
///
/// # Errors
/// When tokens can't be read or shapes do not fit.
pub fn evaluate_token_losses(
    model: TeacherForcing<'_>,
    loader: &mut TokenLoader,
    mut each: impl FnMut(usize) -> Result<()>,
) -> Result<Measures> {
    let mut feed = Feed::new(model.var.device())?;
    let row = model.var.config.pyramid.total();
    sum(|| {
        let Some(batch) = loader.next_batch()? else {
            return Ok(None);
        };
        model.var.check_labels(&batch.labels)?;
        let b = batch.labels.len();
        let [tokens, labels] = feed.together([
            ([b, row].into(), Values::Integers(&batch.tokens)),
            ([b].into(), Values::Integers(&batch.labels)),
        ])?;
        let pending = model.measure_rows(&tokens, &labels)?;
        each(batch.labels.len())?;
        Ok(Some(pending))
    })
}

/// Sums batches; figures of one are read when the next one was asked for, so that a GPU never waits.
fn sum(mut next: impl FnMut() -> Result<Option<PendingMeasures>>) -> Result<Measures> {
    let mut all = Measures::default();
    let mut out: Option<PendingMeasures> = None;
    while let Some(pending) = next()? {
        if let Some(before) = out.replace(pending) {
            all.add(&before.read()?);
        }
    }
    if let Some(last) = out {
        all.add(&last.read()?);
    }
    Ok(all)
}
