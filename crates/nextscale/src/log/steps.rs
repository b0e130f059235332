//! `steps.jsonl`: one line for each logged optimizer step.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::lines::{LineFile, read_number, write_number};
use crate::Result;

/// Name of the file inside the output folder.
pub const STEPS_FILE: &str = "steps.jsonl";

/// One optimizer step. Floats read back exactly; a value that is not finite is `null` in the file.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Optimizer steps done, this one included.
    pub step: u64,
    /// The epoch that the step belongs to, counted from 1.
    pub epoch: u64,
    /// Training loss.
    #[serde(serialize_with = "write_number", deserialize_with = "read_number")]
    pub loss: f64,
    /// What its trainer measures beside.
    #[serde(flatten)]
    pub measures: StepMeasures,
    /// Global gradient norm before clipping.
    #[serde(serialize_with = "write_number", deserialize_with = "read_number")]
    pub grad_norm: f64,
    /// Learning rate.
    pub lr: f64,
    /// Weight decay.
    pub wd: f64,
    /// Loss scale in force, in float16 training.
    pub loss_scale: Option<f64>,
    /// Images per second, over all processes.
    #[serde(serialize_with = "write_number", deserialize_with = "read_number")]
    pub images_per_s: f64,
    /// Share of the time spent waiting for images, from 0 to 1.
    #[serde(serialize_with = "write_number", deserialize_with = "read_number")]
    pub data_wait: f64,
}

/// What a step of each trainer measures beside its loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum StepMeasures {
    /// Of the tokenizer.
    Tokenizer {
        /// Mean absolute error of the images, in [−1, 1].
        #[serde(serialize_with = "write_number", deserialize_with = "read_number")]
        l1: f64,
        /// Mean squared error.
        #[serde(serialize_with = "write_number", deserialize_with = "read_number")]
        l2: f64,
        /// The quantizer's loss.
        #[serde(serialize_with = "write_number", deserialize_with = "read_number")]
        vq_loss: f64,
        /// How near the step's images come to what went in, in dB.
        #[serde(serialize_with = "write_number", deserialize_with = "read_number")]
        psnr_db: f64,
        /// Share of the codebook in use, the mean over all scales, in percent.
        #[serde(serialize_with = "write_number", deserialize_with = "read_number")]
        usage: f64,
    },
    /// Of the transformer. Lines that older versions wrote of a tokenizer read as this too: its share of the codebook was called
    /// accuracy.
    Transformer {
        /// Share of tokens predicted right, in percent.
        #[serde(serialize_with = "write_number", deserialize_with = "read_number")]
        accuracy: f64,
    },
}

/// The open file.
#[derive(Debug)]
pub struct StepLog {
    lines: LineFile,
}

impl StepLog {
    /// Opens the file in the folder `dir` for a run that has done `step` steps: later lines, unreadable
    /// ones and a torn last one are dropped. A new run has done 0 steps and starts empty.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) naming the file.
    pub fn open(dir: &Path, step: u64) -> Result<Self> {
        let lines = LineFile::open(dir.join(STEPS_FILE), None, |_, line| {
            serde_json::from_str::<StepRecord>(line).is_ok_and(|record| record.step <= step)
        })?;
        Ok(Self { lines })
    }

    /// Appends one line.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) naming the file.
    pub fn append(&mut self, record: &StepRecord) -> Result<()> {
        self.lines.append(record)
    }

    /// Waits until all lines are on the disk: call before a checkpoint that counts on them.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) naming the file.
    pub fn sync(&self) -> Result<()> {
        self.lines.sync()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn record(step: u64) -> StepRecord {
        StepRecord {
            step,
            epoch: 1 + step / 4,
            loss: 8.0 / step as f64,
            measures: StepMeasures::Transformer {
                accuracy: 0.1 * step as f64,
            },
            grad_norm: 1.0,
            lr: 1e-4 / 3.0,
            wd: 0.05,
            loss_scale: None,
            images_per_s: 99.5,
            data_wait: 0.01,
        }
    }

    fn read(dir: &Path) -> Vec<StepRecord> {
        let text = fs::read_to_string(dir.join(STEPS_FILE)).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn one_line_has_these_keys() {
        let line = serde_json::to_string(&StepRecord {
            loss: f64::INFINITY,
            loss_scale: Some(2048.0),
            ..record(3)
        })
        .unwrap();
        assert_eq!(
            line,
            r#"{"step":3,"epoch":1,"loss":null,"accuracy":0.30000000000000004,"grad_norm":1.0,"lr":0.000033333333333333335,"wd":0.05,"loss_scale":2048.0,"images_per_s":99.5,"data_wait":0.01}"#
        );
        let back: StepRecord = serde_json::from_str(&line).unwrap();
        assert!(back.loss.is_nan());
    }

    #[test]
    fn a_tokenizers_line_has_its_own_names() {
        let of_tokenizer = StepRecord {
            measures: StepMeasures::Tokenizer {
                l1: 0.25,
                l2: 0.04,
                vq_loss: 0.5,
                psnr_db: 20.0,
                usage: 12.5,
            },
            ..record(3)
        };
        let line = serde_json::to_string(&of_tokenizer).unwrap();
        assert_eq!(
            line,
            r#"{"step":3,"epoch":1,"loss":2.6666666666666665,"l1":0.25,"l2":0.04,"vq_loss":0.5,"psnr_db":20.0,"usage":12.5,"grad_norm":1.0,"lr":0.000033333333333333335,"wd":0.05,"loss_scale":null,"images_per_s":99.5,"data_wait":0.01}"#
        );
        let back: StepRecord = serde_json::from_str(&line).unwrap();
        assert_eq!(back, of_tokenizer);
    }

    #[test]
    fn lines_of_an_older_version_are_kept_on_resuming() {
        let dir = tempfile::tempdir().unwrap();
        let old = |step: u64| {
            format!(
                r#"{{"step":{step},"epoch":1,"loss":0.5,"accuracy":99.2,"grad_norm":1.0,"lr":0.0003,"wd":0.005,"loss_scale":null,"images_per_s":9.5,"data_wait":0.01}}"#
            )
        };
        let text = format!("{}\n{}\n{}\n", old(1), old(2), old(3));
        fs::write(dir.path().join(STEPS_FILE), text).unwrap();
        StepLog::open(dir.path(), 2).unwrap();
        let kept = fs::read_to_string(dir.path().join(STEPS_FILE)).unwrap();
        assert_eq!(kept, format!("{}\n{}\n", old(1), old(2)));
    }

    #[test]
    fn a_resumed_run_writes_what_an_unbroken_one_does() {
        let whole = tempfile::tempdir().unwrap();
        let mut log = StepLog::open(whole.path(), 0).unwrap();
        (1..=10).for_each(|step| log.append(&record(step)).unwrap());

        // Saved at step 4, killed in the middle of writing step 8.
        let broken = tempfile::tempdir().unwrap();
        let mut log = StepLog::open(broken.path(), 0).unwrap();
        (1..=7).for_each(|step| log.append(&record(step)).unwrap());
        log.sync().unwrap();
        drop(log);
        let path = broken.path().join(STEPS_FILE);
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str(r#"{"step":8,"epo"#);
        fs::write(&path, text).unwrap();
        let mut log = StepLog::open(broken.path(), 4).unwrap();
        (5..=10).for_each(|step| log.append(&record(step)).unwrap());

        assert_eq!(
            fs::read(path).unwrap(),
            fs::read(whole.path().join(STEPS_FILE)).unwrap()
        );
    }

    #[test]
    fn a_new_run_starts_empty() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = StepLog::open(dir.path(), 0).unwrap();
        log.append(&record(1)).unwrap();
        drop(log);
        StepLog::open(dir.path(), 0).unwrap();
        assert!(read(dir.path()).is_empty());
    }

    #[test]
    fn a_torn_line_is_dropped_even_where_it_happens_to_be_whole() {
        let dir = tempfile::tempdir().unwrap();
        let line = serde_json::to_string(&record(1)).unwrap();
        fs::write(dir.path().join(STEPS_FILE), format!("{line}\n{line}")).unwrap();
        StepLog::open(dir.path(), 9).unwrap();
        assert_eq!(read(dir.path()), [record(1)]);
    }

    proptest! {
        #[test]
        fn floats_read_back_exactly(value in prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO) {
            let record = StepRecord { loss: value, lr: value, loss_scale: Some(value), ..record(1) };
            let back: StepRecord = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
            prop_assert_eq!(back.loss.to_bits(), value.to_bits());
            prop_assert_eq!(back.lr.to_bits(), value.to_bits());
            prop_assert_eq!(back.loss_scale.map(f64::to_bits), Some(value.to_bits()));
        }

        #[test]
        fn a_file_cut_anywhere_keeps_its_whole_lines(bytes in 0usize..2000, step in 0u64..12) {
            let dir = tempfile::tempdir().unwrap();
            let mut log = StepLog::open(dir.path(), 0).unwrap();
            (1..=10).for_each(|step| log.append(&record(step)).unwrap());
            let path = dir.path().join(STEPS_FILE);
            let mut content = fs::read(&path).unwrap();
            content.truncate(bytes);
            let whole = content.iter().filter(|&&byte| byte == b'\n').count() as u64;
            fs::write(&path, &content).unwrap();
            StepLog::open(dir.path(), step).unwrap();
            let expected: Vec<StepRecord> = (1..=whole.min(step)).map(record).collect();
            prop_assert_eq!(read(dir.path()), expected);
        }
    }
}
