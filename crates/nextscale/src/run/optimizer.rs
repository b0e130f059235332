//! An optimizer's state from a checkpoint, whichever model it is of.

use crate::Result;
use crate::checkpoint::ScalerState;
use crate::format::StateDict;
use crate::model::state::{load_average, load_buffer, load_moment};
use crate::train::optimizer::Optimizer;
use nextscale_tensor::Params;
use nextscale_tensor::ops::Scaling;

/// What a checkpoint holds of an optimizer.
pub(super) struct SavedOptimizer<'a> {
    /// The first and the second.
    pub(super) moments: [&'a StateDict; 2],
    /// Gradients since the last update.
    pub(super) pending: &'a StateDict,
    /// Averaged weights, where there are some.
    pub(super) average: Option<&'a StateDict>,
    pub(super) scaler: Option<&'a ScalerState>,
    /// Updates made.
    pub(super) updates: u64,
    /// Steps made, those among them that the loss scale left out.
    pub(super) steps: u64,
}

/// Puts it into the optimizer of `params`; gradients since the last update go to the first process.
///
/// # Errors
/// When it is of another model or holds numbers that are none: one line that names `source`.
pub(super) fn restore(
    opt: &mut Optimizer,
    params: &Params,
    saved: &SavedOptimizer<'_>,
    is_first: bool,
    source: &str,
) -> Result<()> {
    let [m, v] = saved.moments;
    load_moment(&mut opt.exp_avg, params, m, source)?;
    load_moment(&mut opt.exp_avg_sq, params, v, source)?;
    if let Some(average) = &mut opt.average {
        if let Some(before) = saved.average {
            load_average(&mut average.weights, params, before, source)?;
        }
        average.resume(params, saved.steps, saved.average.is_some())?;
    }
    // A run in another precision than before begins with its own loss scale, or without one, and gradients made with another
    // scale are of no use to it.
    let own = opt.scaler()?;
    if is_first && own.is_some() == saved.scaler.is_some() {
        load_buffer(&mut opt.grads, params, saved.pending)?;
    }
    let scaler = own.map(|own| saved.scaler.map_or(own, Scaling::from));
    opt.resume(saved.updates, scaler)
}
