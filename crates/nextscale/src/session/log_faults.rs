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
