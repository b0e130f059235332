//! The fused quantizer: one block of threads an image.

use super::{Residual, ResidualCodes};
use crate::ops::interpolate::axis::{Axis, Kind};
use crate::ops::nearest_code::cuda::pack;
use crate::{DType, Error, Result, Tensor};
use nextscale_cuda::kernel::{Arg, Module, Shape as Launch};
use nextscale_cuda::matmul::DevicePtr;
use nextscale_cuda::{Gpu, Precision, Work, kernels};
use std::sync::Arc;

pub(crate) static MODULE: Module = Module {
    name: "residual_quantize",
    source: &[
        include_str!("../nearest_code/search.cuh"),
        include_str!("../interpolate/taps.cuh"),
        include_str!("kernel.cu"),
    ],
    specific: false,
    kernels: kernels! {
        residual_encode: "pppppppppiiiiiiiiif";
        residual_input: "pppppiiiiiiif";
    },
};

/// Channels of the kernels.
const CHANNELS: usize = 32;
const THREADS: u32 = 256;
/// Numbers that the plan has of a scale.
const PER_SCALE: usize = 10;

/// Bytes of shared memory for maps of this size, laid out as kernel.cu does.
fn shared((h, w): (usize, usize), searches: bool) -> usize {
    let count = h * w;
    let maps = if searches { 2 } else { 1 };
    let floats = (2 * count).next_multiple_of(4)
        + maps * count * CHANNELS
        + (h + 2) * (w + 2) * (CHANNELS + 4)
        + count.max(9 * CHANNELS) * CHANNELS
        + 2 * count;
    4 * floats
}

/// Whether the kernels serve these sizes on the GPU of `x`.
pub(super) fn fits(
    x: &Tensor,
    codes: &ResidualCodes<'_>,
    scales: &[(usize, usize)],
) -> Result<bool> {
    let Some(&full) = scales.last() else {
        return Ok(false);
    };
    let no_larger = |s: &(usize, usize)| (1..=full.0).contains(&s.0) && (1..=full.1).contains(&s.1);
    let all = [codes.codebook].into_iter();
    let all = all.chain(codes.phis.iter().flat_map(|(w, b)| [w, b]));
    let mut float32 = all.map(|t| t.dtype() == DType::F32 && t.device() == x.device());
    Ok(codes.codebook.shape().last() == CHANNELS
        && x.shape().rows() > 0
        && codes.codebook.offset.is_multiple_of(4)
        && x.offset.is_multiple_of(4)
        && scales.iter().all(no_larger)
        && float32.all(|yes| yes)
        && shared(full, true) <= x.gpu()?.info().shared)
}

/// Where φ's numbers are: one buffer, and the first element of every scale's weight and bias.
fn phis(gpu: &'static Gpu, codes: &ResidualCodes<'_>) -> Result<(Tensor, Vec<(usize, usize)>)> {
    let Some((first, _)) = codes.phis.first() else {
        return Ok((codes.codebook.detach(), Vec::new()));
    };
    let home = &first.on_gpu()?.buffer;
    let mut together = true;
    for (w, b) in codes.phis {
        let here = |t: &Tensor| Ok::<_, Error>(Arc::ptr_eq(home, &t.on_gpu()?.buffer));
        together &= here(w)? && here(b)? && w.offset.is_multiple_of(4);
    }
    if together {
        // Parameters of one model share a buffer.
        let mut whole = first.detach();
        whole.offset = 0;
        let offsets = codes.phis.iter().map(|(w, b)| (w.offset, b.offset));
        return Ok((whole, offsets.collect()));
    }
    let (weights, biases) = (9 * CHANNELS * CHANNELS, CHANNELS);
    let all = Tensor::scratch(gpu, [codes.phis.len(), weights + biases], DType::F32)?;
    let mut offsets = Vec::new();
    for (k, (w, b)) in codes.phis.iter().enumerate() {
        let at = k * (weights + biases);
        let DevicePtr(buffer, _) = all.device_ptr()?;
        gpu.copy(w.device_ptr()?, DevicePtr(buffer, 4 * at), 4 * weights)?;
        gpu.copy(
            b.device_ptr()?,
            DevicePtr(buffer, 4 * (at + weights)),
            4 * biases,
        )?;
        offsets.push((at, at + weights));
    }
    Ok((all, offsets))
}

/// The plan: ten numbers a scale, then the axes' tables.
fn plan(scales: &[(usize, usize)], phis: &[(usize, usize)]) -> Result<Vec<i32>> {
    let full = scales.last().copied().unwrap_or((1, 1));
    let first = scales.first().map_or(0, |s| s.0 * s.1);
    let number = |n: usize| {
        i32::try_from(n).map_err(|_| Error::shape("residual_quantize", "too many parameters"))
    };
    let mut words = vec![0; PER_SCALE * scales.len()];
    let mut tokens = 0;
    for (k, &(h, w)) in scales.iter().enumerate() {
        let (weight, bias) = phis.get(k).copied().unwrap_or((0, 0));
        let mut own = vec![
            h as i32,
            w as i32,
            number(tokens)?,
            // The first scale has no part of the input.
            number(tokens.saturating_sub(first))?,
            number(weight)?,
            number(bias)?,
        ];
        for (kind, from, to) in [
            (Kind::Area, full.0, h),
            (Kind::Area, full.1, w),
            (Kind::Bicubic, h, full.0),
            (Kind::Bicubic, w, full.1),
        ] {
            own.push(number(words.len())?);
            words.extend(Axis::new(kind, from, to).table());
        }
        words[PER_SCALE * k..PER_SCALE * (k + 1)].copy_from_slice(&own);
        tokens += h * w;
    }
    Ok(words)
}

/// Tokens of the scales together, and of those after the first up to `active`.
fn lengths(scales: &[(usize, usize)], active: usize) -> (usize, usize) {
    let sum = |s: &[(usize, usize)]| s.iter().map(|(h, w)| h * w).sum();
    (sum(scales), sum(&scales[1.min(active)..active]))
}

/// Multiplications and additions of so many φ on maps of this size.
fn phi_flops(batch: usize, full: (usize, usize), phis: usize) -> f64 {
    (2 * 9 * CHANNELS * CHANNELS * full.0 * full.1) as f64 * (batch * phis) as f64
}

fn launch(batch: usize, full: (usize, usize), searches: bool) -> Launch {
    Launch {
        grid: [batch, 1, 1],
        threads: THREADS,
        shared: shared(full, searches) as u32,
    }
}

/// All of it for f, float32, which [`fits`].
pub(super) fn encode(
    f: &Tensor,
    codes: &ResidualCodes<'_>,
    scales: &[(usize, usize)],
    active: usize,
) -> Result<Residual> {
    let gpu = f.gpu()?;
    let (b, full) = (f.dims()[0], (f.dims()[1], f.dims()[2]));
    let _scope = gpu.scope("quantizer", || {
        let (tokens, input) = lengths(scales, active);
        // Distances to all codes, and φ on whole maps.
        let search = 2.0 * (b * tokens * CHANNELS) as f64 * codes.codebook.dims()[0] as f64;
        Work::moving(&[f, f, codes.codebook])
            .and_bytes(4 * b * (tokens + input * CHANNELS))
            .products(
                Precision::Fp32,
                search + phi_flops(b, full, codes.phis.len()),
            )
    });
    let packed = pack(codes.codebook, codes.by_angle)?;
    let (weights, offsets) = phis(gpu, codes)?;
    let with_phi = !offsets.is_empty();
    let plan = Tensor::constant_i32(gpu, &plan(scales, &offsets)?)?;
    let (total, length) = lengths(scales, active);
    let tokens = Tensor::scratch(gpu, [b * total], DType::I32)?;
    let f_hat = Tensor::scratch(gpu, f.shape(), DType::F32)?;
    let input = match length {
        0 => None,
        _ => Some(Tensor::scratch(gpu, [b, length, CHANNELS], DType::F32)?),
    };
    let args = [
        f.arg()?,
        tokens.arg()?,
        codes.codebook.arg()?,
        packed.codes.arg()?,
        packed.squares.arg()?,
        weights.arg()?,
        plan.arg()?,
        f_hat.arg()?,
        input.as_ref().map_or(Ok(Arg::Null), Tensor::arg)?,
        Arg::Count(full.0),
        Arg::Count(full.1),
        Arg::Count(codes.codebook.dims()[0]),
        Arg::Count(scales.len()),
        Arg::Count(active),
        Arg::Count(length),
        Arg::Count(packed.passes),
        Arg::I32(i32::from(codes.by_angle)),
        Arg::I32(i32::from(with_phi)),
        Arg::F32(codes.rho),
    ];
    gpu.launch(&MODULE, "residual_encode", launch(b, full, true), &args)?;
    let mut indices = Vec::new();
    let mut before = 0;
    for s in scales {
        let l = s.0 * s.1;
        indices.push(tokens.narrow(b * before, b * l)?.reshape([b, l])?);
        before += l;
    }
    Ok(Residual {
        indices,
        f_hat,
        input,
    })
}

/// Token maps as one run of memory, scale by scale: where they lie, if they lie so.
fn one_run(gpu: &'static Gpu, tokens: &[Tensor]) -> Result<Tensor> {
    let count = tokens.iter().map(Tensor::numel).sum();
    let first = &tokens[0];
    let home = &first.on_gpu()?.buffer;
    let mut next = first.offset;
    let mut together = true;
    for t in tokens {
        t.arg_of("var_input_from_tokens", DType::I32)?;
        together &= Arc::ptr_eq(home, &t.on_gpu()?.buffer) && t.offset == next;
        next += t.numel();
    }
    if together {
        let mut run = first.detach();
        run.shape = [count].into();
        return Ok(run);
    }
    let run = Tensor::scratch(gpu, [count], DType::I32)?;
    let mut at = 0;
    for t in tokens {
        let DevicePtr(buffer, _) = run.device_ptr()?;
        gpu.copy(t.device_ptr()?, DevicePtr(buffer, 4 * at), 4 * t.numel())?;
        at += t.numel();
    }
    Ok(run)
}

/// The input of the scales 1..`active` from the tokens of the scales before, for codes that [`fits`].
pub(super) fn input(
    tokens: &[Tensor],
    codes: &ResidualCodes<'_>,
    scales: &[(usize, usize)],
    active: usize,
) -> Result<Tensor> {
    let gpu = codes.codebook.gpu()?;
    let b = tokens[0].dims()[0];
    let full = scales.last().copied().unwrap_or((1, 1));
    let _scope = gpu.scope("quantizer input", || {
        let (all, input) = lengths(scales, active);
        let phis = codes.phis.len().min(active.saturating_sub(1));
        Work::moving(&[codes.codebook])
            .and_bytes(4 * b * (all + input * CHANNELS))
            .products(Precision::Fp32, phi_flops(b, full, phis))
    });
    let run = one_run(gpu, tokens)?;
    let (weights, offsets) = phis(gpu, codes)?;
    let with_phi = !offsets.is_empty();
    let plan = Tensor::constant_i32(gpu, &plan(scales, &offsets)?)?;
    let (_, length) = lengths(scales, active);
    let y = Tensor::scratch(gpu, [b, length, CHANNELS], DType::F32)?;
    let args = [
        run.arg()?,
        codes.codebook.arg()?,
        weights.arg()?,
        plan.arg()?,
        y.arg()?,
        Arg::Count(full.0),
        Arg::Count(full.1),
        Arg::Count(codes.codebook.dims()[0]),
        Arg::Count(tokens.len()),
        Arg::Count(active),
        Arg::Count(length),
        Arg::I32(i32::from(with_phi)),
        Arg::F32(codes.rho),
    ];
    if b > 0 {
        gpu.launch(&MODULE, "residual_input", launch(b, full, false), &args)?;
    }
    Ok(y)
}
