//! Joining channels on a GPU: bytes are moved, whatever they mean.

use crate::ops::concat_tokens;
use crate::{Result, Shape, Tensor};
use nextscale_cuda::kernel::{Arg, MOST_COUNT, Module, Shape as Launch};
use nextscale_cuda::{Work, kernels};

pub(crate) static MODULE: Module = Module {
    name: "concat_channels",
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: kernels! {
        channels: "ppiiiu" for f32 bf16 f16;
    },
};

/// A pixel's channels are what a row's tokens are.
pub(super) fn join(parts: &[&Tensor], shape: [usize; 4]) -> Result<Tensor> {
    let pixels = shape[..3].iter().product();
    concat_tokens::cuda::concat(parts, pixels, Shape::from(&shape[..]))
}

/// The channels of y from `first` on, as many as `shape` has.
pub(super) fn part(y: &Tensor, first: usize, shape: Shape) -> Result<Tensor> {
    let gpu = y.gpu()?;
    let (all, c) = (y.dims()[3], shape.dims()[3]);
    gpu.counts(&MODULE, all, MOST_COUNT, "channels")?;
    let x = Tensor::scratch(gpu, shape, y.dtype())?;
    let _scope = gpu.scope("channels", || Work::moving(&[&x, &x]));
    let n = x.numel();
    let args = [
        y.arg()?,
        x.arg()?,
        Arg::Count(all),
        Arg::Count(first),
        Arg::Count(c),
        Arg::U64(n as u64),
    ];
    gpu.launch(
        &MODULE,
        ("channels", y.dtype()),
        Launch::pass(gpu, n),
        &args,
    )?;
    Ok(x)
}
