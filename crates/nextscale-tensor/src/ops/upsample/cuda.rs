//! Upsampling on a GPU, in the type of x.

use crate::{Result, Tensor};
use nextscale_cuda::Work;
use nextscale_cuda::kernel::{Arg, MOST_COUNT, Module, Shape};
use nextscale_cuda::kernels;

pub(crate) static MODULE: Module = Module {
    name: "upsample",
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: kernels! {
        repeat: "ppuii" for f32 bf16 f16;
        collect: "ppuii" for f32 bf16 f16;
    },
};

/// y from x, or dx from g: `dims` are the small map's.
fn launch(name: &'static str, from: &Tensor, to: &Tensor, dims: [usize; 4]) -> Result<()> {
    let (gpu, [b, h, w, c]) = (from.gpu()?, dims);
    // Within a line of the large map the kernel counts with 32 bits.
    gpu.counts(&MODULE, 2 * w * c, MOST_COUNT, "elements of a line")?;
    let n = b * h * w * c;
    let _scope = gpu.scope("upsample", || Work::moving(&[from, to]));
    let args = [
        from.arg()?,
        to.arg()?,
        Arg::U64(n as u64),
        Arg::Count(w * c),
        Arg::Count(c),
    ];
    let step = if c % 8 == 0 { 8 } else { 1 };
    Ok(gpu.launch(
        &MODULE,
        (name, from.dtype()),
        Shape::pass(gpu, n / step),
        &args,
    )?)
}

pub(super) fn forward(x: &Tensor, dims: [usize; 4]) -> Result<Tensor> {
    let [b, h, w, c] = dims;
    let y = Tensor::scratch(x.gpu()?, [b, 2 * h, 2 * w, c], x.dtype())?;
    launch("repeat", x, &y, dims)?;
    Ok(y)
}

pub(super) fn backward(g: &Tensor, dims: [usize; 4]) -> Result<Tensor> {
    let dx = Tensor::scratch(g.gpu()?, dims, g.dtype())?;
    launch("collect", g, &dx, dims)?;
    Ok(dx)
}
