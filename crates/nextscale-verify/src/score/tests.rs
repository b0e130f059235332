//! The recorded scores pass; changed ones are found.

use crate::{Bundle, Kind, Line, Machine, Verdict};
use std::path::{Path, PathBuf};

fn fixture() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/score"))
}

fn check(path: &Path) -> Vec<Line> {
    let bundles = Bundle::find(path).unwrap();
    assert_eq!(bundles.len(), 1);
    assert_eq!(bundles[0].kind, Kind::Score);
    let mut lines = Vec::new();
    let mut see = |line: &Line| lines.push(line.clone());
    bundles[0].check(Machine::CPU, &mut see).unwrap();
    lines
}

#[test]
#[ignore]
fn show() {
    let t = std::time::Instant::now();
    for line in check(&fixture()) {
        println!("{line}");
    }
    println!("{:?}", t.elapsed());
}
