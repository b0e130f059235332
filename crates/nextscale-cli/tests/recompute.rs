//! Blocks that are run again for their gradients change no number, also where a run goes on with another setting.

mod common;

use common::runs::Transformer;
use common::{few_images, refused, succeed, tiny_tokenizer};
use std::path::Path;

fn go(flags: &[String]) {
    succeed(&flags.iter().map(String::as_str).collect::<Vec<_>>());
}

/// The steps of a run without their times, and the tensors of its last checkpoint.
fn ended(out: &Path) -> (Vec<String>, Vec<u8>) {
    let steps = std::fs::read_to_string(out.join("steps.jsonl")).unwrap();
    let figures = |line: &str| -> String {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let names = ["step", "loss", "accuracy", "grad_norm", "lr"];
        names.map(|name| line[name].to_string()).join(" ")
    };
    let file = std::fs::read(out.join(Transformer.last())).unwrap();
    let header = u64::from_le_bytes(file[..8].try_into().unwrap());
    let lines = steps.lines().map(figures).collect();
    (lines, file[8 + header as usize..].to_vec())
}

#[test]
fn a_run_that_recomputes_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    few_images(dir);
    tiny_tokenizer(dir);
    let flags = |out: &str, more: &[&str]| {
        let own = ["--depth=3", "--ep=4", "--tblr=0.05", "--log_every=1"];
        Transformer.flags(dir, out, &[&own[..], more].concat())
    };
    go(&flags("whole", &[]));
    let whole = ended(&dir.join("whole"));
    assert!(whole.0.len() > 2);
    for recompute in ["--recompute", "--recompute=2", "--recompute=9"] {
        go(&flags(recompute, &[recompute]));
        assert!(ended(&dir.join(recompute)) == whole, "{recompute}");
    }
    go(&flags("parts", &["--recompute", "--stop_after=2"]));
    go(&flags("parts", &["--recompute=3"]));
    assert!(ended(&dir.join("parts")) == whole);
    let wrong = flags("wrong", &["--recompute=-1"]);
    let text = refused(&wrong.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(text.contains("--recompute"), "{text}");
}
