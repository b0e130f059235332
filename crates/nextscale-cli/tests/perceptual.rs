//! `train-tokenizer --perceptual`: images compared by a network beside their pixels.

mod common;

use common::runs::{Tokenizer, assert_same_end, logs, texts};
use common::{few_images, refused, succeed};
use std::path::Path;

/// Flags of a run of four steps whose images are compared by features of their own classes too.
fn flags(dir: &Path, out: &str, more: &[&str]) -> Vec<String> {
    let perceptual = format!(
        "--perceptual={}",
        dir.join("features.safetensors").display()
    );
    Tokenizer.flags(
        dir,
        out,
        &[&[&perceptual, "--steps=4", "--ac=1"], more].concat(),
    )
}

fn prepared() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let images = few_images(dir.path()).display().to_string();
    let out = format!(
        "--out={}",
        dir.path().join("features.safetensors").display()
    );
    let flags = ["--size=32", "--steps=2", "--batch=4", "--device=cpu"];
    succeed(&[&["train-features", &images, &out], &flags[..]].concat());
    dir
}

fn numbers(dir: &Path, name: &str) -> Vec<f64> {
    let [steps, _] = logs(dir);
    let number = |line: &String| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line[name].as_f64().unwrap()
    };
    steps.iter().map(number).collect()
}

#[test]
fn it_is_a_part_of_the_loss_and_runs_go_on_to_the_bit() {
    let dir = prepared();
    let at = |name: &str| dir.path().join(name);
    succeed(&texts(&flags(dir.path(), "whole", &["--lp=0.5"])));
    let of = |name: &str| numbers(&at("whole"), name);
    let [loss, l1, l2, vq, look] = ["loss", "l1", "l2", "vq_loss", "perceptual"].map(of);
    assert_eq!(loss.len(), 4);
    for i in 0..4 {
        assert!(look[i] > 0.0);
        let sum = 0.2 * l1[i] + l2[i] + vq[i] + 0.5 * look[i];
        assert!((loss[i] - sum).abs() < 1e-5 * sum, "{} {sum}", loss[i]);
    }
    for more in [&["--lp=0.5", "--stop_after=2"][..], &["--lp=0.5"]] {
        succeed(&texts(&flags(dir.path(), "parts", more)));
    }
    assert_same_end(Tokenizer, &at("whole"), &at("parts"));
    // It has gradients: another weight, another tokenizer.
    succeed(&texts(&flags(dir.path(), "without", &["--lp=0"])));
    assert_eq!(numbers(&at("without"), "l1")[0], l1[0]);
    assert_ne!(numbers(&at("without"), "l1")[3], l1[3]);
}

#[test]
fn what_is_no_network_for_it_is_refused_in_one_line() {
    let dir = prepared();
    let of = |more: &[&str]| refused(&texts(&Tokenizer.flags(dir.path(), "no", more)));
    let features = format!(
        "--perceptual={}",
        dir.path().join("features.safetensors").display()
    );
    std::fs::write(dir.path().join("heads.pth"), "no heads").unwrap();
    let heads = format!("--lpips={}", dir.path().join("heads.pth").display());
    for (more, parts) in [
        (&[&heads[..]][..], &["--lpips=", "--perceptual"][..]),
        (&[&features, &heads], &["--lpips=", "a classifier"]),
        (
            &["--perceptual=nowhere.pth"],
            &["--perceptual=nowhere.pth", "train-features"],
        ),
        (
            &["--perceptual=nowhere.pth", &heads],
            &["nowhere.pth", "vgg16-397923af.pth"],
        ),
        (&[&features, "--lp=-1"], &["--lp=-1"]),
    ] {
        let line = of(more);
        for part in parts {
            assert!(line.contains(part), "{part}: {line}");
        }
    }
    assert!(!dir.path().join("no").exists());
}
