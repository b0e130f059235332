//! What reading one pickle may take.

use super::{Result, err};

/// The most memory that one pickle may take, its own bytes included: of the machine's nodes, and of the tree made of them. It does
/// not grow with the file, or padding would buy more. A tensor takes about 3 KiB of it, so that a checkpoint may have forty
/// thousand; training checkpoints have some two thousand.
pub(super) const LIMIT: usize = 128 << 20;

/// What the system's allocator adds to a piece of memory, roughly.
const PIECE: usize = 32;

/// Counts memory before it is taken. Nothing is given back: what is counted bounds the work too.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { left: LIMIT }
    }

    /// Takes `bytes` inside of a growing list.
    pub(super) fn take(&mut self, bytes: usize) -> Result<()> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => err(format!(
                "it would take more than {} MiB of memory to read, which no checkpoint of tensors needs",
                LIMIT >> 20
            )),
        }
    }

    /// Takes a piece of memory of its own for `n` values of type `T`.
    pub(super) fn take_piece<T>(&mut self, n: usize) -> Result<()> {
        self.take(n.saturating_mul(size_of::<T>()).saturating_add(PIECE))
    }
}
