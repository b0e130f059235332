//! Small runs of both trainers, and what they leave.

use super::{few_images, tiny_tokenizer};
use std::path::Path;

/// The two trainers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trainer {
    Tokenizer,
    Transformer,
}

pub use Trainer::{Tokenizer, Transformer};

impl Trainer {
    /// Flags of a small run over `dir/images` in `dir/out`: steps of four images, an evaluation after every epoch.
    pub fn flags(self, dir: &Path, out: &str, more: &[&str]) -> Vec<String> {
        let own: &[&str] = match self {
            Tokenizer => &["train-tokenizer", "--ch=32", "--vocab=32"],
            Transformer => &["train", "--depth=2"],
        };
        let mut flags: Vec<String> = own
            .iter()
            .chain(&["--pn=1_2", "--bs=4", "--seed=5", "--mid_reso=1", "--quiet"])
            .chain(&[
                "--threads=1",
                "--workers=1",
                "--log_every=1",
                "--eval_every=1",
            ])
            .chain(more)
            .map(|s| (*s).to_owned())
            .collect();
        if self == Transformer {
            let tokenizer = dir.join("tokenizer/tokenizer.safetensors");
            flags.push(format!("--tokenizer={}", tokenizer.display()));
        }
        flags.push(format!("--data_path={}", dir.join("images").display()));
        flags.push(format!("--out={}", dir.join(out).display()));
        flags
    }

    pub fn last(self) -> &'static str {
        match self {
            Tokenizer => "tokenizer-ckpt-last.safetensors",
            Transformer => "ar-ckpt-last.safetensors",
        }
    }

    /// The files that a run leaves to go on from and to use.
    pub fn files(self) -> &'static [&'static str] {
        match self {
            Tokenizer => &[
                "tokenizer-ckpt-last.safetensors",
                "tokenizer.safetensors",
                "tokenizer-best.safetensors",
            ],
            Transformer => &["ar-ckpt-last.safetensors", "ar-ckpt-best.safetensors"],
        }
    }
}

/// A folder with a tokenizer and images of both splits.
pub fn prepared() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    tiny_tokenizer(dir.path());
    few_images(dir.path());
    dir
}

pub fn texts(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

/// A line of a log without what depends on the clock.
pub fn timeless(line: &str) -> String {
    let mut v: serde_json::Value = serde_json::from_str(line).unwrap();
    let o = v.as_object_mut().unwrap();
    for key in ["images_per_s", "data_wait", "remain_time", "finish_time"] {
        o.remove(key);
    }
    v.to_string()
}

/// The lines of steps.jsonl and, after its first one, log.txt.
pub fn logs(out: &Path) -> [Vec<String>; 2] {
    [("steps.jsonl", 0), ("log.txt", 1)].map(|(name, skip)| {
        let text = std::fs::read_to_string(out.join(name)).unwrap_or_default();
        // A line that is being written has no end yet.
        let whole = text.split_inclusive('\n').filter(|l| l.ends_with('\n'));
        whole.skip(skip).map(timeless).collect()
    })
}

/// Steps that a checkpoint holds.
pub fn held(out: &Path, trainer: Trainer) -> u64 {
    let bytes = std::fs::read(out.join(trainer.last())).unwrap();
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(1 << 20)]).into_owned();
    let key = match trainer {
        Tokenizer => r#"\"it\":"#,
        Transformer => r#"\"g_it\":"#,
    };
    let at = text.find(key).unwrap() + key.len();
    let digits: String = text[at..]
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().unwrap()
}

/// What a file holds, without the command line in it.
pub fn content(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (text, tensors) = bytes[8..].split_at(header);
    let text = String::from_utf8_lossy(text);
    let start = text.find(r#"\"cmd\":\""#);
    let text = match start {
        Some(at) => {
            let end = at + 9 + text[at + 9..].find(r#"\""#).unwrap();
            format!("{}{}", &text[..at], &text[end..])
        }
        None => text.into_owned(),
    };
    // Headers differ in their padding only where command lines differ in length.
    format!("{} {:?}", text.trim_end(), nextscale_sum(tensors))
}

/// A checksum that shows any change.
pub fn nextscale_sum(bytes: &[u8]) -> (u64, usize) {
    let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3)
    });
    (sum, bytes.len())
}

pub fn assert_same_end(trainer: Trainer, whole: &Path, other: &Path) {
    assert_eq!(logs(whole), logs(other), "{trainer:?}");
    for name in trainer.files() {
        assert_eq!(
            content(&whole.join(name)),
            content(&other.join(name)),
            "{trainer:?}: {name}"
        );
    }
}

/// A folder of images, a tokenizer and a model of two classes, class0 and class1, that has hardly learnt anything; and its file.
pub fn with_model() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = prepared();
    super::succeed(&texts(&Transformer.flags(dir.path(), "run", &["--ep=1"])));
    let model = dir.path().join("run").join(Transformer.last());
    (dir, model)
}
