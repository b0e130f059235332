//! Fixture files for the tests of this folder.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

/// The path of a fixture.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures")).join(name)
}

/// A fixture that is stored with gzip, unpacked into a folder that lives as long as the first value.
pub(crate) fn unpacked(name: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(Path::new(name).file_name().unwrap());
    let packed = File::open(fixture(&format!("{name}.gz"))).unwrap();
    io::copy(
        &mut GzDecoder::new(BufReader::new(packed)),
        &mut File::create(&path).unwrap(),
    )
    .unwrap();
    (dir, path)
}

/// A fixture in JSON.
pub(crate) fn json(name: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(fixture(name)).unwrap()).unwrap()
}
