//! Bad input is refused with one line that names it, exit code 2, and nothing overwritten.

mod common;

use common::{nextscale, refused, succeed, tiny_tokenizer};
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn absurd_numbers() {
    let out = tempfile::tempdir().unwrap();
    let out = format!("--out={}", out.path().display());
    let base = ["train-tokenizer", "--data_path=builtin:shapes", &out];
    for (flag, named) in [
        ("--vocab=18446744073709551615", "vocab"),
        ("--cvae=99999999999", "cvae"),
        ("--ch=1048576", "--ch=1048576"),
        ("--bs=10000000000000", "--bs=10000000000000"),
        ("--bs=18446744073709551615", "--bs=18446744073709551615"),
        ("--ep=18446744073709551615", "--ep=18446744073709551615"),
        ("--pn=1_4096", "--pn=1_4096 --ch_mult="),
        ("--num_res_blocks=100000", "num_res_blocks"),
        ("--share_quant_resi=99999999999", "share_quant_resi"),
        ("--threads=5000", "--threads=5000"),
    ] {
        let line = refused(&[&base[..], &[flag]].concat());
        assert!(line.contains(named), "{flag}: {line}");
    }
    for (args, named) in [
        (
            ["train", "--tokenizer=y", "--data_path=x", "--depth=100000"],
            "--depth=100000",
        ),
        (
            ["bench", "sample", "--device=cpu", "--bs=99999999999"],
            "--bs=99999999999",
        ),
        (
            ["sample", "--model=x", "--out=y", "--per_class=99999999999"],
            "--per_class",
        ),
    ] {
        let line = refused(&args);
        assert!(line.contains(named), "{args:?}: {line}");
    }
}

#[test]
fn flags_and_folders() {
    let line = refused(&["train", "--no_such_flag=1"]);
    assert!(line.contains("--no_such_flag"), "{line}");
    let line = refused(&["frobnicate"]);
    assert!(line.contains("frobnicate"), "{line}");
    let line = refused(&["train", "--depth=0", "--data_path=x", "--tokenizer=y"]);
    assert!(line.contains("--depth=0"), "{line}");
    let line = refused(&["train", "--depth=many"]);
    assert!(line.contains("many") && line.contains("--depth"), "{line}");
    let line = refused(&["train", "--tokenizer=y"]);
    assert!(line.contains("--data_path"), "{line}");
    let line = refused(&["train", "--data_path=builtin:shapes"]);
    assert!(line.contains("--tokenizer"), "{line}");
    let line = refused(&["train", "--data_path=/no/such/folder", "--tokenizer=y"]);
    assert!(line.contains("/no/such/folder"), "{line}");
    let empty = tempfile::tempdir().unwrap();
    let flag = format!("--data_path={}", empty.path().display());
    let line = refused(&["train", &flag, "--tokenizer=y"]);
    assert!(line.contains("train"), "{line}");
    let line = refused(&[
        "train-tokenizer",
        "--data_path=builtin:shapes",
        "--device=cuda",
    ]);
    assert!(line.contains("--device=cuda"), "{line}");
    let line = refused(&["verify", "/no/such/bundle"]);
    assert!(line.contains("/no/such/bundle"), "{line}");
}

#[test]
fn checkpoints_and_classes() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tiny_tokenizer(dir.path());
    let out = dir.path().join("run");
    let tok = format!("--tokenizer={}", tokenizer.display());
    let to = format!("--out={}", out.display());
    let base = [
        "train",
        "--data_path=builtin:shapes",
        "--bs=4",
        "--ep=1",
        "--quiet",
        &tok,
        &to,
    ];
    let with = |more: &[&'static str]| -> Vec<&str> {
        base.iter().copied().chain(more.iter().copied()).collect()
    };
    // Scales that end elsewhere than the tokenizer's.
    let line = refused(&with(&["--pn=1_2_3", "--depth=1"]));
    assert!(line.contains("--pn") && line.contains("2x2"), "{line}");
    assert!(!out.exists(), "nothing was made for a refused run");
    succeed(&with(&["--pn=1_2", "--depth=1", "--stop_after=1"]));
    let last = out.join("ar-ckpt-last.safetensors");
    let saved = fs::read(&last).unwrap();
    // Another depth on the same folder: the tensor and both shapes are named.
    let line = refused(&with(&["--pn=1_2", "--depth=2"]));
    assert!(
        line.contains("[") && line.contains("ar-ckpt-last"),
        "{line}"
    );
    assert_eq!(fs::read(&last).unwrap(), saved);
    // A class that is not there.
    let model = format!("--model={}", last.display());
    let line = refused(&["sample", &model, "--classes=99", "--out=/tmp/never.png"]);
    assert!(line.contains("99"), "{line}");
    // Truncated and foreign files.
    let cut = dir.path().join("cut.safetensors");
    fs::write(&cut, &saved[..saved.len() / 2]).unwrap();
    let foreign = dir.path().join("foreign.safetensors");
    fs::write(&foreign, b"this is no checkpoint at all").unwrap();
    let empty = dir.path().join("empty.pth");
    fs::write(&empty, b"").unwrap();
    for bad in [&cut, &foreign, &empty, &dir.path().join("missing.pth")] {
        let name = bad.display().to_string();
        for line in [
            refused(&["info", &name]),
            refused(&["sample", &format!("--model={name}"), "--out=/tmp/never.png"]),
            refused(&with_tokenizer(&base, &format!("--tokenizer={name}"))),
        ] {
            assert!(line.contains(&name), "{line}");
        }
    }
    // A tokenizer is no transformer.
    let line = refused(&[
        "sample",
        &format!("--model={}", tokenizer.display()),
        "--out=/tmp/never.png",
    ]);
    assert!(line.contains("VAR transformer"), "{line}");
}

fn with_tokenizer<'a>(base: &[&'a str], flag: &'a str) -> Vec<&'a str> {
    base.iter()
        .map(|a| {
            if a.starts_with("--tokenizer=") {
                flag
            } else {
                a
            }
        })
        .chain(["--pn=1_2", "--depth=1"])
        .collect()
}

#[test]
fn a_second_run_on_the_same_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let to = format!("--out={}", dir.path().join("run").display());
    let args = [
        "train-tokenizer",
        "--data_path=builtin:shapes",
        "--pn=1_2",
        "--ch=32",
        "--vocab=32",
        "--bs=4",
        "--quiet",
        &to,
    ];
    let mut first = nextscale(&args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let log = dir.path().join("run/steps.jsonl");
    let start = Instant::now();
    while !log.exists() && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let line = refused(&args);
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(line.contains("already running"), "{line}");
}

#[test]
fn a_failed_write_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tiny_tokenizer(dir.path());
    let before = fs::read(&tokenizer).unwrap();
    let from = tokenizer.display().to_string();
    // Writing fails, here because there is no such folder; a disk that fills up in the middle of a checkpoint is
    // tested beside the writer itself.
    let nowhere = dir.path().join("no_folder/x.pth").display().to_string();
    let line = refused(&["convert", &from, &nowhere]);
    assert!(line.contains("no_folder"), "{line}");
    let line = refused(&["convert", &from, &from]);
    assert!(line.contains("exists already"), "{line}");
    assert_eq!(fs::read(&tokenizer).unwrap(), before);
}

#[test]
fn a_reader_that_goes_away_is_no_failure_of_ours() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tiny_tokenizer(dir.path());
    let mut child = nextscale(&["info", &tokenizer.display().to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let out = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(!text.contains("panicked"), "{text}");
}
