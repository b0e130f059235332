//! nextscale: training and sampling of visual autoregressive models by next-scale prediction.

// Printing with the macros of the standard library panics where the line can't be written.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod checkpoint;
pub mod console;
pub mod data;
pub mod device;
pub mod eval;
pub mod generate;
pub mod input;
pub mod log;
pub mod memory;
pub mod model;
pub mod options;
pub mod pictures;
pub mod quickstart;
pub mod run;
pub mod train;

mod error;
mod world;
pub use error::{Error, Result};
pub use world::World;

/// Number of threads that operators compute on.
pub fn compute_threads() -> usize {
    rayon::current_num_threads()
}

/// The example of the README is right.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
