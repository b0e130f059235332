//! Max pooling: y is the largest of each window of x, channel by channel.
//!
//! Shapes: x \[B, H, W, C\], y \[B, H′, W′, C\] with H′ = ⌊(H + 2·pad − size)/stride⌋ + 1. What is padded never wins. Where
//! several are the largest the first of them, line by line, has it; what is not a number wins over everything, as in the usual
//! frameworks. Gradient: g goes to the winner. Kept on the tape: where each winner is.

mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use crate::{Cx, Device, Error, Result, Tensor};

/// Windows of a pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Height and width.
    pub size: usize,
    /// Step between windows, on both axes.
    pub stride: usize,
    /// Pixels added on all four sides; at most half of `size`.
    pub pad: usize,
}

impl Window {
    /// Windows over an axis of so many pixels; `None` where none fits.
    pub(super) fn count(self, n: usize) -> Option<usize> {
        let Self { size, stride, pad } = self;
        let usable = size > 0 && stride > 0 && 2 * pad <= size;
        let room = (n + 2 * pad).checked_sub(size).filter(|_| usable)?;
        Some(room / stride + 1)
    }

    /// The pixels of window `i` that are in the map.
    pub(super) fn pixels(self, i: usize, n: usize) -> std::ops::Range<usize> {
        let first = i * self.stride;
        first.saturating_sub(self.pad)..(first + self.size - self.pad).min(n)
    }
}

/// Sizes of a pooling.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    batch: usize,
    h: usize,
    w: usize,
    channels: usize,
    oh: usize,
    ow: usize,
}

/// The largest of every window.
///
/// # Errors
/// When x is no feature map, or no window fits it.
pub fn max_pool(cx: &Cx<'_>, x: &Tensor, window: Window) -> Result<Tensor> {
    const OP: &str = "max_pool";
    let &[batch, h, w, channels] = x.dims() else {
        let detail = format!("x is {}, expected [B, H, W, C]", x.shape());
        return Err(Error::shape(OP, detail));
    };
    let (Some(oh), Some(ow)) = (window.count(h), window.count(w)) else {
        let detail = format!("{window:?} does not fit {}", x.shape());
        return Err(Error::shape(OP, detail));
    };
    let s = Sizes {
        batch,
        h,
        w,
        channels,
        oh,
        ow,
    };
    let records = cx.records(&[x]);
    let (mut y, winners) = match x.device() {
        Device::Cuda(_) => cuda::forward(s, window, x, records)?,
        Device::Cpu => cpu::forward(s, window, x, records)?,
    };
    if let Some(winners) = winners {
        let x = x.without_data();
        cx.record_one(&mut y, move |g, grads| {
            let dx = match g.device() {
                Device::Cuda(_) => cuda::backward(s, window, &winners, &g)?,
                Device::Cpu => cpu::backward(s, &winners, &g)?,
            };
            grads.add(&x, dx)
        });
    }
    Ok(y)
}
