//! nextscale: training and sampling of visual autoregressive models by next-scale prediction.
//!
//! A run of a trainer is [`run::TokenizerRun`] or [`run::TransformerRun`], made of [`options`] and watched by observers
//! ([`run::Observer`]). Images of a trained model are one call, [`draw()`]; what is behind it is [`checkpoint::open`], which opens models,
//! and [`generate`]. [`eval`] measures them. The example `train_your_own` has all of it in one program, `sample` draws from a file,
//! `custom_observer` watches a run.
//!
//! The library prints nothing and handles no signals. The feature `cli`, on by default, adds what a command needs beside it: flags
//! (clap), a display (indicatif), signals; without it there is less to compile.

// Printing with the macros of the standard library panics where the line can't be written.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod advice;
pub mod checkpoint;
#[cfg(feature = "cli")]
pub mod console;
pub mod data;
pub mod device;
pub mod eval;
pub mod features;
pub mod format;
pub mod generate;
pub mod input;
pub mod learn;
pub mod log;
pub mod memory;
pub mod model;
pub mod options;
pub mod pictures;
pub mod plan;
pub mod quickstart;
pub mod run;
pub mod score;
pub mod train;

mod canvas;
mod error;
mod remark;
mod stop;
mod team;
mod text;
mod world;
pub use error::{Error, ErrorKind, Result};
pub use generate::draw;
/// Tensors, devices and operators, in the version that this crate is built with.
pub use nextscale_tensor as tensor;
pub use remark::on_remark;
pub use team::Team;
pub use world::{Share, World};

/// Number of threads that operators compute on.
pub fn compute_threads() -> usize {
    rayon::current_num_threads()
}

/// The example of the README is right.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
