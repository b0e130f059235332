//! How good a model is: reconstructions and losses over a whole set of images.

mod losses;
mod reconstruction;

pub use losses::{evaluate_losses, evaluate_token_losses};
pub use reconstruction::{Reconstruction, evaluate_reconstruction, psnr_db};
