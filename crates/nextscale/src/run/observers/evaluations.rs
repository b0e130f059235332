//! `evaluations.jsonl`: one line for each evaluation.

use super::Observer;
use crate::Result;
use crate::log::lines::{LineFile, finite};
use crate::run::event::{Evaluated, Event};
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::path::Path;

/// Name of the file inside the output folder.
pub const EVALUATIONS_FILE: &str = "evaluations.jsonl";

/// Writes evaluations down.
#[derive(Debug)]
pub(crate) struct EvaluationLog {
    lines: LineFile,
}

/// An evaluation as a line: iterations done, and its figures by their names. What is not known or not finite is `null`.
struct Line<'a>(&'a Evaluated<'a>);

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("iteration", &self.0.iteration)?;
        for metric in self.0.metrics.iter() {
            map.serialize_entry(&metric.name, &finite(metric.value))?;
        }
        map.end()
    }
}

/// The number of a line's evaluation.
#[derive(serde::Deserialize)]
struct Number {
    iteration: u64,
}

impl EvaluationLog {
    /// Opens the file in the folder `dir` for a run that has done `iterations` with what comes after them: later lines, unreadable ones
    /// and a torn last one are dropped.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) naming the file.
    pub(crate) fn open(dir: &Path, iterations: u64) -> Result<Self> {
        let lines = LineFile::open(dir.join(EVALUATIONS_FILE), None, |_, line| {
            serde_json::from_str::<Number>(line).is_ok_and(|line| line.iteration <= iterations)
        })?;
        Ok(Self { lines })
    }
}

impl Observer for EvaluationLog {
    fn see(&mut self, event: &Event<'_>) -> Result<()> {
        let Event::Evaluated(evaluated) = event else {
            return Ok(());
        };
        self.lines.append(&Line(evaluated))?;
        self.lines.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::event::Metrics;

    fn append(log: &mut EvaluationLog, iteration: u64) {
        let metrics = Metrics::new()
            .with("loss", 4.5 / iteration as f64)
            .with("loss_tail", None)
            .with("chance", f64::INFINITY);
        log.see(&Event::Evaluated(Evaluated {
            iteration,
            metrics: &metrics,
            scalars: &Metrics::new(),
            text: "",
        }))
        .unwrap();
    }

    #[test]
    fn a_resumed_run_writes_what_an_unbroken_one_does() {
        let text = |dir: &Path| std::fs::read_to_string(dir.join(EVALUATIONS_FILE)).unwrap();
        let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut log = EvaluationLog::open(whole.path(), 0).unwrap();
        (1..=3).for_each(|n| append(&mut log, 3 * n));
        let first = r#"{"iteration":3,"loss":1.5,"loss_tail":null,"chance":null}"#;
        assert_eq!(text(whole.path()).lines().next(), Some(first));

        let mut log = EvaluationLog::open(broken.path(), 0).unwrap();
        (1..=2).for_each(|n| append(&mut log, 3 * n));
        // Saved before the evaluation after iteration 6, which is made again.
        let mut log = EvaluationLog::open(broken.path(), 5).unwrap();
        (2..=3).for_each(|n| append(&mut log, 3 * n));
        assert_eq!(text(broken.path()), text(whole.path()));
    }
}
