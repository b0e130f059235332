//! Whole runs: data, models, logs, checkpoints and the loop, for each of the two trainers.

mod dataset;
mod progress;
mod source;
#[cfg(test)]
mod tests;
mod tokenizer;
mod tokenizer_state;
mod var;
mod var_epoch;
mod var_loop;
mod var_memory;
mod var_open;
mod var_state;

pub use dataset::{BUILTIN_SHAPES, Dataset};
pub use tokenizer::{TokenizerRun, tokenizer_paths};
pub use tokenizer_state::TOKENIZER_STATE_KEY;
pub use var::{VarRun, var_paths};

use crate::train::flags::check;
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Updates made since the very start.
    pub steps: u64,
    /// Whether the run reached its end, as against being stopped.
    pub complete: bool,
    /// The checkpoint to go on from.
    pub checkpoint: PathBuf,
    /// What to tell the user.
    pub message: String,
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
        Err(e) => Err(Error::failed(format!("--threads={threads}: {e}"))),
    }
}

/// Refuses to go on with a loss, or gradients that were stepped along, that are no number; `rate` is the flag of the learning rate.
pub(crate) fn must_be_finite(
    loss: f64,
    grad_norm: Option<f64>,
    at: std::fmt::Arguments<'_>,
    state: impl FnOnce() -> PathBuf,
    rate: &str,
) -> Result<()> {
    let numbers = [("loss", Some(loss)), ("norm of the gradients", grad_norm)];
    for (what, n) in numbers {
        if let Some(n) = n.filter(|n| !n.is_finite()) {
            return Err(Error::failed(format!(
                "the {what} is {n} at {at}: the run has diverged; start again from {} with a lower {rate}",
                state().display()
            )));
        }
    }
    Ok(())
}

/// Makes the output folder.
pub(crate) fn make_folder(out: &Path) -> Result<()> {
    std::fs::create_dir_all(out).map_err(|e| {
        Error::input(format!(
            "--out={}: the folder can't be made: {e}",
            out.display()
        ))
    })
}

/// Copies a file so that the target is whole at any instant.
pub(crate) fn copy_whole(from: &Path, to: &Path) -> Result<()> {
    let mut source = std::fs::File::open(from).map_err(Error::io(from))?;
    crate::checkpoint::write_atomic(to, |w| std::io::copy(&mut source, w).map(|_| ()))
}

/// The seed of a run: the one given, the one of the checkpoint, or a new one from the clock and the process.
pub(crate) fn choose_seed(given: Option<u64>, saved: Option<u64>, out: &Path) -> Result<u64> {
    match (given, saved) {
        (Some(a), Some(b)) if a != b => Err(Error::input(format!(
            "--seed={a}: the run in {} was started with seed {b}; leave the flag out to go on with it, or choose another --out",
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
