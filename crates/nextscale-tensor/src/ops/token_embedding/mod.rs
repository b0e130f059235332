//! The transformer's input: x = \[cond + pos_start ; embeddings\] + lvl\[level\] + pos.
//!
//! Shapes: cond \[B, C\], embeddings \[B, L′ − first, C\] or none, pos_start \[1, first, C\], pos \[1, L, C\] with L ≥ L′, lvl
//! \[K, C\], x \[B, L′, C\]. `level_of` names the scale of each of the L′ tokens. Gradient: sums of g over what was
//! repeated.

pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use crate::cpu::pool::PoolVec;
use crate::{Cx, Device, Error, Result, Tensor, expect_dims};
use rayon::prelude::*;

/// Input of all scales; see the module for shapes.
///
/// # Errors
/// When shapes do not fit.
#[allow(clippy::too_many_arguments, reason = "each is one term of the sum")]
pub fn token_embedding(
    cx: &Cx<'_>,
    cond: &Tensor,
    embeddings: Option<&Tensor>,
    pos_start: &Tensor,
    pos: &Tensor,
    lvl: &Tensor,
    level_of: &[usize],
    first: usize,
) -> Result<Tensor> {
    const OP: &str = "token_embedding";
    let len = level_of.len();
    let (&[b, c], &[1, total, _]) = (cond.dims(), pos.dims()) else {
        let detail = format!("cond is {}, pos is {}", cond.shape(), pos.shape());
        return Err(Error::shape(OP, detail));
    };
    expect_dims(OP, "pos_start", pos_start, &[1, first, c])?;
    expect_dims(OP, "pos", pos, &[1, total, c])?;
    let levels = lvl.dims()[0];
    expect_dims(OP, "lvl", lvl, &[levels, c])?;
    if len < first || len > total || level_of.iter().any(|&l| l >= levels) {
        let detail = format!("{len} tokens, {first} in the first scale, {total} positions");
        return Err(Error::shape(OP, detail));
    }
    match embeddings {
        Some(w) => expect_dims(OP, "embeddings", w, &[b, len - first, c])?,
        None if len == first => {}
        None => {
            return Err(Error::shape(
                OP,
                "the embeddings behind the first scale are missing",
            ));
        }
    }
    let mut inputs = vec![cond, pos_start, pos, lvl];
    inputs.extend(embeddings);
    let mut x = match cond.device() {
        Device::Cuda(_) => {
            let terms = cuda::Terms {
                cond: cond.clone(),
                embeddings: embeddings.cloned(),
                pos_start: pos_start.clone(),
                pos: pos.clone(),
                lvl: lvl.clone(),
                level_of: level_of.to_vec(),
                first,
            };
            let mut x = cuda::forward(&terms)?;
            if cx.records(&inputs) {
                let terms = terms.without_values();
                cx.record_one(&mut x, move |g, grads| cuda::backward(&terms, &g, grads));
            }
            return Ok(x);
        }
        Device::Cpu => {
            let (cond, start, pos, lvl) = (cond.f32()?, pos_start.f32()?, pos.f32()?, lvl.f32()?);
            let embeddings = embeddings.map(Tensor::f32).transpose()?;
            let mut out = PoolVec::scratch(b * len * c);
            out.par_chunks_mut(c)
                .with_min_len(64)
                .enumerate()
                .for_each(|(row, x)| {
                    let (b, t) = (row / len, row % len);
                    let base = &lvl[level_of[t] * c..][..c];
                    let pos = &pos[t * c..][..c];
                    match embeddings {
                        Some(w) if t >= first => {
                            let w = &w[(b * (len - first) + t - first) * c..][..c];
                            for (i, x) in x.iter_mut().enumerate() {
                                *x = w[i] + (base[i] + pos[i]);
                            }
                        }
                        _ => {
                            let (cond, start) = (&cond[b * c..][..c], &start[t * c..][..c]);
                            for (i, x) in x.iter_mut().enumerate() {
                                *x = (cond[i] + start[i]) + (base[i] + pos[i]);
                            }
                        }
                    }
                });
            Tensor::from_buf([b, len, c], out)
        }
    };
    if cx.records(&inputs) {
        let (cond, embeddings) = (cond.clone(), embeddings.cloned());
        let (pos_start, pos, lvl) = (pos_start.clone(), pos.clone(), lvl.clone());
        let level_of = level_of.to_vec();
        cx.record_one(&mut x, move |g, grads| {
            let g = g.f32()?;
            // The batch's sum for every token serves all three tables.
            let mut sums = PoolVec::scratch(len * c);
            sums.par_chunks_mut(c).enumerate().for_each(|(t, s)| {
                s.copy_from_slice(&g[t * c..][..c]);
                for b in 1..b {
                    let g = &g[(b * len + t) * c..][..c];
                    s.iter_mut().zip(g).for_each(|(s, g)| *s += g);
                }
            });
            let add = |slot: &mut [f32], from: &[f32]| {
                slot.iter_mut().zip(from).for_each(|(s, f)| *s += f);
            };
            grads.accumulate(&pos_start, |slot| {
                add(slot, &sums[..first * c]);
                Ok(())
            })?;
            grads.accumulate(&pos, |slot| {
                add(slot, &sums);
                Ok(())
            })?;
            grads.accumulate(&lvl, |slot| {
                for (t, &l) in level_of.iter().enumerate() {
                    add(&mut slot[l * c..][..c], &sums[t * c..][..c]);
                }
                Ok(())
            })?;
            grads.accumulate(&cond, |slot| {
                for b in 0..b {
                    for t in 0..first {
                        add(&mut slot[b * c..][..c], &g[(b * len + t) * c..][..c]);
                    }
                }
                Ok(())
            })?;
            match &embeddings {
                Some(w) if grads.wants(w) => {
                    let n = (len - first) * c;
                    let mut dw = PoolVec::scratch(b * n);
                    for (b, dw) in dw.chunks_exact_mut(n.max(1)).enumerate() {
                        dw.copy_from_slice(&g[(b * len + first) * c..][..n]);
                    }
                    grads.add(w, Tensor::from_buf(w.shape(), dw))
                }
                _ => Ok(()),
            }
        });
    }
    Ok(x)
}

/// Input of one scale while sampling: \[copies·B, l, C\] from embeddings \[B, l, C\], the same in every copy. `start` is the
/// scale's first position in the sequence.
///
/// # Errors
/// When shapes do not fit.
pub fn scale_embedding(
    embeddings: &Tensor,
    pos: &Tensor,
    lvl: &Tensor,
    level: usize,
    start: usize,
    copies: usize,
) -> Result<Tensor> {
    const OP: &str = "scale_embedding";
    let (&[b, l, c], &[1, total, _]) = (embeddings.dims(), pos.dims()) else {
        let detail = format!(
            "embeddings are {}, pos is {}",
            embeddings.shape(),
            pos.shape()
        );
        return Err(Error::shape(OP, detail));
    };
    expect_dims(OP, "pos", pos, &[1, total, c])?;
    let levels = lvl.dims()[0];
    expect_dims(OP, "lvl", lvl, &[levels, c])?;
    if start + l > total || level >= levels {
        let detail = format!("tokens {start}..{} of {total}, level {level}", start + l);
        return Err(Error::shape(OP, detail));
    }
    match embeddings.device() {
        Device::Cuda(_) => {
            let pos = pos.reshape([total, c])?.narrow(start, l)?;
            cuda::scale(embeddings, &pos, &lvl.narrow(level, 1)?, copies)
        }
        Device::Cpu => {
            let (w, pos) = (embeddings.f32()?, &pos.f32()?[start * c..]);
            let base = &lvl.f32()?[level * c..][..c];
            let mut out = PoolVec::scratch(copies * b * l * c);
            for (row, x) in out.chunks_exact_mut(c.max(1)).enumerate() {
                let w = &w[row % (b * l) * c..][..c];
                let pos = &pos[row % l * c..][..c];
                for (i, x) in x.iter_mut().enumerate() {
                    *x = w[i] + (base[i] + pos[i]);
                }
            }
            Ok(Tensor::from_buf([copies * b, l, c], out))
        }
    }
}
