//! On a GPU: a block takes a row; see the kernels.

use super::noise::Draw;
use crate::{DType, Error, Result, Tensor};
use nextscale_cuda::kernel::Shape as Launch;
use nextscale_cuda::matmul::{Epilogue, Operands, Product};
use nextscale_cuda::{Arg, DeviceBuffer, Gpu, Module, Precision, Work, kernels};

pub(crate) static MODULE: Module = Module {
    name: "guided_sampling",
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: kernels! {
        sample_tokens_small: "pppppuuuiiuifiif";
        sample_tokens_large: "pppppuuuiiuifiif";
        sample_tokens_wide: "pppppuuuiiuifiif";
        filter_logits_small: "pppiiif";
        filter_logits_large: "pppiiif";
        filter_logits_wide: "pppiiif";
        smooth_shares_small: "ppppuuuiiff";
        smooth_shares_large: "ppppuuuiiff";
        guide_logits: "ppfu";
    },
};

/// Codes that a thread holds, as in the kernels.
const ITEMS: usize = 16;

/// Shared memory that a kernel lays out for itself (`Board`), rounded up.
const LAID_OUT: usize = 2 << 10;

/// How rows are worked on.
struct Blocks {
    launch: Launch,
    name: &'static str,
    /// Room for the rows' pairs where a block can't have enough shared memory.
    wide: Option<DeviceBuffer>,
}

impl Blocks {
    fn wide(&self) -> Arg<'_> {
        self.wide.as_ref().map_or(Arg::Null, Arg::In)
    }
}

/// Blocks for `rows` rows of `v` codes, and which version of a kernel they run: for few codes, for many, and for many where
/// a block has less than `most` bytes of shared memory. The last is missing where a kernel has no pairs.
fn rows_of(
    op: &'static str,
    gpu: &'static Gpu,
    rows: usize,
    v: usize,
    names: &[&'static str],
    most: usize,
) -> Result<Blocks> {
    let (threads, name) = match v {
        0..=4096 => (256, names[0]),
        _ => (1024, names[1]),
    };
    if v > threads * ITEMS || i32::try_from(rows).is_err() {
        return Err(Error::shape(
            op,
            format!(
                "{rows} rows of {v} codes; a GPU draws from at most {}",
                threads * ITEMS
            ),
        ));
    }
    // Room for all codes, in fours or sixteens a thread where there are more than threads.
    let room = match v.div_ceil(threads) {
        0..=1 => threads,
        2..=4 => 4 * threads,
        _ => ITEMS * threads,
    };
    let (mut shared, mut name, mut wide) = (0, name, None);
    if let Some(other) = names.get(2) {
        shared = 8 * room;
        if shared + LAID_OUT > most {
            (shared, name) = (0, *other);
            wide = Some(DeviceBuffer::new(gpu, rows * 8 * ITEMS * threads)?);
        }
    }
    let launch = Launch {
        grid: [rows, 1, 1],
        threads: threads as u32,
        shared: shared as u32,
    };
    Ok(Blocks { launch, name, wide })
}

/// Top-k and top-p as the kernels take them: k, whether there is a p, and the bound on running probabilities.
fn filters(v: usize, top_k: usize, top_p: f32) -> [Arg<'static>; 3] {
    [
        Arg::Count(top_k.min(v)),
        Arg::I32(i32::from(top_p > 0.0)),
        Arg::F32(super::filter::removed_share(top_p)),
    ]
}

/// Noise as the kernels take it. Given numbers are uploaded.
struct Noise {
    given: Option<Tensor>,
    params: Option<Tensor>,
    words: [u64; 3],
}

impl Noise {
    fn new(op: &'static str, gpu: &'static Gpu, draw: &Draw<'_>) -> Result<Self> {
        let (mut given, mut params, mut words) = (None, None, [0; 3]);
        match *draw {
            Draw::Seed { seed, scale, first } => words = [seed, first, scale],
            Draw::Device { params: p, scale } => {
                p.arg_of(op, DType::I32)?;
                params = Some(p.detach());
                words[2] = scale;
            }
            Draw::Given(e) => {
                let there = Tensor::scratch(gpu, [e.len()], DType::F32)?;
                let bytes: Vec<u8> = e.iter().flat_map(|x| x.to_le_bytes()).collect();
                gpu.upload_to(&bytes, there.device_ptr()?)?;
                given = Some(there);
            }
        }
        Ok(Self {
            given,
            params,
            words,
        })
    }

    /// With the extents of what it is for: `l` rows a sample, `v` codes.
    fn args(&self, l: usize, v: usize) -> Result<[Arg<'_>; 7]> {
        fn of(t: &Option<Tensor>) -> Result<Arg<'_>> {
            t.as_ref().map_or(Ok(Arg::Null), Tensor::arg)
        }
        let [seed, first, scale] = self.words.map(Arg::U64);
        let [l, v] = [l, v].map(Arg::Count);
        let (given, params) = (of(&self.given)?, of(&self.params)?);
        Ok([given, params, seed, first, scale, l, v])
    }
}

/// Bytes of shared memory that a block may have on the logits' GPU.
pub(super) fn most_shared(logits: &Tensor) -> Result<usize> {
    Ok(logits.gpu()?.info().shared)
}

pub(super) fn guide(logits: &Tensor, t: f32) -> Result<Tensor> {
    let _scope = logits.gpu()?.scope("guidance", || {
        Work::moving(&[logits]).and_bytes(2 * logits.numel())
    });
    let x = logits.cast(DType::F32)?;
    let gpu = x.gpu()?;
    let mut dims = x.dims().to_vec();
    dims[0] /= 2;
    let y = Tensor::scratch(gpu, dims.as_slice(), DType::F32)?;
    let n = y.numel();
    let args = [x.arg()?, y.arg()?, Arg::F32(t), Arg::U64(n as u64)];
    gpu.launch(&MODULE, "guide_logits", Launch::pass(gpu, n), &args)?;
    Ok(y)
}

pub(super) fn filter_logits(
    logits: &Tensor,
    top_k: usize,
    top_p: f32,
    most_shared: usize,
) -> Result<Tensor> {
    let _scope = logits.gpu()?.scope("filter", || {
        Work::moving(&[logits]).and_bytes(4 * logits.numel())
    });
    let x = logits.cast(DType::F32)?;
    let (gpu, v) = (x.gpu()?, x.shape().last());
    let y = Tensor::scratch(gpu, x.shape(), DType::F32)?;
    let names = [
        "filter_logits_small",
        "filter_logits_large",
        "filter_logits_wide",
    ];
    let rows = x.numel() / v;
    if rows == 0 {
        return Ok(y);
    }
    let blocks = rows_of("filter_logits", gpu, rows, v, &names, most_shared)?;
    let [k, p, limit] = filters(v, top_k, top_p);
    let args = [
        blocks.wide(),
        x.arg()?,
        y.arg()?,
        Arg::Count(v),
        k,
        p,
        limit,
    ];
    gpu.launch(&MODULE, blocks.name, blocks.launch, &args)?;
    Ok(y)
}

/// Guidance where there is a `t`, filters, one draw a row.
pub(super) fn sample_tokens(
    op: &'static str,
    logits: &Tensor,
    t: Option<f32>,
    (top_k, top_p): (usize, f32),
    draw: &Draw<'_>,
    most_shared: usize,
) -> Result<Tensor> {
    let _scope = logits.gpu()?.scope("draw", || Work::moving(&[logits]));
    let x = logits.cast(DType::F32)?;
    let (gpu, &[b, l, v]) = (x.gpu()?, x.dims()) else {
        return Err(Error::shape(op, format!("logits are {}", x.shape())));
    };
    let b = if t.is_some() { b / 2 } else { b };
    let y = Tensor::scratch(gpu, [b, l], DType::I32)?;
    if b * l == 0 {
        return Ok(y);
    }
    let names = [
        "sample_tokens_small",
        "sample_tokens_large",
        "sample_tokens_wide",
    ];
    let blocks = rows_of(op, gpu, b * l, v, &names, most_shared)?;
    let noise = Noise::new(op, gpu, draw)?;
    let args = [
        &[blocks.wide(), x.arg()?, y.arg()?][..],
        &noise.args(l, v)?,
        &[
            Arg::U64((b * l) as u64),
            Arg::I32(i32::from(t.is_some())),
            Arg::F32(t.unwrap_or(0.0)),
        ],
        &filters(v, top_k, top_p),
    ];
    gpu.launch(&MODULE, blocks.name, blocks.launch, &args.concat())?;
    Ok(y)
}

pub(super) fn smooth_codes(
    filtered: &Tensor,
    (ratio, tau): (f32, f32),
    draw: &Draw<'_>,
    codebook: &Tensor,
) -> Result<Tensor> {
    const OP: &str = "smooth_codes";
    let _scope = filtered.gpu()?.scope("blend", || {
        let flops = 2.0 * filtered.numel() as f64 * codebook.shape().last() as f64;
        Work::moving(&[filtered, codebook]).products(Precision::Fp32, flops)
    });
    let x = filtered.cast(DType::F32)?;
    let table = codebook.cast(DType::F32)?;
    let (gpu, &[b, l, v], &[_, c]) = (x.gpu()?, x.dims(), table.dims()) else {
        return Err(Error::shape(OP, format!("logits are {}", x.shape())));
    };
    let y = Tensor::scratch(gpu, [b, l, c], DType::F32)?;
    if y.numel() == 0 {
        return Ok(y);
    }
    let shares = Tensor::scratch(gpu, x.shape(), DType::F32)?;
    let names = ["smooth_shares_small", "smooth_shares_large"];
    let blocks = rows_of(OP, gpu, b * l, v, &names, gpu.info().shared)?;
    let noise = Noise::new(OP, gpu, draw)?;
    let args = [
        &[x.arg()?, shares.arg()?][..],
        &noise.args(l, v)?,
        &[Arg::F32(ratio), Arg::F32(tau)],
    ];
    gpu.launch(&MODULE, blocks.name, blocks.launch, &args.concat())?;
    let product = Product {
        m: b * l,
        n: c,
        k: v,
        operands: DType::F32,
        result: DType::F32,
        a_transposed: false,
        b_transposed: false,
        accumulate: false,
        tf32: false,
        epilogue: Epilogue::Plain,
    };
    let operands = Operands {
        a: shares.device_ptr()?,
        b: table.device_ptr()?,
        c: y.device_ptr()?,
        vector: None,
        aux: None,
    };
    gpu.matmul(&product, &operands)?;
    Ok(y)
}
