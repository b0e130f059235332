//! What the files of a run are written with: lines of JSON, TensorBoard events, averages, times in words.
pub mod clock;
pub(crate) mod lines;
pub mod meters;
pub mod tensorboard;
