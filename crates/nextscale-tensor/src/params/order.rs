//! The elements of a parameter: as the flat buffer has them, and as checkpoints do.

use super::{Layout, ParamInfo};
use crate::{Device, Error, Result, Tensor};
use std::borrow::Cow;
use std::ops::Range;

/// A parameter's elements in the flat buffer's order, from the checkpoint's.
///
/// # Errors
/// When there are more or fewer than it has.
pub(super) fn as_flat<'a>(info: &ParamInfo, saved: &'a [f32]) -> Result<Cow<'a, [f32]>> {
    if saved.len() != info.shape.numel() {
        return Err(Error::Params(format!(
            "{} has {} elements, not {}",
            info.name,
            info.shape.numel(),
            saved.len()
        )));
    }
    Ok(match (info.layout, info.shape.dims()) {
        (Layout::Conv, &[o, i, kh, kw]) => {
            let mut flat = vec![0.0; saved.len()];
            for_conv(o, i, kh * kw, |oihw, ohwi| flat[ohwi] = saved[oihw]);
            Cow::Owned(flat)
        }
        _ => Cow::Borrowed(saved),
    })
}

/// The other way.
pub(super) fn as_saved(info: &ParamInfo, flat: &[f32]) -> Vec<f32> {
    match (info.layout, info.shape.dims()) {
        (Layout::Conv, &[o, i, kh, kw]) => {
            let mut saved = vec![0.0; flat.len()];
            for_conv(o, i, kh * kw, |oihw, ohwi| saved[oihw] = flat[ohwi]);
            saved
        }
        _ => flat.to_vec(),
    }
}

/// Writes `values`, a whole parameter in the flat buffer's order, over the parts `ranges` of the flat buffer that lie in it.
///
/// # Errors
/// While another tensor holds the buffer on a CPU, or when the GPU refuses.
pub(super) fn write(
    flat: &mut Tensor,
    info: &ParamInfo,
    values: &[f32],
    ranges: &[Range<usize>],
) -> Result<()> {
    for range in ranges {
        let part = &values[range.start - info.offset..range.end - info.offset];
        match flat.device() {
            Device::Cpu => flat.make_mut()?[range.clone()].copy_from_slice(part),
            Device::Cuda(_) => {
                let bytes: Vec<u8> = part.iter().flat_map(|x| x.to_le_bytes()).collect();
                let there = flat.narrow(range.start, range.len())?;
                there.gpu()?.upload_to(&bytes, there.device_ptr()?)?;
            }
        }
    }
    Ok(())
}

/// Visits the pairs (index in `[o, i, k]`, index in `[o, k, i]`).
fn for_conv(o: usize, i: usize, k: usize, mut f: impl FnMut(usize, usize)) {
    for a in 0..o {
        for b in 0..i {
            for c in 0..k {
                f((a * i + b) * k + c, (a * k + c) * i + b);
            }
        }
    }
}
