//! Where the processes of a run agree on its end: one that left alone would keep the others waiting.

use crate::stop::StopSignal;
use crate::world::{self, World};
use crate::{Error, Result};

/// The processes that work together, and whether any of them was asked to stop.
#[derive(Clone, Debug)]
pub struct Team {
    /// The processes.
    pub world: World,
    /// Asks this one to stop, and the others through it.
    pub stop: StopSignal,
}

impl Team {
    /// One process that nobody asks to stop.
    pub fn alone() -> Self {
        Self::of_one(StopSignal::detached())
    }

    /// One process.
    pub fn of_one(stop: StopSignal) -> Self {
        Self {
            world: World::alone(),
            stop,
        }
    }

    /// Ends work that may be left anywhere on all processes where one of them was asked to stop; `done` is what came of this process's
    /// part.
    ///
    /// # Errors
    /// [`Error::Stopped`] where a stop was asked for anywhere; other errors of `done` at once.
    pub fn agree<T>(&self, done: Result<T>) -> Result<T> {
        if self.world.size() == 1 {
            return done;
        }
        let asked = match &done {
            Ok(_) => None,
            Err(Error::Stopped) => Some(self.stop.by()),
            Err(_) => return done,
        };
        match world::of_all(&self.world, asked)?
            .into_iter()
            .flatten()
            .max()
        {
            Some(signal) => {
                self.stop.ask_with(signal);
                Err(Error::Stopped)
            }
            None => done,
        }
    }

    /// Refuses processes that were not given the same: facts by name, as every process knows them.
    ///
    /// # Errors
    /// [`Error::Input`], the same on all processes, with the first fact that differs.
    pub fn compare<const N: usize>(&self, facts: [(&str, String); N]) -> Result<()> {
        let facts = facts.map(|(name, value)| (name.to_owned(), value));
        world::compare(&self.world, facts.into())
    }

    /// Whether any process was asked to stop; then all are.
    ///
    /// # Errors
    /// When another process is gone.
    pub fn is_stop_asked(&self) -> Result<bool> {
        match self.agree(self.stop.check()) {
            Ok(()) => Ok(false),
            Err(Error::Stopped) => Ok(true),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alone_one_agrees_with_oneself() {
        let team = Team::alone();
        assert_eq!(team.agree(Ok(3)).unwrap(), 3);
        assert!(!team.is_stop_asked().unwrap());
        team.stop.ask();
        assert!(team.is_stop_asked().unwrap());
        let failed = team.agree::<()>(Err(Error::failed("a")));
        assert!(matches!(failed, Err(Error::Failed(_))));
    }
}
