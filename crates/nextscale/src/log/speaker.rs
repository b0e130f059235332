//! Warnings from other threads than the one that trains.

use std::io::Write;

use indicatif::ProgressBar;

use crate::console::shown;

/// Warns on a [`Display`](super::display::Display) from another thread.
#[derive(Debug, Clone)]
pub struct Speaker(Option<ProgressBar>);

impl Speaker {
    /// Above `bar`, where there is one.
    pub(super) fn new(bar: Option<&ProgressBar>) -> Self {
        Self(bar.cloned())
    }

    /// Shows a line that must not be missed, also if the display is quiet.
    pub fn warn(&self, line: &str) {
        let line = format!("warning: {}", shown(line));
        match &self.0 {
            Some(bar) => bar.println(line),
            None => {
                // A terminal that has gone away ends nothing.
                let _ = writeln!(std::io::stderr(), "{line}");
            }
        }
    }
}
