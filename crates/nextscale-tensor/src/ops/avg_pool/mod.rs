//! Average pooling: y is the mean of each window of x, channel by channel.
//!
//! Shapes: x \[B, H, W, C\], y \[B, H′, W′, C\] as [`max_pool`](super::max_pool()) has them. What is padded counts as zeros
//! where `padding` says so, and not at all otherwise (the frameworks' `count_include_pad`). Computed as a resize is: weighted sums
//! along each axis. Gradient: the transposed sums. Nothing is kept on the tape. Float32 on a GPU.

#[cfg(test)]
mod tests;

use super::interpolate::axis::Kind;
use super::interpolate::by_axes;
use super::max_pool::Window;
use crate::{Cx, Error, Result, Tensor};

/// The mean of every window.
///
/// # Errors
/// When x is no feature map, or no window fits it.
pub fn avg_pool(cx: &Cx<'_>, x: &Tensor, window: Window, padding: bool) -> Result<Tensor> {
    const OP: &str = "avg_pool";
    let extents = match x.dims() {
        &[_, h, w, _] => window.count(h).zip(window.count(w)),
        _ => None,
    };
    let Some(size) = extents else {
        let detail = format!(
            "{window:?} does not fit {}, expected [B, H, W, C]",
            x.shape()
        );
        return Err(Error::shape(OP, detail));
    };
    by_axes(OP, cx, x, size, Kind::Windows { window, padding })
}
