//! Adding a block's own table on a GPU.

use crate::ops::linear::cuda::add_column_sums;
use crate::{DType, Grads, Result, Tensor};
use nextscale_cuda::kernel::Shape as Launch;
use nextscale_cuda::{Arg, Kernel, Module, Work};

pub(super) fn forward(shared: &Tensor, own: &Tensor) -> Result<Tensor> {
    const OP: &str = "add_table";
    let (gpu, all) = (shared.gpu()?, shared.numel());
    let _scope = gpu.scope("add table", || Work::moving(&[shared, own, shared]));
    let y = Tensor::scratch(gpu, shared.shape(), DType::F32)?;
    let args = [
        shared.arg_of(OP, DType::F32)?,
        own.arg_of(OP, DType::F32)?,
        y.arg()?,
        Arg::U64(own.numel() as u64),
        Arg::U64(all as u64),
    ];
    gpu.launch(&MODULE, "add_table", Launch::pass(gpu, all), &args)?;
    Ok(y)
}

pub(super) fn backward(
    shared: &Tensor,
    own: &Tensor,
    g: Tensor,
    grads: &mut Grads<'_>,
) -> Result<()> {
    let _scope = shared
        .gpu()?
        .scope("add table gradient", || Work::moving(&[&g, own]));
    if let Some(sums) = grads.sums(own)? {
        add_column_sums(&g, own.numel(), 0, &sums)?;
    }
    grads.add(shared, g)
}

/// The kernel.
pub(crate) static MODULE: Module = Module {
    name: "add_table",
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: &[Kernel::new("add_table", "pppuu")],
};
