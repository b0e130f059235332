//! Dropout on a GPU: the CPU's mask, drawn there.

use crate::rng::Stream;
use crate::{Result, Tensor};
use nextscale_cuda::Work;
use nextscale_cuda::kernel::{Arg, Module, Shape};
use nextscale_cuda::kernels;

pub(crate) static MODULE: Module = Module {
    name: "dropout",
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: kernels! {
        drop: "ppffiiiiiuu" for f32 bf16 f16;
    },
};

pub(super) fn masked(x: &Tensor, p: f32, stream: &Stream, from: u64) -> Result<Tensor> {
    let name = ("drop", x.dtype());
    let (gpu, n) = (x.gpu()?, x.numel());
    let _scope = gpu.scope("dropout", || Work::moving(&[x, x]));
    let y = Tensor::scratch(gpu, x.shape(), x.dtype())?;
    let (key, tail) = stream.key_and_tail();
    let mut args = vec![x.arg()?, y.arg()?, Arg::F32(p), Arg::F32(1.0 / (1.0 - p))];
    args.extend(tail.into_iter().chain(key).map(|w| Arg::I32(w as i32)));
    args.extend([Arg::U64(from), Arg::U64(n as u64)]);
    gpu.launch(&MODULE, name, Shape::pass(gpu, n.div_ceil(8)), &args)?;
    Ok(y)
}
