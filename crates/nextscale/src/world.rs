//! The processes that make a run together.

use crate::Result;

/// This process among all that train one model together. What processes have to agree on goes through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct World {
    rank: usize,
    size: usize,
}

impl Default for World {
    fn default() -> Self {
        Self::alone()
    }
}

impl World {
    /// One process.
    pub fn alone() -> Self {
        Self { rank: 0, size: 1 }
    }

    /// This process's number, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The number of processes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether this process writes logs and checkpoints.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// Replaces `values` by their sums over all processes.
    ///
    /// # Errors
    /// When another process can't be reached.
    pub fn sum(&self, values: &mut [f64]) -> Result<()> {
        let _ = values;
        Ok(())
    }

    /// Replaces `bytes` by those of the first process.
    ///
    /// # Errors
    /// When another process can't be reached.
    pub fn broadcast(&self, bytes: &mut [u8]) -> Result<()> {
        let _ = bytes;
        Ok(())
    }

    /// Waits until every process has come here.
    ///
    /// # Errors
    /// When another process can't be reached.
    pub fn barrier(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alone_is_the_first_and_its_sums_are_its_own() {
        let world = World::alone();
        assert_eq!((world.rank(), world.size()), (0, 1));
        assert!(world.is_first());
        let (mut values, mut bytes) = ([1.5, -2.0], *b"ab");
        world.sum(&mut values).unwrap();
        world.broadcast(&mut bytes).unwrap();
        world.barrier().unwrap();
        assert_eq!((values, &bytes), ([1.5, -2.0], b"ab"));
    }
}
