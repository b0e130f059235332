//! Two ways to say the same in one command line, and in a run that goes on.

mod common;

use common::runs::{Tokenizer, Transformer, content, logs, prepared, texts};
use common::{refused, run, succeed};

/// A run that was begun with the reference's flags goes on with a precision in words, and leaves what the old flags leave.
#[test]
fn a_run_goes_on_with_another_spelling() {
    let dir = prepared();
    let of = |out: &str, more: &[&str]| {
        let flags = Transformer.flags(dir.path(), out, &[&["--ep=2"], more].concat());
        succeed(&texts(&flags));
        let out = dir.path().join(out);
        let kept = Transformer.files().iter().map(|f| content(&out.join(f)));
        (kept.collect::<Vec<_>>(), logs(&out))
    };
    let old = of("a", &["--fp16=0", "--tf32=1"]);
    of("b", &["--fp16=0", "--stop_after=2"]);
    let new = of("b", &["--precision=tf32", "--tf32=1"]);
    assert_eq!(old.0, new.0);
    assert_eq!(old.1, new.1);
    // With dashes and the second name of --bs.
    let mut flags = Transformer.flags(dir.path(), "c", &["--ep=2", "--precision=tf32"]);
    for flag in &mut flags[1..] {
        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
        let name = match name {
            "--bs" => "--batch".to_owned(),
            name => name.replace('_', "-"),
        };
        *flag = if value.is_empty() {
            name
        } else {
            format!("{name}={value}")
        };
    }
    assert!(flags.iter().any(|f| f.starts_with("--mid-reso=")));
    succeed(&texts(&flags));
    let out = dir.path().join("c");
    let kept = Transformer.files().iter().map(|f| content(&out.join(f)));
    assert_eq!(old.0, kept.collect::<Vec<_>>());
    assert_eq!(old.1, logs(&out));
}

#[test]
fn what_is_said_twice_must_agree() {
    let line = refused(&["train", "--fp16=1", "--precision=bf16"]);
    assert!(
        line.contains("--precision=bf16 and --fp16=1 contradict each other: --precision=bf16 is --fp16=2; give one of the two"),
        "{line}"
    );
    let line = refused(&["plan", "--gpu=h100-80g", "--fp16=1", "--precision=fp32"]);
    assert!(line.contains("--precision=fp32 is --fp16=0"), "{line}");
    let line = refused(&["train-tokenizer", "--tf32=0", "--precision=tf32"]);
    assert!(line.contains("--precision=tf32 is --tf32=1"), "{line}");
    let line = refused(&["verify", "x", "--fp16=0", "--precision=bf16"]);
    assert!(line.contains("--precision=bf16 is --fp16=2"), "{line}");
    let line = refused(&["verify", "x", "--device=cpu", "--precision=bf16"]);
    assert!(line.contains("use --precision=fp32 on the CPU"), "{line}");
    let line = refused(&["verify", "x", "--precision=tf32"]);
    assert!(line.contains("float32's; give fp32"), "{line}");
}

#[test]
fn plans_say_the_precision_that_train_takes() {
    let plan = |flag: &str| {
        let flags = [
            "plan",
            "--gpu=h100-80g",
            "--depth=16",
            "--batch=96",
            "--json",
            flag,
        ];
        succeed(&flags)
    };
    assert_eq!(plan("--precision=bf16"), plan("--fp16=2"));
    assert_eq!(plan("--precision=tf32"), plan("--fp16=0"));
    let text = plan("--precision=fp32");
    assert!(text.contains("--tf32=0") && text.contains("fp32"), "{text}");
}

#[test]
fn subcommands_have_dashes_or_underscores() {
    let help = |name: &str| succeed(&[name, "--help"]);
    assert_eq!(help("train-tokenizer"), help("train_tokenizer"));
    let dir = prepared();
    let mut flags = Tokenizer.flags(dir.path(), "t", &["--stop-after=1"]);
    flags[0] = "train_tokenizer".into();
    succeed(&texts(&flags));
    let out = run(&["train", "--no-such-flag=1"]);
    assert_eq!(out.status.code(), Some(2));
}
