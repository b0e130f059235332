//! Joining on a GPU: bytes are moved, whatever they mean.

use crate::{Result, Shape, Tensor};
use nextscale_cuda::Work;
use nextscale_cuda::kernel::{Arg, Module, Shape as Launch};
use nextscale_cuda::kernels;
use nextscale_cuda::matmul::DevicePtr;

pub(crate) static MODULE: Module = Module {
    name: "concat_tokens",
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: kernels! {
        join_16: "ppppppppiiiiiiiipiiii";
        join_4: "ppppppppiiiiiiiipiiii";
        join_2: "ppppppppiiiiiiiipiiii";
    },
};

/// Parts that one launch takes.
const PARTS: usize = 8;

/// The parts, all of one type and batch, joined to `shape`.
pub(in crate::ops) fn concat(parts: &[&Tensor], batch: usize, shape: Shape) -> Result<Tensor> {
    const OP: &str = "concat_tokens";
    let (gpu, dtype) = (parts[0].gpu()?, parts[0].dtype());
    let y = Tensor::scratch(gpu, shape, dtype)?;
    let _scope = gpu.scope("concat", || Work::moving(&[&y, &y]));
    if batch == 0 {
        return Ok(y);
    }
    let bytes = |numel: usize| numel / batch * dtype.bytes();
    // The widest unit that every row begins and ends with.
    let mut all = bytes(shape.numel());
    for p in parts {
        p.arg_of(OP, dtype)?;
        let DevicePtr(buffer, at) = p.device_ptr()?;
        all |= bytes(p.numel()) | (buffer.address() as usize + at);
    }
    let (unit, name) = match all.trailing_zeros() {
        4.. => (16, "join_16"),
        2 | 3 => (4, "join_4"),
        _ => (2, "join_2"),
    };
    let units = |numel: usize| bytes(numel) / unit;
    let mut first = 0;
    for group in parts.chunks(PARTS) {
        let widths: Vec<usize> = group.iter().map(|p| units(p.numel())).collect();
        let width: usize = widths.iter().sum();
        let mut args = Vec::with_capacity(21);
        for i in 0..PARTS {
            args.push(group.get(i).map_or(Ok(Arg::Null), |p| p.arg())?);
        }
        args.extend((0..PARTS).map(|i| Arg::Count(widths.get(i).copied().unwrap_or(0))));
        args.extend([
            y.arg()?,
            Arg::Count(group.len()),
            Arg::Count(first),
            Arg::Count(units(shape.numel())),
            Arg::Count(batch),
        ]);
        if width > 0 {
            let launch = Launch {
                grid: [
                    width.div_ceil(256).min(4096),
                    batch.min(Launch::MOST_ROWS),
                    1,
                ],
                threads: 256,
                shared: 0,
            };
            gpu.launch(&MODULE, name, launch, &args)?;
        }
        first += width;
    }
    Ok(y)
}
