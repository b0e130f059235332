//! The distance on a GPU, in the type of the maps; both must have the same.

use super::{EPSILON, Sizes};
use crate::{DType, Error, Result, Tensor};
use nextscale_cuda::kernel::{Arg, Module, Shape};
use nextscale_cuda::{Work, kernels};

pub(crate) static MODULE: Module = Module {
    name: "unit_distance",
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: kernels! {
        unit_parts: "ppppiiif" for f32 bf16 f16;
        unit_mean: "ppii";
        unit_back: "ppppppiiuf" for f32 bf16 f16;
    },
};

/// Pixels of one block in the first stage, as kernel.cu has it.
const PART: usize = 64;
const THREADS: u32 = 256;
/// Pixels that a block works on at once: a warp each.
const WARPS: usize = 8;

fn blocks(n: usize) -> Shape {
    Shape {
        grid: [n, 1, 1],
        threads: THREADS,
        shared: 0,
    }
}

fn same_type(a: &Tensor, b: &Tensor) -> Result<()> {
    if a.dtype() == b.dtype() {
        return Ok(());
    }
    let detail = format!("a is {} and b is {}", a.dtype().name(), b.dtype().name());
    Err(Error::shape("unit_distance", detail))
}

/// y.
pub(super) fn forward(s: Sizes, a: &Tensor, b: &Tensor, w: &Tensor) -> Result<Tensor> {
    same_type(a, b)?;
    let gpu = a.gpu()?;
    let _scope = gpu.scope("unit distance", || Work::moving(&[a, b]));
    let parts = s.pixels.div_ceil(PART);
    // Pairs of floats hold the float64 sums.
    let sums = Tensor::scratch(gpu, [s.batch * parts, 2], DType::F32)?;
    let y = Tensor::scratch(gpu, [s.batch], DType::F32)?;
    let args = [
        a.arg()?,
        b.arg()?,
        w.arg_of("unit_distance", DType::F32)?,
        sums.arg()?,
        Arg::Count(parts),
        Arg::Count(s.pixels),
        Arg::Count(s.channels),
        Arg::F32(EPSILON),
    ];
    let name = ("unit_parts", a.dtype());
    gpu.launch(&MODULE, name, blocks(s.batch * parts), &args)?;
    let args = [
        sums.arg()?,
        y.arg()?,
        Arg::Count(parts),
        Arg::Count(s.pixels),
    ];
    gpu.launch(&MODULE, "unit_mean", blocks(s.batch), &args)?;
    Ok(y)
}

/// The gradients of a and b, those that are wanted.
pub(super) fn backward(
    s: Sizes,
    a: &Tensor,
    b: &Tensor,
    w: &Tensor,
    g: &Tensor,
    wanted: (bool, bool),
) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let gpu = a.gpu()?;
    let made = |t: &Tensor, wanted: bool| match wanted {
        true => Tensor::scratch(gpu, t.shape(), t.dtype()).map(Some),
        false => Ok(None),
    };
    let (da, db) = (made(a, wanted.0)?, made(b, wanted.1)?);
    let _scope = gpu.scope("unit distance gradient", || {
        let made = [&da, &db].into_iter().flatten();
        Work::moving(&[a, b]).and_bytes(made.map(|t| t.dtype().bytes() * t.numel()).sum())
    });
    let pixels = s.batch * s.pixels;
    let args = [
        a.arg()?,
        b.arg()?,
        w.arg_of("unit_distance", DType::F32)?,
        g.arg_of("unit_distance", DType::F32)?,
        da.as_ref().map_or(Ok(Arg::Null), Tensor::arg)?,
        db.as_ref().map_or(Ok(Arg::Null), Tensor::arg)?,
        Arg::Count(s.pixels),
        Arg::Count(s.channels),
        Arg::U64(pixels as u64),
        Arg::F32(EPSILON),
    ];
    let name = ("unit_back", a.dtype());
    gpu.launch(&MODULE, name, blocks(pixels.div_ceil(WARPS)), &args)?;
    Ok((da, db))
}
