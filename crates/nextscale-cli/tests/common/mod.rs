//! What tests of the program share: running it, and a tiny tokenizer to train on.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program with these arguments.
pub fn nextscale(args: &[&str]) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_nextscale"));
    c.args(args);
    c
}

/// Runs to the end and hands over what came out.
pub fn run(args: &[&str]) -> Output {
    nextscale(args).output().expect("the program starts")
}

/// Runs and demands success.
pub fn succeed(args: &[&str]) -> String {
    let out = run(args);
    assert!(
        out.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Runs and demands exit code 2 with one line on standard error; the line.
pub fn refused(args: &[&str]) -> String {
    let out = run(args);
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2), "{args:?}: {text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1, "{args:?}: one line expected:\n{text}");
    lines[0].to_owned()
}

/// A tokenizer for 32 px that has barely been trained.
pub fn tiny_tokenizer(dir: &Path) -> PathBuf {
    let out = dir.join("tokenizer");
    let flag = format!("--out={}", out.display());
    succeed(&[
        "train-tokenizer",
        "--data_path=builtin:shapes",
        &flag,
        "--pn=1_2",
        "--ch=32",
        "--vocab=32",
        "--bs=4",
        "--steps=2",
        "--mid_reso=1",
        "--seed=3",
        "--quiet",
    ]);
    out.join("tokenizer.safetensors")
}
