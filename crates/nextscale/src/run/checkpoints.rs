//! The checkpoint that a run goes on from: whether it is there, the ones before it, and what to do when the run ends early.

use super::copy_whole;
use super::observers::Observers;
use crate::format::safetensors::SafetensorsFile;
use crate::{Error, Result};
use std::fs::File;
use std::io::ErrorKind::NotFound;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Whether there is a file at `path`. Only a file that is known not to be there is none.
///
/// # Errors
/// Where that can't be known: a link to nothing, a folder without permission, a file system that does not answer.
pub(super) fn is_there(path: &Path) -> Result<bool> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == NotFound => match std::fs::symlink_metadata(path) {
            Err(e) if e.kind() == NotFound => Ok(false),
            Err(e) => Err(Error::io(path)(e)),
            Ok(_) => Err(Error::input(format!(
                "{}: is a link to a file that can't be found; make the file reachable, or remove the link to start anew",
                path.display()
            ))),
        },
        Err(e) => Err(Error::io(path)(e)),
    }
}

/// The same for the checkpoint to resume from, of which earlier ones may be kept.
///
/// # Errors
/// As [`is_there`], and where only an earlier one is there.
pub(super) fn last_is_there(last: &Path) -> Result<bool> {
    if is_there(last)? {
        return Ok(true);
    }
    for earlier in [aside(last), before(last, 1)] {
        if is_there(&earlier)? {
            return Err(Error::input(format!(
                "{}: is missing, but the checkpoint before it, {}, is there: rename that one to go on from it, or choose another `out`",
                last.display(),
                earlier.display()
            )));
        }
    }
    Ok(false)
}

/// The error of a last checkpoint that can't be used, with the one before it where that is there.
pub(super) fn or_earlier(e: Error, last: &Path) -> Error {
    let earlier = before(last, 1);
    let is_damaged = SafetensorsFile::open(last).is_err();
    match is_damaged && e.exit_code() == 2 && earlier.is_file() {
        true => e.and(&format!(
            "the checkpoint before it is {}: put it in its place to go on from there",
            earlier.display()
        )),
        false => e,
    }
}

/// The name of the `n`-th checkpoint before the last: `NAME.N.safetensors`.
fn before(last: &Path, n: usize) -> PathBuf {
    last.with_extension(format!("{n}.safetensors"))
}

/// The name of a checkpoint while the one that replaces it is written.
fn aside(last: &Path) -> PathBuf {
    last.with_extension("replaced.safetensors")
}

/// What comes after a save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Training goes on whether it worked or not: a full disk may have room again the next time.
    GoesOn,
    /// Nothing: on a full disk the checkpoints before the last make room.
    Ends,
}

/// Gives a file a second name.
type Link = fn(&Path, &Path) -> io::Result<()>;

/// Writes the checkpoint to go on from and keeps the ones before it.
pub(super) struct Keeper {
    /// Whether the last checkpoint lacks something.
    pub(super) unsaved: bool,
    last: PathBuf,
    keep: usize,
    /// The flag of the learning rate.
    rate: &'static str,
    /// The iterations of a step, to tell steps.
    each: u64,
    /// The iterations after which the last checkpoint was written.
    held: Option<u64>,
    /// The iterations whose state could not be saved, as was told.
    missed: Option<u64>,
    link: Link,
}

impl Keeper {
    /// For a run whose steps are of `each` iterations. `held`: the iterations that the file at `last` holds.
    pub(super) fn new(
        last: PathBuf,
        keep: usize,
        rate: &'static str,
        each: usize,
        held: Option<u64>,
    ) -> Self {
        Self {
            unsaved: false,
            last,
            keep,
            rate,
            each: each as u64,
            held,
            missed: None,
            link: |file, name| std::fs::hard_link(file, name),
        }
    }

    /// Takes up what a kill in the middle of a save left under the name aside: the last checkpoint still, or the one before it where
    /// the new one was written already. What goes wrong here costs an older checkpoint at most.
    pub(super) fn tidy(&self) {
        let aside = aside(&self.last);
        match is_same(&self.last, &aside) {
            Ok(false) if self.keep > 1 => drop(self.shift(&aside)),
            Ok(_) => drop(std::fs::remove_file(&aside)),
            Err(_) => {}
        }
    }

    /// Of a process that does not write: the first has written the state after `it` iterations.
    pub(super) fn is_written(&mut self, it: u64) {
        self.unsaved = false;
        self.held = Some(it);
    }

    /// The checkpoint to go on from.
    pub(super) fn last(&self) -> &Path {
        &self.last
    }

    /// Whether the last checkpoint was written after `it` iterations or later.
    pub(super) fn holds(&self, it: u64) -> bool {
        self.held.is_some_and(|held| held >= it)
    }

    /// Writes the state after `it` iterations. The file of that name is whole at any instant; the one it replaces is kept where it
    /// is of another iteration. What went wrong with keeping it is handed back: the state is saved all the same. Where the disk is too
    /// full for both, `write` is called a second time, without what was to be kept.
    ///
    /// # Errors
    /// Of `write`; the last checkpoint is then unchanged.
    pub(super) fn save(
        &mut self,
        it: u64,
        mut write: impl FnMut(&Path) -> Result<()>,
    ) -> Result<Option<Error>> {
        let (mut trouble, mut copied) = (None, false);
        let aside = aside(&self.last);
        let keeps = self.keep > 1 && self.held.is_some_and(|held| held != it);
        if keeps {
            match put_aside(&self.last, &aside, self.link) {
                Ok(by_copy) => copied = by_copy,
                Err(e) => trouble = Some(e),
            }
        }
        let mut written = write(&self.last);
        // A second name takes no room; a copy may have taken the state's, which is worth more.
        if copied && written.as_ref().is_err_and(is_full) && std::fs::remove_file(&aside).is_ok() {
            trouble = written.err();
            written = write(&self.last);
        }
        if let Err(e) = written {
            let _ = std::fs::remove_file(&aside);
            return Err(match e {
                Error::Diverged(what) => self.diverged(&what),
                e => e,
            });
        }
        self.held = Some(it);
        if keeps && trouble.is_none() {
            trouble = self.shift(&aside).err();
        }
        Ok(trouble)
    }

    /// Saves the state after `it` iterations by `write`, and tells what went wrong where that does not end the run.
    ///
    /// # Errors
    /// Where the state is not saved and nothing comes after, or for another reason than the disk.
    pub(super) fn save_then(
        &mut self,
        then: Then,
        it: u64,
        observers: &mut Observers,
        mut write: impl FnMut(&Path) -> Result<()>,
    ) -> Result<()> {
        let mut saved = self.save(it, &mut write);
        if let (Then::Ends, Err(e)) = (then, &saved)
            && let Some(line) = self.make_room(e)
        {
            observers.warn(&line);
            saved = self.save(it, &mut write);
        }
        match saved {
            Ok(kept) => {
                self.unsaved = false;
                if let Some(e) = kept {
                    observers.warn(&format!(
                        "{e}; the state is saved, but the checkpoint before it is not kept"
                    ));
                }
                Ok(())
            }
            Err(e @ Error::Io { .. }) if then == Then::GoesOn => {
                if let Some(line) = self.missed(it, &e) {
                    observers.warn(&line);
                }
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// What to tell where the state after `it` iterations could not be saved and the run goes on; nothing the second time.
    pub(super) fn missed(&mut self, it: u64, e: &Error) -> Option<String> {
        let step = it / self.each;
        (self.missed.replace(it) != Some(it)).then(|| {
            format!(
                "{e}; the state after step {step} is not saved, the run goes on and will try again"
            )
        })
    }

    /// Where a disk is so full that the last save of a run failed by it: removes the checkpoints before the last. What to tell, where
    /// there were any.
    pub(super) fn make_room(&self, e: &Error) -> Option<String> {
        let earlier = (1..self.keep).map(|n| before(&self.last, n));
        let removed: Vec<_> = earlier
            .filter(|path| is_full(e) && std::fs::remove_file(path).is_ok())
            .map(|path| path.display().to_string())
            .collect();
        (!removed.is_empty()).then(|| format!("{e}; removed {} to make room", removed.join(", ")))
    }

    /// The error of a run that could not save the state after `it` iterations, its last.
    pub(super) fn lost(&self, it: u64, e: Error) -> Error {
        if matches!(e, Error::Diverged(_)) {
            return e;
        }
        let step = it / self.each;
        self.explain(e.and(&format!("the state after step {step} is not saved")))
    }

    /// Makes the file `aside` the one before the last, and the others older by one.
    fn shift(&self, aside: &Path) -> Result<()> {
        for n in (1..self.keep - 1).rev() {
            let (from, to) = (before(&self.last, n), before(&self.last, n + 1));
            match std::fs::rename(&from, &to) {
                Err(e) if e.kind() != NotFound => return Err(Error::io(&to)(e)),
                _ => {}
            }
        }
        let to = before(&self.last, 1);
        std::fs::rename(aside, &to).map_err(Error::io(&to))
    }

    /// The error of a run whose numbers are none any more; `what` says which.
    pub(super) fn diverged(&self, what: &str) -> Error {
        let (last, rate) = (self.last.display(), self.rate);
        let advice = match self.held {
            None => format!("nothing was saved before; start again with a lower {rate}"),
            Some(held) => {
                let earlier = before(&self.last, 1);
                let further = match is_there(&earlier) {
                    Ok(true) => format!("; to go back further copy {} over it", earlier.display()),
                    _ => String::new(),
                };
                format!(
                    "go on from {last}, saved after step {}, by the same command with a lower {rate}{further}",
                    held / self.each
                )
            }
        };
        Error::Diverged(format!("{what}: the run has diverged; {advice}"))
    }

    /// An error that ends the run, with where the run can go on from.
    pub(super) fn explain(&self, e: Error) -> Error {
        match self.held {
            None => e,
            Some(held) => e.and(&format!(
                "{} holds the state after step {}: run the same command again to go on",
                self.last.display(),
                held / self.each
            )),
        }
    }
}

/// Whether an error says that a disk, or one's share of it, is full.
fn is_full(e: &Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(e, Error::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
}

/// Whether two names are of one file, or of two with the same content.
fn is_same(a: &Path, b: &Path) -> io::Result<bool> {
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    let (of_a, of_b) = (a.metadata()?, b.metadata()?);
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        if (of_a.dev(), of_a.ino()) == (of_b.dev(), of_b.ino()) {
            return Ok(true);
        }
    }
    if of_a.len() != of_b.len() {
        return Ok(false);
    }
    let (mut p, mut q) = (Vec::new(), Vec::new());
    loop {
        for (file, bytes) in [(&mut a, &mut p), (&mut b, &mut q)] {
            bytes.clear();
            file.take(1 << 20).read_to_end(bytes)?;
        }
        if p != q || p.is_empty() {
            return Ok(p == q);
        }
    }
}

/// A second name for the file `last`, or a copy where the file system knows no second names: whether it is one.
fn put_aside(last: &Path, aside: &Path, link: Link) -> Result<bool> {
    match std::fs::remove_file(aside) {
        Err(e) if e.kind() != NotFound => return Err(Error::io(aside)(e)),
        _ => {}
    }
    // Of the file itself where `last` is a link: the link will soon lead to the new one.
    let file = std::fs::canonicalize(last).map_err(Error::io(last))?;
    if link(&file, aside).is_ok() {
        return Ok(false);
    }
    copy_whole(last, aside).map(|()| true)
}

/// Whether an evaluation's figure beats the best so far; one that is no number never does, and is beaten by any.
pub(super) fn is_better(now: f64, best: Option<f64>, beats: impl Fn(f64, f64) -> bool) -> bool {
    now.is_finite() && best.is_none_or(|best| !best.is_finite() || beats(now, best))
}

#[cfg(test)]
mod tests;
