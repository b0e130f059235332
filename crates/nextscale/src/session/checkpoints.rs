//! The checkpoint that a run goes on from: whether it is there, the ones before it, and what to do when the run ends early.

use super::copy_whole;
use crate::checkpoint::{HostDType, StateDict};
use crate::{Error, Result};
use rayon::prelude::*;
use std::io::ErrorKind::NotFound;
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
    let earlier = before(last, 1);
    if is_there(&earlier)? {
        return Err(Error::input(format!(
            "{}: is missing, but the checkpoint before it, {}, is there: rename that one to go on from it, or choose another --out",
            last.display(),
            earlier.display()
        )));
    }
    Ok(false)
}

/// The name of the `n`-th checkpoint before the last: `NAME.N.safetensors`.
fn before(last: &Path, n: usize) -> PathBuf {
    last.with_extension(format!("{n}.safetensors"))
}

/// The name of a checkpoint while the one that replaces it is written.
fn aside(last: &Path) -> PathBuf {
    last.with_extension("replaced.safetensors")
}

/// Writes the checkpoint to go on from and keeps the ones before it.
pub(super) struct Keeper {
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
        // What a kill in the middle of a save left; where nothing is there nothing is to be done.
        let _ = std::fs::remove_file(aside(&last));
        Self {
            last,
            keep,
            rate,
            each: each as u64,
            held,
            missed: None,
        }
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
    /// is of another iteration. What went wrong with keeping it is handed back: the state is saved all the same.
    ///
    /// # Errors
    /// Of `write`; the last checkpoint is then unchanged.
    pub(super) fn save(
        &mut self,
        it: u64,
        write: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Option<Error>> {
        let mut trouble = None;
        let aside = aside(&self.last);
        let keeps = self.keep > 1 && self.held.is_some_and(|held| held != it);
        if keeps {
            trouble = put_aside(&self.last, &aside).err();
        }
        let written = write(&self.last);
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
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        let full = matches!(e, Error::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded));
        let earlier = (1..self.keep).map(|n| before(&self.last, n));
        let removed: Vec<_> = earlier
            .filter(|path| full && std::fs::remove_file(path).is_ok())
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

/// A second name for the file `last`, or a copy where the file system knows no second names.
fn put_aside(last: &Path, aside: &Path) -> Result<()> {
    match std::fs::remove_file(aside) {
        Err(e) if e.kind() != NotFound => return Err(Error::io(aside)(e)),
        _ => {}
    }
    // Of the file itself where `last` is a link: the link will soon lead to the new one.
    let file = std::fs::canonicalize(last).map_err(Error::io(last))?;
    std::fs::hard_link(file, aside).or_else(|_| copy_whole(last, aside))
}

/// Which of these sets of tensors holds a number that is none, in words.
pub(super) fn not_finite(parts: &[(&str, &StateDict)]) -> Option<String> {
    const EXPONENT: u32 = 0x7f80_0000;
    let is_bad = |bytes: &[u8]| {
        let (words, _) = bytes.as_chunks::<4>();
        words.iter().fold(false, |bad, w| {
            bad | (u32::from_le_bytes(*w) & EXPONENT == EXPONENT)
        })
    };
    parts.iter().find_map(|(what, dict)| {
        let mut tensors = dict.iter().filter(|(_, t)| t.dtype == HostDType::F32);
        let (name, _) = tensors.find(|(_, t)| t.data.par_chunks(1 << 20).any(is_bad))?;
        Some(format!("{what} of {name} hold numbers that are not finite"))
    })
}

/// Whether an evaluation's figure beats the best so far; one that is no number never does, and is beaten by any.
pub(super) fn is_better(now: f64, best: Option<f64>, beats: impl Fn(f64, f64) -> bool) -> bool {
    now.is_finite() && best.is_none_or(|best| !best.is_finite() || beats(now, best))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::HostTensor;
    use std::fs;

    fn keeper(dir: &Path, keep: usize, held: Option<u64>) -> Keeper {
        Keeper::new(dir.join("last.safetensors"), keep, "--lr", 2, held)
    }

    fn put<'a>(text: &'a str) -> impl FnOnce(&Path) -> Result<()> + 'a {
        move |path| crate::checkpoint::write_atomic(path, |w| w.write_all(text.as_bytes()))
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut all: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        all.sort();
        all
    }

    #[test]
    fn the_checkpoints_before_the_last_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let text = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
        let mut k = keeper(dir, 3, None);
        for (it, content) in [(2, "a"), (4, "b"), (6, "c"), (8, "d")] {
            assert!(k.save(it, put(content)).unwrap().is_none());
        }
        let all = [
            "last.1.safetensors",
            "last.2.safetensors",
            "last.safetensors",
        ];
        assert_eq!(names(dir), all);
        assert_eq!(all.map(text), ["c", "b", "d"]);
        // The same iteration again is the same checkpoint.
        k.save(8, put("D")).unwrap();
        assert_eq!(all.map(text), ["c", "b", "D"]);
        // What can't be written leaves all as it was.
        let full = |_: &Path| Err(Error::failed("full"));
        assert_eq!(k.save(10, full).unwrap_err().to_string(), "full");
        assert_eq!(names(dir), all);
        assert_eq!(all.map(text), ["c", "b", "D"]);
        assert!(k.holds(8) && !k.holds(10));
        // A name that can't be taken costs the older one, not the state.
        fs::remove_file(dir.join(all[0])).unwrap();
        fs::create_dir_all(dir.join(all[0]).join("x")).unwrap();
        assert!(k.save(12, put("e")).unwrap().is_some());
        assert_eq!(text(all[2]), "e");
    }

    #[cfg(unix)]
    #[test]
    fn a_linked_checkpoint_is_kept_as_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        fs::create_dir(dir.join("other")).unwrap();
        let last = dir.join("last.safetensors");
        fs::write(dir.join("other/real"), "a").unwrap();
        std::os::unix::fs::symlink(dir.join("other/real"), &last).unwrap();
        let mut k = keeper(dir, 2, Some(2));
        k.save(4, put("b")).unwrap();
        assert!(fs::symlink_metadata(&last).unwrap().is_symlink());
        let text = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
        assert_eq!(
            (text("other/real"), text("last.1.safetensors")),
            ("b".into(), "a".into())
        );
    }

    #[test]
    fn room_is_made_on_a_full_disk_only() {
        let dir = tempfile::tempdir().unwrap();
        let mut k = keeper(dir.path(), 2, None);
        k.save(2, put("a")).unwrap();
        k.save(4, put("b")).unwrap();
        let of = |kind: std::io::ErrorKind| Error::io("x")(kind.into());
        assert_eq!(k.make_room(&of(std::io::ErrorKind::PermissionDenied)), None);
        assert_eq!(k.make_room(&Error::failed("full")), None);
        let text = k.make_room(&of(std::io::ErrorKind::StorageFull)).unwrap();
        assert!(
            text.contains("removed ") && text.contains("last.1.safetensors"),
            "{text}"
        );
        assert_eq!(names(dir.path()), ["last.safetensors"]);
        assert_eq!(k.make_room(&of(std::io::ErrorKind::StorageFull)), None);
        let e = k.lost(6, of(std::io::ErrorKind::StorageFull));
        assert!(
            e.to_string().contains("after step 3 is not saved; ")
                && e.to_string().contains("holds the state after step 2"),
            "{e}"
        );
        assert_eq!(e.exit_code(), 1);
        // What has diverged is to be forgotten, not missed.
        let bad = k.lost(6, Error::Diverged("NaN".into())).to_string();
        assert_eq!(bad, "NaN");
        assert!(
            k.missed(6, &e).is_some() && k.missed(6, &e).is_none() && k.missed(8, &e).is_some()
        );
    }

    #[test]
    fn one_checkpoint_is_kept_where_one_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut k = keeper(dir.path(), 1, None);
        k.save(2, put("a")).unwrap();
        k.save(4, put("b")).unwrap();
        assert_eq!(names(dir.path()), ["last.safetensors"]);
    }

    #[test]
    fn advice_names_files_that_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let mut k = keeper(dir.path(), 2, None);
        let line = |k: &Keeper| k.diverged("the loss is NaN").to_string();
        assert_eq!(
            line(&k),
            "the loss is NaN: the run has diverged; nothing was saved before; start again with a lower --lr"
        );
        k.save(2, put("a")).unwrap();
        let text = line(&k);
        assert!(
            text.contains("last.safetensors, saved after step 1, by"),
            "{text}"
        );
        assert!(!text.contains("last.1"), "{text}");
        k.save(4, put("b")).unwrap();
        let text = line(&k);
        assert!(
            text.contains("after step 2") && text.contains("last.1.safetensors over it"),
            "{text}"
        );
        let bad = k.save(6, |_| Err(Error::Diverged("weights".into())));
        let bad = bad.unwrap_err();
        assert!(
            matches!(&bad, Error::Diverged(t) if t.starts_with("weights: the run has diverged; go on")),
            "{bad}"
        );
    }

    #[test]
    fn only_what_is_known_to_be_missing_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let last = dir.path().join("last.safetensors");
        assert!(!last_is_there(&last).unwrap());
        fs::write(&last, "x").unwrap();
        assert!(last_is_there(&last).unwrap());
        // A path through a file, and names too long to exist, say nothing of the file.
        assert!(is_there(&last.join("below")).is_err());
        assert!(is_there(&dir.path().join("n".repeat(300))).is_err());
        fs::rename(&last, before(&last, 1)).unwrap();
        let line = last_is_there(&last).unwrap_err().to_string();
        assert!(
            line.contains("last.1.safetensors, is there: rename"),
            "{line}"
        );
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(dir.path().join("nowhere"), &last).unwrap();
            let e = last_is_there(&last).unwrap_err();
            assert!(e.to_string().contains("is a link to a file"), "{e}");
            assert_eq!(e.exit_code(), 2);
            fs::remove_file(&last).unwrap();
            std::os::unix::fs::symlink(&last, &last).unwrap();
            assert!(last_is_there(&last).is_err(), "a link to itself");
        }
    }

    #[test]
    fn numbers_that_are_none_are_found() {
        let dict = |values: &[f32]| -> StateDict {
            let t = HostTensor::from_f32(&[values.len()], values).unwrap();
            [("a.weight".to_owned(), t)].into_iter().collect()
        };
        let (good, bad) = (dict(&[0.0, f32::MAX, -1e-40]), dict(&[1.0, f32::NAN]));
        assert_eq!(not_finite(&[("weights", &good), ("moments", &good)]), None);
        let text = not_finite(&[("the weights", &good), ("the moments", &bad)]).unwrap();
        assert_eq!(
            text,
            "the moments of a.weight hold numbers that are not finite"
        );
        assert!(not_finite(&[("w", &dict(&[f32::NEG_INFINITY]))]).is_some());
    }

    #[test]
    fn no_number_is_never_the_best() {
        let lower = |now, best| is_better(now, best, |a, b| a < b);
        assert!(lower(1.0, None) && lower(1.0, Some(2.0)) && !lower(2.0, Some(2.0)));
        assert!(lower(1.0, Some(f64::NAN)));
        assert!(
            !lower(f64::NAN, None)
                && !lower(f64::NAN, Some(f64::NAN))
                && !lower(f64::NAN, Some(1.0))
        );
        assert!(!lower(f64::NEG_INFINITY, Some(1.0)));
    }
}
