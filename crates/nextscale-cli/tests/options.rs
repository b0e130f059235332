//! Options that can't be met together or on this machine are refused at once, in one line that says what would do.

mod common;

use common::{refused, run, succeed, tiny_tokenizer};

#[test]
fn what_contradicts_the_tokenizer_is_named_together() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tiny_tokenizer(dir.path());
    let tok = format!("--tokenizer={}", tokenizer.display());
    let out = dir.path().join("run");
    let to = format!("--out={}", out.display());
    let base = [
        "train",
        "--device=cpu",
        "--data_path=builtin:shapes",
        "--depth=1",
        &tok,
        &to,
    ];
    let line = refused(&[&base[..], &["--pn=1_2_4", "--patch_size=8"]].concat());
    for part in [
        "--pn ends at 4x4",
        "end at 2x2: give one that does, such as 1_2; and --patch_size=8: a token of ",
        "stands for 16x16 pixels; use --patch_size=16",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    // The same of a token file.
    let tokens = dir.path().join("t.safetensors");
    let (made, val) = (
        format!("--out={}", tokens.display()),
        format!("--val_tokens={}", tokens.display()),
    );
    succeed(&[
        "tokenize",
        "--device=cpu",
        "--data_path=builtin:shapes",
        "--split=val",
        &tok,
        &made,
    ]);
    let tokens = format!("--tokens={}", tokens.display());
    let line = refused(&[
        "train",
        "--device=cpu",
        "--depth=1",
        "--pn=1_2_4",
        "--patch_size=8",
        "--hflip=1",
        &tokens,
        &val,
        &to,
    ]);
    for part in [
        "--tokens=",
        "was made with --pn=1_2; give --pn=1_2 here",
        "; and --hflip=1: ",
        "; and --patch_size=8: ",
        "; and --val_tokens=",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(!out.exists(), "nothing is made for a refused run");
    // A model that no machine holds: what it needs and what there is.
    let line = refused(
        &[
            &base[..4],
            &[&tok, &to, "--pn=1_2", "--bs=4", "--depth=200"],
        ]
        .concat(),
    );
    for part in [
        "--depth=200 --bs=4 --ac=1: 4 images at a time need ",
        " GiB of memory, and of the ",
        " can be had; not even one image",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert!(!out.exists());
}

#[test]
fn pixels_are_no_token_maps() {
    let line = refused(&[
        "train-tokenizer",
        "--device=cpu",
        "--data_path=builtin:shapes",
        "--pn=64",
    ]);
    assert!(
        line.contains("--pn=64: a lone number must be 256, 512 or 1024")
            && line.contains("--pn=1_2_4_8 --patch_size=8"),
        "{line}"
    );
}

/// The published tokenizer with the default batch in the memory of an ordinary machine, and what is advised instead.
#[cfg(target_os = "linux")]
#[test]
fn a_batch_that_does_not_fit_into_memory_is_refused_with_one_that_does() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let to = format!("--out={}", out.display());
    let limited = |bs: &str| {
        let bin = env!("CARGO_BIN_EXE_nextscale");
        let line = format!(
            "ulimit -v 6000000; exec {bin} train-tokenizer --device=cpu --threads=2 --workers=1 --data_path=builtin:shapes --pn=256 --ch=32 --vocab=64 --steps=1 --stop_after=1 --quiet {to} --bs={bs}"
        );
        std::process::Command::new("sh")
            .args(["-c", &line])
            .output()
            .unwrap()
    };
    let refusal = limited("64");
    let text = String::from_utf8_lossy(&refusal.stderr).into_owned();
    assert_eq!(refusal.status.code(), Some(2), "{text}");
    assert!(
        text.starts_with("nextscale: --ch=32 --bs=64 --ac=1: 64 images at a time need ")
            && text.contains(" and of the 5.7 GiB that ulimit gives the program ")
            && text.lines().count() == 1,
        "{text}"
    );
    assert!(!out.exists(), "nothing is made for a refused run");
    let advised = text.split("the largest that fits is ").nth(1).unwrap();
    let advised: usize = advised.split(' ').next().unwrap().parse().unwrap();
    assert!((2..64).contains(&advised), "{text}");
}

#[test]
fn flags_of_the_reference_that_do_nothing_are_told() {
    let out = run(&[
        "train",
        "--device=cpu",
        "--tlr=0.1",
        "--dbg_nan=1",
        "--local_debug=0",
        "--tokenizer=y",
    ]);
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(
        lines[0].starts_with("nextscale: --tlr=0.1: does nothing: "),
        "{text}"
    );
    assert!(
        lines[1].starts_with("nextscale: --dbg_nan=1: does nothing: "),
        "{text}"
    );
    assert!(lines[2].contains("--data_path is missing"), "{text}");
}
