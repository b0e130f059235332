//! Attention on a GPU: half-precision heads of 64 on the tensor cores, everything else in float32 arithmetic.

pub(crate) mod modules;
mod path;

use super::Sizes;
use crate::{DType, Error, Grads, Math, Result, Tensor};
use modules::{BACKWARD, FORWARD, plain};
use nextscale_cuda::kernel::{MOST_COUNT, Shape};
use nextscale_cuda::{Arg, Gpu, Name, TensorMap, Work};
use path::{Path, TILE, WIDTH, on_sixteen};

/// Flags of `forward.cu`.
const UNIT: i32 = 1;
const LEVELS: i32 = 2;
const KEEP: i32 = 4;
const CACHED: i32 = 8;

/// y, and what [`backward`] needs: qkv, whose keys and queries are as they were multiplied on the tensor cores, and three (there)
/// or two (else) numbers a query and head.
pub(super) fn forward(
    qkv: Tensor,
    scale_mul: Option<&Tensor>,
    s: Sizes,
    level_ends: &[usize],
    keep: bool,
) -> Result<(Tensor, [Tensor; 2])> {
    let gpu = qkv.gpu()?;
    let path = Path::of(&qkv, s)?;
    let qkv = match path {
        Path::TensorCores => overwritten(qkv)?,
        Path::Plain => qkv,
    };
    let y = Tensor::scratch(gpu, [s.batch, s.tokens, s.width()], qkv.dtype())?;
    let per_head = s.batch * s.heads * s.tokens;
    let stats = Tensor::scratch(gpu, [path.kept(), per_head], DType::F32)?;
    let _scope = gpu.scope("attention", || s.work(pairs(level_ends), 4.0, &[&qkv, &y]));
    if s.batch == 0 {
        return Ok((y, [qkv, stats]));
    }
    s.countable(gpu)?;
    let plan = plan(gpu, level_ends)?;
    let map = rows_of(path, &qkv, s, 3)?;
    let mut call = Call {
        q: qkv.arg()?,
        k: part(&qkv, s, 1)?,
        v: part(&qkv, s, 2)?,
        y: y.arg()?,
        stats: stats.arg()?,
        plan: plan.arg()?,
        scale_mul: scale_arg(scale_mul)?,
        parts: Arg::Null,
        keys: s.tokens,
        splits: 1,
        flags: LEVELS,
        k_batch: s.tokens * 3 * s.width(),
        k_head: s.dim,
        k_token: 3 * s.width(),
        maps: [map, map],
    };
    if keep {
        call.flags |= KEEP;
    }
    if scale_mul.is_some() {
        call.flags |= UNIT;
        if path == Path::TensorCores {
            unit_keys(gpu, &qkv, s, &stats)?;
        }
    }
    call.launch(gpu, path, qkv.dtype(), s)?;
    Ok((y, [qkv, stats]))
}

/// The same values in memory that nobody else holds, in the same place on the tape.
fn overwritten(x: Tensor) -> Result<Tensor> {
    let origin = x.origin.clone();
    let x = x.into_unique()?;
    Ok(Tensor { origin, ..x })
}

/// Adds to the gradients of qkv and scale_mul. `y`, `qkv` and `stats` are what [`forward`] returned.
pub(super) fn backward(
    qkv: &Tensor,
    scale_mul: Option<&Tensor>,
    s: Sizes,
    level_ends: &[usize],
    (y, stats): (&Tensor, &Tensor),
    g: &Tensor,
    grads: &mut Grads<'_>,
) -> Result<()> {
    let gpu = qkv.gpu()?;
    let path = Path::of(qkv, s)?;
    let dqkv = Tensor::scratch(gpu, qkv.shape(), qkv.dtype())?;
    if s.batch == 0 {
        return grads.add(qkv, dqkv);
    }
    s.countable(gpu)?;
    // Ten a pair and channel: the scores are made again.
    let _scope = gpu.scope("attention gradient", || {
        s.work(pairs(level_ends), 10.0, &[qkv, y, g, &dqkv])
    });
    let aligned = |x: &Tensor| -> Result<Tensor> {
        if on_sixteen(x) {
            Ok(x.detach())
        } else {
            x.copied()
        }
    };
    let (y, g) = (aligned(y)?, aligned(g)?);
    let plan = plan(gpu, level_ends)?;
    let deltas = Tensor::scratch(gpu, [s.batch * s.heads * s.tokens], DType::F32)?;
    let blocks = s.tokens.div_ceil(path.rows(gpu, s));
    let slopes = Tensor::scratch(gpu, [s.batch * s.heads * blocks], DType::F32)?;
    let unit = Arg::I32(scale_mul.is_some().into());
    let scale = scale_arg(scale_mul)?;
    let mut sizes = vec![Arg::Count(s.heads)];
    if path == Path::Plain {
        sizes.push(Arg::Count(s.dim));
    }
    sizes.extend([Arg::Count(s.tokens), unit]);
    let of_queries = [
        qkv.arg()?,
        y.arg()?,
        g.arg()?,
        stats.arg()?,
        plan.arg()?,
        scale,
        dqkv.arg()?,
        deltas.arg()?,
        slopes.arg()?,
    ];
    let of_keys = [
        qkv.arg()?,
        g.arg()?,
        stats.arg()?,
        plan.arg()?,
        scale,
        deltas.arg()?,
        dqkv.arg()?,
    ];
    let (module, queries, keys) = match path {
        Path::TensorCores => (
            &BACKWARD,
            Name::from(("backward_queries", qkv.dtype())),
            Name::from(("backward_keys", qkv.dtype())),
        ),
        Path::Plain => (
            plain(qkv.dtype(), s.dim)?,
            "plain_backward_queries".into(),
            "plain_backward_keys".into(),
        ),
    };
    let shape = Shape {
        grid: [blocks, s.batch * s.heads, 1],
        threads: path.threads(),
        shared: path.shared_of_gradient(gpu),
    };
    let maps = [rows_of(path, qkv, s, 3)?, rows_of(path, &g, s, 1)?];
    let maps = maps.each_ref().map(Arg::Map);
    let (of_qkv, of_both) = match path {
        Path::TensorCores => (&maps[..1], &maps[..]),
        Path::Plain => (&[][..], &[][..]),
    };
    let args = [&of_queries[..], &sizes, of_qkv].concat();
    gpu.launch(module, queries, shape, &args)?;
    gpu.launch(
        module,
        keys,
        shape,
        &[&of_keys[..], &sizes, of_both].concat(),
    )?;
    if let Some(scale_mul) = scale_mul
        && let Some(sums) = grads.sums(scale_mul)?
    {
        let shape = Shape {
            grid: [s.heads, 1, 1],
            threads: 256,
            shared: 0,
        };
        let args = [
            slopes.arg()?,
            scale,
            sums.arg()?,
            Arg::Count(s.heads),
            Arg::Count(s.batch),
            Arg::Count(blocks),
        ];
        gpu.launch(module, "scale_gradient", shape, &args)?;
    }
    grads.add(qkv, dqkv)
}

/// Appends keys and values to caches \[B, H, capacity, D\] that hold `held` tokens, then attends to all of it. Nothing
/// is read back, so it may be captured in a graph.
pub(super) fn cached(
    qkv: &Tensor,
    scale_mul: Option<&Tensor>,
    s: Sizes,
    (keys, values): (&Tensor, &Tensor),
    (held, capacity): (usize, usize),
) -> Result<Tensor> {
    const OP: &str = "attention_cached";
    let (gpu, dtype) = (qkv.gpu()?, qkv.dtype());
    let path = Path::of(qkv, s)?;
    let y = Tensor::scratch(gpu, [s.batch, s.tokens, s.width()], dtype)?;
    if s.batch == 0 {
        return Ok(y);
    }
    let _scope = gpu.scope("attention, cached", || {
        let seen = 2 * s.batch * (held + s.tokens) * s.width() * dtype.bytes();
        let pairs = s.tokens * (held + s.tokens);
        s.work(pairs, 4.0, &[qkv, &y]).and_bytes(seen)
    });
    let unit = scale_mul.is_some();
    let total = s.batch * s.tokens * s.heads;
    let (k, v) = (keys.arg_of(OP, dtype)?, values.arg_of(OP, dtype)?);
    // The tensor cores' way has a head's width fixed and eight threads a row, the other a warp a row.
    let ints = [s.heads, s.dim, s.tokens, held, capacity, unit.into(), total];
    let mut args = vec![qkv.arg()?, k, v];
    args.extend(ints.map(Arg::Count));
    match path {
        Path::TensorCores => {
            args.remove(4);
            let name = ("append_rows", dtype);
            gpu.launch(&FORWARD, name, rows_per_block(total, 32), &args)?;
        }
        Path::Plain => {
            let module = plain(dtype, s.dim)?;
            gpu.launch(module, "plain_append", rows_per_block(total, 8), &args)?;
        }
    }

    let seen = held + s.tokens;
    let splits = match path {
        Path::TensorCores => splits(gpu, s, path.rows(gpu, s), seen),
        Path::Plain => 1,
    };
    // The parts' sums and their results.
    let queries = s.batch * s.heads * s.tokens;
    let parts = match splits {
        1 => None,
        n => Some(Tensor::scratch(
            gpu,
            [n * queries * (WIDTH + 1)],
            DType::F32,
        )?),
    };
    let heads = s.batch * s.heads;
    let cache = |x: &Tensor| map(path, x, [s.dim, seen, heads], [s.dim, capacity * s.dim]);
    let maps = [cache(keys)?, cache(values)?];
    let call = Call {
        q: qkv.arg()?,
        k,
        v,
        y: y.arg()?,
        stats: Arg::Null,
        plan: Arg::Null,
        scale_mul: scale_arg(scale_mul)?,
        parts: parts.as_ref().map_or(Ok(Arg::Null), Tensor::arg)?,
        keys: seen,
        splits,
        flags: CACHED | if unit { UNIT } else { 0 },
        k_batch: s.heads * capacity * s.dim,
        k_head: capacity * s.dim,
        k_token: s.dim,
        maps,
    };
    call.launch(gpu, path, dtype, s)?;
    if let Some(parts) = &parts {
        let ints = [s.heads, s.tokens, splits, queries].map(Arg::Count);
        gpu.launch(
            &FORWARD,
            ("join", dtype),
            rows_per_block(queries, 8),
            &[&[parts.arg()?, y.arg()?][..], &ints].concat(),
        )?;
    }
    Ok(y)
}

/// Pairs of tokens that see each other.
pub(super) fn pairs(level_ends: &[usize]) -> usize {
    let starts = std::iter::once(&0).chain(level_ends);
    starts
        .zip(level_ends)
        .map(|(start, end)| (end - start) * end)
        .sum()
}

impl Sizes {
    /// Refuses what kernels, which count a sample's queries of all heads and a head's of all samples with 32 bits, can't take.
    fn countable(&self, gpu: &Gpu) -> Result<()> {
        let queries = self.tokens * self.heads.max(self.batch);
        Ok(gpu.counts(&FORWARD, queries, MOST_COUNT, "tokens and heads")?)
    }

    /// That of `each` multiplications and additions for every channel of every pair of a sample, moving these tensors.
    fn work(&self, pairs: usize, each: f64, moved: &[&Tensor]) -> Work {
        let half = moved.iter().map(|t| t.dtype());
        let half = half.reduce(|a, b| if a.is_half() { b } else { a });
        let math = Math {
            operands: half.unwrap_or(DType::F32),
            tf32: false,
        };
        let flops = each * (self.batch * self.width()) as f64 * pairs as f64;
        Work::moving(moved).products(math.precision(), flops)
    }
}

/// One forward launch: queries lie in a qkv of `Sizes`, keys and values there or in a cache.
struct Call<'a> {
    q: Arg<'a>,
    k: Arg<'a>,
    v: Arg<'a>,
    y: Arg<'a>,
    stats: Arg<'a>,
    plan: Arg<'a>,
    scale_mul: Arg<'a>,
    parts: Arg<'a>,
    keys: usize,
    splits: usize,
    flags: i32,
    k_batch: usize,
    k_head: usize,
    k_token: usize,
    maps: [TensorMap; 2],
}

impl Call<'_> {
    fn launch(&self, gpu: &Gpu, path: Path, dtype: DType, s: Sizes) -> Result<()> {
        let shape = Shape {
            grid: [
                s.tokens.div_ceil(path.rows(gpu, s)),
                s.batch * s.heads,
                self.splits,
            ],
            threads: path.threads(),
            shared: 0,
        };
        let strides = [
            s.tokens * 3 * s.width(),
            3 * s.width(),
            self.k_batch,
            self.k_head,
            self.k_token,
        ];
        let strides = strides.map(|n| Arg::U64(n as u64));
        let int = |n: usize| Arg::Count(n);
        if path == Path::TensorCores {
            let args = [
                &[self.q, self.k, self.v, self.y, self.stats][..],
                &[self.plan, self.scale_mul, self.parts],
                &[int(s.heads), int(s.tokens), int(self.keys)],
                &[int(self.splits), Arg::I32(self.flags)],
                &strides,
                &[Arg::Map(&self.maps[0]), Arg::Map(&self.maps[1])],
            ];
            let name = ("forward", dtype);
            return Ok(gpu.launch(&FORWARD, name, shape, &args.concat())?);
        }
        let [unit, keep, cached] = [UNIT, KEEP, CACHED].map(|f| self.flags & f != 0);
        let stats = if keep { self.stats } else { Arg::Null };
        // Those in a cache are normalised.
        let units = [unit, unit && !cached].map(|f| Arg::I32(f.into()));
        let args = [
            &[self.q, self.k, self.v, self.y, stats][..],
            &[self.plan, self.scale_mul],
            &[int(s.heads), int(s.dim), int(s.tokens), int(self.keys)],
            &units,
            &strides,
        ];
        Ok(gpu.launch(plain(dtype, s.dim)?, "plain_forward", shape, &args.concat())?)
    }
}

/// Into how many parts to cut the keys so that few queries still fill the GPU.
fn splits(gpu: &Gpu, s: Sizes, rows: usize, keys: usize) -> usize {
    let blocks = s.batch * s.heads * s.tokens.div_ceil(rows);
    let room = 2 * gpu.info().multiprocessors;
    room.div_ceil(blocks).clamp(1, keys.div_ceil(TILE))
}

/// Divides all keys by their norms, and writes the reciprocals to the last third of `stats`.
fn unit_keys(gpu: &Gpu, qkv: &Tensor, s: Sizes, stats: &Tensor) -> Result<()> {
    let Arg::At(buffer, at) = stats.arg()? else {
        return Err(Error::Device("statistics without a place".into()));
    };
    let per_head = s.batch * s.heads * s.tokens;
    let shape = Shape {
        // 32 rows at a time, four times.
        grid: [(s.heads * s.tokens).div_ceil(128), s.batch, 1],
        threads: 256,
        shared: 0,
    };
    let args = [
        part(qkv, s, 1)?,
        Arg::At(buffer, at + 2 * per_head * DType::F32.bytes()),
        Arg::Count(s.heads),
        Arg::Count(s.tokens),
        Arg::U64((s.tokens * 3 * s.width()) as u64),
        Arg::U64((3 * s.width()) as u64),
    ];
    let name = ("unit_keys", qkv.dtype());
    Ok(gpu.launch(&FORWARD, name, shape, &args)?)
}

/// For every token the number of keys it sees, then the first token of its scale.
fn plan(gpu: &'static Gpu, level_ends: &[usize]) -> Result<Tensor> {
    let starts = std::iter::once(&0).chain(level_ends);
    let levels = || starts.clone().zip(level_ends);
    let seen = levels().flat_map(|(start, end)| std::iter::repeat_n(*end as i32, end - start));
    let firsts = levels().flat_map(|(start, end)| std::iter::repeat_n(*start as i32, end - start));
    Tensor::constant_i32(gpu, &seen.chain(firsts).collect::<Vec<_>>())
}

/// The tokens of a tensor \[B, L, parts · H · D\] for a path.
fn rows_of(path: Path, x: &Tensor, s: Sizes, parts: usize) -> Result<TensorMap> {
    let columns = parts * s.width();
    let extents = [columns, s.tokens, s.batch];
    map(path, x, extents, [columns, s.tokens * columns])
}

/// A map for a path that reads it; else one of nothing.
fn map(path: Path, x: &Tensor, extents: [usize; 3], apart: [usize; 2]) -> Result<TensorMap> {
    match path {
        Path::TensorCores => Ok(TensorMap::new(
            x.gpu()?,
            x.device_ptr()?,
            x.dtype(),
            extents,
            apart,
        )?),
        Path::Plain => Ok(TensorMap::none()),
    }
}

/// Where queries (0), keys (1) or values (2) of a qkv begin.
fn part(qkv: &Tensor, s: Sizes, which: usize) -> Result<Arg<'_>> {
    let ptr = qkv.device_ptr()?;
    let bytes = which * s.width() * qkv.dtype().bytes();
    Ok(Arg::At(ptr.0, ptr.1 + bytes))
}

fn scale_arg(scale_mul: Option<&Tensor>) -> Result<Arg<'_>> {
    scale_mul.map_or(Ok(Arg::Null), |t| t.arg_of("attention", DType::F32))
}

/// Blocks of 256 threads for so many rows each.
fn rows_per_block(rows: usize, each: usize) -> Shape {
    Shape {
        grid: [rows.div_ceil(each), 1, 1],
        threads: 256,
        shared: 0,
    }
}
