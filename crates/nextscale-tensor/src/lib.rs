//! The ground floor of nextscale: tensors, differentiable operators, the tape and flat parameters.
//!
//! There is no general array library here. A model is written with a few large operators ([`ops`]); each has a
//! version per device and knows its own gradient. Training runs them with a [`Tape`], everything else without.

#![forbid(unsafe_code)]

pub mod cpu;
pub mod cuda;
pub mod ops;
pub mod params;
pub mod rng;
pub mod tape;

mod device;
mod error;
mod shape;
mod tensor;
mod upload;

pub use device::Device;
pub use error::{Error, Result};
pub use nextscale_cuda::{DType, Math, Precision};
pub use params::{GradBuffer, ParamId, ParamInfo, Params, ParamsBuilder, PartId};
pub use shape::Shape;
pub use tape::{CompletePart, Cx, Grads, Key, Tape};
pub use tensor::{PendingTensor, Tensor, expect_dims};
pub use upload::{Uploads, Values};

/// The example of the README is right.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
