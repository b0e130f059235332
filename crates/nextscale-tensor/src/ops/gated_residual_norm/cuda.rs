//! The gated residual with its norm on a GPU.
//!
//! In half precision the stream is not kept: of consecutive operators only the last keeps x′, and each rule makes its x from its
//! x′ (x = x′ − keep·γ·h, off by no more than float32's rounding) and leaves it to the rule before.

use super::{Gate, Modulation};
use crate::ops::adaptive_norm::Sizes;
use crate::ops::adaptive_norm::cuda::{Cut, MODULE, add_to_tables, in_table, int, or_null};
use crate::tape::Stash;
use crate::{Cx, DType, Error, Grads, Key, Result, Tensor};
use nextscale_cuda::{Arg, Work};

const OP: &str = "gated_residual_norm";

/// What the gradient needs.
struct Saved {
    x: Tensor,
    h: Tensor,
    gate: (Tensor, usize),
    next: (Tensor, usize, usize),
    keep: Option<Tensor>,
    stats: Tensor,
    /// x′, and in half precision the stash for x.
    sum: Stash,
    before: Option<Stash>,
}

/// (x′, y) with the gradient recorded.
pub(super) fn gated_residual_norm(
    cx: &Cx<'_>,
    s: Sizes,
    (x, h): (&Tensor, &Tensor),
    gate: &Gate<'_>,
    keep: Option<&Tensor>,
    next: &Modulation<'_>,
    eps: f32,
) -> Result<(Tensor, Tensor)> {
    let gpu = x.gpu()?;
    let (gates, table) = (gate.table.cast(DType::F32)?, next.table.cast(DType::F32)?);
    let dtype = cx.math().operands;
    let mut sum = Tensor::scratch(gpu, x.shape(), DType::F32)?;
    let mut y = Tensor::scratch(gpu, x.shape(), dtype)?;
    let _scope = gpu.scope("gated residual norm", || Work::moving(&[x, h, &sum, &y]));
    let stats = Tensor::scratch(gpu, [s.b * s.l, 2], DType::F32)?;
    let cut = Cut::forward(s, &[x, h, &gates, &table])?;
    let (gates_row, gate_at) = in_table(&gates, gate.slot, s.c);
    let (table_row, scale_at) = in_table(&table, next.scale, s.c);
    let mut args = vec![
        x.arg_of(OP, DType::F32)?,
        h.arg()?,
        gates.arg()?,
        table.arg()?,
        match keep {
            Some(keep) => keep.arg_of(OP, DType::F32)?,
            None => Arg::Null,
        },
        sum.arg()?,
        y.arg()?,
        stats.arg()?,
    ];
    args.extend(cut.args());
    args.extend([gates_row, gate_at, table_row, scale_at]);
    args.extend([int(next.shift * s.c), Arg::F32(eps)]);
    gpu.launch(&MODULE, ("gated", h.dtype(), dtype), cut.launch(), &args)?;
    if cx.records(&[x, h, gate.table, next.table]) {
        let keys = (cx.output(&mut sum), cx.output(&mut y));
        let (stash, before) = if h.dtype().is_half() {
            let before = cx.stash_of(x);
            // From here on x is this rule's to make.
            drop(before.as_ref().and_then(Stash::take));
            (cx.stash(keys.0, &sum), before)
        } else {
            (Stash::new(&sum), None)
        };
        let saved = Saved {
            x: x.without_data(),
            h: h.clone(),
            gate: (gate.table.clone(), gate.slot),
            next: (next.table.clone(), next.scale, next.shift),
            keep: keep.cloned(),
            stats,
            sum: stash,
            before,
        };
        cx.record(move |grads| backward(s, saved, dtype, keys, grads));
    }
    Ok((sum, y))
}

fn backward(
    s: Sizes,
    saved: Saved,
    dtype: DType,
    (sum_key, y_key): (Key, Key),
    grads: &mut Grads<'_>,
) -> Result<()> {
    let (d_sum, d_y) = (grads.take(sum_key), grads.take(y_key));
    let Saved {
        x,
        h,
        gate: (gate_table, slot),
        next: (next_table, scale, shift),
        keep,
        stats,
        sum,
        before,
    } = saved;
    if d_sum.is_none() && d_y.is_none() && before.is_none() {
        return Ok(());
    }
    let Some(mut stream) = sum.take() else {
        return Err(Error::shape(OP, "the stream was not made again"));
    };
    if before.is_some() {
        stream = stream.into_unique()?;
    }
    let gpu = stream.gpu()?;
    // x′ and h, the gradients of x′ and y; the gradients of x and h, and x where it is made again.
    let _scope = gpu.scope("gated residual norm gradient", || {
        let all = Work::moving(&[&stream, &h, &h]).and_bytes(4 * x.numel());
        let all = d_sum.iter().chain(&d_y).fold(all, |all, g| all.and(&[g]));
        before.iter().fold(all, |all, _| all.and(&[&stream]))
    });
    let d_y = d_y.map(|g| g.cast(dtype)).transpose()?;
    let has_d = d_sum.is_some();
    let d = match d_sum {
        Some(d) => d.into_dtype(DType::F32)?.into_unique()?,
        None => Tensor::scratch(gpu, x.shape(), DType::F32)?,
    };
    let dh = Tensor::scratch(gpu, h.shape(), h.dtype())?;
    let (gates, table) = (gate_table.cast(DType::F32)?, next_table.cast(DType::F32)?);
    let mut rows = vec![&stream, &h, &gates, &table, &d];
    rows.extend(&d_y);
    let cut = Cut::backward(s, &rows)?;
    let partial = cut.partial(&stream, 3)?;
    let (gates_row, gate_at) = in_table(&gates, slot, s.c);
    let (table_row, scale_at) = in_table(&table, scale, s.c);
    let mut args = vec![
        stream.arg()?,
        h.arg()?,
        gates.arg()?,
        table.arg()?,
        or_null(keep.as_ref())?,
        stats.arg()?,
        or_null(d_y.as_ref())?,
        d.arg()?,
        dh.arg()?,
        partial.arg()?,
    ];
    args.extend(cut.args());
    args.extend([gates_row, gate_at, table_row, scale_at]);
    args.extend([int(usize::from(has_d)), int(usize::from(before.is_some()))]);
    gpu.launch(
        &MODULE,
        ("gated_backward", h.dtype(), dtype),
        cut.launch(),
        &args,
    )?;
    drop(args);
    if let Some(before) = before {
        before.put(stream);
    }
    let next = (&next_table, scale, shift);
    add_to_tables(cut, &partial, Some((&gate_table, slot)), next, grads)?;
    grads.add(&h, dh)?;
    grads.add(&x, d)
}
