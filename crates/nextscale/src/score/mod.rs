//! How good pictures are, in the numbers that papers use.

mod float_bicubic;
mod frechet;
mod inception_score;
mod moments;
mod neighbours;
pub mod network;
mod numpy_random;
mod pixels;

pub use float_bicubic::float_bicubic;
pub use frechet::frechet_distance;
pub use inception_score::inception_score;
pub use moments::{Moments, Statistics};
pub use neighbours::{PrecisionRecall, precision_recall};
pub use numpy_random::permutation;
pub use pixels::{PixelMeans, PixelScore, pixel_scores, psnr, ssim};
