//! Upsampling on a GPU, in the type of x.

use crate::cuda::kernel::{Arg, Kernel, Module, Shape};
use crate::cuda::tensor::by_dtype;
use crate::{Result, Tensor};

pub(crate) static MODULE: Module = Module {
    name: "upsample",
    source: include_str!("kernel.cu"),
    specific: false,
    kernels: &[
        Kernel::new("repeat_f32", "ppuii"),
        Kernel::new("repeat_bf16", "ppuii"),
        Kernel::new("repeat_f16", "ppuii"),
        Kernel::new("collect_f32", "ppuii"),
        Kernel::new("collect_bf16", "ppuii"),
        Kernel::new("collect_f16", "ppuii"),
    ],
};

/// y from x, or dx from g: `dims` are the small map's.
fn launch(names: [&'static str; 3], from: &Tensor, to: &Tensor, dims: [usize; 4]) -> Result<()> {
    let (gpu, [b, h, w, c]) = (from.gpu()?, dims);
    let (lines, row) = (b * h, w * c);
    if lines * row == 0 {
        return Ok(());
    }
    let args = [
        from.arg()?,
        to.arg()?,
        Arg::U64(lines as u64),
        Arg::I32(row as i32),
        Arg::I32(c as i32),
    ];
    let step = if c % 8 == 0 { 8 } else { 1 };
    let shape = Shape {
        grid: [
            (row / step).div_ceil(256) as u32,
            lines.min(1 << 15) as u32,
            1,
        ],
        threads: 256,
        shared: 0,
    };
    gpu.launch(&MODULE, by_dtype(from.dtype(), names)?, shape, &args)
}

pub(super) fn forward(x: &Tensor, dims: [usize; 4]) -> Result<Tensor> {
    let [b, h, w, c] = dims;
    let y = Tensor::scratch(x.gpu()?, [b, 2 * h, 2 * w, c], x.dtype())?;
    launch(["repeat_f32", "repeat_bf16", "repeat_f16"], x, &y, dims)?;
    Ok(y)
}

pub(super) fn backward(g: &Tensor, dims: [usize; 4]) -> Result<Tensor> {
    let dx = Tensor::scratch(g.gpu()?, dims, g.dtype())?;
    launch(["collect_f32", "collect_bf16", "collect_f16"], g, &dx, dims)?;
    Ok(dx)
}
