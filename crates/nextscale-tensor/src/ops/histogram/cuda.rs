//! Counting on a GPU.

use crate::{DType, Error, Result, Tensor};
use nextscale_cuda::Work;
use nextscale_cuda::kernel::{Arg, Module, Shape};
use nextscale_cuda::kernels;

pub(crate) static MODULE: Module = Module {
    name: "histogram",
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: kernels! {
        count_shared: "ppiu";
        count_global: "ppiu";
    },
};

/// Bins that are counted in shared memory, which every block has without asking.
const SHARED_BINS: usize = 8192;

pub(super) fn histogram(indices: &Tensor, bins: usize) -> Result<Tensor> {
    const OP: &str = "histogram";
    let (gpu, n) = (indices.gpu()?, indices.numel());
    let _scope = gpu.scope("histogram", || Work::moving(&[indices]).and_bytes(4 * bins));
    let counts = Tensor::zeros_on(indices.device(), [bins], DType::I32)?;
    let count = i32::try_from(bins).map_err(|_| Error::shape(OP, format!("{bins} bins")))?;
    let args = [
        indices.arg_of(OP, DType::I32)?,
        counts.arg()?,
        Arg::I32(count),
        Arg::U64(n as u64),
    ];
    // A block with counts of its own is worth its while for many more indices than bins.
    let (name, launch) = if bins <= SHARED_BINS && n >= 4 * bins {
        let blocks = (n / bins).clamp(1, gpu.info().multiprocessors);
        let launch = Shape {
            grid: [blocks, 1, 1],
            threads: 512,
            shared: 4 * bins as u32,
        };
        ("count_shared", launch)
    } else {
        ("count_global", Shape::pass(gpu, n))
    };
    gpu.launch(&MODULE, name, launch, &args)?;
    Ok(counts)
}
