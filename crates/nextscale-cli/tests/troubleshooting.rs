//! `docs/troubleshooting.md`: every line that it quotes is one that the program can print.

mod common;

use common::runs::{Transformer, prepared, texts};
use common::{few_images, refused, run, succeed};
use std::path::Path;

const PAGE: &str = include_str!("../../../docs/troubleshooting.md");

/// The lines that the page quotes.
fn quoted() -> Vec<&'static str> {
    let headings = PAGE.lines().filter_map(|l| l.strip_prefix("### "));
    headings.map(|h| h.trim_matches('`')).collect()
}

/// What stands between the parts of a quoted line that differ from case to case.
fn fixed(line: &str) -> impl Iterator<Item = &str> {
    line.split('…').filter(|part| !part.trim().is_empty())
}

/// Whether a line that was printed is one that the page quotes.
fn is_quoted(printed: &str, quoted: &str) -> bool {
    let mut rest = Some(printed);
    for part in fixed(quoted) {
        rest = rest
            .and_then(|r| r.split_once(part))
            .map(|(_, after)| after);
    }
    rest.is_some()
}

/// The texts of the crates' sources, without their tests, as a terminal shows them: strings that go on in the next line joined,
/// options as flags.
fn sources() -> String {
    let mut all = String::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("..")];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap().flatten() {
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            if path.is_dir() && !["tests", "target", "examples"].contains(&name.as_str()) {
                folders.push(path);
            } else if name.ends_with(".rs") && !name.contains("tests") {
                let text = std::fs::read_to_string(&path).unwrap();
                all.push_str(text.split("#[cfg(test)]\nmod tests {").next().unwrap());
            }
        }
    }
    let mut joined = String::new();
    for (i, part) in all.split("\\\n").enumerate() {
        joined.push_str(if i == 0 { part } else { part.trim_start() });
    }
    // As the console shows options.
    let mut shown = String::new();
    let mut parts = joined.split('`').peekable();
    while let Some(part) = parts.next() {
        shown.push_str(part);
        match parts.peek() {
            Some(name) if name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') => {
                shown.push_str("--");
                shown.push_str(name);
                parts.next();
            }
            _ => {}
        }
    }
    shown
}

#[test]
fn every_quoted_line_is_in_the_sources() {
    let sources = sources();
    let quoted = quoted();
    assert!(quoted.len() > 40, "{}", quoted.len());
    let mut missing = Vec::new();
    for line in quoted {
        // Names of flags and their values are put in.
        let parts = fixed(line)
            .flat_map(|part| part.split(": "))
            .flat_map(|part| part.split("; "));
        let told: Vec<String> = parts
            .flat_map(|part| {
                let words: Vec<&str> = part.split_whitespace().collect();
                let runs = words.split(|word| word.starts_with("--"));
                runs.map(|run| run.join(" ")).collect::<Vec<_>>()
            })
            .filter(|part| part.len() > 3)
            .collect();
        assert!(!told.is_empty(), "{line:?} says nothing");
        // What clap says stands in its own sources, and is printed below; endings of files are put in.
        let of_others = [
            "unexpected argument '",
            "' found",
            "no images (.jpg .jpeg .png",
        ];
        let there = |part: &String| sources.contains(part) || of_others.contains(&part.as_str());
        missing.extend(told.into_iter().filter(|part| !there(part)));
    }
    assert!(missing.is_empty(), "nowhere in the sources: {missing:#?}");
}

/// The mistakes that can be made on any machine, made.
#[test]
fn what_is_printed_is_quoted() {
    let dir = prepared();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let data = format!("--data_path={}", at("images"));
    let tokenizer = format!("--tokenizer={}", at("tokenizer/tokenizer.safetensors"));
    let flags = Transformer.flags(dir.path(), "run", &["--ep=2", "--depth=1"]);
    succeed(&texts(&flags));
    let model = format!("--model={}", at("run/ar-ckpt-last.safetensors"));
    std::fs::create_dir_all(dir.path().join("empty/a")).unwrap();
    std::fs::create_dir_all(dir.path().join("full")).unwrap();
    std::fs::write(dir.path().join("full/x"), "x").unwrap();
    std::fs::create_dir_all(dir.path().join("other")).unwrap();
    let uneven = few_images(&dir.path().join("other"));
    std::fs::remove_dir_all(uneven.join("val/class1")).unwrap();
    let bytes = std::fs::read(dir.path().join("run/ar-ckpt-last.safetensors")).unwrap();
    std::fs::write(dir.path().join("cut.safetensors"), &bytes[..5000]).unwrap();
    let var = at("var.pth");
    succeed(&[
        "convert",
        &at("run/ar-ckpt-last.safetensors"),
        &var,
        "--part=var",
    ]);
    let train = |more: &[&str]| -> Vec<String> {
        let words = ["train", &data, &tokenizer, "--device=cpu", "--depth=1"];
        let all = words.iter().chain(more);
        all.map(|w| (*w).to_owned()).collect()
    };
    let again = |more: &[&str]| Transformer.flags(dir.path(), "run", more);
    let own = |words: &[&str]| -> Vec<String> { words.iter().map(|w| (*w).to_owned()).collect() };
    let cases = [
        (own(&["train", "--dept=3"]), "unexpected argument"),
        (own(&["train", &data]), "--tokenizer is missing"),
        (own(&["train", &tokenizer]), "--data_path is missing"),
        (train(&["--bs=0"]), "--bs=…"),
        (train(&["--precision=bf16", "--fp16=1"]), "--precision=…"),
        (
            own(&["sample", &model, &format!("--out={}", at("full"))]),
            "--out=…: the folder is not empty",
        ),
        (
            own(&[
                "convert",
                &at("run/ar-ckpt-last.safetensors"),
                &var,
                "--part=var",
            ]),
            "…: exists already",
        ),
        (
            train(&["--data_path=nowhere"]),
            "--data_path=…: no such folder",
        ),
        (
            train(&[&format!("--data_path={}", at("empty"))]),
            "…: no images",
        ),
        (
            train(&[&format!("--data_path={}", uneven.display())]),
            "--data_path=…: … and … must hold the same classes",
        ),
        (
            own(&["eval", &model, "--data_path=builtin:shapes", "--device=cpu"]),
            "…: its class …",
        ),
        (
            train(&["--tokenizer=nowhere.pth"]),
            "…: there is no such file",
        ),
        (
            train(&[&format!("--tokenizer={}", at("full/x"))]),
            "…: is neither a",
        ),
        (
            own(&["sample", &format!("--model={}", at("cut.safetensors"))]),
            "…: truncated",
        ),
        (train(&["--pn=1_2_4"]), "--pn ends at"),
        (train(&["--patch_size=8"]), "--patch_size=…"),
        (train(&["--pn=64"]), "--pn=…: a lone"),
        (
            own(&["sample", &format!("--model={var}")]),
            "…: holds the weights of …",
        ),
        (
            own(&["sample", &model, "--classes=dog", "--device=cpu"]),
            "--classes=…: … is no number",
        ),
        (
            own(&["sample", &model, "--classes=7", "--device=cpu"]),
            "--classes=…: there is no class",
        ),
        (
            train(&["--depth=200", "--bs=4"]),
            "… images at a time need …",
        ),
        (
            train(&["--depth=200", "--bs=4"]),
            "not even one image at a time fits",
        ),
        (again(&["--ep=1", "--depth=1"]), "iterations are done"),
        (again(&["--ep=2", "--depth=1", "--bs=2"]), "the run had …"),
        (again(&["--ep=2", "--depth=1", "--seed=6"]), "--seed=…"),
        (again(&["--ep=2", "--depth=2"]), "tensor … has the shape"),
    ];
    let quoted = quoted();
    for (words, start) in &cases {
        let printed = refused(&texts(words));
        let matching: Vec<_> = quoted.iter().filter(|q| is_quoted(&printed, q)).collect();
        let found = matching.iter().any(|q| q.starts_with(start));
        assert!(found, "{start:?} is not among {matching:?} for: {printed}");
    }
    // What is no mistake in the command.
    let printed = |words: &[String]| {
        let out = run(&texts(words));
        [out.stdout, out.stderr]
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .concat()
    };
    let some_line = |text: &str, start: &str| {
        let quote = quoted.iter().find(|q| q.starts_with(start)).unwrap();
        assert!(text.lines().any(|l| is_quoted(l, quote)), "{quote}: {text}");
    };
    let stopped = Transformer.flags(dir.path(), "s", &["--ep=2", "--depth=1", "--stop_after=1"]);
    some_line(&printed(&stopped), "stopped …");
    let mut loud = Transformer.flags(dir.path(), "h", &["--depth=1", "--stop_after=1"]);
    loud.retain(|flag| flag != "--quiet");
    loud.extend(own(&["--precision=bf16", "--device=cpu"]));
    some_line(&printed(&loud), "half precision is for GPUs");
    let more = ["--tblr=1e30", "--twd=0", "--ep=4", "--depth=1"];
    let wild = Transformer.flags(dir.path(), "d", &more);
    some_line(&printed(&wild), "the run has diverged");
    let image = dir.path().join("images/train/class0/0.bmp");
    let whole = std::fs::read(&image).unwrap();
    std::fs::write(&image, &whole[..100]).unwrap();
    let spoilt = Transformer.flags(dir.path(), "b", &["--depth=1", "--ep=1"]);
    some_line(&printed(&spoilt), "…: can't be decoded");
    let two = train(&["--procs=2", "--bs=3"]);
    some_line(&printed(&two), "rank … ended");
}
