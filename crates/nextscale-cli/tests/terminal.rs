//! Where lines go, what `~` means, and what a signal leaves: full disks and closed pipes instead of a terminal, homes, half-written files.

mod common;

use common::{nextscale, run, succeed, tiny_tokenizer};
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

fn lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_result_that_cannot_be_printed_is_one_line_and_exit_code_1() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tiny_tokenizer(dir.path());
    let tokenizer = tokenizer.to_str().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (to, tokens, folder) = (path("x.pth"), path("k.safetensors"), path("r.png"));
    let commands: [&[&str]; 8] = [
        &["info", tokenizer],
        &["info", tokenizer, tokenizer],
        &["doctor"],
        &["--help"],
        &["--version"],
        &["convert", tokenizer, &to],
        &[
            "tokenize",
            &format!("--tokenizer={tokenizer}"),
            "--data_path=builtin:shapes",
            "--split=val",
            "--device=cpu",
            &format!("--out={tokens}"),
        ],
        &[
            "reconstruct",
            &format!("--tokenizer={tokenizer}"),
            "--data_path=builtin:shapes",
            "--device=cpu",
            &format!("--out={folder}"),
        ],
    ];
    for args in commands {
        let output = nextscale(args).stdout(full()).output().unwrap();
        let mut lines = lines(&output);
        // A slow machine tells how far it is.
        lines.retain(|line| !(line.contains(", about ") && line.ends_with(" left")));
        assert_eq!(output.status.code(), Some(1), "{args:?}: {lines:?}");
        assert_eq!(lines.len(), 1, "{args:?}: {lines:?}");
        assert!(
            lines[0].contains("standard output") && lines[0].contains("No space left"),
            "{args:?}: {lines:?}"
        );
        // Nobody to tell either: the exit code stays.
        let silent = nextscale(args).stdout(full()).stderr(full()).status();
        // What was to be written is there now, and is not overwritten.
        let wrote = matches!(args[0], "convert" | "tokenize" | "reconstruct");
        let expected = if wrote { 2 } else { 1 };
        assert_eq!(silent.unwrap().code(), Some(expected), "{args:?}");
        // A reader that has gone away.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        if !wrote {
            let output = nextscale(args).stdout(writer).output().unwrap();
            assert_eq!(output.stderr, b"", "{args:?}");
            assert_ne!(output.status.code(), Some(101), "{args:?}");
        }
    }
    // Mistakes on a full standard error.
    for args in [&["info", "nowhere"][..], &["info"], &["sample", "--x"]] {
        let status = nextscale(args).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn a_tilde_is_the_home_in_every_spelling_of_a_path() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tiny_tokenizer(dir.path());
    let home = tokenizer.parent().unwrap();
    let name = tokenizer.file_name().unwrap().to_str().unwrap();
    let at_home = |args: &[&str]| {
        let output = nextscale(args)
            .env("HOME", home)
            .current_dir(dir.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text)
    };
    let from = format!("~/{name}");
    assert_eq!(at_home(&["info", &from]).0, Some(0));
    assert_eq!(at_home(&["convert", &from, "~/made.pth"]).0, Some(0));
    assert!(home.join("made.pth").exists());
    let (code, text) = at_home(&["eval", "--model=~/none", "--data_path", "~/data"]);
    assert!(
        code == Some(2) && text.contains(&home.join("none").display().to_string()),
        "{text}"
    );
    let (code, text) = at_home(&[
        "tokenize",
        &format!("--tokenizer={from}"),
        "--data_path=~/data",
        "--device=cpu",
    ]);
    assert!(
        code == Some(2) && text.contains(&home.join("data").display().to_string()),
        "{text}"
    );
    // Only there, and only as a folder's name of its own.
    let (code, text) = at_home(&["info", "x/~/y"]);
    assert!(code == Some(2) && text.contains("x/~/y"), "{text}");
    let (code, text) = at_home(&["info", "~nobody/y"]);
    assert!(code == Some(2) && text.contains(" ~nobody/y"), "{text}");
    assert!(!dir.path().join("~").exists());
}

/// Temporary files in a folder.
fn begun(dir: &Path) -> usize {
    let names = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name());
    names
        .filter(|n| n.to_string_lossy().ends_with(".tmp"))
        .count()
}

fn wait_for(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(120), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_signal_leaves_no_temporary_file_and_a_kill_none_after_the_next_run() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tiny_tokenizer(dir.path());
    let folder = dir.path().join("tokens");
    std::fs::create_dir(&folder).unwrap();
    let out = folder.join("k.safetensors");
    let tokenizer = format!("--tokenizer={}", tokenizer.display());
    let to = format!("--out={}", out.display());
    let args = |crops: &'static str| {
        [
            "tokenize",
            &tokenizer,
            "--data_path=builtin:shapes",
            "--device=cpu",
            "--threads=1",
            "--force",
            crops,
            &to,
        ]
        .map(str::to_owned)
    };
    // Far more than is done before the signal comes.
    let start = || -> Child {
        Command::new(env!("CARGO_BIN_EXE_nextscale"))
            .args(args("--crops=1024"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    for (signal, code) in [("-INT", 130), ("-TERM", 143), ("-KILL", -1)] {
        let mut child = start();
        wait_for("the file is begun", || begun(&folder) == 1);
        let killed = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status();
        assert!(killed.unwrap().success());
        let status = child.wait().unwrap();
        assert_eq!(status.code().unwrap_or(-1), code, "{signal}");
        assert_eq!(begun(&folder), usize::from(signal == "-KILL"), "{signal}");
        assert!(!out.exists());
    }
    let args = args("--crops=1");
    succeed(&args.each_ref().map(String::as_str));
    assert_eq!(begun(&folder), 0);
    assert!(out.exists());
    assert!(run(&["info", out.to_str().unwrap()]).status.success());
}
