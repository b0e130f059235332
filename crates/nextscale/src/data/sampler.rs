//! Which images make which batch.

use std::ops::Range;

use nextscale_tensor::rng::{Purpose, Stream};

use crate::{Error, Result, Share};

/// One global permutation of the images an epoch, shared out over the ranks.
///
/// The permutation is a function of (seed, epoch) alone. Its tail is filled from its own start until every rank
/// has the same number of whole batches. An iteration takes the next images for all ranks, of which rank r has the r-th part: together they
/// see what one process with the whole batch would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainSampler {
    len: usize,
    batch: usize,
    share: Share,
    seed: u64,
}

impl TrainSampler {
    /// A sampler over `len` images in batches of `batch` for each process, as seen by the one that has `share`.
    ///
    /// # Errors
    /// [`Error::Input`] without images, for a batch of 0, or a rank outside the world.
    pub fn new(len: usize, batch: usize, share: Share, seed: u64) -> Result<Self> {
        check(len, batch, share)?;
        Ok(Self {
            len,
            batch,
            share,
            seed,
        })
    }

    /// Images in a batch of one rank.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// How many images the sampler draws from.
    pub fn dataset_len(&self) -> usize {
        self.len
    }

    /// Batches of one rank in an epoch.
    pub fn iterations(&self) -> usize {
        self.len.div_ceil(self.batch * self.share.size)
    }

    /// This rank's images of `epoch` in order: `iterations() · batch()` of them.
    pub fn epoch(&self, epoch: u64) -> Vec<u32> {
        let order = Stream::new(self.seed, Purpose::Shuffle, epoch, 0).permutation(self.len);
        let first = |it: usize| (it * self.share.size + self.share.rank) * self.batch;
        let places = (0..self.iterations()).flat_map(|it| first(it)..first(it) + self.batch);
        // A data set smaller than half a global batch goes round more than once.
        places.map(|place| order[place % self.len]).collect()
    }
}

/// Every image once, in order: rank r takes the r-th part (parts differ by at most one image), or every batch whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValSampler {
    len: usize,
    part: Part,
    batch: usize,
}

/// What a process takes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// Images that follow one another.
    Piece(Range<usize>),
    /// Whole batches in turn.
    Turns(Share),
}

impl ValSampler {
    /// A sampler over `len` images in batches of `batch`, as seen by the process that has `share`.
    ///
    /// # Errors
    /// As [`TrainSampler::new`].
    pub fn new(len: usize, batch: usize, share: Share) -> Result<Self> {
        check(len, batch, share)?;
        let cut = |part: usize| (len as u128 * part as u128 / share.size as u128) as usize;
        Ok(Self {
            len,
            part: Part::Piece(cut(share.rank)..cut(share.rank + 1)),
            batch,
        })
    }

    /// The same with the batches of one process, which the processes take in turn.
    ///
    /// # Errors
    /// As [`TrainSampler::new`].
    pub fn in_turn(len: usize, batch: usize, share: Share) -> Result<Self> {
        check(len, batch, share)?;
        Ok(Self {
            len,
            part: Part::Turns(share),
            batch,
        })
    }

    /// How many images the sampler shares out over all ranks.
    pub fn dataset_len(&self) -> usize {
        self.len
    }

    /// How many images this rank sees.
    pub fn images(&self) -> usize {
        match &self.part {
            Part::Piece(range) => range.len(),
            Part::Turns(_) => {
                let last = self.iterations().checked_sub(1);
                last.map_or(0, |last| last * self.batch + self.indices(last).len())
            }
        }
    }

    /// Images in a batch but the last.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Batches of this rank; the last may be smaller. Ranks may differ by one.
    pub fn iterations(&self) -> usize {
        match &self.part {
            Part::Piece(range) => range.len().div_ceil(self.batch),
            Part::Turns(share) => {
                let all = self.len.div_ceil(self.batch);
                all.saturating_sub(share.rank).div_ceil(share.size)
            }
        }
    }

    /// The images of batch `iteration`; empty beyond the last.
    pub fn indices(&self, iteration: usize) -> Range<usize> {
        let (from, end) = match &self.part {
            Part::Piece(range) => {
                let at = (iteration * self.batch).min(range.len());
                (range.start + at, range.end)
            }
            Part::Turns(share) => {
                let at = (iteration * share.size + share.rank) * self.batch;
                (at.min(self.len), self.len)
            }
        };
        from..(from + self.batch).min(end)
    }
}

fn check(len: usize, batch: usize, share: Share) -> Result<()> {
    let Share { rank, size } = share;
    if len == 0 || u32::try_from(len).is_err() {
        return Err(Error::input(format!(
            "a data set of {len} images can't be sampled"
        )));
    }
    if batch == 0 || batch > 1 << 24 {
        return Err(Error::input(format!(
            "a batch of {batch} images can't be used; give from 1 to {} with `bs` or `batch`",
            1 << 24
        )));
    }
    if rank >= size || size > 1 << 24 {
        return Err(Error::input(format!(
            "process {rank} is not one of {size} processes"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
