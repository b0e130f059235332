//! Whole runs: a model in training with its data, its checkpoints and everybody who is told of it.
//!
//! [`TransformerRun`] and [`TokenizerRun`] make a run of options. The loop is in `driver.rs`, once for both; what is a model's own is
//! its task ([`transformer`], [`tokenizer`]). What happens becomes an [`Event`], and display, logs and TensorBoard are
//! [`Observer`]s of it, as are those that a user of the library adds.

mod checkpoints;
mod clock;
mod data_record;
mod dataset;
mod driver;
mod event;
pub mod lock;
mod observers;
mod opening;
mod optimizer;
#[cfg(feature = "cli")]
pub mod signal;
mod task;
#[cfg(test)]
mod tests;
pub mod tokenizer;
pub mod transformer;
mod val_check;

pub use crate::stop::StopSignal;
pub(crate) use dataset::loader_config;
pub use dataset::{BUILTIN_SHAPES, Dataset, SHAPES_SEED};
pub use event::{Epoch, Evaluated, Event, Iteration, Metric, Metrics, Picture, Started, Step};
#[cfg(feature = "cli")]
pub use observers::Display;
pub use observers::{EVALUATIONS_FILE, Observer, STEPS_FILE};
pub use tokenizer::{TokenizerRun, tokenizer_paths};
pub use transformer::{TransformerRun, transformer_paths};

use crate::options::check;
use crate::{Error, Result, World, world};
use std::path::{Path, PathBuf};

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Updates made since the very start.
    pub steps: u64,
    /// Whether the run reached its end, as against being stopped.
    pub complete: bool,
    /// The exit code to end the process with: 0, or that of the signal that stopped the run before its end.
    pub exit_code: u8,
    /// The checkpoint to go on from.
    pub checkpoint: PathBuf,
    /// What to tell the user.
    pub message: String,
}

/// How a run ended that is not complete: a signal's exit code, if one came, and the message.
pub(crate) fn stopped(
    steps: u64,
    asked: &StopSignal,
    stop_after: Option<u64>,
    saved: Option<&Path>,
) -> (u8, String) {
    let limit = stop_after.filter(|&n| steps >= n);
    let (code, by) = match (limit, asked.signal()) {
        (None, Some(signal)) => (
            asked.exit_code(),
            format!(" by {}", crate::stop::name(signal)),
        ),
        _ => (0, String::new()),
    };
    let what = match saved {
        Some(path) => format!("after step {steps}; saved to {}", path.display()),
        None => "before the first step; there is nothing to save".into(),
    };
    let more = match limit {
        Some(n) => format!(" (without `stop_after`={n}, or with a larger one)"),
        None => String::new(),
    };
    let text = format!("stopped{by} {what}. Run the same command again to go on{more}");
    (code, text)
}

/// Sets the number of compute threads for the whole process; 0 takes one for each core.
///
/// # Errors
/// When threads were started before with another number, or there are absurdly many.
pub fn init_threads(threads: usize) -> Result<()> {
    let needed = "it must be at most 1024; 0 takes one for each core";
    check::that(threads <= 1024, "threads", threads, needed)?;
    let built = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("compute-{i}"))
        .build_global();
    match built {
        Ok(()) => Ok(()),
        // The pool is there already: fine when its size is what is asked for.
        Err(_) if threads == 0 || rayon::current_num_threads() == threads => Ok(()),
        Err(e) => Err(Error::failed(format!("`threads`={threads}: {e}"))),
    }
}

/// The compute threads of a process for `threads` as given: where several share a machine, 0 takes the process's share of its cores.
pub fn threads_of(world: &World, threads: usize) -> usize {
    match (threads, world.local_size()) {
        (0, local @ 2..) => cores().div_euclid(local).max(1),
        _ => threads,
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// A loss, or the norm of gradients that were stepped along, that is no number, in words.
pub(crate) fn not_a_number(
    loss: f64,
    grad_norm: Option<f64>,
    at: std::fmt::Arguments<'_>,
) -> Option<String> {
    let numbers = [("loss", Some(loss)), ("norm of the gradients", grad_norm)];
    let bad = numbers
        .into_iter()
        .find_map(|(what, n)| Some((what, n.filter(|n| !n.is_finite())?)));
    bad.map(|(what, n)| format!("the {what} is {n} at {at}"))
}

/// Makes the output folder.
pub(crate) fn make_folder(out: &Path) -> Result<()> {
    std::fs::create_dir_all(out).map_err(|e| {
        Error::input(format!(
            "`out`={}: the folder can't be made: {e}",
            out.display()
        ))
    })
}

/// Refuses a checkpoint from beyond the end of a run of `most` iterations, which `flag` decides.
pub(crate) fn check_length(done: u64, most: u64, flag: &str, path: &Path) -> Result<()> {
    if done <= most {
        return Ok(());
    }
    Err(Error::input(format!(
        "{}: {done} iterations are done, and with these flags the run has {most}; give {flag} as before or more, or choose another `out`",
        path.display()
    )))
}

/// What to tell where a run goes on without the average that it kept.
pub(crate) fn average_ends(path: &Path) -> String {
    format!(
        "{} holds averaged weights; without `ema` the average ends here",
        path.display()
    )
}

/// Refuses another accumulation than the run's own checkpoint was made with: steps would be counted anew, and gradients of half
/// a step be taken for whole ones.
pub(crate) fn check_accumulation(ac: usize, before: usize, path: &Path) -> Result<()> {
    if before == ac {
        return Ok(());
    }
    Err(Error::input(format!(
        "`ac`={ac}: {} was made with `ac`={before}; give that, or choose another `out`",
        path.display()
    )))
}

/// Copies a file so that the target is whole at any instant.
pub(crate) fn copy_whole(from: &Path, to: &Path) -> Result<()> {
    let (mut source, _) = crate::input::open_input(from)?;
    crate::format::write_atomic(to, |w| std::io::copy(&mut source, w).map(|_| ()))
}

/// The first process's seed, for a run of which all have found the same checkpoint, after `it` iterations.
///
/// # Errors
/// [`Error::Input`] where they have not.
pub(crate) fn agree_on(world: &World, seed: u64, it: u64) -> Result<u64> {
    let found = [("a checkpoint after iteration".to_owned(), it.to_string())];
    world::compare(world, found.into())?;
    world::of_first(world, seed)
}

/// The seed of a run: the one given, the one of the checkpoint, or a new one from the clock and the process.
pub(crate) fn choose_seed(given: Option<u64>, saved: Option<u64>, out: &Path) -> Result<u64> {
    match (given, saved) {
        (Some(a), Some(b)) if a != b => Err(Error::input(format!(
            "`seed`={a}: the run in {} was started with seed {b}; leave the flag out to go on with it, or choose another `out`",
            out.display()
        ))),
        (_, Some(seed)) | (Some(seed), None) => Ok(seed),
        (None, None) => {
            let now = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |d| d.as_nanos() as u64);
            // Small enough to type.
            Ok((now ^ u64::from(std::process::id()) << 20) % 1_000_000_007)
        }
    }
}
