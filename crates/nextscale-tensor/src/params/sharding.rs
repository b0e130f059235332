//! A model's numbers shared out among the processes that train it (ZeRO, stage 1: Rajbhandari and others, 2020).
//!
//! Every process computes with all weights, but most numbers are updated by one process alone, which alone has their moments: a
//! third of AdamW's memory with three processes. Before an update the gradients' sums go to their owners, after it the new weights to
//! everybody. On a GPU a matrix that products read in half precision needs no more than its copy in half precision: its float32
//! numbers, too, are with their owners alone.
//!
//! The flat buffer is laid out anew for it: in every part of a model small parameters come first, then large ones, then the matrices
//! that only products read, so that a part has few runs to share and to exchange. A run is cut into equal shares of multiples of 16
//! numbers. What does not divide, and small parameters, every process updates for itself, with the same bits.

use super::{ALIGN, ParamInfo};
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

/// How parameters are treated, in the order in which they lie in a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// Everybody has it and updates it.
    Small,
    /// Everybody has it; each updates a share.
    Large,
    /// Everybody has it in half precision; each has a share in float32 and updates that.
    Alone,
}

impl Class {
    fn of(info: &ParamInfo, half: bool) -> Self {
        match info.shape.numel() >= LARGE {
            true if half && info.operand => Self::Alone,
            true => Self::Large,
            false => Self::Small,
        }
    }
}

/// Lays the parameters of each part out by class: their new offsets, and the length of the whole.
pub(super) fn lay_out(
    infos: &[ParamInfo],
    parts: &[Range<usize>],
    half: bool,
) -> (Vec<usize>, usize) {
    let mut offsets = vec![0; infos.len()];
    let mut len = 0;
    for part in parts {
        let inside = (0..infos.len()).filter(|&i| part.contains(&infos[i].offset));
        let mut inside: Vec<usize> = inside.collect();
        inside.sort_by_key(|&i| (Class::of(&infos[i], half), infos[i].offset));
        let mut next = part.start;
        for i in inside {
            offsets[i] = next;
            len = next + infos[i].shape.numel();
            next = len.next_multiple_of(ALIGN);
        }
    }
    (offsets, len)
}

/// Parameters of a class that follow one another in a part.
#[derive(Clone, Debug)]
struct Run {
    range: Range<usize>,
    /// Numbers of each process's share; 0 where everybody has all.
    each: usize,
    /// Whether its float32 numbers are with their owners alone.
    alone: bool,
}

impl Run {
    /// The share of a process.
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
    /// In order; what lies between them is zero.
    runs: Vec<Run>,
    /// Length of the flat buffer.
    len: usize,
}

impl Sharding {
    /// For the parameters `infos` as [`lay_out`] has put them into the parts of a flat buffer of `len` numbers, which has a copy in
    /// half precision or none.
    pub(super) fn new(
        infos: &[ParamInfo],
        parts: &[Range<usize>],
        len: usize,
        half: bool,
        exchange: Arc<dyn Exchange>,
    ) -> Self {
        let size = exchange.size();
        let mut sorted: Vec<&ParamInfo> = infos.iter().collect();
        sorted.sort_by_key(|i| i.offset);
        let part_of = |at: usize| parts.partition_point(|part| part.end <= at);
        let mut runs: Vec<(usize, Class, Range<usize>)> = Vec::new();
        for info in sorted {
            let (part, class) = (part_of(info.offset), Class::of(info, half));
            match runs.last_mut() {
                Some((p, c, range)) if (*p, *c) == (part, class) => range.end = info.range().end,
                _ => runs.push((part, class, info.range())),
            }
        }
        let run = |(_, class, range): (usize, Class, Range<usize>)| {
            let shared = class != Class::Small && size > 1;
            let each = if shared {
                range.len() / (size * GROUP) * GROUP
            } else {
                0
            };
            Run {
                range,
                each,
                alone: class == Class::Alone && each > 0,
            }
        };
        Self {
            runs: runs.into_iter().map(run).collect(),
            exchange,
            len,
        }
    }

    /// How the processes reach each other.
    pub fn exchange(&self) -> &dyn Exchange {
        &*self.exchange
    }

    /// The run that a parameter lies in.
    fn run_of(&self, info: &ParamInfo) -> &Run {
        let found = self.runs.partition_point(|r| r.range.end <= info.offset);
        &self.runs[found.min(self.runs.len() - 1)]
    }

    /// Whether a parameter is on this GPU in half precision alone.
    pub(super) fn is_alone(&self, info: &ParamInfo) -> bool {
        self.run_of(info).alone
    }

    /// Of every run what `of` says, ascending, without what is empty.
    fn ranges(&self, of: impl Fn(&Run) -> [Range<usize>; 2]) -> Vec<Range<usize>> {
        let all = self.runs.iter().flat_map(of);
        all.filter(|r| !r.is_empty()).collect()
    }

    /// What this process updates, ascending.
    pub(crate) fn updated(&self) -> Vec<Range<usize>> {
        let (rank, size) = (self.exchange.rank(), self.exchange.size());
        self.ranges(|run| [run.own(rank), run.rest(size)])
    }

    /// What this process adds to the norm of the gradients, so that everything is added once.
    pub(crate) fn counted(&self) -> Vec<Range<usize>> {
        let (rank, size) = (self.exchange.rank(), self.exchange.size());
        self.ranges(|run| {
            let rest = run.rest(size);
            let end = if rank == 0 { rest.end } else { rest.start };
            [run.own(rank), rest.start..end]
        })
    }

    /// What this process has of the flat float32 weights.
    pub(super) fn kept(&self) -> Vec<Range<usize>> {
        let (rank, size) = (self.exchange.rank(), self.exchange.size());
        self.ranges(|run| match run.alone {
            true => [run.own(rank), run.rest(size)],
            false => [run.range.clone(), 0..0],
        })
    }

    /// What this process has of a parameter in a buffer of which it holds what it updates.
    pub(super) fn kept_of(&self, info: &ParamInfo) -> Vec<Range<usize>> {
        let (rank, size) = (self.exchange.rank(), self.exchange.size());
        let run = self.run_of(info);
        let both = [run.own(rank), run.rest(size)].into_iter();
        let both = both.map(|r| common(&r, &info.range()));
        both.filter(|r| !r.is_empty()).collect()
    }

    /// The runs of a part of the model.
    fn runs_in(&self, part: &Range<usize>) -> &[Run] {
        let first = self.runs.partition_point(|r| r.range.start < part.start);
        let end = self.runs.partition_point(|r| r.range.end <= part.end);
        &self.runs[first..end.max(first)]
    }

    /// How the gradients of a part become sums where they are needed.
    pub fn sums(&self, part: Range<usize>) -> Vec<Move> {
        let moves = self.runs_in(&part).iter().flat_map(|run| {
            let shares = Move::SumShares {
                from: run.range.start,
                each: run.each,
            };
            let rest = run.rest(self.exchange.size());
            let shares = (run.each > 0).then_some(shares);
            let rest = (!rest.is_empty()).then_some(Move::Sum(rest));
            [shares, rest].into_iter().flatten()
        });
        moves.collect()
    }

    /// How updated weights of a part come to everybody: those of the copy in half precision, or the float32 numbers.
    fn publication(&self, part: &Range<usize>, alone: bool) -> Vec<Move> {
        let of = self.runs_in(part).iter();
        let of = of.filter(|run| run.each > 0 && run.alone == alone);
        of.map(|run| Move::GatherShares {
            from: run.range.start,
            each: run.each,
        })
        .collect()
    }

    /// Hands out the weights that this process has updated, and takes those of the others.
    ///
    /// # Errors
    /// When another process is gone.
    pub(super) fn publish_on_cpu(&self, flat: &mut [f32]) -> Result<()> {
        let moves = self.publication(&(0..self.len), false);
        self.exchange.exchange(Values::Cpu(flat), &moves)
    }

    /// Begins the same on a GPU with a part of the model; it goes on beside the GPU's other work until [`Sharding::published`].
    ///
    /// # Errors
    /// When another process is gone or the GPU refuses.
    pub(crate) fn publish(
        &self,
        part: &Range<usize>,
        flat: &Tensor,
        half: Option<&Tensor>,
    ) -> Result<()> {
        if let Some(half) = half {
            let moves = self.publication(part, true);
            self.exchange.exchange(Values::Gpu(half), &moves)?;
        }
        let moves = self.publication(part, false);
        self.exchange.exchange(Values::Gpu(flat), &moves)
    }

    /// What is asked of the GPU from here on finds the weights of all parts.
    ///
    /// # Errors
    /// As [`Sharding::publish`].
    pub(crate) fn published(&self, flat: &Tensor, half: Option<&Tensor>) -> Result<()> {
        self.exchange.join()?;
        let Some(half) = half else { return Ok(()) };
        for run in self.runs.iter().filter(|run| run.each > 0 && !run.alone) {
            copy_to_half(flat, half, &run.range)?;
        }
        Ok(())
    }

    /// A whole parameter \[n\], as the flat buffer orders it, of a buffer of which each process holds what it updates.
    ///
    /// # Errors
    /// When another process is gone or the memory is full.
    pub(super) fn gathered(&self, flat: &Tensor, info: &ParamInfo) -> Result<Tensor> {
        let n = info.shape.numel();
        let run = self.run_of(info);
        if run.each == 0 {
            return flat.narrow(info.offset, n);
        }
        // A share may hold the end of one parameter and the beginning of another: the whole run is brought together.
        let moves = [Move::GatherShares {
            from: 0,
            each: run.each,
        }];
        let (start, len) = (run.range.start, run.range.len());
        let (rank, size) = (self.exchange.rank(), self.exchange.size());
        let kept = [run.own(rank), run.rest(size)].into_iter();
        let kept = kept.filter(|r| !r.is_empty());
        if flat.device() == Device::Cpu {
            let mut whole = vec![0.0; len];
            for range in kept {
                let to = range.start - start..range.end - start;
                whole[to].copy_from_slice(&flat.f32()?[range]);
            }
            self.exchange.exchange(Values::Cpu(&mut whole), &moves)?;
            let part = whole[info.offset - start..][..n].to_vec();
            return Ok(Tensor::from_vec([n], part));
        }
        let whole = Tensor::scratch(flat.gpu()?, [len], flat.dtype())?;
        for range in kept {
            copy(
                &flat.narrow(range.start, range.len())?,
                &whole.narrow(range.start - start, range.len())?,
            )?;
        }
        self.exchange.exchange(Values::Gpu(&whole), &moves)?;
        self.exchange.join()?;
        whole.narrow(info.offset - start, n)
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

/// What two ranges have in common.
fn common(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
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
