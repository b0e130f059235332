//! Keys and values of the scales that were already sampled.

use super::{cpu, sizes};
use crate::cpu::pool::PoolVec;
use crate::{Device, Error, Result, Tensor};

/// One attention layer's keys (as they enter the product, so normalised where the model does that) and values.
#[derive(Debug)]
pub struct KvCache {
    /// B, H, most tokens, D.
    extents: [usize; 4],
    /// Tokens held.
    len: usize,
    /// \[B, H, most tokens, D\], the first `len` tokens of every head valid.
    pub(super) keys: PoolVec,
    /// Like `keys`.
    pub(super) values: PoolVec,
}

impl KvCache {
    /// An empty cache with room for `capacity` tokens.
    pub fn new(batch: usize, heads: usize, capacity: usize, head_dim: usize) -> Self {
        let n = batch * heads * capacity * head_dim;
        Self {
            extents: [batch, heads, capacity, head_dim],
            len: 0,
            keys: PoolVec::scratch(n),
            values: PoolVec::scratch(n),
        }
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Most tokens it can hold.
    pub fn capacity(&self) -> usize {
        self.extents[2]
    }

    /// Forgets every token, to begin another image with the same memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }
}

/// Attention of one scale while sampling: appends its keys and values to the cache, then lets its queries see all that
/// the cache holds. qkv is \[B, l, 3C\], the result \[B, l, C\], laid out and scaled as in
/// [`attention`](super::attention). Nothing is recorded.
///
/// # Errors
/// When shapes do not fit, the cache was made for others, or it has no room for l more tokens; the cache is then
/// unchanged.
pub fn attention_cached(
    qkv: &Tensor,
    scale_mul: Option<&Tensor>,
    heads: usize,
    cache: &mut KvCache,
) -> Result<Tensor> {
    const OP: &str = "attention_cached";
    let s = sizes(OP, qkv, scale_mul, heads)?;
    let [batch, cached_heads, capacity, dim] = cache.extents;
    if [s.batch, s.heads, s.dim] != [batch, cached_heads, dim] {
        return Err(Error::shape(
            OP,
            format!(
                "qkv has {} samples and {} heads of {}, the cache was made for {batch} and {cached_heads} of {dim}",
                s.batch, s.heads, s.dim
            ),
        ));
    }
    if s.tokens == 0 || s.tokens > capacity - cache.len {
        return Err(Error::shape(
            OP,
            format!(
                "{} more tokens in a cache that holds {} of {capacity}",
                s.tokens, cache.len
            ),
        ));
    }
    let y = match qkv.device() {
        Device::Cuda(_) => return Err(crate::Error::not_on_gpu("attention")),
        Device::Cpu => cpu::cached(
            qkv,
            scale_mul,
            s,
            (&mut cache.keys, &mut cache.values),
            (cache.len, capacity),
        )?,
    };
    cache.len += s.tokens;
    Ok(y)
}
