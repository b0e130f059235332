//! The ground floor of nextscale: tensors, differentiable operators, the tape and flat parameters.
mod error;
pub mod rng;
pub use error::{Error, Result};
