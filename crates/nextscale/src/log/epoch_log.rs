//! `log.txt`: a line about the run, then one JSON object for each epoch.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::lines::{LineFile, json};
use crate::Result;

/// Name of the file inside the output folder.
pub const EPOCH_FILE: &str = "log.txt";

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Whether the first process wrote the file; it always does.
    pub is_master: bool,
    /// `--exp_name`.
    pub name: String,
    /// The command line's arguments.
    pub cmd: String,
    /// The program's version.
    pub version: String,
    /// Folder of the TensorBoard event files.
    pub tb_log_dir_path: String,
}

impl Header {
    /// The header of a run of this program.
    pub fn new(name: &str, cmd: &str, tb_dir: &Path) -> Self {
        Self {
            is_master: true,
            name: name.to_owned(),
            cmd: cmd.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            tb_log_dir_path: tb_dir.display().to_string(),
        }
    }
}

/// How much of something is done, written `done/all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Done {
    /// The part that is done.
    pub done: u64,
    /// The whole.
    pub all: u64,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.done, self.all)
    }
}

impl FromStr for Done {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |word: &str| word.parse::<u64>().ok();
        text.split_once('/')
            .and_then(|(done, all)| {
                Some(Self {
                    done: parse(done)?,
                    all: parse(all)?,
                })
            })
            .ok_or_else(|| format!("'{text}' is not of the form 3/10"))
    }
}

impl TryFrom<String> for Done {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Done> for String {
    fn from(done: Done) -> Self {
        done.to_string()
    }
}

/// One epoch. Keys are those of the reference. Values that are missing or not finite are `null`: those of
/// the last scale while progressive training leaves it out, and those of the validation in epochs without.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Iterations of the epoch.
    pub it: Done,
    /// Epochs of the run, this one included.
    pub ep: Done,
    /// Learning rate of the last iteration.
    pub lr: f64,
    /// Weight decay of the last iteration.
    pub wd: f64,
    /// Mean global gradient norm.
    pub grad_norm: Option<f64>,
    /// Training loss over all tokens.
    #[serde(rename = "L_mean")]
    pub loss_mean: Option<f64>,
    /// Training loss over the last scale.
    #[serde(rename = "L_tail")]
    pub loss_tail: Option<f64>,
    /// Training accuracy over all tokens, in percent.
    pub acc_mean: Option<f64>,
    /// Training accuracy over the last scale, in percent.
    pub acc_tail: Option<f64>,
    /// Validation loss over all tokens.
    #[serde(rename = "vL_mean")]
    pub val_loss_mean: Option<f64>,
    /// Validation loss over the last scale.
    #[serde(rename = "vL_tail")]
    pub val_loss_tail: Option<f64>,
    /// Validation accuracy over all tokens, in percent.
    #[serde(rename = "vacc_mean")]
    pub val_acc_mean: Option<f64>,
    /// Validation accuracy over the last scale, in percent.
    #[serde(rename = "vacc_tail")]
    pub val_acc_tail: Option<f64>,
    /// Time that the rest of the run will take, see [`format_duration`](super::clock::format_duration).
    pub remain_time: String,
    /// When it will end, see [`format_utc`](super::clock::format_utc).
    pub finish_time: String,
}

/// The open file.
#[derive(Debug)]
pub struct EpochLog {
    lines: LineFile,
}

impl EpochLog {
    /// Opens the file in the folder `dir` for a run that has done `epochs` epochs. The lines of later
    /// epochs, unreadable ones and a torn last one are dropped. A new run (0 epochs) starts with `header`
    /// alone; a resumed one keeps the header that is there.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) naming the file.
    pub fn open(dir: &Path, header: &Header, epochs: u64) -> Result<Self> {
        let first = json(header)?;
        let lines = LineFile::open(dir.join(EPOCH_FILE), Some(&first), |number, line| {
            if number == 0 {
                epochs > 0 && serde_json::from_str::<Header>(line).is_ok()
            } else {
                serde_json::from_str::<EpochRecord>(line)
                    .is_ok_and(|record| record.ep.done <= epochs)
            }
        })?;
        Ok(Self { lines })
    }

    /// Appends one epoch and waits until it is on the disk.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) naming the file.
    pub fn append(&mut self, record: &EpochRecord) -> Result<()> {
        self.lines.append(record)?;
        self.lines.sync()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn header() -> Header {
        Header::new("run \"a\"", "--depth=16", Path::new("local_output/tb"))
    }

    fn record(epoch: u64) -> EpochRecord {
        EpochRecord {
            it: Done { done: 50, all: 50 },
            ep: Done {
                done: epoch,
                all: 20,
            },
            lr: 1e-4 / epoch as f64,
            wd: 0.05,
            grad_norm: Some(1.5),
            loss_mean: Some(8.3),
            loss_tail: None,
            acc_mean: Some(0.1),
            acc_tail: Some(f64::NAN),
            val_loss_mean: None,
            val_loss_tail: None,
            val_acc_mean: None,
            val_acc_tail: None,
            remain_time: "0:01:02".to_owned(),
            finish_time: "2024-01-01 00:00 UTC".to_owned(),
        }
    }

    #[test]
    fn the_keys_of_the_reference_in_its_order() {
        let value: Value = serde_json::from_str(&json(&record(11)).unwrap()).unwrap();
        let keys: Vec<&str> = value
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(
            keys.join(" "),
            "it ep lr wd grad_norm L_mean L_tail acc_mean acc_tail vL_mean vL_tail vacc_mean vacc_tail remain_time finish_time"
        );
        assert_eq!(value["ep"], "11/20");
        assert!(value["acc_tail"].is_null() && value["L_tail"].is_null());
    }

    #[test]
    fn a_resumed_run_writes_what_an_unbroken_one_does() {
        let whole = tempfile::tempdir().unwrap();
        let mut log = EpochLog::open(whole.path(), &header(), 0).unwrap();
        (1..=12).for_each(|epoch| log.append(&record(epoch)).unwrap());

        let broken = tempfile::tempdir().unwrap();
        let path = broken.path().join(EPOCH_FILE);
        let mut log = EpochLog::open(broken.path(), &header(), 0).unwrap();
        (1..=11).for_each(|epoch| log.append(&record(epoch)).unwrap());
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str(r#"{"it":"1"#);
        fs::write(&path, text).unwrap();
        // The resumed command may differ; the header stays the first one's.
        let other = Header::new("b", "", Path::new("x"));
        let mut log = EpochLog::open(broken.path(), &other, 9).unwrap();
        (10..=12).for_each(|epoch| log.append(&record(epoch)).unwrap());

        let content = fs::read_to_string(&path).unwrap();
        assert_eq!(
            content,
            fs::read_to_string(whole.path().join(EPOCH_FILE)).unwrap()
        );
        let first: Header = serde_json::from_str(content.lines().next().unwrap()).unwrap();
        assert_eq!(first, header());
        assert_eq!(content.lines().count(), 13);
    }

    #[test]
    fn a_new_run_starts_with_its_own_header() {
        let dir = tempfile::tempdir().unwrap();
        let mut log =
            EpochLog::open(dir.path(), &Header::new("old", "", Path::new("x")), 0).unwrap();
        log.append(&record(1)).unwrap();
        EpochLog::open(dir.path(), &header(), 0).unwrap();
        let content = fs::read_to_string(dir.path().join(EPOCH_FILE)).unwrap();
        assert_eq!(content, format!("{}\n", json(&header()).unwrap()));
    }

    #[test]
    fn a_lost_header_is_put_back() {
        let dir = tempfile::tempdir().unwrap();
        EpochLog::open(dir.path(), &header(), 3).unwrap();
        let content = fs::read_to_string(dir.path().join(EPOCH_FILE)).unwrap();
        assert_eq!(content, format!("{}\n", json(&header()).unwrap()));
    }

    proptest! {
        #[test]
        fn parts_read_back(done: u64, all: u64) {
            let part = Done { done, all };
            prop_assert_eq!(part.to_string().parse::<Done>().unwrap(), part);
        }

        #[test]
        fn any_text_is_a_part_or_is_refused(text in "\\PC*") {
            let _ = text.parse::<Done>();
        }
    }
}
