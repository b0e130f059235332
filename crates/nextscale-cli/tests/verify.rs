//! Exit codes and output of `nextscale verify`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn fixtures(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures")).join(name)
}

fn verify(args: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nextscale"))
        .arg("verify")
        .args(args)
        .output()
        .expect("the command starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn passing_bundles_give_0() {
    let out = verify(&[
        &fixtures("amp"),
        &fixtures("schedules"),
        Path::new("--device=cpu"),
    ]);
    let shown = text(&out.stdout);
    assert_eq!(out.status.code(), Some(0), "{shown}");
    assert!(
        shown.contains("amp          pass  scaler_trace/events"),
        "{shown}"
    );
    assert!(shown.contains("27 of 27 quantities pass"), "{shown}");
    assert!(
        shown.contains("2 bundles: 30 of 30 quantities pass"),
        "{shown}"
    );
}

#[test]
fn a_failing_quantity_gives_1() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("verify_fails");
    fs::create_dir_all(&dir).expect("folder");
    let table = fs::read_to_string(fixtures("schedules").join("lr_wd.csv")).expect("fixture");
    fs::write(
        dir.join("rates.csv"),
        table.replacen("0.0003035,", "0.0003036,", 1),
    )
    .expect("file");
    let out = verify(&[&dir, Path::new("--quiet")]);
    let shown = text(&out.stdout);
    assert_eq!(out.status.code(), Some(1), "{shown}");
    assert!(
        shown.contains("FAIL  rates/cos wpe=0.01 wd_end=0.0 lr"),
        "{shown}"
    );
    assert!(!shown.contains("rates/lin "), "{shown}");
}

#[test]
fn unusable_input_gives_2_and_one_line() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("verify_damaged");
    fs::create_dir_all(&dir).expect("folder");
    let trace = fs::read(fixtures("amp").join("scaler_trace.json")).expect("fixture");
    let trace = text(&trace).replacen("\"n_steps\": 14000", "\"n_steps\": \"many\"", 1);
    fs::write(dir.join("trace.json"), trace).expect("file");
    for (args, why) in [
        (vec![fixtures("nowhere")], "there is no such folder"),
        (vec![fixtures("README.md")], "is a file"),
        (vec![fixtures("transforms/inputs")], "no recorded numbers"),
        (vec![dir.clone(), fixtures("amp")], "trace.json"),
        (
            vec![fixtures("amp"), PathBuf::from("--device=abacus")],
            "abacus",
        ),
    ] {
        let args: Vec<&Path> = args.iter().map(PathBuf::as_path).collect();
        let out = verify(&args);
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{said}");
        assert!(
            said.contains(why) && said.trim_end().lines().count() == 1,
            "{said}"
        );
    }
}
