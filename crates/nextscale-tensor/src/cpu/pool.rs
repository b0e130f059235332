//! Recycled float buffers: a training step asks for the same sizes again and again, and fresh pages cost
//! more than the arithmetic on small tensors.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Free buffers by capacity.
static FREE: Mutex<BTreeMap<usize, Vec<Vec<f32>>>> = Mutex::new(BTreeMap::new());
/// Floats held by free buffers.
static FREE_FLOATS: AtomicUsize = AtomicUsize::new(0);
/// Floats held by buffers in use.
static USED_FLOATS: AtomicUsize = AtomicUsize::new(0);
/// Largest sum of used and free so far.
static PEAK_FLOATS: AtomicUsize = AtomicUsize::new(0);

/// Below this many floats the system allocator is quick enough.
const SMALL: usize = 1024;

/// Which free buffers serve, and which are kept.
pub(crate) mod recycle {
    /// Floats that a free buffer may hold at most to serve for `n`: no more than a quarter is wasted.
    pub(crate) fn most(n: usize) -> usize {
        n + n / 4
    }

    /// Whether a buffer of `n` floats is kept when it is let go of, where `free` floats are kept and `used` are in use: as much
    /// as is in use (and a little), since what one phase needed must not burden the next.
    pub(crate) fn keeps(n: usize, free: usize, used: usize) -> bool {
        n >= super::SMALL && free + n <= used.max(1 << 22) * 2
    }
}

/// From this many floats on it is asked beforehand whether they can be had.
const LARGE: usize = 1 << 22;

/// The system has no memory for a buffer. It is thrown from where the buffer was asked for, as a panic without a message: operators
/// have no way on, and whoever runs them catches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// The buffer's length in bytes.
    pub bytes: usize,
}

/// Whether the system gives so many floats. A buffer that it refuses would end the process.
fn can_be_had(n: usize) -> bool {
    n < LARGE || Vec::<f32>::new().try_reserve_exact(n).is_ok()
}

/// A float buffer that goes back to the pool when dropped.
#[derive(Debug)]
pub struct PoolVec(Vec<f32>);

impl PoolVec {
    /// A buffer of `n` floats with unspecified (but initialised) content: the caller writes every element.
    pub fn scratch(n: usize) -> Self {
        let reused = if n < SMALL { None } else { take(n) };
        let mut v = match reused {
            Some(v) => v,
            None => {
                if !can_be_had(n) {
                    // What lies free in other sizes may make room.
                    release_free();
                    if !can_be_had(n) {
                        let bytes = n.saturating_mul(4);
                        std::panic::resume_unwind(Box::new(OutOfMemory { bytes }));
                    }
                }
                let v = vec![0.0; n];
                USED_FLOATS.fetch_add(v.capacity(), Ordering::Relaxed);
                v
            }
        };
        // A recycled buffer keeps its length, so growing writes only what was never written.
        v.resize(n, 0.0);
        let now = USED_FLOATS.load(Ordering::Relaxed) + FREE_FLOATS.load(Ordering::Relaxed);
        PEAK_FLOATS.fetch_max(now, Ordering::Relaxed);
        Self(v)
    }

    /// A buffer of `n` zeros.
    pub fn zeros(n: usize) -> Self {
        let mut v = Self::scratch(n);
        v.fill(0.0);
        v
    }
}

/// The smallest free buffer that holds `n` floats without wasting more than a quarter.
fn take(n: usize) -> Option<Vec<f32>> {
    let mut free = FREE.lock().unwrap_or_else(|e| e.into_inner());
    let capacity = *free.range(n..=recycle::most(n)).next()?.0;
    let list = free.get_mut(&capacity)?;
    let v = list.pop();
    if list.is_empty() {
        free.remove(&capacity);
    }
    if v.is_some() {
        FREE_FLOATS.fetch_sub(capacity, Ordering::Relaxed);
        USED_FLOATS.fetch_add(capacity, Ordering::Relaxed);
    }
    v
}

impl From<Vec<f32>> for PoolVec {
    fn from(v: Vec<f32>) -> Self {
        USED_FLOATS.fetch_add(v.capacity(), Ordering::Relaxed);
        Self(v)
    }
}

impl Drop for PoolVec {
    fn drop(&mut self) {
        let v = std::mem::take(&mut self.0);
        let capacity = v.capacity();
        USED_FLOATS.fetch_sub(capacity, Ordering::Relaxed);
        let free = FREE_FLOATS.load(Ordering::Relaxed);
        if !recycle::keeps(capacity, free, USED_FLOATS.load(Ordering::Relaxed)) {
            return;
        }
        FREE_FLOATS.fetch_add(capacity, Ordering::Relaxed);
        let mut free = FREE.lock().unwrap_or_else(|e| e.into_inner());
        free.entry(capacity).or_default().push(v);
    }
}

impl Deref for PoolVec {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for PoolVec {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

/// Bytes that the pool holds now (in use and free).
pub fn held_bytes() -> usize {
    4 * (USED_FLOATS.load(Ordering::Relaxed) + FREE_FLOATS.load(Ordering::Relaxed))
}

/// The largest value of [`held_bytes`] so far.
pub fn peak_bytes() -> usize {
    4 * PEAK_FLOATS.load(Ordering::Relaxed)
}

/// Lets [`peak_bytes`] begin anew, at what is held now.
pub fn reset_peak() {
    PEAK_FLOATS.store(held_bytes() / 4, Ordering::Relaxed);
}

/// Gives every free buffer back to the system.
pub fn release_free() {
    let mut free = FREE.lock().unwrap_or_else(|e| e.into_inner());
    free.clear();
    FREE_FLOATS.store(0, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_is_not_to_be_had_is_thrown_and_nothing_aborts() {
        for n in [1 << 50, usize::MAX / 8, usize::MAX] {
            let thrown = std::panic::catch_unwind(|| PoolVec::zeros(n).len()).unwrap_err();
            let full = thrown.downcast_ref::<OutOfMemory>().unwrap();
            assert_eq!(full.bytes, n.saturating_mul(4));
        }
        assert_eq!(PoolVec::zeros(10).len(), 10);
    }

    #[test]
    fn buffers_come_back_and_zeros_are_zero() {
        let n = 123_457;
        let mut a = PoolVec::scratch(n);
        a.fill(3.0);
        drop(a);
        let b = PoolVec::zeros(n);
        assert_eq!(b.len(), n);
        assert!(b.iter().all(|&x| x == 0.0));
        drop(b);
        let c = PoolVec::scratch(n - 1000);
        assert_eq!(c.len(), n - 1000);
    }
}
