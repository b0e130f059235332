//! Looks at the validation images while training goes on, so that a bad one is named at the start and not at the first evaluation.

use super::observers::Observers;
use super::task::Context;
use crate::data::{ImageSource, LoadBuffers};
use crate::options::values::BadImages;
use crate::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Time that goes into decoding; images beyond it are only opened.
const DECODING: Duration = Duration::from_secs(5);
/// Time that the first evaluation gives the looking to end.
const WAIT: Duration = Duration::from_secs(5);
/// Files that are named; the others are counted.
const NAMED: usize = 10;

/// The looking, in a thread of its own; it ends with this.
pub(super) struct ValCheck {
    stop: Arc<AtomicBool>,
    /// Warnings; closed when the looking has ended.
    lines: Receiver<String>,
}

impl ValCheck {
    /// Starts to look at `source`. Images that are stored nowhere are left alone.
    pub(super) fn start(source: Arc<dyn ImageSource>, bad: BadImages) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (warn, lines) = channel();
        let check = Self {
            stop: Arc::clone(&stop),
            lines,
        };
        if source.is_stored() {
            let look = move || {
                // Nobody reads the lines of a run that has ended.
                look(source.as_ref(), bad, &stop, |line| {
                    drop(warn.send(line.to_owned()))
                });
            };
            // Without it the run is what it was: a bad image is met at the evaluation.
            let _ = std::thread::Builder::new()
                .name("check-val".into())
                .spawn(look);
        }
        check
    }

    /// Tells of what was found so far.
    pub(super) fn tell(&self, observers: &mut Observers) {
        self.lines.try_iter().for_each(|line| observers.warn(&line));
    }

    /// Waits a little for the looking to end, and gives it up: an evaluation that comes at once would end the run at the first bad
    /// image, before the others are named.
    ///
    /// # Errors
    /// [`Error::Stopped`] where a stop was asked for.
    pub(super) fn wait(self, cx: &mut Context) -> Result<()> {
        let start = Instant::now();
        let short = Duration::from_millis(20);
        loop {
            match self.lines.recv_timeout(short) {
                Ok(line) => cx.observers.warn(&line),
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => cx.team.stop.check()?,
            }
            if start.elapsed() > WAIT {
                self.tell(&mut cx.observers);
                return Ok(());
            }
        }
    }
}

impl Drop for ValCheck {
    fn drop(&mut self) {
        // Not joined: it may hang on a file system that does not answer.
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn look(source: &dyn ImageSource, bad: BadImages, stop: &AtomicBool, mut warn: impl FnMut(&str)) {
    let outcome = match bad {
        BadImages::Fail => {
            "the evaluation will end the run there, with its state saved; replace or remove the file, or give `bad_images`=skip"
        }
        BadImages::Skip => "evaluations leave it out",
    };
    let mut found = 0;
    let mut tell = |e: Error| {
        found += 1;
        if found <= NAMED {
            let text = e.to_string();
            let text = text
                .strip_suffix("; replace or remove the file")
                .unwrap_or(&text);
            warn(&format!("validation image {text}; {outcome}"));
        }
    };
    let go_on = || !stop.load(Ordering::SeqCst);
    // Opening takes hardly any time, so every file comes first.
    let mut whole = Vec::new();
    for i in (0..source.len()).take_while(|_| go_on()) {
        match source.probe(i) {
            Ok(()) => whole.push(i),
            Err(e) => tell(e),
        }
    }
    let (start, mut buffers) = (Instant::now(), LoadBuffers::default());
    for i in whole {
        if !go_on() || start.elapsed() > DECODING {
            break;
        }
        if let Err(e) = source.load(i, &mut buffers) {
            tell(e);
        }
    }
    if found > NAMED {
        warn(&format!(
            "{} more validation images can't be read",
            found - NAMED
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::FolderSource;
    use std::fs;

    fn lines(source: &dyn ImageSource, bad: BadImages) -> Vec<String> {
        let mut lines = Vec::new();
        let stop = AtomicBool::new(false);
        look(source, bad, &stop, |line| lines.push(line.to_owned()));
        lines
    }

    #[test]
    fn bad_files_are_named_with_what_becomes_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let class = dir.path().join("a");
        fs::create_dir(&class).unwrap();
        fs::write(class.join("good.ppm"), b"P6\n2 1\n255\n123456").unwrap();
        fs::write(class.join("cut.ppm"), b"P6\n2 1\n255\n12").unwrap();
        fs::write(class.join("empty.png"), b"").unwrap();
        fs::write(class.join("gone.png"), b"x").unwrap();
        let source = FolderSource::open(dir.path()).unwrap();
        fs::remove_file(class.join("gone.png")).unwrap();
        let found = lines(&source, BadImages::Fail);
        assert_eq!(found.len(), 3, "{found:?}");
        for (line, part) in
            found
                .iter()
                .zip(["empty.png: is empty; the eval", "gone.png: ", "cut.ppm: "])
        {
            assert!(
                line.contains(part) && line.contains("`bad_images`=skip"),
                "{line}"
            );
        }
        assert!(lines(&source, BadImages::Skip)[0].ends_with("is empty; evaluations leave it out"));
    }

    #[test]
    fn many_bad_files_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let class = dir.path().join("a");
        fs::create_dir(&class).unwrap();
        (0..25).for_each(|i| fs::write(class.join(format!("{i}.png")), b"").unwrap());
        let found = lines(&FolderSource::open(dir.path()).unwrap(), BadImages::Skip);
        assert_eq!(found.len(), NAMED + 1);
        assert_eq!(found[NAMED], "15 more validation images can't be read");
    }
}
