//! `eval --likelihood`: nats by image, classes by likelihood, and the file of both.

mod common;

use common::runs::{Transformer, prepared, texts};
use common::{refused, succeed};
use serde_json::Value;
use std::path::Path;

/// A model of two classes that has learnt for a few steps, with the flags that name it and its images.
fn model() -> (tempfile::TempDir, Vec<String>) {
    let dir = prepared();
    let more = ["--ep=4", "--tblr=0.1", "--hd=1", "--alng=0.1"];
    succeed(&texts(&Transformer.flags(dir.path(), "model", &more)));
    let at = |name: &str| dir.path().join(name).display().to_string();
    let flags = vec![
        "eval".to_owned(),
        at("images"),
        format!("--model={}", at("model/ar-ckpt-last.safetensors")),
        "--device=cpu".to_owned(),
        "--threads=1".to_owned(),
        "--mid_reso=1".to_owned(),
    ];
    (dir, flags)
}

fn with(flags: &[String], more: &[&str]) -> Vec<String> {
    let more = more.iter().map(|m| (*m).to_owned());
    flags.iter().cloned().chain(more).collect()
}

/// The number after these words.
fn number(text: &str, head: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(head));
    let rest = line.unwrap_or_else(|| panic!("{head}: {text}"))[head.len()..].trim_start();
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

fn rows(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

#[test]
fn likelihoods_are_told_and_written() {
    let (dir, flags) = model();
    let file = dir.path().join("likely.jsonl");
    let out = format!("--out={}", file.display());
    let losses = succeed(&texts(&with(&flags, &[])));
    let all: Vec<&str> = losses
        .lines()
        .find(|l| l.starts_with("all "))
        .unwrap()
        .split_whitespace()
        .collect();
    let loss: f64 = all[2].parse().unwrap();

    let plain = succeed(&texts(&with(&flags, &["--likelihood", &out])));
    assert!(
        (number(&plain, "nats per token") - loss).abs() < 2e-4,
        "{plain} {losses}"
    );
    assert!(
        (number(&plain, "nats per image") - 5.0 * loss).abs() < 2e-3,
        "{plain}"
    );
    let bits = 5.0 * loss / 2f64.ln() / (32.0 * 32.0 * 3.0);
    assert!(
        (number(&plain, "bits per dimension") - bits).abs() < 2e-5,
        "{plain}"
    );
    assert!(
        plain.contains("no bound on the likelihood of its pixels"),
        "{plain}"
    );
    assert!(!plain.contains("zero-shot"), "{plain}");
    let found = rows(&file);
    assert_eq!(found.len(), 2);
    let mean = found
        .iter()
        .map(|r| r["nats"].as_f64().unwrap())
        .sum::<f64>()
        / 2.0;
    assert!((mean - number(&plain, "nats per image")).abs() < 1e-3);
    for (i, row) in found.iter().enumerate() {
        assert!(
            row["image"]
                .as_str()
                .unwrap()
                .ends_with(&format!("class{i}/{i}.bmp")),
            "{row}"
        );
        assert_eq!(
            (&row["class"], &row["label"]),
            (&format!("class{i}").into(), &i.into())
        );
        assert!(row.get("predicted").is_none());
    }

    // A file that is there stays.
    let again = with(&flags, &["--likelihood", "--zero_shot", &out]);
    let text = refused(&texts(&again));
    assert!(
        text.contains("exists already") && text.contains("--force"),
        "{text}"
    );
    let named = succeed(&texts(&with(&again, &["--force"])));
    assert!(
        named.contains("zero-shot top-1 ") && named.contains("chance 50.00 %"),
        "{named}"
    );
    assert!(!named.contains("top-5"), "{named}");
    let guessed = rows(&file);
    let right = guessed
        .iter()
        .filter(|r| r["predicted"] == r["label"])
        .count();
    assert_eq!(number(&named, "zero-shot top-1"), 50.0 * right as f64);
    for (row, before) in guessed.iter().zip(&found) {
        let (a, b) = (
            row["nats"].as_f64().unwrap(),
            before["nats"].as_f64().unwrap(),
        );
        assert!((a - b).abs() < 1e-4 * b, "{row} {before}");
        assert_eq!(row["rank"] == 0, row["predicted"] == row["label"]);
        assert!(row["predicted_probability"].as_f64().unwrap() >= 0.5);
    }

    // Other processes and other batches find the same; what is compared may be less than all.
    let csv = |name: &str, more: &[&str]| {
        let path = dir.path().join(name);
        let out = format!("--out={}", path.display());
        let flags = with(&flags, &["--likelihood", "--zero_shot=present", &out]);
        succeed(&texts(&with(&flags, more)));
        std::fs::read_to_string(path).unwrap()
    };
    let one = csv("one.csv", &["--batch=1"]);
    assert!(one.starts_with("image,label,class,nats,nats_per_token,bits_per_dim,predicted,"));
    assert_eq!(one.lines().count(), 3);
    assert_eq!(csv("three.csv", &["--procs=3", "--batch=1"]), one);
}

#[test]
fn what_can_not_be_is_refused() {
    let (dir, flags) = model();
    let likely = with(&flags, &["--likelihood"]);
    let text = refused(&texts(&with(&likely, &["--out=likely.txt"])));
    assert!(
        text.contains("--out=likely.txt: ") && text.contains(".jsonl"),
        "{text}"
    );
    let text = refused(&texts(&with(&likely, &["--out=nowhere/likely.csv"])));
    assert!(text.contains("there is no folder nowhere"), "{text}");
    // Naming images by likelihood asks for likelihoods.
    let out = succeed(&texts(&with(&flags, &["--zero_shot"])));
    assert!(
        out.contains("nats per image") && out.contains("zero-shot top-1"),
        "{out}"
    );
    // Classes that the model does not know.
    let other = dir.path().join("other");
    std::fs::create_dir_all(&other).unwrap();
    std::fs::rename(dir.path().join("images/val/class0"), other.join("cats")).unwrap();
    std::fs::rename(dir.path().join("images/val/class1"), other.join("class1")).unwrap();
    let mut foreign = likely;
    foreign[1] = other.display().to_string();
    let text = refused(&texts(&foreign));
    assert!(text.contains("\"cats\""), "{text}");
}
