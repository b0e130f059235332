//! Inputs made to hang, to take all memory or to spoil the terminal: each ends soon, with exit code 2 and one line.

#![cfg(unix)]

mod common;

use common::{few_images, nextscale, refused, run, succeed, tiny_tokenizer};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::Command;

/// Changes a safetensors file's header, text for text.
fn with_header(path: &Path, from: &str, to: &str, into: &Path) {
    let bytes = fs::read(path).unwrap();
    let (length, rest) = bytes.split_first_chunk().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header = String::from_utf8(header.to_vec()).unwrap();
    assert!(header.contains(from), "{header}");
    let header = header.replace(from, to);
    let length = (header.len() as u64).to_le_bytes();
    fs::write(into, [&length, header.as_bytes(), data].concat()).unwrap();
}

#[test]
fn a_pipe_is_no_input() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("p.pth");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let p = pipe.display().to_string();
    let flag = |name: &str| format!("--{name}={p}");
    let out = format!("--out={}", dir.path().join("o").display());
    let copy = dir.path().join("c.pth").display().to_string();
    for args in [
        vec!["info", &p],
        vec!["convert", &p, &copy],
        vec!["sample", &flag("model"), &out],
        vec!["train", &flag("tokens"), &out],
        vec![
            "train",
            "--data_path=builtin:shapes",
            &flag("tokenizer"),
            &out,
        ],
        vec!["reconstruct", "--tokenizer", &p, "x.png", "--out=o.png"],
    ] {
        let line = refused(&args);
        assert!(line.contains("p.pth: is a pipe, not a file"), "{line}");
    }
    // Folders that a run's files should be.
    let images = few_images(dir.path());
    let data = format!("--data_path={}", images.display());
    for name in ["steps.jsonl", "tokenizer-ckpt-last.safetensors", "run.lock"] {
        let run = dir.path().join(format!("run-{name}"));
        fs::create_dir_all(run.join(name)).unwrap();
        let out = format!("--out={}", run.display());
        let line = refused(&[
            "train-tokenizer",
            &data,
            &out,
            "--pn=1_2",
            "--ch=32",
            "--ch_mult=1_1",
            "--vocab=16",
            "--bs=2",
            "--quiet",
        ]);
        assert!(line.contains(name), "{line}");
    }
    let below = images.join("train/class0/0.bmp/x").display().to_string();
    assert!(refused(&["info", &below]).contains("0.bmp/x"));
    let long = "n".repeat(300);
    assert!(refused(&["info", &long]).contains("nnn"));
}

#[test]
fn absurd_settings_in_a_tokenizer_are_named_with_their_file() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tiny_tokenizer(dir.path());
    let bad = dir.path().join("bad.safetensors");
    let flag = format!("--tokenizer={}", bad.display());
    for (from, to, said) in [
        (
            "\\\"vocab\\\":32",
            "\\\"vocab\\\":10000000000000",
            "vocab is 10000000000000",
        ),
        (
            "\\\"vocab\\\":32",
            "\\\"vocab\\\":18446744073709551615",
            "vocab is 18446744073709551615",
        ),
        ("\\\"ch\\\":32", "\\\"ch\\\":0", "ch is 0"),
        ("\\\"cvae\\\":32", "\\\"cvae\\\":0", "cvae is 0"),
    ] {
        with_header(&tokenizer, from, to, &bad);
        let line = refused(&["reconstruct", &flag, "x.png"]);
        assert!(
            line.contains("bad.safetensors: its tokenizer: ") && line.contains(said),
            "{line}"
        );
    }
}

#[test]
fn a_checkpoint_beyond_its_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tiny_tokenizer(dir.path());
    let flag = format!("--tokenizer={}", tokenizer.display());
    let data = format!("--data_path={}", few_images(dir.path()).display());
    // A name that is no text.
    let out = dir.path().join(OsString::from_vec(b"run\xff".to_vec()));
    let mut word = OsString::from("--out=");
    word.push(&out);
    let train = |ep: &str| {
        let mut c = nextscale(&[
            "train",
            &data,
            &flag,
            "--pn=1_2",
            "--depth=1",
            "--bs=5",
            "--quiet",
            ep,
        ]);
        c.arg(&word).output().unwrap()
    };
    let done = train("--ep=2");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    assert!(out.join("ar-ckpt-last.safetensors").is_file());
    let again = train("--ep=1");
    assert_eq!(again.status.code(), Some(2));
    let text = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(
        text.contains("2 iterations are done") && text.lines().count() == 1,
        "{text}"
    );
}

#[test]
fn names_do_not_reach_the_terminal_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tiny_tokenizer(dir.path());
    let bad = dir.path().join("a\nb\u{1b}[31m.safetensors");
    with_header(
        &tokenizer,
        "\"__metadata__\":{",
        "\"__metadata__\":{\"k\\n\\u001b[31m\":\"v\\r\\n\\u001b[0m\",",
        &bad,
    );
    let plain = succeed(&["info", &tokenizer.display().to_string()]);
    let text = succeed(&["info", &bad.display().to_string()]);
    assert!(!text.contains('\u{1b}') && !text.contains('\r'), "{text:?}");
    assert_eq!(text.lines().count(), plain.lines().count() + 1, "{text}");
    assert!(
        text.contains("k\\n\\u{1b}[31m: v\\r\\n\\u{1b}[0m"),
        "{text}"
    );
    // What is left out of a folder takes a line whatever it is called.
    let images = few_images(dir.path());
    fs::write(images.join("val/class0/bro\nken\u{1b}.bmp"), b"BM").unwrap();
    let data = format!("--data_path={}", images.display());
    let tok = format!("--tokenizer={}", tokenizer.display());
    let out = format!("--out={}", dir.path().join("t.safetensors").display());
    let args = [
        "tokenize",
        &data,
        &tok,
        &out,
        "--split=val",
        "--bad_images=skip",
    ];
    let told = String::from_utf8(run(&args).stderr).unwrap();
    assert!(
        told.contains("bro\\nken\\u{1b}.bmp") && told.lines().count() == 2,
        "{told:?}"
    );
}
