//! How good pictures are, in the numbers that papers use.

mod float_bicubic;
mod frechet;
mod inception_score;
mod moments;
mod neighbours;
mod numpy_random;

pub use float_bicubic::float_bicubic;
pub use frechet::frechet_distance;
pub use inception_score::inception_score;
pub use moments::{Moments, Statistics};
pub use neighbours::{PrecisionRecall, precision_recall};
pub use numpy_random::permutation;
