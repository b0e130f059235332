//! What the files of a run are written with: lines of JSON, TensorBoard events, averages, times in words.
pub mod clock;
pub(crate) mod lines;
mod long_work;
pub mod meters;
pub mod tensorboard;

pub use long_work::LongWork;
