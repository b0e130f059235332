//! What processes make of work that they take in turn, brought to the first in its order.

use nextscale::{Error, Result, World};

/// Pieces of work that processes take in turn: the first takes piece 0, the second piece 1, and so on around.
pub struct Turns<'a> {
    world: &'a World,
    /// Rounds that are left.
    rounds: usize,
}

impl<'a> Turns<'a> {
    /// For so many pieces.
    pub fn new(world: &'a World, pieces: usize) -> Self {
        Self {
            world,
            rounds: pieces.div_ceil(world.size()),
        }
    }

    /// Whether all rounds are over.
    pub fn are_over(&self) -> bool {
        self.rounds == 0
    }

    /// One round, which all processes make: `own` is what this one has made of its piece, `None` where there was none left for it. The
    /// first process takes those of all, in order.
    ///
    /// # Errors
    /// When another process is gone, and those of `take`.
    pub fn next(
        &mut self,
        own: Option<&[i32]>,
        take: &mut dyn FnMut(&[i32]) -> Result<()>,
    ) -> Result<()> {
        self.rounds = self.rounds.saturating_sub(1);
        let own = own.unwrap_or_default();
        if self.world.size() == 1 {
            return take(own);
        }
        let bytes: Vec<u8> = own.iter().flat_map(|n| n.to_le_bytes()).collect();
        let all = self.world.gather(&bytes)?;
        if !self.world.is_first() {
            return Ok(());
        }
        for bytes in all.iter().filter(|bytes| !bytes.is_empty()) {
            let (numbers, rest) = bytes.as_chunks::<4>();
            if !rest.is_empty() {
                return Err(Error::failed("another process sent half a number"));
            }
            let numbers: Vec<i32> = numbers.iter().map(|b| i32::from_le_bytes(*b)).collect();
            take(&numbers)?;
        }
        Ok(())
    }
}
