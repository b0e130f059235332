//! Differentiable operators, one folder each: the documentation with shapes in `mod.rs`, the version of each
//! device beside it, the gradient as a rule on the tape, the tests.
//!
//! An operator checks its shapes, computes on the device of its inputs and, when the context records and an
//! input wants a gradient, leaves a rule on the tape that holds just what it needs.

pub mod attention;
pub mod concat_tokens;
pub mod conv2d;
pub mod linear;
pub mod phi;

pub use attention::{KvCache, attention, attention_cached};
pub use concat_tokens::concat_tokens;
pub use conv2d::{Conv, conv2d};
pub use linear::{Activation, Bias, linear};
pub use phi::phi;

#[cfg(test)]
pub(crate) mod testing;
