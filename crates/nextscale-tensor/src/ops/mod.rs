//! Differentiable operators, one folder each: the documentation with shapes in `mod.rs`, the version of each
//! device beside it, the gradient as a rule on the tape, the tests.
//!
//! An operator checks its shapes, computes on the device of its inputs and, when the context records and an
//! input wants a gradient, leaves a rule on the tape that holds just what it needs.

pub mod adaptive_norm;
pub mod add_table;
pub mod arithmetic;
pub mod attention;
pub mod average;
pub mod avg_pool;
pub mod concat_channels;
pub mod concat_tokens;
pub mod conv2d;
pub mod cross_entropy;
pub mod dropout;
pub mod feed_forward;
pub mod gated_residual_norm;
pub mod gather_rows;
pub mod group_norm;
pub mod guided_sampling;
pub mod histogram;
pub mod image_loss;
pub mod interpolate;
pub mod kernels;
pub mod linear;
pub mod max_pool;
pub mod nearest_code;
pub mod normed_conv2d;
pub mod optimizer;
pub mod phi;
pub mod pixels;
pub mod relu;
pub mod residual_quantize;
pub mod silu;
pub mod spatial_attention;
pub mod split_tokens;
pub mod straight_through;
pub mod token_embedding;
pub mod token_measures;
pub mod unit_distance;
pub mod upsample;

pub use adaptive_norm::{Modulation, adaptive_norm};
pub use add_table::add_table;
pub use arithmetic::{add, sub, weighted_sum};
pub use attention::{KvCache, attention, attention_cached};
pub use average::average;
pub use avg_pool::avg_pool;
pub use concat_channels::{channels, concat_channels};
pub use concat_tokens::concat_tokens;
pub use conv2d::{Conv, conv2d};
pub use cross_entropy::{CrossEntropy, cross_entropy};
pub use dropout::dropout;
pub use feed_forward::{FeedForward, feed_forward};
pub use gated_residual_norm::{Gate, gated_residual_norm};
pub use gather_rows::gather_rows;
pub use group_norm::group_norm;
pub use guided_sampling::{
    Draw, NO_CODE, draw_params, draw_tokens, filter_logits, guide, sample_tokens, smooth_codes,
    smooth_temperature,
};
pub use histogram::histogram;
pub use image_loss::{l1, mse};
pub use interpolate::{area, asymmetric_bilinear, bicubic, bilinear};
pub use linear::{Activation, Bias, linear};
pub use max_pool::{Window, max_pool};
pub use nearest_code::nearest_code;
pub use normed_conv2d::{InputNorm, normed_conv2d};
pub use optimizer::{
    AdamW, Decay, Moments, PendingNumbers, Scaling, StepNumbers, StepValues, Steps, StepsProgress,
    grad_norm,
};
pub use phi::phi;
pub use pixels::{clamp, from_pixels, from_pixels_on, to_pixels, to_range, to_unit_range};
pub use relu::relu;
pub use residual_quantize::{
    Residual, ResidualCodes, Watch, residual_quantize, var_input_from_tokens,
};
pub use silu::silu;
pub use spatial_attention::spatial_attention;
pub use split_tokens::split_tokens;
pub use straight_through::straight_through;
pub use token_embedding::{scale_embedding, token_embedding};
pub use token_measures::token_measures;
pub use unit_distance::unit_distance;
pub use upsample::upsample_nearest2x;

#[cfg(test)]
pub(crate) mod checks;
#[cfg(test)]
mod dry_tests;
#[cfg(test)]
mod limit_tests;
#[cfg(test)]
mod profile_tests;
#[cfg(test)]
pub(crate) mod testing;
