//! SiLU on a GPU.

use crate::cuda::kernel::Shape as Launch;
use crate::cuda::tensor::by_dtype;
use crate::cuda::{Arg, Kernel, Module};
use crate::{Result, Tensor};

pub(super) fn forward(x: &Tensor) -> Result<Tensor> {
    let (gpu, n) = (x.gpu()?, x.numel());
    let y = Tensor::scratch(gpu, x.shape(), x.dtype())?;
    let name = by_dtype(x.dtype(), ["silu_f32", "silu_bf16", "silu_f16"])?;
    let args = [x.arg()?, y.arg()?, Arg::U64(n as u64)];
    gpu.launch(&MODULE, name, Launch::pass(gpu, n), &args)?;
    Ok(y)
}

/// The gradient of x; g has x's type.
pub(super) fn backward(x: &Tensor, g: &Tensor) -> Result<Tensor> {
    let (gpu, n) = (x.gpu()?, x.numel());
    let dx = Tensor::scratch(gpu, x.shape(), x.dtype())?;
    let names = [
        "silu_backward_f32",
        "silu_backward_bf16",
        "silu_backward_f16",
    ];
    let name = by_dtype(x.dtype(), names)?;
    let g = g.arg_of("silu", x.dtype())?;
    let args = [x.arg()?, g, dx.arg()?, Arg::U64(n as u64)];
    gpu.launch(&MODULE, name, Launch::pass(gpu, n), &args)?;
    Ok(dx)
}

/// The kernels of SiLU.
pub(crate) static MODULE: Module = Module {
    name: "silu",
    source: include_str!("kernel.cu"),
    specific: false,
    kernels: &[
        Kernel {
            name: "silu_f32",
            signature: "ppu",
        },
        Kernel {
            name: "silu_backward_f32",
            signature: "pppu",
        },
        Kernel {
            name: "silu_bf16",
            signature: "ppu",
        },
        Kernel {
            name: "silu_backward_bf16",
            signature: "pppu",
        },
        Kernel {
            name: "silu_f16",
            signature: "ppu",
        },
        Kernel {
            name: "silu_backward_f16",
            signature: "pppu",
        },
    ],
};
