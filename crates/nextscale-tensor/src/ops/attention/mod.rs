//! Multi-head attention over the scales of an image: a token sees every token of its own and all coarser scales.
//!
//! Shapes: qkv \[B, L, 3C\], whose last axis is \[3, H, D\] (queries, keys, values; H heads of D = C/H), y \[B, L, C\]
//! with last axis \[H, D\], scale_mul \[1, H, 1, 1\].
//!
//! Per batch element and head, y = softmax(q·kᵀ)·v over the visible keys. With scale_mul, queries and keys are first
//! divided by max(‖·‖, 1e-12) and the queries multiplied by exp(min(scale_mul, ln 100)); without, the queries are
//! multiplied by 0.25/√D.
//!
//! The table of scores is never whole in memory: queries go in tiles of at most 96 with the keys they see, and the
//! backward pass computes each tile's probabilities anew (Dao et al. 2022, "FlashAttention"). With P the
//! probabilities, g the gradient of y and δ the row sums of g∘y: dv = Pᵀ·g, dS = P∘(g·vᵀ − δ), dq = dS·k, dk = dSᵀ·q,
//! then through the normalisation. Kept on the tape: qkv, y, and two numbers a query and head (the largest score and
//! the reciprocal of the sum of exponentials).
//!
//! On a GPU, half-precision heads of 64 go to the tensor cores: tiles of 64 keys and 64 queries, sums in float32, normalised
//! rows rounded as the reference's (`kernels/forward.cu`, `kernels/backward.cu`). Float32 and heads of another width up
//! to 128 are computed in float32 arithmetic (`kernels/plain.cu`). The order of every sum is fixed.

mod cache;
mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

pub use cache::{KvCache, attention_cached};

use crate::{Cx, Device, Error, Result, Tensor, expect_dims};

/// Attention where tokens of scale k, `level_ends[k-1]..level_ends[k]`, see the keys `0..level_ends[k]`; see the module
/// for shapes. On a GPU qkv may be overwritten, so it is copied first where somebody else holds it.
///
/// # Errors
/// When shapes do not fit, or `level_ends` does not rise strictly to L.
pub fn attention(
    cx: &Cx<'_>,
    qkv: Tensor,
    scale_mul: Option<&Tensor>,
    heads: usize,
    level_ends: &[usize],
) -> Result<Tensor> {
    const OP: &str = "attention";
    let sizes = sizes(OP, &qkv, scale_mul, heads)?;
    let rising = std::iter::once(&0)
        .chain(level_ends)
        .zip(level_ends)
        .all(|(a, b)| a < b);
    if !rising || level_ends.last() != Some(&sizes.tokens) {
        return Err(Error::shape(
            OP,
            format!(
                "level ends {level_ends:?} do not rise strictly to the {} tokens",
                sizes.tokens
            ),
        ));
    }
    let mut inputs = vec![&qkv];
    inputs.extend(scale_mul);
    let records = cx.records(&inputs);
    let (mut y, [qkv, stats]) = match qkv.device() {
        Device::Cuda(_) => cuda::forward(qkv, scale_mul, sizes, level_ends, records)?,
        Device::Cpu => {
            let (y, stats) = cpu::forward(&qkv, scale_mul, sizes, level_ends)?;
            (y, [qkv, stats])
        }
    };
    if records {
        let scale_mul = scale_mul.cloned();
        let (ends, out) = (level_ends.to_vec(), y.clone());
        cx.record_one(&mut y, move |g, grads| {
            let (scale_mul, kept) = (scale_mul.as_ref(), (&out, &stats));
            match qkv.device() {
                Device::Cuda(_) => cuda::backward(&qkv, scale_mul, sizes, &ends, kept, &g, grads),
                Device::Cpu => cpu::backward(&qkv, scale_mul, sizes, &ends, kept, &g, grads),
            }
        });
    }
    Ok(y)
}

/// The extents of one call.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    batch: usize,
    tokens: usize,
    heads: usize,
    dim: usize,
}

impl Sizes {
    /// C.
    fn width(&self) -> usize {
        self.heads * self.dim
    }
}

fn sizes(
    op: &'static str,
    qkv: &Tensor,
    scale_mul: Option<&Tensor>,
    heads: usize,
) -> Result<Sizes> {
    let &[batch, tokens, width] = qkv.dims() else {
        return Err(Error::shape(
            op,
            format!("qkv is {}, expected [B, L, 3C]", qkv.shape()),
        ));
    };
    if heads == 0 || width == 0 || width % (3 * heads) != 0 {
        return Err(Error::shape(
            op,
            format!("{width} columns are not 3 times {heads} heads of equal width"),
        ));
    }
    if let Some(s) = scale_mul {
        expect_dims(op, "scale_mul", s, &[1, heads, 1, 1])?;
    }
    Ok(Sizes {
        batch,
        tokens,
        heads,
        dim: width / (3 * heads),
    })
}
