//! Max pooling on a GPU, in the type of x.

use super::{Sizes, Window};
use crate::{DType, Result, Tensor};
use nextscale_cuda::kernel::{Arg, MOST_COUNT, Module, Shape};
use nextscale_cuda::{Work, kernels};

pub(crate) static MODULE: Module = Module {
    name: "max_pool",
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: kernels! {
        max_pool: "pppiiiiiiiiu" for f32 bf16 f16;
        max_pool_back: "pppiiiiiiiiu" for f32 bf16 f16;
    },
};

/// Extents and windows as both kernels take them.
fn extents(s: Sizes, window: Window) -> [Arg<'static>; 8] {
    let counts = [s.h, s.w, s.channels, s.oh, s.ow];
    let windows = [window.size, window.stride, window.pad];
    let mut all = counts.into_iter().chain(windows);
    std::array::from_fn(|_| Arg::Count(all.next().unwrap_or(0)))
}

/// y, and the winners where they are wanted.
pub(super) fn forward(
    s: Sizes,
    window: Window,
    x: &Tensor,
    records: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    let gpu = x.gpu()?;
    // Winners are numbered by 32 bits.
    gpu.counts(&MODULE, s.h * s.w, MOST_COUNT, "pixels of a map")?;
    let shape = [s.batch, s.oh, s.ow, s.channels];
    let y = Tensor::scratch(gpu, shape, x.dtype())?;
    let winners = match records {
        true => Some(Tensor::scratch(gpu, shape, DType::I32)?),
        false => None,
    };
    let _scope = gpu.scope("max pool", || Work::moving(&[x, &y]));
    let n = y.numel();
    let mut args = vec![
        x.arg()?,
        y.arg()?,
        winners.as_ref().map_or(Ok(Arg::Null), Tensor::arg)?,
    ];
    args.extend(extents(s, window));
    args.push(Arg::U64(n as u64));
    let name = ("max_pool", x.dtype());
    gpu.launch(&MODULE, name, Shape::pass(gpu, n), &args)?;
    Ok((y, winners))
}

/// The gradient of x.
pub(super) fn backward(s: Sizes, window: Window, winners: &Tensor, g: &Tensor) -> Result<Tensor> {
    let gpu = g.gpu()?;
    let dx = Tensor::scratch(gpu, [s.batch, s.h, s.w, s.channels], g.dtype())?;
    let _scope = gpu.scope("max pool gradient", || Work::moving(&[winners, g, &dx]));
    let n = dx.numel();
    let mut args = vec![winners.arg_of("max_pool", DType::I32)?, g.arg()?, dx.arg()?];
    args.extend(extents(s, window));
    args.push(Arg::U64(n as u64));
    let name = ("max_pool_back", g.dtype());
    gpu.launch(&MODULE, name, Shape::pass(gpu, n), &args)?;
    Ok(dx)
}
