//! Where pictures to be scored come from.

mod drawn;
mod npz;
mod read_ahead;
mod relabelled;
mod restored;
mod stored;

pub use drawn::DrawnPictures;
pub use npz::{IMAGES, NpzPictures};
pub use read_ahead::ReadAhead;
pub use relabelled::{RelabelledPictures, UNKNOWN};
pub use restored::RestoredPictures;
pub use stored::StoredPictures;

use super::PictureBatch;
use crate::Result;

/// Pictures, some at a time.
pub trait Pictures {
    /// How many there are in all.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next ones, in batches of one size each; `None` after the last.
    ///
    /// # Errors
    /// One line about a picture that can't be had.
    fn next(&mut self) -> Result<Option<Vec<PictureBatch>>>;
}
