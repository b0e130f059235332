//! On a GPU: one pass over the logits for the figures, one that turns them into their gradient. Nothing waits for either.

use super::CrossEntropy;
use crate::{Cx, DType, Error, Result, Tensor};
use nextscale_cuda::by_dtype;
use nextscale_cuda::kernel::Shape as Launch;
use nextscale_cuda::{Arg, Kernel, Module, Work};

const OP: &str = "cross_entropy";
/// Threads of a block, a warp for each row.
const THREADS: usize = 128;

pub(crate) static MODULE: Module = Module {
    name: OP,
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: &[
        forward("cross_entropy_f32"),
        forward("cross_entropy_bf16"),
        forward("cross_entropy_f16"),
        gradient("cross_entropy_gradient_f32"),
        gradient("cross_entropy_gradient_bf16"),
        gradient("cross_entropy_gradient_f16"),
        Kernel {
            name: "cross_entropy_loss",
            signature: "pppuii",
        },
    ],
};

const fn forward(name: &'static str) -> Kernel {
    Kernel {
        name,
        signature: "ppppppuif",
    }
}

const fn gradient(name: &'static str) -> Kernel {
    Kernel {
        name,
        signature: "pppppuiiif",
    }
}

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
    let names = [
        "cross_entropy_f32",
        "cross_entropy_bf16",
        "cross_entropy_f16",
    ];
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
    gpu.launch(&MODULE, by_dtype(logits.dtype(), names)?, warps, &args)?;
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
            let names = [
                "cross_entropy_gradient_f32",
                "cross_entropy_gradient_bf16",
                "cross_entropy_gradient_f16",
            ];
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
            gpu.launch(&MODULE, by_dtype(d.dtype(), names)?, warps, &args)?;
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
