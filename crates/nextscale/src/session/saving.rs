//! When a run saves and what a failed save means: the same for both trainers.

use super::Outcome;
use super::checkpoints::Keeper;
use crate::data::BadImage;
use crate::log::display::Display;
use crate::memory::caught;
use crate::{Error, Result};
use std::path::Path;

/// What comes after a save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Training goes on whether it worked or not: a full disk may have room again the next time.
    GoesOn,
    /// Nothing: on a full disk the checkpoints before the last make room.
    Ends,
}

impl Keeper {
    /// Saves the state after `it` iterations by `write`, and tells what went wrong where that does not end the run.
    ///
    /// # Errors
    /// Where the state is not saved and nothing comes after, or for another reason than the disk.
    pub(super) fn save_then(
        &mut self,
        then: Then,
        it: u64,
        display: &mut Display,
        mut write: impl FnMut(&Path) -> Result<()>,
    ) -> Result<()> {
        let mut saved = self.save(it, &mut write);
        if let (Then::Ends, Err(e)) = (then, &saved)
            && let Some(line) = self.make_room(e)
        {
            display.warn(&line);
            saved = self.save(it, &mut write);
        }
        match saved {
            Ok(kept) => {
                self.unsaved = false;
                if let Some(e) = kept {
                    display.warn(&format!(
                        "{e}; the state is saved, but the checkpoint before it is not kept"
                    ));
                }
                Ok(())
            }
            Err(e @ Error::Io { .. }) if then == Then::GoesOn => {
                if let Some(line) = self.missed(it, &e) {
                    display.warn(&line);
                }
                Ok(())
            }
            Err(e) => Err(e),
        }
    }
}

/// A trainer's run, as far as its end has to know it.
pub(super) trait Run {
    /// Trains up to the end, the step limit or a stop signal.
    fn train(&mut self) -> Result<()>;

    /// Looks at the report that is still out.
    fn settle_last(&mut self) -> Result<()>;

    /// The iterations after which the last whole step has left the run, where nothing has changed its state since.
    fn whole(&self) -> Option<u64>;

    /// Takes what goes into a checkpoint back to the last whole step.
    fn go_back(&mut self);

    /// Saves the state as it is.
    fn save(&mut self, then: Then) -> Result<()>;

    fn keeper(&self) -> &Keeper;

    /// Iterations done.
    fn iterations(&self) -> u64;

    fn outcome(&self) -> Outcome;
}

/// Trains; whatever ends that, the state of the last whole step is saved. `explain` says more of an error.
pub(super) fn to_the_end<R: Run>(
    run: &mut R,
    explain: impl Fn(&R, Error) -> Error,
) -> Result<Outcome> {
    match caught(|| run.train()) {
        // Only what comes after a save is left in its middle.
        Ok(()) | Err(Error::Stopped) => {}
        Err(e) => {
            let e = explain(run, e);
            return Err(rescue(run, e));
        }
    }
    if run.keeper().unsaved {
        let saved = run.save(Then::Ends);
        saved.map_err(|e| run.keeper().lost(run.iterations(), e))?;
    }
    Ok(run.outcome())
}

/// Saves the last whole step after an error, where its state is still there; the error with where the run can go on from.
fn rescue(run: &mut impl Run, e: Error) -> Error {
    if matches!(e, Error::Diverged(_)) {
        return e;
    }
    if let Err(found) = run.settle_last() {
        // What has diverged is not saved; what the device no longer gives can't be.
        return match found {
            Error::Diverged(_) => found,
            _ => run.keeper().explain(e),
        };
    }
    let keeper = run.keeper();
    let lacks = |it: &u64| keeper.unsaved && !keeper.holds(*it);
    if run.whole().filter(lacks).is_none() {
        return keeper.explain(e);
    }
    run.go_back();
    match caught(|| run.save(Then::Ends)) {
        Ok(()) => run.keeper().explain(e),
        Err(more) => e.and(&run.keeper().lost(run.iterations(), more).to_string()),
    }
}

/// Names the images that were left out of training.
pub(super) fn report_bad(bad: &[BadImage], display: &mut Display) {
    if bad.is_empty() {
        return;
    }
    let count = bad.len();
    display.warn(&format!(
        "{count} images could not be read and were replaced:"
    ));
    bad.iter().for_each(|b| display.warn(&b.reason));
}
