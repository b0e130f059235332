//! Distances on a GPU; operands of other float types are seen as float32.

use super::Kind;
use crate::tape::Grads;
use crate::{DType, Result, Tensor};
use nextscale_cuda::Work;
use nextscale_cuda::kernel::{Arg, Module, Shape};
use nextscale_cuda::kernels;

pub(crate) static MODULE: Module = Module {
    name: "image_loss",
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: kernels! {
        loss_parts: "pppiu";
        loss_mean: "ppiu";
        loss_slope: "pppppiu";
    },
};

/// Elements of one block in the first stage, as kernel.cu has it.
const PART: usize = 8192;
const THREADS: u32 = 256;

fn number(kind: Kind) -> Arg<'static> {
    Arg::I32(match kind {
        Kind::Squared => 0,
        Kind::Absolute => 1,
    })
}

fn blocks(n: usize) -> Shape {
    Shape {
        grid: [n, 1, 1],
        threads: THREADS,
        shared: 0,
    }
}

pub(super) fn forward(kind: Kind, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let _scope = a.gpu()?.scope("image loss", || Work::moving(&[a, b]));
    let (a, b) = (a.cast(DType::F32)?, b.cast(DType::F32)?);
    let (gpu, n) = (a.gpu()?, a.numel());
    let parts = n.div_ceil(PART).max(1);
    // Pairs of floats hold the float64 sums.
    let sums = Tensor::scratch(gpu, [parts, 2], DType::F32)?;
    let y = Tensor::scratch(gpu, [1], DType::F32)?;
    let args = [
        a.arg()?,
        b.arg()?,
        sums.arg()?,
        number(kind),
        Arg::U64(n as u64),
    ];
    gpu.launch(&MODULE, "loss_parts", blocks(parts), &args)?;
    let args = [
        sums.arg()?,
        y.arg()?,
        Arg::Count(parts),
        Arg::U64(n.max(1) as u64),
    ];
    gpu.launch(&MODULE, "loss_mean", blocks(1), &args)?;
    Ok(y)
}

/// Hands on the gradients of both sides for that of the mean.
pub(super) fn backward(
    kind: Kind,
    a: &Tensor,
    b: &Tensor,
    g: &Tensor,
    grads: &mut Grads<'_>,
) -> Result<()> {
    let _scope = a.gpu()?.scope("image loss gradient", || {
        let wanted = [a, b].into_iter().filter(|t| grads.wants(t));
        Work::moving(&[a, b]).and_bytes(wanted.map(|t| 4 * t.numel()).sum())
    });
    let (x, y) = (a.cast(DType::F32)?, b.cast(DType::F32)?);
    let (gpu, n) = (x.gpu()?, x.numel());
    let wanted = |t: &Tensor| match grads.wants(t) {
        true => Tensor::scratch(gpu, t.shape(), DType::F32).map(Some),
        false => Ok(None),
    };
    let (da, db) = (wanted(a)?, wanted(b)?);
    let args = [
        x.arg()?,
        y.arg()?,
        g.arg_of("image_loss", DType::F32)?,
        da.as_ref().map_or(Ok(Arg::Null), Tensor::arg)?,
        db.as_ref().map_or(Ok(Arg::Null), Tensor::arg)?,
        number(kind),
        Arg::U64(n as u64),
    ];
    gpu.launch(
        &MODULE,
        "loss_slope",
        Shape::pass(gpu, n.div_ceil(4)),
        &args,
    )?;
    if let Some(d) = db {
        grads.add(b, d)?;
    }
    if let Some(d) = da {
        grads.add(a, d)?;
    }
    Ok(())
}
