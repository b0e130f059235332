//! SiLU on a GPU, in the type of x.

use crate::{Result, Tensor};
use nextscale_cuda::Work;
use nextscale_cuda::by_dtype;
use nextscale_cuda::kernel::{Arg, Kernel, Module, Shape};

pub(crate) static MODULE: Module = Module {
    name: "silu",
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: &[
        Kernel::new("silu_f32", "ppu"),
        Kernel::new("silu_bf16", "ppu"),
        Kernel::new("silu_f16", "ppu"),
        Kernel::new("silu_back_f32", "pppu"),
        Kernel::new("silu_back_bf16", "pppu"),
        Kernel::new("silu_back_f16", "pppu"),
    ],
};

pub(super) fn forward(x: &Tensor) -> Result<Tensor> {
    let (gpu, n) = (x.gpu()?, x.numel());
    let _scope = gpu.scope("silu", || Work::moving(&[x, x]));
    let y = Tensor::scratch(gpu, x.shape(), x.dtype())?;
    let name = by_dtype(x.dtype(), ["silu_f32", "silu_bf16", "silu_f16"])?;
    let args = [x.arg()?, y.arg()?, Arg::U64(n as u64)];
    gpu.launch(&MODULE, name, Shape::pass(gpu, n.div_ceil(8)), &args)?;
    Ok(y)
}

pub(super) fn backward(x: &Tensor, g: &Tensor) -> Result<Tensor> {
    let (gpu, n) = (x.gpu()?, x.numel());
    let _scope = gpu.scope("silu gradient", || Work::moving(&[x, x, g]));
    let g = g.cast(x.dtype())?;
    let dx = Tensor::scratch(gpu, x.shape(), x.dtype())?;
    let name = by_dtype(
        x.dtype(),
        ["silu_back_f32", "silu_back_bf16", "silu_back_f16"],
    )?;
    let args = [x.arg()?, g.arg()?, dx.arg()?, Arg::U64(n as u64)];
    gpu.launch(&MODULE, name, Shape::pass(gpu, n.div_ceil(8)), &args)?;
    Ok(dx)
}
