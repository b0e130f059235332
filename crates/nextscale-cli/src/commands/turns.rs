//! What processes make of work that they take in turn, brought to the first in its order.

use nextscale::{Error, Result, World};
use nextscale_world::Limits;
use std::time::Duration;

/// The most bytes that a piece may become.
const MOST: usize = 1 << 30;

/// How long processes wait that work in turn: a piece may take one hours while another has none left. Whoever is lost is noticed
/// sooner, by its silence.
pub fn limits() -> Limits {
    Limits {
        collective: Duration::from_secs(24 * 3600),
        ..Limits::default()
    }
}

/// Pieces of work that processes take in turn: the first takes piece 0, the second piece 1, and so on around.
pub struct Turns<'a> {
    world: &'a World,
    /// The round that comes, and how many there are.
    round: usize,
    rounds: usize,
}

impl<'a> Turns<'a> {
    /// For so many pieces.
    pub fn new(world: &'a World, pieces: usize) -> Self {
        Self {
            world,
            round: 0,
            rounds: pieces.div_ceil(world.size()),
        }
    }

    /// Whether all rounds are over.
    pub fn are_over(&self) -> bool {
        self.round >= self.rounds
    }

    /// One round, which all processes make: `own` is what this one has made of its piece, `None` where there was none left for it. The
    /// first process takes those of all, each with the number of its piece, in order.
    ///
    /// # Errors
    /// When another process is gone, and those of `take`.
    pub fn next(
        &mut self,
        own: Option<Vec<u8>>,
        take: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let first = self.round * self.world.size();
        self.round += 1;
        if self.world.size() > 1 && own.as_ref().is_some_and(|own| own.len() > MOST) {
            return Err(Error::input(
                "a batch becomes more than 1 GiB, which processes do not send each other; give a smaller --batch",
            ));
        }
        let Some(all) = self.world.collect(own.unwrap_or_default())? else {
            return Ok(());
        };
        let made = all.iter().enumerate().filter(|(_, made)| !made.is_empty());
        made.into_iter()
            .try_for_each(|(rank, made)| take(first + rank, made))
    }
}
