//! One budget of memory for the large pictures of all threads.
//!
//! A file of a megabyte may hold a picture of half a gigabyte, and many threads decode at once. Whoever meets a large one
//! waits until the others leave room for it, in the order of arrival.

use std::sync::{Condvar, Mutex, PoisonError};

/// What large pictures may take together, in bytes. One that needs more is decoded while there is no other.
const BUDGET: u64 = 1 << 30;

/// Pictures that take less are not counted.
const SMALL: u64 = 32 << 20;

/// The state of a budget.
#[derive(Debug)]
struct State {
    free: u64,
    /// Numbers given to those who wait, and the one whose turn it is.
    last: u64,
    turn: u64,
}

/// A number of bytes that threads take and give back.
#[derive(Debug)]
pub(super) struct Budget {
    bytes: u64,
    state: Mutex<State>,
    changed: Condvar,
}

static ALL: Budget = Budget::new(BUDGET);

impl Budget {
    const fn new(bytes: u64) -> Self {
        Self {
            bytes,
            state: Mutex::new(State {
                free: bytes,
                last: 0,
                turn: 0,
            }),
            changed: Condvar::new(),
        }
    }

    fn take(&self, bytes: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = state.last;
        state.last += 1;
        while state.turn != mine || state.free < bytes {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.turn += 1;
        state.free -= bytes;
        self.changed.notify_all();
    }

    fn give(&self, bytes: u64) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .free += bytes;
        self.changed.notify_all();
    }
}

/// A picture's share of a budget; given back when dropped.
#[derive(Debug)]
pub(super) struct Room {
    budget: &'static Budget,
    held: u64,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            budget: &ALL,
            held: 0,
        }
    }
}

impl Room {
    /// Makes sure of room for `bytes`, waiting for it where need be. What was held before counts towards it.
    pub fn claim(&mut self, bytes: u64) {
        let bytes = bytes.min(self.budget.bytes);
        if bytes <= self.held.max(SMALL) {
            return;
        }
        // Holding one share while waiting for another could block everybody.
        self.release();
        self.budget.take(bytes);
        self.held = bytes;
    }

    /// Gives it back.
    pub fn release(&mut self) {
        if self.held > 0 {
            self.budget.give(std::mem::take(&mut self.held));
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn large_pictures_take_turns_and_small_ones_do_not_wait() {
        static BUDGET: Budget = Budget::new(100 << 20);
        static USED: AtomicU64 = AtomicU64::new(0);
        static MOST: AtomicU64 = AtomicU64::new(0);
        let room = || Room {
            budget: &BUDGET,
            held: 0,
        };
        let mut all = room();
        all.claim(u64::MAX);
        assert_eq!(all.held, 100 << 20);
        room().claim(SMALL);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(move || {
                    for _ in 0..20 {
                        let mut mine = room();
                        mine.claim(40 << 20);
                        let used = USED.fetch_add(mine.held, Ordering::SeqCst) + mine.held;
                        MOST.fetch_max(used, Ordering::SeqCst);
                        std::thread::yield_now();
                        USED.fetch_sub(mine.held, Ordering::SeqCst);
                    }
                });
            }
            all.release();
        });
        let most = MOST.load(Ordering::SeqCst);
        assert!((40 << 20..=80 << 20).contains(&most), "{most}");
        assert_eq!(BUDGET.state.lock().unwrap().free, 100 << 20);
    }
}
