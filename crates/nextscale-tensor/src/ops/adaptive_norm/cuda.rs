//! Adaptive layer norm on a GPU; what launches its kernels also serves the gated residual.

use super::{Modulation, Sizes};
use crate::tape::Origin;
use crate::{DType, Error, Grads, Result, Tensor};
use nextscale_cuda::kernel::Shape as Launch;
use nextscale_cuda::matmul::DevicePtr;
use nextscale_cuda::{Arg, Gpu, Module, Work, kernels};

const OP: &str = "adaptive_norm";
/// Most columns: eight a thread, and as many threads as the kernels' registers allow in a block.
const WIDEST: usize = 4096;
/// Most rows of a block in the forward pass, where a block costs a look at the tables.
const ROWS: usize = 8;
/// Most rows of a block in the backward pass, where it costs sums in memory too.
const ROWS_BACK: usize = 32;

/// How a pass is cut: blocks of `rows` rows of one sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    s: Sizes,
    rows: usize,
    vectors: bool,
}

impl Cut {
    fn new(s: Sizes, rows: usize, tensors: &[&Tensor]) -> Result<Self> {
        let cpu = |t: &&Tensor| t.gpu().is_ok_and(Gpu::is_dry_cpu);
        if s.c > WIDEST && !tensors.iter().any(cpu) {
            let detail = format!("{} channels, at most {WIDEST} on a GPU", s.c);
            return Err(Error::shape(OP, detail));
        }
        let mut vectors = s.c.is_multiple_of(8);
        for t in tensors {
            let DevicePtr(_, byte) = t.device_ptr()?;
            vectors &= byte.is_multiple_of(16);
        }
        // Blocks of nearly the same number of rows.
        let rows = s.l.div_ceil(s.l.div_ceil(rows).max(1)).max(1);
        Ok(Self { s, rows, vectors })
    }

    /// For a forward pass over these tensors, all of those that are read or written by rows of C.
    pub(crate) fn forward(s: Sizes, tensors: &[&Tensor]) -> Result<Self> {
        Self::new(s, ROWS, tensors)
    }

    /// For a backward pass.
    pub(crate) fn backward(s: Sizes, tensors: &[&Tensor]) -> Result<Self> {
        Self::new(s, ROWS_BACK, tensors)
    }

    fn blocks(self) -> usize {
        self.s.l.div_ceil(self.rows)
    }

    pub(crate) fn launch(self) -> Launch {
        Launch {
            grid: [self.blocks(), self.s.b, 1],
            threads: (self.s.c.div_ceil(8) as u32).next_multiple_of(32),
            shared: 0,
        }
    }

    /// l, c, rows, vectors as the kernels take them.
    pub(crate) fn args(self) -> [Arg<'static>; 4] {
        [self.s.l, self.s.c, self.rows, usize::from(self.vectors)].map(int)
    }

    /// Room for every block's sums, `width` rows of C.
    pub(crate) fn partial(self, like: &Tensor, width: usize) -> Result<Tensor> {
        let shape = [self.s.b, self.blocks(), width, self.s.c];
        Tensor::scratch(like.gpu()?, shape, DType::F32)
    }
}

/// A count as a kernel's argument.
pub(crate) fn int(n: usize) -> Arg<'static> {
    Arg::Count(n)
}

/// Floats from one sample's table to the next, and to the row `slot` in it.
pub(crate) fn in_table(table: &Tensor, slot: usize, c: usize) -> (Arg<'static>, Arg<'static>) {
    (int(table.dims()[1] * c), int(slot * c))
}

/// y in `dtype`, and the rows' statistics.
pub(super) fn forward(
    s: Sizes,
    x: &Tensor,
    m: &Modulation<'_>,
    eps: f32,
    dtype: DType,
) -> Result<(Tensor, Tensor)> {
    let gpu = x.gpu()?;
    let y = Tensor::scratch(gpu, x.shape(), dtype)?;
    let _scope = gpu.scope("adaptive norm", || Work::moving(&[x, &y]));
    let table = m.table.cast(DType::F32)?;
    let stats = Tensor::scratch(gpu, [s.b * s.l, 2], DType::F32)?;
    let cut = Cut::forward(s, &[x, &table])?;
    let (row, scale) = in_table(&table, m.scale, s.c);
    let mut args = vec![
        x.arg_of(OP, DType::F32)?,
        table.arg()?,
        y.arg()?,
        stats.arg()?,
    ];
    args.extend(cut.args());
    args.extend([row, scale, int(m.shift * s.c), Arg::F32(eps)]);
    gpu.launch(&MODULE, ("adaptive_norm", dtype), cut.launch(), &args)?;
    Ok((y, stats))
}

/// Adds to the gradients of x and of the table's rows.
pub(super) fn backward(
    s: Sizes,
    x: &Tensor,
    table: &Tensor,
    (scale, shift): (usize, usize),
    stats: &Tensor,
    g: &Tensor,
    grads: &mut Grads<'_>,
) -> Result<()> {
    let gpu = x.gpu()?;
    let _scope = gpu.scope("adaptive norm gradient", || Work::moving(&[x, g, x]));
    let values = table.cast(DType::F32)?;
    let dx = Tensor::scratch(gpu, x.shape(), DType::F32)?;
    let cut = Cut::backward(s, &[x, &values, g])?;
    let partial = cut.partial(x, 2)?;
    let (row, scale_at) = in_table(table, scale, s.c);
    let mut args = vec![
        x.arg_of(OP, DType::F32)?,
        values.arg()?,
        stats.arg()?,
        g.arg()?,
        dx.arg()?,
        partial.arg()?,
    ];
    args.extend(cut.args());
    args.extend([row, scale_at]);
    gpu.launch(
        &MODULE,
        ("adaptive_norm_backward", g.dtype()),
        cut.launch(),
        &args,
    )?;
    add_to_tables(cut, &partial, None, (table, scale, shift), grads)?;
    grads.add(x, dx)
}

/// Adds the blocks' sums to the gradients of the rows `gate` and (scale, shift) of the tables.
pub(crate) fn add_to_tables(
    cut: Cut,
    partial: &Tensor,
    gate: Option<(&Tensor, usize)>,
    (table, scale, shift): (&Tensor, usize, usize),
    grads: &mut Grads<'_>,
) -> Result<()> {
    let c = cut.s.c;
    let table_sums = grads.sums(table)?;
    // One tensor for both has one place for its sums.
    let gate_sums = match gate {
        Some((t, _)) if same(t, table) => table_sums.clone(),
        Some((t, _)) => grads.sums(t)?,
        None => None,
    };
    if table_sums.is_none() && gate_sums.is_none() {
        return Ok(());
    }
    let (table_row, scale_at) = in_table(table, scale, c);
    let (gates_row, gate_at) = gate.map_or((int(0), int(0)), |(t, slot)| in_table(t, slot, c));
    let args = [
        partial.arg()?,
        or_null(gate_sums.as_ref())?,
        or_null(table_sums.as_ref())?,
        int(cut.blocks()),
        int(c),
        int(if gate.is_some() { 3 } else { 2 }),
        gates_row,
        gate_at,
        table_row,
        scale_at,
        int(shift * c),
    ];
    let shape = Launch {
        grid: [c.div_ceil(128), cut.s.b, 1],
        threads: 128,
        shared: 0,
    };
    Ok(partial.gpu()?.launch(&MODULE, "norm_sums", shape, &args)?)
}

/// A tensor as an argument, or no buffer.
pub(crate) fn or_null(t: Option<&Tensor>) -> Result<Arg<'_>> {
    t.map_or(Ok(Arg::Null), Tensor::arg)
}

/// Whether two tensors are one value on the tape.
fn same(a: &Tensor, b: &Tensor) -> bool {
    matches!((&a.origin, &b.origin), (Some(Origin::Node(i)), Some(Origin::Node(j))) if i == j)
}

/// The kernels of the adaptive norm, alone and behind a gated residual.
pub(crate) static MODULE: Module = Module {
    name: "norm",
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: kernels! {
        adaptive_norm: "ppppiiiiiiif" for f32 bf16 f16;
        adaptive_norm_backward: "ppppppiiiiii" for f32 bf16 f16;
        gated: "ppppppppiiiiiiiiif" for f32_f32 bf16_bf16 f16_f16 bf16_f32 f16_f32;
        gated_backward: "ppppppppppiiiiiiiiii" for f32_f32 bf16_bf16 f16_f16 bf16_f32 f16_f32;
        norm_sums: "pppiiiiiiii";
    },
};
