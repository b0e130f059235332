//! `steps.jsonl`: one line for each logged step.

use super::Observer;
use crate::Result;
use crate::log::lines::{LineFile, finite};
use crate::run::event::{Event, Step};
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::path::Path;

/// Name of the file inside the output folder.
pub const STEPS_FILE: &str = "steps.jsonl";

/// Writes steps down.
#[derive(Debug)]
pub(crate) struct StepLog {
    lines: LineFile,
    every: u64,
}

/// A step as a line: its number and epoch, its figures by their names, images a second and the share of the time spent waiting for
/// images. Floats read back exactly; a value that is not known or not finite is `null`.
struct Line<'a>(&'a Step<'a>);

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let step = self.0;
        let seconds = step.seconds.max(1e-9);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("step", &step.number)?;
        map.serialize_entry("epoch", &step.epoch)?;
        for metric in step.metrics.iter() {
            map.serialize_entry(&metric.name, &finite(metric.value))?;
        }
        let rate = step.images as f64 / seconds;
        map.serialize_entry("images_per_s", &finite(Some(rate)))?;
        let wait = (step.data_seconds / seconds).clamp(0.0, 1.0);
        map.serialize_entry("data_wait", &finite(Some(wait)))?;
        map.end()
    }
}

/// The number of a line's step.
#[derive(serde::Deserialize)]
struct Number {
    step: u64,
}

impl StepLog {
    /// Opens the file in the folder `dir` for a run that has done `step` steps: later lines, unreadable
    /// ones and a torn last one are dropped. A new run has done 0 steps and starts empty. Every so many steps are written.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) naming the file.
    pub(crate) fn open(dir: &Path, step: u64, every: u64) -> Result<Self> {
        let lines = LineFile::open(dir.join(STEPS_FILE), None, |_, line| {
            serde_json::from_str::<Number>(line).is_ok_and(|line| line.step <= step)
        })?;
        let every = every.max(1);
        Ok(Self { lines, every })
    }
}

impl Observer for StepLog {
    fn see(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Step(step) if step.number.is_multiple_of(self.every) => {
                self.lines.append(&Line(step))
            }
            // A checkpoint counts on the lines before it.
            Event::Saving => self.lines.sync(),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::event::Metrics;
    use proptest::prelude::*;
    use std::fs;

    fn metrics(step: u64) -> Metrics {
        Metrics::new()
            .with("loss", 8.0 / step as f64)
            .with("accuracy", 0.1 * step as f64)
            .with("grad_norm", 1.0)
            .with("lr", 1e-4 / 3.0)
            .with("wd", 0.05)
            .with("loss_scale", None)
    }

    fn see(log: &mut StepLog, number: u64, metrics: &Metrics) {
        log.see(&Event::Step(Step {
            number,
            epoch: 1 + number / 4,
            metrics,
            images: 199,
            seconds: 2.0,
            data_seconds: 0.02,
            remaining: None,
        }))
        .unwrap();
    }

    fn append(log: &mut StepLog, number: u64) {
        see(log, number, &metrics(number));
    }

    fn text(dir: &Path) -> String {
        fs::read_to_string(dir.join(STEPS_FILE)).unwrap()
    }

    fn numbers(dir: &Path) -> Vec<u64> {
        let text = text(dir);
        assert!(text.is_empty() || text.ends_with('\n'));
        let number = |line| serde_json::from_str::<Number>(line).unwrap().step;
        text.lines().map(number).collect()
    }

    #[test]
    fn one_line_has_these_keys() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = StepLog::open(dir.path(), 0, 1).unwrap();
        let odd = Metrics::new()
            .with("loss", f64::INFINITY)
            .with("accuracy", 0.1 * 3.0)
            .with("grad_norm", 1.0)
            .with("lr", 1e-4 / 3.0)
            .with("wd", 0.05)
            .with("loss_scale", 2048.0);
        see(&mut log, 3, &odd);
        see(&mut log, 4, &metrics(4));
        assert_eq!(
            text(dir.path()),
            r#"{"step":3,"epoch":1,"loss":null,"accuracy":0.30000000000000004,"grad_norm":1.0,"lr":0.000033333333333333335,"wd":0.05,"loss_scale":2048.0,"images_per_s":99.5,"data_wait":0.01}
{"step":4,"epoch":2,"loss":2.0,"accuracy":0.4,"grad_norm":1.0,"lr":0.000033333333333333335,"wd":0.05,"loss_scale":null,"images_per_s":99.5,"data_wait":0.01}
"#
        );
    }

    #[test]
    fn every_so_many_steps_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = StepLog::open(dir.path(), 0, 3).unwrap();
        (1..=10).for_each(|step| append(&mut log, step));
        assert_eq!(numbers(dir.path()), [3, 6, 9]);
    }

    #[test]
    fn a_resumed_run_writes_what_an_unbroken_one_does() {
        let whole = tempfile::tempdir().unwrap();
        let mut log = StepLog::open(whole.path(), 0, 1).unwrap();
        (1..=10).for_each(|step| append(&mut log, step));

        // Saved at step 4, killed in the middle of writing step 8.
        let broken = tempfile::tempdir().unwrap();
        let mut log = StepLog::open(broken.path(), 0, 1).unwrap();
        (1..=7).for_each(|step| append(&mut log, step));
        log.see(&Event::Saving).unwrap();
        drop(log);
        let path = broken.path().join(STEPS_FILE);
        let mut cut = text(broken.path());
        cut.push_str(r#"{"step":8,"epo"#);
        fs::write(&path, cut).unwrap();
        let mut log = StepLog::open(broken.path(), 4, 1).unwrap();
        (5..=10).for_each(|step| append(&mut log, step));
        assert_eq!(text(broken.path()), text(whole.path()));
    }

    #[test]
    fn a_new_run_starts_empty() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = StepLog::open(dir.path(), 0, 1).unwrap();
        append(&mut log, 1);
        drop(log);
        StepLog::open(dir.path(), 0, 1).unwrap();
        assert!(numbers(dir.path()).is_empty());
    }

    #[test]
    fn a_torn_line_is_dropped_even_where_it_happens_to_be_whole() {
        let dir = tempfile::tempdir().unwrap();
        let line = r#"{"step":1,"epoch":1,"loss":2.0}"#;
        fs::write(dir.path().join(STEPS_FILE), format!("{line}\n{line}")).unwrap();
        StepLog::open(dir.path(), 9, 1).unwrap();
        assert_eq!(numbers(dir.path()), [1]);
    }

    proptest! {
        #[test]
        fn floats_read_back_exactly(value in prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO) {
            let dir = tempfile::tempdir().unwrap();
            let mut log = StepLog::open(dir.path(), 0, 1).unwrap();
            see(&mut log, 1, &Metrics::new().with("loss", value).with("lr", value));
            let line: serde_json::Value = serde_json::from_str(&text(dir.path())).unwrap();
            for key in ["loss", "lr"] {
                prop_assert_eq!(line[key].as_f64().map(f64::to_bits), Some(value.to_bits()));
            }
        }

        #[test]
        fn a_file_cut_anywhere_keeps_its_whole_lines(bytes in 0usize..2000, step in 0u64..12) {
            let dir = tempfile::tempdir().unwrap();
            let mut log = StepLog::open(dir.path(), 0, 1).unwrap();
            (1..=10).for_each(|step| append(&mut log, step));
            let path = dir.path().join(STEPS_FILE);
            let mut content = fs::read(&path).unwrap();
            content.truncate(bytes);
            let whole = content.iter().filter(|&&byte| byte == b'\n').count() as u64;
            fs::write(&path, &content).unwrap();
            StepLog::open(dir.path(), step, 1).unwrap();
            let expected: Vec<u64> = (1..=whole.min(step)).collect();
            prop_assert_eq!(numbers(dir.path()), expected);
        }
    }
}
