//! Panics of other people's decoders: they become errors, and nothing is printed of them.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether this thread is within [`caught`].
    static WITHIN: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`; `None` where it panics. What it was working on is then to be thrown away.
pub(super) fn caught<T>(f: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(hush);
    let before = WITHIN.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(f));
    WITHIN.set(before);
    outcome.ok()
}

/// Puts a hook in front of the present one that says nothing of panics within [`caught`].
fn hush() {
    let loud = take_hook();
    set_hook(Box::new(move |panic| {
        // At the end of a thread's life there is no flag any more.
        if !WITHIN.try_with(Cell::get).unwrap_or(false) {
            loud(panic);
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn panics_within_are_not_printed_and_others_are() {
        static TOLD: AtomicUsize = AtomicUsize::new(0);
        let here = std::thread::current().id();
        // A hook for the first time, so that the one below it is not in front of it.
        assert_eq!(caught(|| 7), Some(7));
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if std::thread::current().id() == here {
                TOLD.fetch_add(1, Ordering::SeqCst);
            } else {
                usual(panic);
            }
        }));
        hush();
        assert_eq!(caught(|| -> u8 { panic!("within") }), None);
        assert_eq!(TOLD.load(Ordering::SeqCst), 0);
        assert!(catch_unwind(|| panic!("without")).is_err());
        assert_eq!(TOLD.load(Ordering::SeqCst), 1);
        assert_eq!(caught(|| caught(|| -> u8 { panic!("deeper") })), Some(None));
        assert_eq!(TOLD.load(Ordering::SeqCst), 1);
    }
}
