//! Logs that can't be written, and pictures for them that can't be made, do not end a run.

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

    /// Takes what came of making a picture for a log; where the models' numbers make none, says so.
    ///
    /// # Errors
    /// Every other one: of files, of the device, and a stop.
    pub(super) fn picture<T>(made: Result<T>, display: &mut Display) -> Result<Option<T>> {
        use nextscale_tensor::Error::NotNumbers;
        match made {
            Err(e @ (Error::Failed(_) | Error::Tensor(NotNumbers { .. }))) => {
                display.warn(&format!("{e}; the run goes on without this picture"));
                Ok(None)
            }
            other => other.map(Some),
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

    #[test]
    fn a_picture_of_no_numbers_is_told_and_other_faults_go_on() {
        let paper = Paper::default();
        let mut display = Display::plain(Box::new(paper.clone()), 9);
        let mut made = |result: Result<u8>| LogFaults::picture(result, &mut display);
        assert_eq!(made(Ok(7)).unwrap(), Some(7));
        let none = nextscale_tensor::Error::NotNumbers {
            what: "values",
            bad: 1,
            of: 2,
        };
        assert_eq!(made(Err(none.into())).unwrap(), None);
        assert_eq!(made(Err(Error::failed("logits"))).unwrap(), None);
        assert!(matches!(made(Err(Error::Stopped)), Err(Error::Stopped)));
        assert!(made(Err(Error::input("image"))).is_err());
        let full = nextscale_tensor::Error::Memory("full".into());
        assert!(made(Err(full.into())).unwrap_err().is_memory());
        let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(
            lines[0].contains("1 of 2 values") && lines[0].contains("without this picture"),
            "{text}"
        );
    }
}
