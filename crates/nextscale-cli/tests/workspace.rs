//! Every crate of the workspace states the same least Rust version, so that one check with that compiler is a check of all.

use std::fs;
use std::path::Path;

/// The value of `key = "value"`, in a section of a manifest.
fn stated<'a>(manifest: &'a str, section: &str, key: &str) -> Option<&'a str> {
    let lines = manifest.lines().skip_while(|line| *line != section).skip(1);
    let own = lines.take_while(|line| !line.starts_with('['));
    let value = own.filter_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('='));
    value.map(str::trim).next()
}

#[test]
fn one_least_rust_version_for_all() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |path: &str| {
        let path = root.join(path);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    let own = read("Cargo.toml");
    let least = stated(&own, "[workspace.package]", "rust-version").unwrap();
    let package = |manifest| stated(manifest, "[package]", "rust-version").map(str::to_owned);
    assert_eq!(package(&read("fuzz/Cargo.toml")).as_deref(), Some(least));
    let mut crates = 0;
    for folder in fs::read_dir(root.join("crates")).unwrap() {
        let name = folder.unwrap().file_name().into_string().unwrap();
        let manifest = read(&format!("crates/{name}/Cargo.toml"));
        assert!(
            manifest.contains("\nrust-version.workspace = true\n"),
            "{name}"
        );
        crates += 1;
    }
    assert!(crates > 6, "{crates}");
    // Tools that read it: no dependency may be chosen that needs a newer compiler.
    assert_eq!(stated(&own, "[workspace]", "resolver"), Some("\"3\""));
    assert!(!root.join("rust-toolchain.toml").exists() && !root.join("rust-toolchain").exists());
}
