//! Input embeddings on a GPU.

use crate::ops::linear::cuda::add_column_sums;
use crate::{DType, Grads, Result, Tensor};
use nextscale_cuda::kernel::{MOST_COUNT, Shape as Launch};
use nextscale_cuda::matmul::DevicePtr;
use nextscale_cuda::{Arg, Module, Work, kernels};

const OP: &str = "token_embedding";

/// The terms of the sum, as the operator's documentation has them.
#[derive(Clone)]
pub(super) struct Terms {
    pub(super) cond: Tensor,
    pub(super) embeddings: Option<Tensor>,
    pub(super) pos_start: Tensor,
    pub(super) pos: Tensor,
    pub(super) lvl: Tensor,
    pub(super) level_of: Vec<usize>,
    pub(super) first: usize,
}

impl Terms {
    /// What the gradient needs: the values are not.
    pub(super) fn without_values(self) -> Self {
        Self {
            embeddings: self.embeddings.map(|w| w.without_data()),
            cond: self.cond.without_data(),
            ..self
        }
    }

    fn sizes(&self) -> (usize, usize, usize) {
        (
            self.cond.dims()[0],
            self.level_of.len(),
            self.cond.dims()[1],
        )
    }
}

/// Whether four floats at a time can be read and written by rows of `c`.
fn vectors(c: usize, tensors: &[&Tensor]) -> Result<bool> {
    let mut all = c.is_multiple_of(4);
    for t in tensors {
        let DevicePtr(_, byte) = t.device_ptr()?;
        all &= byte.is_multiple_of(16);
    }
    Ok(all)
}

fn int(n: usize) -> Arg<'static> {
    Arg::Count(n)
}

pub(super) fn forward(t: &Terms) -> Result<Tensor> {
    let gpu = t.cond.gpu()?;
    let (b, len, c) = t.sizes();
    gpu.counts(&MODULE, b * len, MOST_COUNT, "tokens")?;
    let x = Tensor::scratch(gpu, [b, len, c], DType::F32)?;
    let _scope = gpu.scope("embedding", || {
        let all = Work::moving(&[&x, &t.cond]).and_bytes(8 * len * c);
        t.embeddings.iter().fold(all, |all, w| all.and(&[w]))
    });
    // One scale alone needs no list: nothing is sent while sampling.
    let one = t.level_of.iter().all(|l| Some(l) == t.level_of.first());
    let levels = t.level_of.iter().map(|&l| l as i32).collect();
    let list = match one {
        true => None,
        false => Some(Tensor::from_i32([len], levels).to(x.device())?),
    };
    let four = vectors(c, &[&t.cond, &t.pos_start, &t.pos, &t.lvl])?
        && t.embeddings
            .as_ref()
            .map_or(Ok(true), |w| vectors(c, &[w]))?;
    let (f32, n) = (DType::F32, x.numel());
    let embeddings = t
        .embeddings
        .as_ref()
        .map_or(Ok(Arg::Null), |w| w.arg_of(OP, f32))?;
    let args = [
        t.cond.arg_of(OP, f32)?,
        embeddings,
        t.pos_start.arg_of(OP, f32)?,
        t.pos.arg_of(OP, f32)?,
        t.lvl.arg_of(OP, f32)?,
        list.as_ref().map_or(Ok(Arg::Null), Tensor::arg)?,
        x.arg()?,
        int(len),
        int(t.first),
        int(c),
        int(t.level_of.first().copied().unwrap_or(0)),
        int(usize::from(four)),
        Arg::U64(n as u64),
    ];
    gpu.launch(&MODULE, "token_embedding", Launch::pass(gpu, n / 4), &args)?;
    Ok(x)
}

pub(super) fn backward(t: &Terms, g: &Tensor, grads: &mut Grads<'_>) -> Result<()> {
    let gpu = g.gpu()?;
    let (b, len, c) = t.sizes();
    let _scope = gpu.scope("embedding gradient", || {
        let all = Work::moving(&[g, &t.cond]).and_bytes(8 * len * c);
        t.embeddings
            .iter()
            .fold(all, |all, w| all.and_bytes(4 * w.numel()))
    });
    // The batch's sum for every token serves all three tables.
    if [&t.pos_start, &t.pos, &t.lvl]
        .iter()
        .any(|x| grads.wants(x))
    {
        let sums = Tensor::zeros_on(g.device(), [len, c], DType::F32)?;
        add_column_sums(g, len * c, 0, &sums)?;
        for (table, rows) in [(&t.pos_start, t.first), (&t.pos, len)] {
            if let Some(slot) = grads.sums(table)? {
                let slot = slot.reshape([slot.numel() / c, c])?.narrow(0, rows)?;
                slot.add_in_place(&sums.narrow(0, rows)?)?;
            }
        }
        if let Some(slot) = grads.sums(&t.lvl)? {
            let mut from = 0;
            for run in t.level_of.chunk_by(|a, b| a == b) {
                let row = slot.narrow(run[0], 1)?;
                add_column_sums(&sums.narrow(from, run.len())?, c, 0, &row)?;
                from += run.len();
            }
        }
    }
    let embeddings = match &t.embeddings {
        Some(w) if grads.wants(w) => Some((w, Tensor::scratch(gpu, w.shape(), DType::F32)?)),
        _ => None,
    };
    let cond = grads.sums(&t.cond)?;
    if embeddings.is_none() && cond.is_none() {
        return Ok(());
    }
    let mut rows = vec![g];
    rows.extend(&cond);
    let n = b * len * c;
    let args = [
        g.arg_of(OP, DType::F32)?,
        embeddings
            .as_ref()
            .map_or(Ok(Arg::Null), |(_, dw)| dw.arg())?,
        cond.as_ref().map_or(Ok(Arg::Null), Tensor::arg)?,
        int(len),
        int(t.first),
        int(c),
        int(usize::from(vectors(c, &rows)?)),
        Arg::U64(n as u64),
    ];
    gpu.launch(
        &MODULE,
        "token_embedding_backward",
        Launch::pass(gpu, n / 4),
        &args,
    )?;
    drop((args, rows));
    match embeddings {
        Some((w, dw)) => grads.add(w, dw),
        None => Ok(()),
    }
}

/// One scale: see [`super::scale_embedding`].
pub(super) fn scale(
    embeddings: &Tensor,
    pos: &Tensor,
    lvl: &Tensor,
    copies: usize,
) -> Result<Tensor> {
    let &[b, l, c] = embeddings.dims() else {
        return Err(embeddings.wrong("[B, l, C]"));
    };
    let gpu = embeddings.gpu()?;
    gpu.counts(&MODULE, copies * b * l, MOST_COUNT, "tokens")?;
    let _scope = gpu.scope("embedding", || {
        Work::moving(&[embeddings]).and_bytes(4 * l * c * (copies * b + 1))
    });
    let x = Tensor::scratch(gpu, [copies * b, l, c], DType::F32)?;
    let (f32, n) = (DType::F32, x.numel());
    let args = [
        embeddings.arg_of(OP, f32)?,
        pos.arg_of(OP, f32)?,
        lvl.arg_of(OP, f32)?,
        x.arg()?,
        int(b),
        int(l),
        int(c),
        int(usize::from(vectors(c, &[embeddings, pos, lvl])?)),
        Arg::U64(n as u64),
    ];
    gpu.launch(&MODULE, "scale_embedding", Launch::pass(gpu, n / 4), &args)?;
    Ok(x)
}

/// The kernels of input embeddings.
pub(crate) static MODULE: Module = Module {
    name: "token_embedding",
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: kernels! {
        token_embedding: "pppppppiiiiiu";
        token_embedding_backward: "pppiiiiu";
        scale_embedding: "ppppiiiiu";
    },
};
