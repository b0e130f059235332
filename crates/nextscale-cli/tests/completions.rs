//! Completions and manual pages hold every flag of every command, and the programs that read them take them.

mod common;

use common::{refused, run, succeed};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// The commands that the help lists.
fn commands() -> Vec<String> {
    let help = succeed(&["--help"]);
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let list = list.take_while(|line| !line.is_empty());
    let names = list.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names: Vec<String> = names
        .filter(|name| !name.is_empty() && *name != "help")
        .map(str::to_owned)
        .collect();
    assert!(names.len() > 12, "{names:?}");
    names
}

/// The flags that a command's help lists, without their dashes.
fn flags(command: &str) -> BTreeSet<String> {
    let help = succeed(&[command, "--help"]);
    let words = help.lines().filter_map(|line| {
        let line = line.trim_start();
        let line = line.strip_prefix("-h, ").unwrap_or(line);
        line.strip_prefix("--")?.split([' ', '=', '[']).next()
    });
    words.map(str::to_owned).collect()
}

/// Whether `text` holds the flag, and not only a longer one.
fn holds(text: &str, flag: &str) -> bool {
    text.match_indices(flag).any(|(at, _)| {
        let after = text[at + flag.len()..].chars().next();
        !after.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    })
}

/// What the program makes of `input`, if this machine has it.
fn made_by(program: &str, args: &[&str], input: &str) -> Option<String> {
    let child = Command::new(program)
        .args(args)
        .env("LC_ALL", "C.UTF-8")
        .env("MANWIDTH", "120")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.ok()?;
    let text = input.to_owned();
    let mut stdin = child.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    let _ = writer.join();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {error}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn completions_of_every_shell_hold_every_flag() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = succeed(&["completions", shell]);
        for command in commands() {
            assert!(script.contains(&command), "{shell}: {command}");
            for flag in flags(&command) {
                let written = match shell {
                    "fish" => format!("-l {flag}"),
                    _ => format!("--{flag}"),
                };
                assert!(holds(&script, &written), "{shell}: {command} {written}");
            }
        }
    }
    let line = refused(&["completions", "tcl"]);
    assert!(line.contains("tcl") && line.contains("bash"), "{line}");
}

#[test]
fn bash_offers_flags_and_values() {
    let script = succeed(&["completions", "bash"]);
    let ask = |words: &str| {
        let ask = format!(
            "{script}\nCOMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
             _nextscale nextscale \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"\n\
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        made_by("bash", &["--norc"], &ask)
    };
    let Some(offered) = ask("nextscale train --dep") else {
        return;
    };
    assert_eq!(offered.trim(), "--depth");
    let offered = ask("nextscale train-tok").expect("bash was there");
    assert_eq!(offered.trim(), "train-tokenizer");
    let offered = ask("nextscale train --bad_images s").expect("bash was there");
    assert_eq!(offered.trim(), "skip");
    made_by("bash", &["-n"], &script);
}

#[test]
fn a_manual_page_holds_every_flag() {
    for command in commands() {
        let page = succeed(&["man", &command]);
        assert!(
            page.contains(&format!(".TH nextscale-{command} 1"))
                && page.contains(concat!("\"nextscale ", env!("CARGO_PKG_VERSION"))),
            "{page}"
        );
        // A hyphen is written with a backslash.
        for flag in flags(&command) {
            let written = format!("\\-\\-{}", flag.replace('-', "\\-"));
            assert!(holds(&page, &written), "{command} {flag}");
        }
    }
    let Some(page) = made_by("man", &["-l", "-"], &succeed(&["man", "train"])) else {
        return;
    };
    for part in ["nextscale-train", "SYNOPSIS", "--depth", "OPTIMIZATION"] {
        assert!(page.contains(part), "{part} in {page}");
    }
    let line = refused(&["man", "trian"]);
    assert!(
        line.contains("man trian: there is no such command"),
        "{line}"
    );
}

#[test]
fn all_pages_are_written_into_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("man1");
    let said = succeed(&["man", &format!("--out={}", folder.display())]);
    let names = commands();
    assert!(
        said.starts_with(&format!("{} pages in ", names.len() + 1)),
        "{said}"
    );
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    for name in &names {
        assert_eq!(
            read(&format!("nextscale-{name}.1")),
            succeed(&["man", name])
        );
        assert!(read("nextscale.1").contains(&format!("nextscale\\-{}", name.replace('-', "\\-"))));
    }
    let file = Path::new("/dev/null/man1");
    let out = run(&["man", &format!("--out={}", file.display())]);
    assert!(!out.status.success());
    assert!(String::from_utf8_lossy(&out.stderr).contains("/dev/null/man1"));
}
