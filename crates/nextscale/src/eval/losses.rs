//! Validation losses of the transformer.

use super::{Measures, PendingMeasures, TeacherForcing};
use crate::data::tokens::TokenLoader;
use crate::data::{Feed, ValLoader};
use crate::world;
use crate::{Result, Team};
use nextscale_tensor::Values;

/// Losses and accuracies by scale over all images of the loaders of a team. `seen` is told at first and after every batch how many images this
/// process has seen.
///
/// # Errors
/// When an image can't be loaded or shapes do not fit; [`Stopped`](crate::Error::Stopped) where a stop was asked for.
pub fn evaluate_losses(
    model: TeacherForcing<'_>,
    loader: &mut ValLoader,
    side: usize,
    team: &Team,
    seen: &mut dyn FnMut(usize),
) -> Result<Measures> {
    let mut done = 0;
    seen(done);
    let mut feed = Feed::new(model.var.device())?;
    let measures = sum(model, team, || {
        let Some(batch) = loader.next_batch()? else {
            return Ok(None);
        };
        let labels: Vec<i32> = batch.labels.iter().map(|&l| l as i32).collect();
        model.var.check_labels(&labels)?;
        let [images, labels] = feed.labelled(&batch, side)?;
        let pending = model.measure(&images, &labels)?;
        done += batch.len();
        seen(done);
        Ok(Some(pending))
    })?;
    super::some_images(measures.tokens[0] as usize, loader)?;
    Ok(measures)
}

/// The same over images that were tokenized before.
///
/// # Errors
/// When tokens can't be read or shapes do not fit.
pub fn evaluate_token_losses(
    model: TeacherForcing<'_>,
    loader: &mut TokenLoader,
    team: &Team,
    seen: &mut dyn FnMut(usize),
) -> Result<Measures> {
    let mut done = 0;
    seen(done);
    let mut feed = Feed::new(model.var.device())?;
    let row = model.var.config.pyramid.total();
    sum(model, team, || {
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
        done += b;
        seen(done);
        Ok(Some(pending))
    })
}

/// Sums batches over all processes; figures of one are read when the next one was asked for, so that a GPU never waits.
fn sum(
    model: TeacherForcing<'_>,
    team: &Team,
    next: impl FnMut() -> Result<Option<PendingMeasures>>,
) -> Result<Measures> {
    let own = team.agree(sum_own(team, next))?;
    // Of a process without images too.
    let scales = model.var.config.pyramid.count();
    world::sum(&team.world, own.with_scales(scales))
}

fn sum_own(
    team: &Team,
    mut next: impl FnMut() -> Result<Option<PendingMeasures>>,
) -> Result<Measures> {
    let mut all = Measures::default();
    let mut out: Option<PendingMeasures> = None;
    while let Some(pending) = next()? {
        if let Some(before) = out.replace(pending) {
            all.add(&before.read()?);
        }
        team.stop.check()?;
    }
    if let Some(last) = out {
        all.add(&last.read()?);
    }
    Ok(all)
}
