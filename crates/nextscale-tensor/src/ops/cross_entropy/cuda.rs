//! On a GPU: one pass over the logits for the figures, one that turns them into their gradient. Nothing waits for either.

use super::CrossEntropy;
use crate::{Cx, DType, Error, Result, Tensor};
use nextscale_cuda::kernel::Shape as Launch;
use nextscale_cuda::{Arg, Module, Work, kernels};

const OP: &str = "cross_entropy";
/// Threads of a block, a warp for each row.
const THREADS: usize = 128;

pub(crate) static MODULE: Module = Module {
    name: OP,
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: kernels! {
        cross_entropy: "ppppppuif" for f32 bf16 f16;
        cross_entropy_gradient: "pppppuiiif" for f32 bf16 f16;
        cross_entropy_loss: "pppuii";
    },
};

pub(super) fn run(
    cx: &Cx<'_>,
    logits: Tensor,
    targets: &Tensor,
    weights: &[f32],
    smoothing: f32,
) -> Result<CrossEntropy> {
    let gpu = logits.gpu()?;
    let (b, l, v) = (logits.dims()[0], weights.len(), logits.shape().last());
    let (rows, narrow) = (b * l, i32::try_from(v).ok().zip(i32::try_from(b * l).ok()));
    let Some((v, _)) = narrow else {
        return Err(Error::shape(OP, format!("{} is too large", logits.shape())));
    };
    let _scope = gpu.scope("cross entropy", || Work::moving(&[&logits, targets]));
    let weights = Tensor::constant_f32(gpu, weights)?;
    let of = |dtype| Tensor::scratch(gpu, targets.shape(), dtype);
    let (lse, smoothed, plain) = (of(DType::F32)?, of(DType::F32)?, of(DType::F32)?);
    let predicted = of(DType::I32)?;
    let mut loss = Tensor::scratch(gpu, [1], DType::F32)?;
    let warps = Launch {
        grid: [rows.div_ceil(THREADS / 32).max(1), 1, 1],
        threads: THREADS as u32,
        shared: 0,
    };
    let target = targets.arg_of(OP, DType::I32)?;
    let args = [
        logits.arg()?,
        target,
        lse.arg()?,
        smoothed.arg()?,
        plain.arg()?,
        predicted.arg()?,
        Arg::U64(rows as u64),
        Arg::I32(v),
        Arg::F32(smoothing),
    ];
    gpu.launch(&MODULE, ("cross_entropy", logits.dtype()), warps, &args)?;
    let args = [
        smoothed.arg()?,
        weights.arg()?,
        loss.arg()?,
        Arg::U64(rows as u64),
        Arg::Count(l),
        Arg::Count(b.max(1)),
    ];
    let one = Launch {
        grid: [1, 1, 1],
        threads: 1024,
        shared: 0,
    };
    gpu.launch(&MODULE, "cross_entropy_loss", one, &args)?;
    if cx.records(&[&logits]) {
        let targets = targets.detach();
        cx.record_one(&mut loss, move |g, grads| {
            let _scope = gpu.scope("cross entropy gradient", || {
                Work::moving(&[&logits, &logits])
            });
            // A second handle on the values would force a copy of them.
            let place = logits.without_data();
            let d = logits.detach();
            drop(logits);
            let d = d.into_unique()?;
            let args = [
                d.arg()?,
                targets.arg()?,
                lse.arg()?,
                weights.arg()?,
                g.arg_of(OP, DType::F32)?,
                Arg::U64(rows as u64),
                Arg::Count(l),
                Arg::Count(b),
                Arg::I32(v),
                Arg::F32(smoothing),
            ];
            gpu.launch(&MODULE, ("cross_entropy_gradient", d.dtype()), warps, &args)?;
            grads.add(&place, d)
        });
    }
    Ok(CrossEntropy {
        loss,
        smoothed,
        plain,
        predicted,
    })
}
