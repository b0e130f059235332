//! The ground floor of nextscale: tensors, differentiable operators, the tape and flat parameters.
pub mod rng;
mod error;
pub use error::{Error, Result};
