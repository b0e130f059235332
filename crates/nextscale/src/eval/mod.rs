//! How good a model is: reconstructions and losses over a whole set of images.

mod losses;
mod reconstruction;

pub use losses::evaluate_losses;
pub(crate) use losses::tensors;
pub use reconstruction::{Reconstruction, evaluate_reconstruction};
