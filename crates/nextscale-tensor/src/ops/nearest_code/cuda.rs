//! The search on a GPU, in float32 whatever the products' arithmetic.

use crate::{DType, Error, Result, Tensor};
use nextscale_cuda::kernel::{Arg, Module, Shape};
use nextscale_cuda::{Gpu, Precision, Work, kernels};

pub(crate) static MODULE: Module = Module {
    name: "nearest_code",
    source: &[include_str!("search.cuh"), include_str!("kernel.cu")],
    specific: false,
    kernels: kernels! {
        pack_codes: "pppiiiii";
        nearest_32: "ppppiiiiu";
        nearest_64: "ppppiiiiu";
        nearest_wide: "ppppiiiiu";
    },
};

const OP: &str = "nearest_code";
/// Threads of a block, and codes of one pass when each has four (of up to 32 channels).
const THREADS: usize = 256;
/// Most vectors of a block.
const SHARE: usize = 256;
/// Vectors of a block for wide codes.
const ROWS: usize = 8;

/// A codebook as the search reads it.
pub(in crate::ops) struct Packed {
    /// Groups of 32 codes, four channels at a time.
    pub(in crate::ops) codes: Tensor,
    /// Their squared lengths, zero when normalised, infinite past the last.
    pub(in crate::ops) squares: Tensor,
    /// How often a block of 256 threads has to take codes.
    pub(in crate::ops) passes: usize,
    quads: usize,
}

/// Packs a codebook \[V, C\].
pub(in crate::ops) fn pack(codebook: &Tensor, by_angle: bool) -> Result<Packed> {
    let &[v, c] = codebook.dims() else {
        return Err(Error::shape(
            OP,
            format!("codebook is {}", codebook.shape()),
        ));
    };
    let codebook = codebook.cast(DType::F32)?;
    let gpu = codebook.gpu()?;
    let (quads, each) = match c {
        0..=32 => (8, 4),
        33..=64 => (16, 2),
        _ => (c.div_ceil(4), 1),
    };
    let passes = v.div_ceil(THREADS * each);
    let padded = passes * THREADS * each;
    let codes = Tensor::scratch(gpu, [padded, 4 * quads], DType::F32)?;
    let squares = Tensor::scratch(gpu, [padded], DType::F32)?;
    let args = [
        codebook.arg()?,
        codes.arg()?,
        squares.arg()?,
        Arg::Count(v),
        Arg::Count(c),
        Arg::Count(quads),
        Arg::Count(padded),
        Arg::I32(i32::from(by_angle)),
    ];
    let launch = Shape {
        grid: [padded / 8, 1, 1],
        threads: THREADS as u32,
        shared: 0,
    };
    gpu.launch(&MODULE, "pack_codes", launch, &args)?;
    Ok(Packed {
        codes,
        squares,
        passes,
        quads,
    })
}

/// Vectors of a block, so that blocks of up to [`SHARE`] come out even over the multiprocessors.
fn share(gpu: &Gpu, m: usize) -> usize {
    let each = gpu.info().multiprocessors;
    let rounds = m.div_ceil(SHARE * each);
    m.div_ceil(rounds * each).clamp(1, SHARE)
}

pub(super) fn search(x: &Tensor, codebook: &Tensor, by_angle: bool) -> Result<Tensor> {
    let &[m, c] = x.dims() else {
        return Err(Error::shape(OP, format!("x is {}", x.shape())));
    };
    let x = x.cast(DType::F32)?;
    let gpu = x.gpu()?;
    let y = Tensor::scratch(gpu, [m], DType::I32)?;
    let _scope = gpu.scope("code search", || {
        let flops = 2.0 * m as f64 * codebook.numel() as f64;
        Work::moving(&[&x, codebook, &y]).products(Precision::Fp32, flops)
    });
    if m == 0 {
        return Ok(y);
    }
    let packed = pack(codebook, by_angle)?;
    let wide = c > 64;
    let share = if wide { ROWS } else { share(gpu, m) };
    let width = 4 * packed.quads;
    let shared = if wide {
        ROWS * (8 + 4 + 4 * width)
    } else {
        share.next_multiple_of(2) * 8 + share * (4 * width + 4)
    };
    if shared > gpu.info().shared {
        return Err(Error::shape(
            OP,
            format!("codes of {c} channels are too wide for this GPU"),
        ));
    }
    let (name, middle) = match c {
        0..=32 => ("nearest_32", [share, packed.passes]),
        33..=64 => ("nearest_64", [share, packed.passes]),
        _ => ("nearest_wide", [packed.quads, packed.squares.numel()]),
    };
    let args = [
        x.arg()?,
        packed.codes.arg()?,
        packed.squares.arg()?,
        y.arg()?,
        Arg::Count(c),
        Arg::Count(middle[0]),
        Arg::Count(middle[1]),
        Arg::I32(i32::from(by_angle)),
        Arg::U64(m as u64),
    ];
    let launch = Shape {
        grid: [m.div_ceil(share), 1, 1],
        threads: THREADS as u32,
        shared: shared as u32,
    };
    gpu.launch(&MODULE, name, launch, &args)?;
    Ok(y)
}
