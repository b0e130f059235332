//! Where indexes are kept, and when they are made.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::build::index_all;
use super::entry::Entry;
use super::files::Stamp;
use super::index::{Index, IndexedShard};
use crate::remark::remark;
use crate::{Error, Result};

/// How often to look whether another process is done.
const LOOK: Duration = Duration::from_millis(50);

/// Indexing so many bytes takes long enough to be told of.
const LONG: u64 = 2 << 30;

/// The index of these shards, in their order: the one that was kept where it is that of these files, else one made now. Shards that are as they
/// were are not indexed again.
///
/// # Errors
/// As those of indexing a shard. An index that can't be kept is told of.
pub(super) fn open(root: &Path, split: &str, shards: &[PathBuf]) -> Result<Index> {
    let mut files = Vec::with_capacity(shards.len());
    for path in shards {
        let name = path.strip_prefix(root).unwrap_or(path);
        let name = name.to_str().ok_or_else(|| {
            Error::input(format!(
                "{}: the name of a shard must be UTF-8; rename it",
                path.display()
            ))
        })?;
        files.push((path.clone(), name.to_owned(), Stamp::at(path)?));
    }
    let places = places(root, split);
    let mut kept = None;
    for place in &places {
        match Index::read(place) {
            Some(index) if fits(&index, &files) => return Ok(index),
            Some(index) if kept.is_none() => kept = Some(index),
            _ => {}
        }
    }
    // One process makes it; those that wait find it made.
    let (place, _lock) = match places.iter().find_map(|place| Some((place, lock(place)?))) {
        Some((place, lock)) => (Some(place), Some(lock)),
        None => (None, None),
    };
    if let Some(index) = place.and_then(|place| Index::read(place)) {
        if fits(&index, &files) {
            return Ok(index);
        }
        kept = Some(index);
    }
    let index = make(root, files, kept)?;
    let written = match place {
        Some(place) => index.write(place),
        None => Err(Error::failed("no folder for it can be written to")),
    };
    if let Err(error) = written {
        remark(&format!(
            "{}: its index can't be kept ({error}), and is made again the next time",
            root.display()
        ));
    }
    Ok(index)
}

/// Whether an index is of these files as they are.
fn fits(index: &Index, files: &[(PathBuf, String, Stamp)]) -> bool {
    let same = |(shard, (_, name, stamp)): (&IndexedShard, &(_, String, Stamp))| {
        shard.name == *name && shard.stamp == *stamp
    };
    index.shards.len() == files.len() && index.shards.iter().zip(files).all(same)
}

/// Indexes what an older index does not know as it is.
fn make(root: &Path, files: Vec<(PathBuf, String, Stamp)>, kept: Option<Index>) -> Result<Index> {
    let mut known = HashMap::new();
    if let Some(kept) = kept {
        let mut rest = kept.entries.as_slice();
        for shard in kept.shards {
            let (own, after) = rest.split_at(shard.images);
            rest = after;
            known.insert(shard.name.clone(), (shard, own.to_vec()));
        }
    }
    let mut parts: Vec<Option<(IndexedShard, Vec<Entry>)>> = Vec::with_capacity(files.len());
    let (mut new, mut bytes) = (Vec::new(), 0);
    for (path, name, stamp) in files {
        let part = known
            .remove(&name)
            .filter(|(shard, _)| shard.stamp == stamp);
        if part.is_none() {
            bytes += stamp.size;
            new.push((path, name));
        }
        parts.push(part);
    }
    if bytes > LONG {
        remark(&format!(
            "{}: indexing {} shards of {} GB once",
            root.display(),
            new.len(),
            bytes / 1_000_000_000
        ));
    }
    let mut made = index_all(new)?.into_iter();
    let mut index = Index::default();
    for part in parts {
        let (shard, entries) = part
            .or_else(|| made.next())
            .expect("one for each that is new");
        index.shards.push(shard);
        index.entries.extend(entries);
    }
    Ok(index)
}

/// Files that an index may be kept in, the best first: beside the data, and in the user's cache folder.
fn places(root: &Path, split: &str) -> Vec<PathBuf> {
    let own = std::env::var_os("NEXTSCALE_INDEX_CACHE").map(PathBuf::from);
    let cache = || {
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let base = base.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")));
        base.map(|base| base.join("nextscale/indexes"))
    };
    let mut places = Vec::new();
    if own.is_none() {
        places.push(root.join(format!(".nextscale-index-{split}")));
    }
    if let Some(folder) = own.or_else(cache) {
        let mut hasher = DefaultHasher::new();
        let real = std::fs::canonicalize(root);
        real.as_deref().unwrap_or(root).hash(&mut hasher);
        places.push(folder.join(format!("{:016x}-{split}", hasher.finish())));
    }
    places
}

/// Waits for the right to write the file at `place`, which one process has at a time until this is dropped. `None` where its folder takes
/// no files, or knows no locks.
fn lock(place: &Path) -> Option<File> {
    let folder = place.parent()?;
    // The folder of the data is there.
    std::fs::create_dir_all(folder).ok()?;
    let name = place.file_name()?.to_string_lossy();
    let path = folder.join(format!(".{}.lock", name.trim_start_matches('.')));
    let file = File::create(path).ok()?;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Some(file),
            // Whoever has it may have much to read. It ends with that process at the latest.
            Err(TryLockError::WouldBlock) => {
                if !std::mem::replace(&mut told, true) {
                    remark("another process is indexing these shards; waiting for it");
                }
                std::thread::sleep(LOOK);
            }
            // As good as nothing, but the index can be kept.
            Err(TryLockError::Error(_)) => return Some(file),
        }
    }
}
