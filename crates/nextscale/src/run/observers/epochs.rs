//! `log.txt`: a line about the run, then one JSON object for each epoch, with the keys of the reference.

use super::Observer;
use crate::Result;
use crate::log::clock::{format_duration, format_utc};
use crate::log::lines::{LineFile, finite, json};
use crate::run::event::{Epoch, Event};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use std::path::Path;
use std::time::SystemTime;

/// Name of the file inside the output folder.
pub const EPOCH_FILE: &str = "log.txt";

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// Whether the first process wrote the file; it always does.
    is_master: bool,
    /// `--exp_name`.
    name: String,
    /// The command line's arguments.
    cmd: String,
    /// The program's version.
    version: String,
    /// Folder of the TensorBoard event files.
    tb_log_dir_path: String,
}

impl Header {
    /// The header of a run of this program.
    pub(crate) fn new(name: &str, cmd: &str, tb_dir: &Path) -> Self {
        Self {
            is_master: true,
            name: name.to_owned(),
            cmd: cmd.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            tb_log_dir_path: tb_dir.display().to_string(),
        }
    }
}

/// Stands for times that are not known, as the reference has it.
const UNKNOWN: &str = "-";

/// An epoch as a line. Values that are not known or not finite are `null`: those of the last scale while progressive training leaves it
/// out, and those of the validation in epochs without.
struct Line<'a>(&'a Epoch<'a>);

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let epoch = self.0;
        let remaining = epoch.remaining;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("it", &format!("{}/{}", epoch.made, epoch.iterations))?;
        map.serialize_entry("ep", &format!("{}/{}", epoch.number, epoch.epochs))?;
        for metric in epoch.metrics.iter() {
            map.serialize_entry(&metric.name, &finite(metric.value))?;
        }
        let rest = remaining.map_or(UNKNOWN.into(), format_duration);
        map.serialize_entry("remain_time", &rest)?;
        let end = remaining.map_or(UNKNOWN.into(), |t| format_utc(SystemTime::now() + t));
        map.serialize_entry("finish_time", &end)?;
        map.end()
    }
}

/// What is read of a line again.
#[derive(Deserialize)]
struct Number {
    /// The epoch and their number, as `3/10`.
    ep: String,
}

impl Number {
    /// The epoch.
    fn done(&self) -> Option<u64> {
        let (done, all) = self.ep.split_once('/')?;
        all.parse::<u64>().ok()?;
        done.parse().ok()
    }
}

/// Writes epochs down.
#[derive(Debug)]
pub(crate) struct EpochLog {
    lines: LineFile,
}

impl EpochLog {
    /// Opens the file in the folder `dir` for a run that has done `epochs` epochs. The lines of later
    /// epochs, unreadable ones and a torn last one are dropped. A new run (0 epochs) starts with `header`
    /// alone; a resumed one keeps the header that is there.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) naming the file.
    pub(crate) fn open(dir: &Path, header: &Header, epochs: u64) -> Result<Self> {
        let first = json(header)?;
        let lines = LineFile::open(dir.join(EPOCH_FILE), Some(&first), |number, line| {
            if number == 0 {
                epochs > 0 && serde_json::from_str::<Header>(line).is_ok()
            } else {
                let number = serde_json::from_str::<Number>(line).ok();
                number.and_then(|n| n.done()).is_some_and(|n| n <= epochs)
            }
        })?;
        Ok(Self { lines })
    }
}

impl Observer for EpochLog {
    fn see(&mut self, event: &Event<'_>) -> Result<()> {
        let Event::Epoch(epoch) = event else {
            return Ok(());
        };
        self.lines.append(&Line(epoch))?;
        self.lines.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::event::Metrics;
    use serde_json::Value;
    use std::fs;
    use std::time::Duration;

    fn header() -> Header {
        Header::new("run \"a\"", "`depth`=16", Path::new("local_output/tb"))
    }

    fn append(log: &mut EpochLog, number: u64, remaining: Option<Duration>) {
        let metrics = Metrics::new()
            .with("lr", 1e-4 / number as f64)
            .with("L_mean", 8.3)
            .with("L_tail", None)
            .with("acc_tail", f64::NAN);
        log.see(&Event::Epoch(Epoch {
            number,
            epochs: 20,
            iterations: 50,
            made: 50,
            metrics: &metrics,
            scalars: &Metrics::new(),
            remaining,
        }))
        .unwrap();
    }

    fn text(dir: &Path) -> String {
        fs::read_to_string(dir.join(EPOCH_FILE)).unwrap()
    }

    #[test]
    fn a_line_has_its_figures_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = EpochLog::open(dir.path(), &header(), 0).unwrap();
        append(&mut log, 11, None);
        append(&mut log, 12, Some(Duration::from_secs(62)));
        let text = text(dir.path());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1],
            r#"{"it":"50/50","ep":"11/20","lr":9.090909090909091e-6,"L_mean":8.3,"L_tail":null,"acc_tail":null,"remain_time":"-","finish_time":"-"}"#
        );
        let value: Value = serde_json::from_str(lines[2]).unwrap();
        assert_eq!(value["remain_time"], "0:01:02");
        assert!(value["finish_time"].as_str().unwrap().ends_with(" UTC"));
    }

    #[test]
    fn a_resumed_run_writes_what_an_unbroken_one_does() {
        let whole = tempfile::tempdir().unwrap();
        let mut log = EpochLog::open(whole.path(), &header(), 0).unwrap();
        (1..=12).for_each(|epoch| append(&mut log, epoch, None));

        let broken = tempfile::tempdir().unwrap();
        let path = broken.path().join(EPOCH_FILE);
        let mut log = EpochLog::open(broken.path(), &header(), 0).unwrap();
        (1..=11).for_each(|epoch| append(&mut log, epoch, None));
        let mut cut = text(broken.path());
        cut.push_str(r#"{"it":"1"#);
        fs::write(&path, cut).unwrap();
        // The resumed command may differ; the header stays the first one's.
        let other = Header::new("b", "", Path::new("x"));
        let mut log = EpochLog::open(broken.path(), &other, 9).unwrap();
        (10..=12).for_each(|epoch| append(&mut log, epoch, None));

        let content = text(broken.path());
        assert_eq!(content, text(whole.path()));
        let first: Header = serde_json::from_str(content.lines().next().unwrap()).unwrap();
        assert_eq!(first, header());
        assert_eq!(content.lines().count(), 13);
    }

    #[test]
    fn a_new_run_starts_with_its_own_header() {
        let dir = tempfile::tempdir().unwrap();
        let old = Header::new("old", "", Path::new("x"));
        let mut log = EpochLog::open(dir.path(), &old, 0).unwrap();
        append(&mut log, 1, None);
        EpochLog::open(dir.path(), &header(), 0).unwrap();
        assert_eq!(text(dir.path()), format!("{}\n", json(&header()).unwrap()));
    }

    #[test]
    fn a_lost_header_is_put_back() {
        let dir = tempfile::tempdir().unwrap();
        EpochLog::open(dir.path(), &header(), 3).unwrap();
        assert_eq!(text(dir.path()), format!("{}\n", json(&header()).unwrap()));
    }
}
