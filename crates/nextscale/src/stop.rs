//! Asking a run to stop: it ends after the step under way, with everything saved.

use crate::{Error, Result};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The signals that ask for a clean end, by their numbers in POSIX.
pub(crate) const SIGNALS: [(i32, &str); 3] = [(2, "SIGINT"), (15, "SIGTERM"), (1, "SIGHUP")];
/// No signal yet, and a stop that the program itself asked for.
const NONE: i32 = 0;
const BY_PROGRAM: i32 = -1;

/// Whether the process was asked to stop.
#[derive(Debug, Clone)]
pub struct StopSignal {
    asked: Arc<AtomicI32>,
    /// Whether something would be lost if the process ended at once.
    unsaved: Arc<Mutex<bool>>,
}

impl StopSignal {
    /// One that no signal sets, for runs inside other programs and tests.
    pub fn detached() -> Self {
        Self {
            asked: Arc::new(AtomicI32::new(NONE)),
            unsaved: Arc::default(),
        }
    }

    /// Says whether from now on something would be lost if the process ended at once. While nothing would, as before the first step of
    /// a run, a signal ends it there and then, however long what it is at takes.
    pub(crate) fn set_unsaved(&self, unsaved: bool) {
        *self.locked() = unsaved;
    }

    /// Calls `f` if nothing would be lost were the process to end now. Nothing comes to be unsaved before it returns.
    #[cfg(feature = "cli")]
    pub(crate) fn if_all_is_saved(&self, f: impl FnOnce()) {
        let unsaved = self.locked();
        if !*unsaved {
            f();
        }
    }

    fn locked(&self) -> MutexGuard<'_, bool> {
        self.unsaved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for the stop, as a signal would.
    pub fn ask(&self) {
        self.ask_with(BY_PROGRAM);
    }

    /// Asks for the stop; whether this was the first to do so.
    pub(crate) fn ask_with(&self, by: i32) -> bool {
        let order = Ordering::SeqCst;
        self.asked.compare_exchange(NONE, by, order, order).is_ok()
    }

    /// Who asked, to ask others with.
    pub(crate) fn by(&self) -> i32 {
        self.asked.load(Ordering::SeqCst)
    }

    /// Whether a stop was asked for.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst) != NONE
    }

    /// The signal that asked, where one did.
    pub fn signal(&self) -> Option<i32> {
        Some(self.asked.load(Ordering::SeqCst)).filter(|&signal| signal > 0)
    }

    /// For work that may be left anywhere.
    ///
    /// # Errors
    /// [`Error::Stopped`] once a stop was asked for.
    pub fn check(&self) -> Result<()> {
        if self.is_asked() {
            return Err(Error::Stopped);
        }
        Ok(())
    }

    /// The exit code of a process that such a stop has ended before its work was done: 128 and the signal's number, as shells have it.
    pub fn exit_code(&self) -> u8 {
        self.signal()
            .and_then(|signal| u8::try_from(128 + signal).ok())
            .unwrap_or(0)
    }
}

/// A signal's name.
pub(crate) fn name(signal: i32) -> &'static str {
    let known = SIGNALS.iter().find(|(number, _)| *number == signal);
    known.map_or("a signal", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_flag() {
        let stop = StopSignal::detached();
        let other = stop.clone();
        assert!(!other.is_asked() && other.check().is_ok());
        stop.ask();
        assert!(other.is_asked());
        assert!(matches!(other.check(), Err(Error::Stopped)));
        assert_eq!((other.signal(), other.exit_code()), (None, 0));
    }
}
