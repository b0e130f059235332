//! Saving the state of a run: by the first process, with the others where they have shares; after an error too.

use super::{Driver, Task};
use crate::memory::caught;
use crate::run::checkpoints::Then;
use crate::run::event::Event;
use crate::{Error, Result, world};
use nextscale_tensor::cpu::pool::release_free;

impl<T: Task> Driver<T> {
    /// Has the first process save; all learn what came of it.
    pub(super) fn save(&mut self, then: Then) -> Result<()> {
        if !self.progress.it.is_multiple_of(self.cadence.accumulate) {
            self.task.gather_gradients()?;
        }
        if self.cx.is_first() {
            self.write(then)?;
        }
        if self.task.is_shared() {
            self.save_along()?;
        }
        let is_saved = world::of_first(&self.cx.team.world, !self.keeper.unsaved)?;
        if is_saved && !self.cx.is_first() {
            self.keeper.is_written(self.progress.it);
        }
        Ok(())
    }

    /// Of processes that have shares: the others make what the first writes, as often as it tries, and the first says that it is done.
    fn save_along(&mut self) -> Result<()> {
        let world = &self.cx.team.world;
        while world::of_first(world, !self.cx.is_first())? {
            release_free();
            self.task.save_along(&self.progress)?;
        }
        Ok(())
    }

    fn write(&mut self, then: Then) -> Result<()> {
        // The copies that are written take the place of what steps left free.
        release_free();
        self.cx.observers.tell(Event::Saving);
        let (task, progress) = (&self.task, &self.progress);
        let (observers, world) = (&mut self.cx.observers, &self.cx.team.world);
        self.keeper
            .save_then(then, progress.it, observers, |path| {
                if task.is_shared() {
                    world::of_first(world, true)?;
                }
                task.save(progress, path)
            })?;
        if !self.keeper.unsaved {
            let step = self.steps();
            let path = self.keeper.last();
            self.cx.observers.tell(Event::Saved { step, path });
            self.task.saved(&self.progress, &mut self.cx);
        }
        Ok(())
    }

    /// Saves the last whole step after an error, where its state is still there; the error with where the run can go on from.
    pub(super) fn rescue(&mut self, e: Error) -> Error {
        if matches!(e, Error::Diverged(_)) {
            return e;
        }
        // What the first process saves is its own to tell.
        if !self.cx.is_first() {
            return e;
        }
        // The others' shares are not to be had any more.
        if self.task.is_shared() {
            return self.keeper.explain(e);
        }
        if let Err(found) = self.drain() {
            // What has diverged is not saved; what the device no longer gives can't be.
            return match found {
                Error::Diverged(_) => found,
                _ => self.keeper.explain(e),
            };
        }
        let intact = self.task.is_intact() && self.task.updates().ok() == Some(self.updates_made);
        let lacks = |it: u64| self.keeper.unsaved && !self.keeper.holds(it);
        let whole = self.whole.take();
        let Some((progress, state)) = whole.filter(|(p, _)| intact && lacks(p.it)) else {
            return self.keeper.explain(e);
        };
        self.progress = progress;
        self.task.set_state(state);
        match caught(|| self.write(Then::Ends)) {
            Ok(()) => self.keeper.explain(e),
            Err(more) => e.and(&self.keeper.lost(self.progress.it, more).to_string()),
        }
    }
}
