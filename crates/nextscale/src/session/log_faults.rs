//! Logs that can't be written do not end a run.

use crate::log::display::Display;
use crate::{Error, Result};
use std::collections::BTreeSet;

/// The logs that could not be written, each of which was told once.
#[derive(Default)]
pub(super) struct LogFaults(BTreeSet<String>);

impl LogFaults {
    /// Takes what came of writing a log: says so where it failed.
    pub(super) fn pass(&mut self, written: Result<()>, display: &mut Display) {
        let Err(e) = written else { return };
        let log = match &e {
            Error::Io { path, .. } => path.display().to_string(),
            other => other.to_string(),
        };
        if self.0.insert(log) {
            display.warn(&format!(
                "{e}; the run goes on, but what this log should hold may be lost"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_log_that_fails_is_told_once() {
        let paper = Paper::default();
        let mut display = Display::plain(Box::new(paper.clone()), 9);
        let mut faults = LogFaults::default();
        let full = |name: &str| Err(Error::io(name)(std::io::ErrorKind::StorageFull.into()));
        for written in [
            Ok(()),
            full("steps.jsonl"),
            full("steps.jsonl"),
            full("log.txt"),
            Ok(()),
        ] {
            faults.pass(written, &mut display);
        }
        let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(
            lines[0].starts_with("warning: steps.jsonl: ") && lines[0].contains("the run goes on")
        );
        assert!(lines[1].starts_with("warning: log.txt: "));
    }
}
