//! Joins feature maps along their channels: \[B, H, W, C1\], \[B, H, W, C2\], … to \[B, H, W, ΣC\].
//!
//! [`channels`] takes some out again. Gradient: to every part its channels of g, and the other way round, with zeros for what was
//! left. Nothing is kept on the tape.

mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use crate::{Cx, Device, Error, Result, Shape, Tensor};
use std::ops::Range;

/// The parts' channels one after the other, in the type of the parts.
///
/// # Errors
/// When there is no part, or the parts are no maps of one size and type.
pub fn concat_channels(cx: &Cx<'_>, parts: &[&Tensor]) -> Result<Tensor> {
    const OP: &str = "concat_channels";
    let (Some(first), Some(&[b, h, w, _])) = (parts.first(), parts.first().map(|p| p.dims()))
    else {
        let found = parts
            .first()
            .map_or("nothing".to_owned(), |p| p.shape().to_string());
        return Err(Error::shape(OP, format!("{found}, expected [B, H, W, C]")));
    };
    for p in parts {
        if p.dims().len() != 4 || p.dims()[..3] != [b, h, w] || p.dtype() != first.dtype() {
            let detail = format!("{} does not go with {}", p.shape(), first.shape());
            return Err(Error::shape(OP, detail));
        }
    }
    let widths: Vec<usize> = parts.iter().map(|p| p.dims()[3]).collect();
    let shape = [b, h, w, widths.iter().sum()];
    let mut y = match first.device() {
        Device::Cuda(_) => cuda::join(parts, shape)?,
        Device::Cpu => cpu::join(parts, &widths, shape)?,
    };
    if cx.records(parts) {
        let parts: Vec<Tensor> = parts.iter().map(|p| p.without_data()).collect();
        cx.record_one(&mut y, move |g, grads| {
            let mut at = 0;
            for (part, width) in parts.iter().zip(widths) {
                if grads.wants(part) {
                    let own = match g.device() {
                        Device::Cuda(_) => cuda::part(&g, at, part.shape())?,
                        Device::Cpu => cpu::part(&g, at, part.shape())?,
                    };
                    grads.add(part, own)?;
                }
                at += width;
            }
            Ok(())
        });
    }
    Ok(y)
}

/// Some neighbouring channels of x \[B, H, W, C\].
///
/// # Errors
/// When x is no map or lacks them.
pub fn channels(cx: &Cx<'_>, x: &Tensor, which: Range<usize>) -> Result<Tensor> {
    const OP: &str = "channels";
    let &[b, h, w, all] = x.dims() else {
        let detail = format!("x is {}, expected [B, H, W, C]", x.shape());
        return Err(Error::shape(OP, detail));
    };
    if which.is_empty() || which.end > all {
        let detail = format!("channels {which:?} of {}", x.shape());
        return Err(Error::shape(OP, detail));
    }
    let shape = Shape::from([b, h, w, which.len()]);
    let mut y = match x.device() {
        Device::Cuda(_) => cuda::part(x, which.start, shape)?,
        Device::Cpu => cpu::part(x, which.start, shape)?,
    };
    if cx.records(&[x]) {
        let (x, dtype) = (x.without_data(), x.dtype());
        cx.record_one(&mut y, move |g, grads| {
            let zeros = |c| Tensor::zeros_on(g.device(), [b, h, w, c], dtype);
            let around = [zeros(which.start)?, g.clone(), zeros(all - which.end)?];
            let parts: Vec<&Tensor> = around.iter().filter(|p| p.numel() > 0).collect();
            grads.add(&x, concat_channels(&Cx::off(), &parts)?)
        });
    }
    Ok(y)
}
