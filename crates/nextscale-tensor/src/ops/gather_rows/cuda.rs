//! Rows by index on a GPU.

use crate::{DType, Grads, Result, Shape, Tensor};
use nextscale_cuda::kernel::Shape as Launch;
use nextscale_cuda::{Arg, Module, Work, kernels};

const OP: &str = "gather_rows";

/// Rows of `table` \[N, C\] at `indices`, which are on the GPU, as `shape`.
pub(super) fn forward(table: &Tensor, indices: &Tensor, shape: Shape) -> Result<Tensor> {
    let (gpu, n) = (table.gpu()?, shape.numel());
    let y = Tensor::scratch(gpu, shape, DType::F32)?;
    let _scope = gpu.scope("gather rows", || Work::moving(&[&y, indices]));
    let args = [
        table.arg_of(OP, DType::F32)?,
        indices.arg_of(OP, DType::I32)?,
        y.arg()?,
        Arg::Count(table.dims()[0]),
        Arg::Count(table.dims()[1]),
        Arg::U64(n as u64),
    ];
    gpu.launch(&MODULE, "gather_rows", Launch::pass(gpu, n), &args)?;
    Ok(y)
}

/// Adds the rows of g to those of the table's gradient.
pub(super) fn backward(
    table: &Tensor,
    indices: &Tensor,
    g: &Tensor,
    grads: &mut Grads<'_>,
) -> Result<()> {
    let Some(sums) = grads.sums(table)? else {
        return Ok(());
    };
    let _scope = table.gpu()?.scope("gather rows gradient", || {
        Work::moving(&[g, indices, table])
    });
    let shape = Launch {
        grid: [table.dims()[0], 1, 1],
        threads: 128,
        shared: 0,
    };
    let args = [
        g.arg_of(OP, DType::F32)?,
        indices.arg_of(OP, DType::I32)?,
        sums.arg()?,
        Arg::Count(indices.numel()),
        Arg::Count(table.dims()[1]),
    ];
    Ok(table
        .gpu()?
        .launch(&MODULE, "gather_rows_backward", shape, &args)?)
}

/// The kernels of rows by index.
pub(crate) static MODULE: Module = Module {
    name: "gather_rows",
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: kernels! {
        gather_rows: "pppiiu";
        gather_rows_backward: "pppii";
    },
};
