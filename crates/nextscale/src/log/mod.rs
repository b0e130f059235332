//! What a run leaves behind: step lines, epoch log, TensorBoard events and the live display.
pub mod clock;
pub mod display;
pub mod epoch_log;
mod lines;
pub mod meters;
pub mod speaker;
pub mod steps;
pub mod tags;
pub mod tensorboard;
