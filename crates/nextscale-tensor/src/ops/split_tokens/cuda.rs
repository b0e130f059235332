//! Taking rows apart on a GPU.

use crate::{DType, Error, Result, Tensor};
use nextscale_cuda::kernel::Shape as Launch;
use nextscale_cuda::{Arg, Kernel, Module, Work};

pub(crate) static MODULE: Module = Module {
    name: "split_tokens",
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: &[Kernel::new("split_tokens", "pppiii")],
};

/// The parts of \[batch, row\], one after the other.
pub(super) fn split(x: &Tensor, lengths: &[usize], (batch, row): (usize, usize)) -> Result<Tensor> {
    const OP: &str = "split_tokens";
    let gpu = x.gpu()?;
    let values = x.arg_of(OP, DType::I32)?;
    let y = Tensor::scratch(gpu, [batch * row], DType::I32)?;
    let _scope = gpu.scope("split tokens", || Work::moving(&[x, &y]));
    if batch * row == 0 {
        return Ok(y);
    }
    let number = |n: usize| {
        i32::try_from(n).map_err(|_| Error::shape(OP, format!("{} is too large", x.shape())))
    };
    // Where every part begins in a row, and where the last one ends.
    let mut begins = vec![0];
    let mut at = 0;
    for l in lengths {
        at += l;
        begins.push(number(at)?);
    }
    let begins = Tensor::constant_i32(gpu, &begins)?;
    let args = [
        values,
        begins.arg()?,
        y.arg()?,
        Arg::Count(lengths.len()),
        Arg::Count(row),
        Arg::Count(batch),
    ];
    let launch = Launch {
        grid: [row.div_ceil(256).min(4096), batch.min(Launch::MOST_ROWS), 1],
        threads: 256,
        shared: 0,
    };
    gpu.launch(&MODULE, "split_tokens", launch, &args)?;
    Ok(y)
}
