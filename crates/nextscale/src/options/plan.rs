//! What follows from the options of either trainer.

use super::ScheduleOptions;
use crate::model::MAX_SIDE;
use crate::train::schedule::{Curve, Schedule};
use crate::{Error, Result};

/// A run in iterations, once the number of training images is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Horizon {
    /// Iterations of one epoch; the last batch is filled up.
    pub its_per_epoch: u64,
    /// Iterations of the whole run.
    pub max_it: u64,
    /// Epochs of the whole run; the last one may be a part.
    pub epochs: u64,
    /// Iterations of warm-up, not rounded.
    pub warmup_its: f64,
    /// Learning rate and weight decay.
    pub schedule: Schedule,
}

/// What a [`Horizon`] follows from beside the number of images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Course {
    /// Images in one iteration of all processes.
    pub(super) global_batch: usize,
    pub(super) curve: Curve,
    pub(super) peak_lr: f64,
    /// Weight decay at the start and at the end.
    pub(super) wd: (f64, f64),
}

impl Horizon {
    /// Epochs that are done after `it` iterations: whole ones, and the part that a run may end with.
    pub fn epochs_done(&self, it: u64) -> u64 {
        match it >= self.max_it {
            true => it.div_ceil(self.its_per_epoch),
            false => it / self.its_per_epoch,
        }
    }
}

impl Course {
    /// The run in iterations for `images` training images. `warmup` gives the iterations of warm-up where no flag does, from those of
    /// an epoch and of the run; trainers differ in how they round.
    ///
    /// # Errors
    /// [`Error::Input`] without images.
    pub(super) fn horizon(
        &self,
        images: usize,
        options: &ScheduleOptions,
        warmup: impl Fn(u64, u64) -> f64,
    ) -> Result<Horizon> {
        if images == 0 {
            return Err(Error::input("`data_path`: there are no training images"));
        }
        let its_per_epoch = images.div_ceil(self.global_batch) as u64;
        let max_it = match options.steps {
            Some(steps) => steps.saturating_mul(options.ac as u64),
            None => its_per_epoch * options.ep as u64,
        };
        let warmup_its = match options.wp {
            0.0 => warmup(its_per_epoch, max_it),
            epochs => epochs * its_per_epoch as f64,
        };
        Ok(Horizon {
            its_per_epoch,
            max_it,
            epochs: max_it.div_ceil(its_per_epoch),
            warmup_its,
            schedule: Schedule {
                curve: self.curve,
                peak_lr: self.peak_lr,
                wd: self.wd.0,
                wd_end: self.wd.1,
                warmup_its,
                wp0: options.wp0,
                wpe: options.wpe,
                max_it,
            },
        })
    }
}

/// Refuses images that are larger than can be made; `flags` say how large they are.
pub(super) fn check_side(side: usize, flags: &str) -> Result<()> {
    if side <= MAX_SIDE {
        return Ok(());
    }
    Err(Error::input(format!(
        "{flags}: images would have {side} pixels a side; at most {MAX_SIDE} can be made"
    )))
}

/// Images in one iteration of one process: `bs` over `ac` and `world`, of one process rounded half to even.
///
/// # Errors
/// [`Error::Input`] where that is not even one, or several processes would not have as many each.
pub fn process_batch(bs: usize, ac: usize, world: usize) -> Result<usize> {
    let batch = (bs as f64 / ac as f64 / world as f64).round_ties_even() as usize;
    if batch >= 1 {
        return match world > 1 && !bs.is_multiple_of(ac * world) {
            true => Err(uneven(bs, ac, world)),
            false => Ok(batch),
        };
    }
    let over = if ac > 1 {
        format!(" and `ac`={ac} accumulated iterations")
    } else {
        String::new()
    };
    Err(Error::input(format!(
        "`bs`={bs}: less than one image for each of {world} processes{over}; raise it to at least {}",
        ac * world
    )))
}

fn uneven(bs: usize, ac: usize, world: usize) -> Error {
    let each = ac * world;
    let over = match ac {
        1 => String::new(),
        _ => format!(" in `ac`={ac} iterations"),
    };
    let below = match bs / each * each {
        0 => String::new(),
        below => format!("{below} or "),
    };
    let above = bs.next_multiple_of(each);
    let why = format!("can't be shared by {world} processes{over}; give {below}{above}");
    Error::field("bs", bs, why)
}
