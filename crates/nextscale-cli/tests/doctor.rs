//! What `doctor` says, on machines with a GPU and without.

mod common;

use common::nextscale;

#[test]
fn libraries_can_be_left_out() {
    let doctor = |without: &str| {
        let mut c = nextscale(&["doctor"]);
        c.env("NEXTSCALE_WITHOUT", without).output().unwrap()
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let out = doctor("cudnn, NCCL");
    assert!(out.status.success());
    let all = text(out.stdout);
    for name in ["cuDNN", "NCCL"] {
        let line = format!("left out     {name} by NEXTSCALE_WITHOUT");
        assert!(all.lines().any(|l| l == line), "{all}");
        assert!(!all.contains(&format!("library      {name}")), "{all}");
    }
    let out = doctor("cudnn,cudann");
    assert_eq!(out.status.code(), Some(2));
    let line = text(out.stderr);
    assert!(
        line.contains("\"cudann\"") && line.contains("cuDNN"),
        "{line}"
    );
    assert_eq!(line.lines().count(), 1, "{line}");
}
