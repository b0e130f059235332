//! How good pictures are, in the numbers that papers use.
//!
//! A [`Protocol`] says how pictures are prepared for the Inception network and which numbers there are; numbers of different protocols
//! can't be compared. [`Pictures`] come from folders, files or models, [`Summary`] is what is kept of a set of them, and [`Scores`] are
//! made of two of those.

mod extract;
mod float_bicubic;
mod frechet;
mod inception_score;
mod moments;
mod neighbours;
pub mod network;
mod numpy_random;
mod opened;
pub mod pictures;
mod pixels;
mod protocol;
mod scores;
mod statistics_file;
mod summary;

pub use extract::{Features, Method, OWN, PictureBatch, count_of, prepare};
pub use float_bicubic::float_bicubic;
pub use frechet::frechet_distance;
pub use inception_score::{InceptionScore, pieces, runs};
pub use moments::{Moments, Statistics};
pub use neighbours::{PrecisionRecall, precision_recall};
pub use numpy_random::permutation;
pub use opened::{Network, NetworkFacts, OpenNetwork};
pub use pictures::Pictures;
pub use pixels::{PixelMeans, PixelScore, pixel_scores, psnr, ssim};
pub use protocol::{Metric, Preparation, Protocol};
pub use scores::{ENOUGH, NEIGHBOURS, Scores};
pub use statistics_file::{MadeBy, read_statistics, statistics_made_by, write_statistics};
pub use summary::{Collector, Summary, summarize};
