//! The average on a GPU: one pass that reads both buffers and writes one.

use crate::{DType, Result, Tensor};
use nextscale_cuda::kernel::{Arg, Module, Shape};
use nextscale_cuda::{Work, kernels};

pub(crate) static MODULE: Module = Module {
    name: "average",
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: kernels! {
        average: "ppuf";
    },
};

pub(super) fn average(average: &Tensor, weights: &Tensor, share: f32) -> Result<()> {
    let (gpu, n) = (weights.gpu()?, weights.numel());
    let _scope = gpu.scope("moving average", || {
        Work::moving(&[average, average, weights])
    });
    let args = [
        average.arg_of("average", DType::F32)?,
        weights.arg_of("average", DType::F32)?,
        Arg::U64(n as u64),
        Arg::F32(share),
    ];
    gpu.launch(&MODULE, "average", Shape::pass(gpu, n.div_ceil(8)), &args)?;
    Ok(())
}
