//! Sums and differences on a GPU.

use super::Map;
use crate::{DType, Result, Tensor};
use nextscale_cuda::Work;
use nextscale_cuda::kernel::{Arg, Module, Shape};
use nextscale_cuda::kernels;

pub(crate) static MODULE: Module = Module {
    name: "arithmetic",
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: kernels! {
        map: "pppiffu" for f32 bf16 f16;
        weighted_sum: "ppppppppppffffffffii";
        weighted_gradients: "ppffffffffi";
    },
};

/// Terms of a weighted sum that one launch takes.
const TERMS: usize = 8;
const ONE_WARP: Shape = Shape {
    grid: [1; 3],
    threads: 32,
    shared: 0,
};

/// f(a, b) in the type of both, float32 where they differ; `b` is `None` for functions of one operand.
pub(super) fn map(map: Map, a: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    let _scope = a.gpu()?.scope("arithmetic", || {
        b.iter()
            .fold(Work::moving(&[a, a]), |all, b| all.and(&[*b]))
    });
    let dtype = match b {
        Some(b) if b.dtype() != a.dtype() => DType::F32,
        _ => a.dtype(),
    };
    let name = ("map", dtype);
    let (a, b) = (a.cast(dtype)?, b.map(|b| b.cast(dtype)).transpose()?);
    let (gpu, n) = (a.gpu()?, a.numel());
    let y = Tensor::scratch(gpu, a.shape(), dtype)?;
    // As kernel.cu counts them.
    let (kind, p, q) = match map {
        Map::Add => (0, 0.0, 0.0),
        Map::Sub => (1, 0.0, 0.0),
        Map::Times(f) => (2, f, 0.0),
        Map::StraightThrough => (3, 0.0, 0.0),
        Map::ToUnitRange => (4, 0.0, 0.0),
        Map::Clamp(lo, hi) => (5, lo, hi),
        Map::Relu => (6, 0.0, 0.0),
        Map::WherePositive => (7, 0.0, 0.0),
        Map::Affine(scale, shift) => (8, scale, shift),
    };
    let args = [
        a.arg()?,
        b.as_ref().map_or(Ok(Arg::Null), Tensor::arg)?,
        y.arg()?,
        Arg::I32(kind),
        Arg::F32(p),
        Arg::F32(q),
        Arg::U64(n as u64),
    ];
    gpu.launch(&MODULE, name, Shape::pass(gpu, n.div_ceil(8)), &args)?;
    Ok(y)
}

/// Weights of one launch, the rest zero.
fn weights(terms: &[(Tensor, f32)]) -> [f32; TERMS] {
    std::array::from_fn(|i| terms.get(i).map_or(0.0, |(_, w)| *w))
}

pub(super) fn weighted_sum(terms: &[(Tensor, f32)]) -> Result<Tensor> {
    let Some((first, _)) = terms.first() else {
        return Ok(Tensor::zeros([1]));
    };
    let gpu = first.gpu()?;
    let _scope = gpu.scope("weighted sum", || Work::of_bytes(4 * terms.len()));
    let y = Tensor::scratch(gpu, [1], DType::F32)?;
    let carry = Tensor::scratch(gpu, [2], DType::F32)?;
    for (i, part) in terms.chunks(TERMS).enumerate() {
        let values: Vec<Tensor> = part
            .iter()
            .map(|(t, _)| t.cast(DType::F32))
            .collect::<Result<_>>()?;
        let mut args = vec![carry.arg()?, y.arg()?];
        for j in 0..TERMS {
            args.push(values.get(j).map_or(Ok(Arg::Null), Tensor::arg)?);
        }
        args.extend(weights(part).map(Arg::F32));
        args.extend([Arg::Count(part.len()), Arg::I32(i32::from(i > 0))]);
        gpu.launch(&MODULE, "weighted_sum", ONE_WARP, &args)?;
    }
    Ok(y)
}

/// The weight of every term times g, \[terms\].
pub(super) fn weighted_gradients(g: &Tensor, terms: &[(Tensor, f32)]) -> Result<Tensor> {
    let gpu = g.gpu()?;
    let _scope = gpu.scope("weighted sum gradient", || Work::of_bytes(4 * terms.len()));
    let all = Tensor::scratch(gpu, [terms.len()], DType::F32)?;
    for (i, part) in terms.chunks(TERMS).enumerate() {
        let here = all.narrow(i * TERMS, part.len())?;
        let mut args = vec![g.arg_of("weighted_sum", DType::F32)?, here.arg()?];
        args.extend(weights(part).map(Arg::F32));
        args.push(Arg::Count(part.len()));
        gpu.launch(&MODULE, "weighted_gradients", ONE_WARP, &args)?;
    }
    Ok(all)
}
