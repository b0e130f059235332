//! A model's numbers shared out among the processes that train it (ZeRO, stage 1: Rajbhandari and others, 2020).
//!
//! Every process computes with all weights, but each of a large parameter's numbers is updated by one process alone, which alone has
//! its moments: a third of AdamW's memory with three processes. Before an update the gradients' sums go to their owners, after it the
//! new weights to everybody. On a GPU a matrix that products read in half precision needs no more than its copy in half precision: its
//! float32 numbers, too, are with their owners alone.
//!
//! A parameter is cut into equal shares of multiples of 16 numbers. What does not divide, and parameters that are too small to be
//! worth a message, every process updates for itself, with the same bits.

use super::ParamInfo;
use crate::{Device, Result, Tensor};
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

/// Numbers of a parameter from which on it is shared out.
const LARGE: usize = 1 << 14;
/// Shares are multiples of this, as vector loads and the decay's groups need.
const GROUP: usize = 16;

/// How the processes that share a model exchange its numbers: by sockets, by NCCL. All make the same calls in the same order.
pub trait Exchange: Debug + Send + Sync {
    /// Which of them this is, from 0.
    fn rank(&self) -> usize;

    /// How many they are.
    fn size(&self) -> usize;

    /// Makes all moves of `values`. On a GPU it may go on beside the GPU's other work until [`Exchange::join`].
    ///
    /// # Errors
    /// When another process is gone.
    fn exchange(&self, values: Values<'_>, moves: &[Move]) -> Result<()>;

    /// What is asked of the GPU from here on comes after all moves.
    ///
    /// # Errors
    /// When another process is gone, or the GPU refuses.
    fn join(&self) -> Result<()>;

    /// Sums one number over all processes, the same bits for all; no [`Exchange::join`] is needed.
    ///
    /// # Errors
    /// As [`Exchange::exchange`].
    fn sum(&self, number: Number<'_>) -> Result<()>;
}

/// An array that processes exchange parts of.
#[derive(Debug)]
pub enum Values<'a> {
    /// On the CPU.
    Cpu(&'a mut [f32]),
    /// On a GPU: float32 or half precision.
    Gpu(&'a Tensor),
}

/// A float64.
#[derive(Debug)]
pub enum Number<'a> {
    /// On the CPU.
    Cpu(&'a mut f64),
    /// On a GPU, as two words.
    Gpu(&'a Tensor),
}

/// What happens to a range of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// All get its sum.
    Sum(Range<usize>),
    /// From `from` on there is a share of `each` numbers for every process, which gets the sum of its own; the others' are worth nothing
    /// afterwards.
    SumShares {
        /// Where the first share begins.
        from: usize,
        /// Numbers of a share.
        each: usize,
    },
    /// From `from` on there is a share of `each` numbers of every process, and all get all.
    GatherShares {
        /// Where the first share begins.
        from: usize,
        /// Numbers of a share.
        each: usize,
    },
}

/// How one parameter is shared out.
#[derive(Clone, Debug)]
struct Share {
    range: Range<usize>,
    /// Numbers of each process's share; 0 where everybody has all.
    each: usize,
    /// Whether its float32 numbers are with their owners alone.
    alone: bool,
}

impl Share {
    /// This process's share.
    fn own(&self, rank: usize) -> Range<usize> {
        let start = self.range.start + rank * self.each;
        start..start + self.each
    }

    /// What everybody has.
    fn rest(&self, size: usize) -> Range<usize> {
        self.range.start + size * self.each..self.range.end
    }
}

/// Who has which numbers of a model.
#[derive(Debug)]
pub struct Sharding {
    exchange: Arc<dyn Exchange>,
    shares: Vec<Share>,
    /// Length of the flat buffer.
    len: usize,
}

impl Sharding {
    /// For the parameters `infos` of a flat buffer of `len` numbers, which has a copy in half precision or none.
    pub(super) fn new(
        infos: &[ParamInfo],
        len: usize,
        half: bool,
        exchange: Arc<dyn Exchange>,
    ) -> Self {
        let size = exchange.size();
        let share = |info: &ParamInfo| {
            let n = info.shape.numel();
            let each = n / (size * GROUP) * GROUP;
            let each = if n >= LARGE && size > 1 { each } else { 0 };
            Share {
                range: info.range(),
                each,
                alone: half && info.operand && each > 0,
            }
        };
        Self {
            shares: infos.iter().map(share).collect(),
            exchange,
            len,
        }
    }

    /// How the processes reach each other.
    pub fn exchange(&self) -> &dyn Exchange {
        &*self.exchange
    }

    fn share_of(&self, info: &ParamInfo) -> Option<&Share> {
        let at = |s: &Share| s.range.start.cmp(&info.offset);
        let found = self.shares.binary_search_by(at).ok()?;
        self.shares.get(found)
    }

    /// Whether a parameter is on this GPU in half precision alone.
    pub(super) fn is_alone(&self, info: &ParamInfo) -> bool {
        self.share_of(info).is_some_and(|s| s.alone)
    }

    /// What this process updates, ascending; ranges lie each in one parameter.
    pub(crate) fn updated(&self) -> Vec<Range<usize>> {
        let (rank, size) = (self.exchange.rank(), self.exchange.size());
        let both = |s: &Share| [s.own(rank), s.rest(size)];
        let all = self.shares.iter().flat_map(both);
        all.filter(|r| !r.is_empty()).collect()
    }

    /// What this process adds to the norm of the gradients, so that everything is added once.
    pub(crate) fn counted(&self) -> Vec<Range<usize>> {
        let (rank, size) = (self.exchange.rank(), self.exchange.size());
        let both = |s: &Share| {
            let rest = s.rest(size);
            let end = if rank == 0 { rest.end } else { rest.start };
            [s.own(rank), rest.start..end]
        };
        let all = self.shares.iter().flat_map(both);
        all.filter(|r| !r.is_empty()).collect()
    }

    /// What this process has of the flat float32 weights.
    pub(super) fn kept(&self) -> Vec<Range<usize>> {
        let (rank, size) = (self.exchange.rank(), self.exchange.size());
        let kept = |s: &Share| match s.alone {
            true => [s.own(rank), s.rest(size)],
            false => [s.range.clone(), 0..0],
        };
        let all = self.shares.iter().flat_map(kept);
        all.filter(|r| !r.is_empty()).collect()
    }

    /// What this process has of a parameter in a buffer of which it holds its share.
    pub(super) fn kept_of(&self, info: &ParamInfo) -> Vec<Range<usize>> {
        let (rank, size) = (self.exchange.rank(), self.exchange.size());
        match self.share_of(info) {
            Some(s) if s.each > 0 => vec![s.own(rank), s.rest(size)],
            _ => vec![info.range()],
        }
    }

    /// How the gradients of a range, in which parameters lie whole, become sums where they are needed.
    pub fn sums(&self, within: Range<usize>) -> Vec<Move> {
        let mut moves: Vec<Move> = Vec::new();
        let first = self
            .shares
            .partition_point(|s| s.range.start < within.start);
        let shares = self.shares[first..].iter();
        for share in shares.take_while(|s| s.range.end <= within.end) {
            if share.each > 0 {
                moves.push(Move::SumShares {
                    from: share.range.start,
                    each: share.each,
                });
            }
            let rest = share.rest(self.exchange.size());
            match moves.last_mut() {
                // What lies between two parameters is zero.
                Some(Move::Sum(range)) if share.each == 0 => range.end = rest.end,
                _ if rest.is_empty() => {}
                _ => moves.push(Move::Sum(rest)),
            }
        }
        moves
    }

    /// How updated weights come to everybody: of the copy in half precision, and of float32 numbers.
    fn publication(&self) -> [Vec<Move>; 2] {
        [true, false].map(|alone| {
            let of = self.shares.iter();
            let of = of.filter(|s| s.each > 0 && s.alone == alone);
            of.map(|s| Move::GatherShares {
                from: s.range.start,
                each: s.each,
            })
            .collect()
        })
    }

    /// Hands out the weights that this process has updated, and takes those of the others.
    ///
    /// # Errors
    /// When another process is gone.
    pub(super) fn publish_on_cpu(&self, flat: &mut [f32]) -> Result<()> {
        let [_, floats] = self.publication();
        self.exchange.exchange(Values::Cpu(flat), &floats)
    }

    /// The same on a GPU.
    ///
    /// # Errors
    /// When another process is gone or the GPU refuses.
    pub(super) fn publish(&self, flat: &Tensor, half: Option<&Tensor>) -> Result<()> {
        let [halves, floats] = self.publication();
        if let Some(half) = half {
            self.exchange.exchange(Values::Gpu(half), &halves)?;
        }
        self.exchange.exchange(Values::Gpu(flat), &floats)?;
        self.exchange.join()?;
        let Some(half) = half else { return Ok(()) };
        for share in self.shares.iter().filter(|s| s.each > 0 && !s.alone) {
            copy_to_half(flat, half, &share.range)?;
        }
        Ok(())
    }

    /// A whole parameter \[n\], as the flat buffer orders it, of a buffer of which each process holds its share.
    ///
    /// # Errors
    /// When another process is gone or the GPU's memory is full.
    pub(super) fn gathered(&self, flat: &Tensor, info: &ParamInfo) -> Result<Tensor> {
        let n = info.shape.numel();
        let Some(share) = self.share_of(info).filter(|s| s.each > 0) else {
            return flat.narrow(info.offset, n);
        };
        let moves = [Move::GatherShares {
            from: 0,
            each: share.each,
        }];
        let kept = self.kept_of(info);
        if flat.device() == Device::Cpu {
            let mut whole = vec![0.0; n];
            for range in kept {
                let to = range.start - info.offset..range.end - info.offset;
                whole[to].copy_from_slice(&flat.f32()?[range]);
            }
            self.exchange.exchange(Values::Cpu(&mut whole), &moves)?;
            return Ok(Tensor::from_vec([n], whole));
        }
        let whole = Tensor::scratch(flat.gpu()?, [n], flat.dtype())?;
        for range in kept.iter().filter(|r| !r.is_empty()) {
            copy(
                &flat.narrow(range.start, range.len())?,
                &whole.narrow(range.start - info.offset, range.len())?,
            )?;
        }
        self.exchange.exchange(Values::Gpu(&whole), &moves)?;
        self.exchange.join()?;
        Ok(whole)
    }

    /// Zeros laid out as the model, of which this process has what it updates.
    ///
    /// # Errors
    /// When the memory is full.
    pub(super) fn zeros(&self, device: Device) -> Result<Tensor> {
        match device.gpu()? {
            // Pages that nobody writes to take no memory.
            None => Ok(Tensor::from_vec([self.len], vec![0.0; self.len])),
            Some(gpu) => Tensor::with_gaps(gpu, self.len, &self.updated()),
        }
    }
}

/// Copies numbers on a GPU.
pub(super) fn copy(from: &Tensor, to: &Tensor) -> Result<()> {
    let bytes = from.numel() * from.dtype().bytes();
    Ok(from
        .gpu()?
        .copy(from.device_ptr()?, to.device_ptr()?, bytes)?)
}

/// Brings a range of the copy in half precision up to date.
pub(super) fn copy_to_half(flat: &Tensor, half: &Tensor, range: &Range<usize>) -> Result<()> {
    let part = |t: &Tensor| t.narrow(range.start, range.len());
    copy(&part(flat)?.cast(half.dtype())?, &part(half)?)
}

#[cfg(test)]
#[path = "sharding_tests.rs"]
mod tests;
