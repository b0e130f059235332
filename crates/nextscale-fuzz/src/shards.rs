//! Shards of images, and the indexes that are kept of them.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use nextscale::data::shards::ShardSource;
use nextscale::data::{ImageSource, LoadBuffers};

/// A tar file as a shard.
pub fn tar(data: &[u8]) {
    shard("a.tar", data);
}

/// A Parquet file as a shard.
pub fn parquet(data: &[u8]) {
    shard("a.parquet", data);
}

/// The index of one shard, without its magic word and checksum. The shard is `a.tar`, 4096 bytes, last written a second after 1970.
pub fn index(data: &[u8]) {
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    let path = dir.path().join("a.tar");
    std::fs::write(&path, [b'5'; 4096]).expect("room for a small file");
    let file = File::options()
        .write(true)
        .open(&path)
        .expect("it was written");
    file.set_modified(UNIX_EPOCH + Duration::from_secs(1))
        .expect("a time");
    let mut bytes = [b"nsindex1", data].concat();
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    std::fs::write(dir.path().join(".nextscale-index-x"), bytes).expect("room for a small file");
    read(dir.path(), &path);
}

fn shard(name: &str, data: &[u8]) {
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    let path = dir.path().join(name);
    std::fs::write(&path, data).expect("room for a small file");
    read(dir.path(), &path);
}

/// Opens a shard and reads a few of its images.
fn read(root: &Path, path: &Path) {
    let source = match ShardSource::open(root, "x", &[path.to_path_buf()]) {
        Ok(source) => source,
        Err(error) => {
            assert_eq!(error.exit_code(), 2, "{error}");
            return;
        }
    };
    assert!(source.is_stored() && source.left_out().is_none_or(|text| !text.is_empty()));
    let mut buffers = LoadBuffers::default();
    for image in 0..source.len().min(4) {
        assert!((source.label(image) as usize) < source.class_names().len());
        assert!(!source.name(image).is_empty());
        if let Err(error) = source.load(image, &mut buffers) {
            assert_eq!(error.exit_code(), 2, "{error}");
        }
    }
    assert!(source.load(source.len(), &mut buffers).is_err());
}
