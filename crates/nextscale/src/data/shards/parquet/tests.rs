use super::super::ShardSource;
use super::*;
use crate::data::{FolderSource, ImageSource, LoadBuffers};
use proptest::collection::vec;
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};

/// Files that pyarrow wrote; `make.py` beside them says with which settings.
fn fixtures() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fixtures/shards"
    ))
}

/// A source of a copy of one of them, in a folder of its own.
fn copied(dir: &Path, name: &str) -> Result<ShardSource> {
    let path = dir.join(name);
    fs::copy(fixtures().join(name), &path).unwrap();
    ShardSource::open(dir, name, &[path])
}

#[test]
fn pictures_and_labels_are_those_of_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let folder = FolderSource::open(fixtures().join("images/train")).unwrap();
    let content = |i: usize| fs::read(folder.path(i).unwrap()).unwrap();
    for name in [
        "snappy",
        "plain",
        "dictionary",
        "snappy2",
        "zstd",
        "zstd2",
        "gzip",
        "lengths",
    ] {
        let source = copied(dir.path(), &format!("{name}.parquet")).unwrap();
        let times = if name == "dictionary" { 2 } else { 1 };
        assert_eq!(source.len(), times * folder.len(), "{name}");
        let classes = if name == "plain" {
            ["0", "1", "2"]
        } else {
            ["ant", "bee", "cow"]
        };
        assert_eq!(source.class_names(), classes, "{name}");
        for i in 0..source.len() {
            let own = i % folder.len();
            assert_eq!(source.label(i), folder.label(own), "{name}");
            assert!(
                source.image(i).unwrap() == folder.image(own).unwrap(),
                "{name} {i}"
            );
            assert!(source.name(i).ends_with(&format!("{name}.parquet:row {i}")));
            source.probe(i).unwrap();
            // The entry leads to the file itself, byte for byte.
            let (shard, entry) = source.place(i).unwrap();
            let mut packed = vec![0; entry.stored as usize];
            source
                .files
                .get(shard)
                .unwrap()
                .read(entry.offset, &mut packed)
                .unwrap();
            let mut out = Vec::new();
            let skip = if entry.codec == Codec::Stored {
                0
            } else {
                entry.skip as usize
            };
            let whole = skip + entry.length as usize;
            entry.codec.unpack(&packed, whole, &mut out).unwrap();
            assert!(out[skip..whole] == content(own), "{name} {i}");
        }
        let codec = |codec| source.entries.iter().filter(|e| e.codec == codec).count();
        let all = source.len();
        match name {
            "plain" | "dictionary" => assert_eq!(codec(Codec::Stored), all),
            "gzip" => assert_eq!(codec(Codec::Gzip), all),
            "zstd" | "zstd2" => assert_eq!(codec(Codec::Zstd) + codec(Codec::ZstdStored), all),
            _ => assert_eq!(codec(Codec::Snappy), all),
        }
    }
}

#[test]
fn what_can_not_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for (name, parts) in [
        ("brotli", ["Brotli", "\"label\""]),
        ("no-bytes", ["row 2", "no picture"]),
        ("no-label", ["row 1", "no label"]),
        ("label", ["row 2", "has label 3"]),
        ("negative", ["row 2", "label -1"]),
        ("no-image", ["no column of images", "picture, label"]),
        (
            "no-labels",
            ["no column of labels", "image.bytes, image.path, kind"],
        ),
        ("text", ["\"label\"", "has texts"]),
        ("empty", ["row 1", "empty picture"]),
        ("incremental", ["DELTA_BYTE_ARRAY", "\"image\""]),
    ] {
        let error = copied(dir.path(), &format!("bad-{name}.parquet")).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.exit_code(), 2);
        let named = text.contains(&format!("bad-{name}.parquet")) && !text.contains('\n');
        assert!(
            named && parts.iter().all(|part| text.contains(part)),
            "{text}"
        );
    }
    let whole = fs::read(fixtures().join("snappy.parquet")).unwrap();
    let path = dir.path().join("cut.parquet");
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n";
    let mut encrypted = whole.clone();
    let end = encrypted.len() - 1;
    encrypted[end] = b'E';
    for (bytes, part) in [
        (&whole[..whole.len() - 100], "it is truncated"),
        (&whole[..3], "it is truncated"),
        (
            &[&whole[..20_000], &whole[30_000..]].concat(),
            "cut.parquet: ",
        ),
        (&lfs[..], "git lfs pull"),
        (&encrypted, "encrypted"),
        (&[b'x'; 100], "no Parquet file"),
    ] {
        fs::write(&path, bytes).unwrap();
        let error = ShardSource::open(dir.path(), "cut", std::slice::from_ref(&path)).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(part), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn damage_anywhere_is_an_error_or_other_pictures(
        file in 0usize..5,
        near_end in any::<bool>(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let name = ["snappy", "zstd2", "gzip", "dictionary", "lengths"][file];
        let mut bytes = fs::read(fixtures().join(format!("{name}.parquet"))).unwrap();
        for (at, value) in changes {
            // The footer is a small part of the file, and most that can go wrong is in it.
            let at = match near_end {
                true => bytes.len() - 1 - at.index(1500),
                false => at.index(bytes.len()),
            };
            bytes[at] = value;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        fs::write(&path, bytes).unwrap();
        match ShardSource::open(dir.path(), "a", &[path]) {
            Err(error) => prop_assert_eq!(error.exit_code(), 2),
            Ok(source) => {
                let mut buffers = LoadBuffers::default();
                for i in 0..source.len().min(20) {
                    if let Err(error) = source.load(i, &mut buffers) {
                        prop_assert_eq!(error.exit_code(), 2);
                    }
                }
            }
        }
    }
}
