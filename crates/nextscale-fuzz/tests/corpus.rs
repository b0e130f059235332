//! Every file of the corpus through its target, and a check that the corpus reaches what it is for.

use std::fs;
use std::path::Path;

use nextscale_fuzz::{TARGETS, Target};

fn corpus((name, _): &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect()
}

#[test]
fn every_file_of_the_corpus_passes() {
    for target in &TARGETS {
        let files = corpus(target);
        assert!(!files.is_empty(), "{}: no corpus", target.0);
        files.iter().for_each(|bytes| target.1(bytes));
    }
}

#[test]
fn what_is_cut_short_passes_too() {
    for target in &TARGETS {
        for bytes in corpus(target) {
            for part in 1..4 {
                target.1(&bytes[..bytes.len() * part / 4]);
            }
        }
    }
}
