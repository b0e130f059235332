//! SiLU on a GPU, in the type of x.

use crate::{Result, Tensor};
use nextscale_cuda::Work;
use nextscale_cuda::kernel::{Arg, Module, Shape};
use nextscale_cuda::kernels;

pub(crate) static MODULE: Module = Module {
    name: "silu",
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: kernels! {
        silu: "ppu" for f32 bf16 f16;
        silu_back: "pppu" for f32 bf16 f16;
    },
};

pub(super) fn forward(x: &Tensor) -> Result<Tensor> {
    let (gpu, n) = (x.gpu()?, x.numel());
    let _scope = gpu.scope("silu", || Work::moving(&[x, x]));
    let y = Tensor::scratch(gpu, x.shape(), x.dtype())?;
    let name = ("silu", x.dtype());
    let args = [x.arg()?, y.arg()?, Arg::U64(n as u64)];
    gpu.launch(&MODULE, name, Shape::pass(gpu, n.div_ceil(8)), &args)?;
    Ok(y)
}

pub(super) fn backward(x: &Tensor, g: &Tensor) -> Result<Tensor> {
    let (gpu, n) = (x.gpu()?, x.numel());
    let _scope = gpu.scope("silu gradient", || Work::moving(&[x, x, g]));
    let g = g.cast(x.dtype())?;
    let dx = Tensor::scratch(gpu, x.shape(), x.dtype())?;
    let name = ("silu_back", x.dtype());
    let args = [x.arg()?, g.arg()?, dx.arg()?, Arg::U64(n as u64)];
    gpu.launch(&MODULE, name, Shape::pass(gpu, n.div_ceil(8)), &args)?;
    Ok(dx)
}
