//! One budget of memory for the large pictures of all threads.
//!
//! A file of a megabyte may hold a picture of half a gigabyte, and many threads decode at once. What decoding takes, the
//! file's bytes included, is paid before it is taken. Whoever finds no room lets go of its file, waits until the others leave
//! room, in the order of arrival, and begins again.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::MAX_PIXELS;

/// What large pictures may take together, in bytes: the largest progressive JPEG of three components with all its coefficients (9 bytes a
/// pixel), and its file. A picture that needs more is refused.
const BUDGET: u64 = MAX_PIXELS * 9 + (128 << 20);

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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, bytes: u64) {
        let mut state = self.state();
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

    /// Takes what is free and what nobody waits for.
    fn take_at_once(&self, bytes: u64) -> bool {
        let mut state = self.state();
        let can = state.turn == state.last && state.free >= bytes;
        if can {
            state.free -= bytes;
        }
        can
    }

    fn give(&self, bytes: u64) {
        self.state().free += bytes;
        self.changed.notify_all();
    }
}

/// A picture's share of a budget; given back when dropped.
#[derive(Debug)]
pub(super) struct Room {
    budget: &'static Budget,
    /// The most that one picture may take; the budget's bytes unless somebody asked for less.
    most: u64,
    held: u64,
    /// Bytes of the file, which stay in memory while it is decoded.
    file: u64,
    /// What a claim needs that could not be met at once.
    wanted: Option<u64>,
}

impl Default for Room {
    fn default() -> Self {
        Self::of(&ALL)
    }
}

impl Room {
    fn of(budget: &'static Budget) -> Self {
        Self {
            budget,
            most: budget.bytes,
            held: 0,
            file: 0,
            wanted: None,
        }
    }

    /// For a picture that may take `most` bytes and no more.
    pub fn within(most: u64) -> Self {
        Self {
            most: most.min(BUDGET),
            ..Self::default()
        }
    }

    /// Waits for room for a file, and for a picture as raw formats have it, before the file is read.
    pub fn claim_file(&mut self, bytes: u64) {
        self.file = bytes;
        let with_picture = bytes.saturating_mul(4).min(self.budget.bytes);
        if with_picture > self.held.max(SMALL) {
            self.wait_for(with_picture);
        }
    }

    /// Makes sure of room for `bytes` beside the file. What was held before counts towards it.
    ///
    /// # Errors
    /// A text where so much is not decoded at all, and where others have it now: then [`Room::waited`] is to be asked.
    pub fn claim(&mut self, bytes: u64) -> Result<(), String> {
        let bytes = bytes.saturating_add(self.file);
        if bytes > self.most {
            let mib = |n: u64| n.div_ceil(1 << 20);
            return Err(format!(
                "decoding it takes {} MiB, more than the limit of {} MiB",
                mib(bytes),
                mib(self.most)
            ));
        }
        if bytes <= self.held.max(SMALL) {
            return Ok(());
        }
        if !self.budget.take_at_once(bytes - self.held) {
            self.wanted = Some(bytes);
            return Err("there is no room for it now".to_owned());
        }
        self.held = bytes;
        Ok(())
    }

    /// What the last claim could not have at once.
    pub fn wanted(&self) -> Option<u64> {
        self.wanted
    }

    /// Waits for what the last claim could not have. If there was such a thing, decoding is to be begun again.
    pub fn waited(&mut self) -> bool {
        let wanted = self.wanted.take();
        if let Some(bytes) = wanted {
            self.wait_for(bytes);
        }
        wanted.is_some()
    }

    fn wait_for(&mut self, bytes: u64) {
        // Holding one share while waiting for another could block everybody.
        self.give();
        self.budget.take(bytes);
        self.held = bytes;
    }

    fn give(&mut self) {
        if self.held > 0 {
            self.budget.give(std::mem::take(&mut self.held));
        }
    }

    /// Whether it counts for anything.
    #[cfg(test)]
    pub fn holds(&self) -> bool {
        self.held > 0 || self.wanted.is_some()
    }

    /// Gives it back.
    pub fn release(&mut self) {
        self.give();
        self.file = 0;
        self.wanted = None;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.give();
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
        let mut all = Room::of(&BUDGET);
        all.claim_file(u64::MAX);
        assert_eq!(all.held, 100 << 20);
        Room::of(&BUDGET).claim(SMALL).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(move || {
                    for _ in 0..20 {
                        let mut mine = Room::of(&BUDGET);
                        while mine.claim(40 << 20).is_err() {
                            assert!(mine.waited());
                        }
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

    #[test]
    fn what_is_beyond_the_budget_is_refused_and_the_file_counts() {
        static BUDGET: Budget = Budget::new(100 << 20);
        let mut room = Room::of(&BUDGET);
        room.claim_file(30 << 20);
        assert_eq!(room.held, 100 << 20);
        room.release();
        room.claim_file(5 << 20);
        assert_eq!(room.held, 0);
        room.claim(95 << 20).unwrap();
        assert_eq!(room.held, 100 << 20);
        let text = room.claim((95 << 20) + 1).unwrap_err();
        assert_eq!(
            text,
            "decoding it takes 101 MiB, more than the limit of 100 MiB"
        );
        assert!(room.claim(u64::MAX).is_err() && !room.waited());
        assert!(Room::of(&BUDGET).claim(40 << 20).is_err());
        drop(room);
        assert_eq!(BUDGET.state.lock().unwrap().free, 100 << 20);
    }
}
