//! On a GPU: a block takes a range and adds in a fixed order.

use super::OP;
use crate::{DType, Error, Result, Tensor};
use nextscale_cuda::kernel::Shape as Launch;
use nextscale_cuda::{Arg, Kernel, Module, Work};
use std::ops::Range;

pub(crate) static MODULE: Module = Module {
    name: OP,
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: &[Kernel {
        name: "token_measures",
        signature: "pppppii",
    }],
};

pub(super) fn run(
    costs: &Tensor,
    predicted: &Tensor,
    targets: &Tensor,
    ranges: &[Range<usize>],
) -> Result<Tensor> {
    let gpu = costs.gpu()?;
    let _scope = gpu.scope("token measures", || {
        Work::moving(&[costs, predicted, targets])
    });
    let out = Tensor::scratch(gpu, [ranges.len(), 2], DType::F32)?;
    let (b, l) = (costs.dims()[0], costs.dims()[1]);
    if ranges.is_empty() {
        return Ok(out);
    }
    if i32::try_from(b).is_err() || i32::try_from(l).is_err() {
        return Err(Error::shape(OP, format!("{} is too large", costs.shape())));
    }
    let ends: Vec<i32> = ranges
        .iter()
        .flat_map(|r| [r.start as i32, r.end as i32])
        .collect();
    let ends = Tensor::constant_i32(gpu, &ends)?;
    let shape = Launch {
        grid: [ranges.len(), 1, 1],
        threads: 1024,
        shared: 0,
    };
    let args = [
        costs.arg_of(OP, DType::F32)?,
        predicted.arg_of(OP, DType::I32)?,
        targets.arg_of(OP, DType::I32)?,
        ends.arg()?,
        out.arg()?,
        Arg::Count(b),
        Arg::Count(l),
    ];
    gpu.launch(&MODULE, "token_measures", shape, &args)?;
    Ok(out)
}
