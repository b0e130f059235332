//! Keys and values of the scales that were already sampled.

use super::{cpu, cuda, sizes};
use crate::cpu::pool::PoolVec;
use crate::{DType, Device, Error, Result, Tensor};

/// One attention layer's keys (as they enter the product, so normalised where the model does that) and values.
#[derive(Debug)]
pub struct KvCache {
    /// B, H, most tokens, D.
    extents: [usize; 4],
    /// Tokens held.
    len: usize,
    memory: Memory,
}

/// Keys and values, each \[B, H, most tokens, D\], the first `len` tokens of every head valid.
#[derive(Debug)]
enum Memory {
    Cpu(PoolVec, PoolVec),
    /// Nobody else holds them.
    Cuda(Tensor, Tensor),
}

impl KvCache {
    /// An empty cache on the CPU with room for `capacity` tokens.
    pub fn new(batch: usize, heads: usize, capacity: usize, head_dim: usize) -> Self {
        let n = batch * heads * capacity * head_dim;
        Self {
            extents: [batch, heads, capacity, head_dim],
            len: 0,
            memory: Memory::Cpu(PoolVec::scratch(n), PoolVec::scratch(n)),
        }
    }

    /// The same on a device, for tokens of type `dtype`: float32 on the CPU, any float on a GPU. `extents` are
    /// samples, heads, most tokens, width of a head.
    ///
    /// # Errors
    /// When the GPU can't be used or its memory is full, or for another type.
    pub fn on(device: Device, dtype: DType, extents: [usize; 4]) -> Result<Self> {
        let [batch, heads, capacity, head_dim] = extents;
        let Some(gpu) = device.gpu()? else {
            if dtype != DType::F32 {
                return Err(wrong_type("f32 on a CPU", dtype));
            }
            return Ok(Self::new(batch, heads, capacity, head_dim));
        };
        if dtype == DType::I32 {
            return Err(wrong_type("a float", dtype));
        }
        let one = || Tensor::scratch(gpu, extents, dtype);
        Ok(Self {
            extents,
            len: 0,
            memory: Memory::Cuda(one()?, one()?),
        })
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

fn wrong_type(expected: &'static str, found: DType) -> Error {
    Error::DType {
        op: "key/value cache",
        expected,
        found: found.name(),
    }
}

/// Attention of one scale while sampling: appends its keys and values to the cache, then lets its queries see all that
/// the cache holds. qkv is \[B, l, 3C\], the result \[B, l, C\], laid out and scaled as in
/// [`attention`](super::attention). Nothing is recorded.
///
/// # Errors
/// When shapes do not fit, the cache was made for others (or another type or device), or it has no room for l more
/// tokens; the cache is then unchanged.
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
    let room = (cache.len, capacity);
    let y = match (qkv.device(), &mut cache.memory) {
        (Device::Cpu, Memory::Cpu(keys, values)) => {
            cpu::cached(qkv, scale_mul, s, (keys, values), room)?
        }
        (device, Memory::Cuda(keys, values)) if device == keys.device() => {
            cuda::cached(qkv, scale_mul, s, (keys, values), room)?
        }
        (device, _) => {
            return Err(Error::Device(format!(
                "{OP}: qkv is on {device}, the cache elsewhere"
            )));
        }
    };
    cache.len += s.tokens;
    Ok(y)
}
