//! What tests of the program share: running it, and a tiny tokenizer to train on.

#![allow(dead_code, reason = "every test file uses a part of it")]

pub mod runs;

use nextscale_tensor::rng::{Purpose, Stream};
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
    tiny_tokenizer_of(dir, "3")
}

/// The same from another seed.
pub fn tiny_tokenizer_of(dir: &Path, seed: &str) -> PathBuf {
    let out = dir.join("tokenizer");
    let flag = format!("--out={}", out.display());
    // Few, since all of the validation images are looked at in the end.
    let images = tempfile::tempdir().unwrap();
    let data = format!("--data_path={}", few_images(images.path()).display());
    succeed(&[
        "train-tokenizer",
        &data,
        &flag,
        "--pn=1_2",
        "--ch=32",
        "--vocab=32",
        "--bs=4",
        "--steps=2",
        "--mid_reso=1",
        &format!("--seed={seed}"),
        "--quiet",
    ]);
    out.join("tokenizer.safetensors")
}

/// A folder of noisy images of 32 px in two classes, five for training and two for validation.
pub fn few_images(dir: &Path) -> PathBuf {
    let root = dir.join("images");
    for (split, count) in [("train", 5), ("val", 2)] {
        for i in 0..count {
            let class = root.join(split).join(format!("class{}", i % 2));
            std::fs::create_dir_all(&class).unwrap();
            std::fs::write(class.join(format!("{i}.bmp")), bitmap(32, i + count)).unwrap();
        }
    }
    root
}

/// A bitmap file of `side` × `side` pixels.
pub fn bitmap(side: u32, seed: u64) -> Vec<u8> {
    let mut draw = Stream::new(seed, Purpose::Test, 0, 0);
    let pixels: Vec<u8> = (0..3 * side * side)
        .map(|_| draw.below(256) as u8)
        .collect();
    let size = pixels.len() as u32;
    let header: [&[u8]; 8] = [
        b"BM",
        &(54 + size).to_le_bytes(),
        &[0, 0, 0, 0, 54, 0, 0, 0, 40, 0, 0, 0],
        &side.to_le_bytes(),
        &side.to_le_bytes(),
        &[1, 0, 24, 0, 0, 0, 0, 0],
        &size.to_le_bytes(),
        &[0; 16],
    ];
    [&header.concat(), &pixels[..]].concat()
}

/// The pixels of a picture, without what its file says of itself.
pub fn pixels(path: impl AsRef<Path>) -> Vec<u8> {
    image::open(path).unwrap().into_rgb8().into_raw()
}
