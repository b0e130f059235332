//! The cache on disk, which outlives a run: compiled kernels and measured choices.
//!
//! A file is named by a hash of what its content is for: a kernel's source and its GPU, or an operation's sizes, its GPU and the library's
//! version. What was measured does not follow from these, so a run that is to repeat bit for bit needs the choices that it began
//! with. A file is written under another name and renamed, so that many processes may start at once, and it carries its length and
//! hash, so that a damaged one is not used.

use crate::gpu::Gpu;
use std::fs::{File, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long to wait for what another process or thread makes. One that is stopped must not stop the others.
const PATIENCE: Duration = Duration::from_secs(60);

/// The folder: `NEXTSCALE_KERNEL_CACHE`, else under the user's cache folder. `None` where there is neither.
pub fn folder() -> Option<PathBuf> {
    if let Some(d) = std::env::var_os("NEXTSCALE_KERNEL_CACHE") {
        return Some(d.into());
    }
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")))?;
    Some(base.join("nextscale/kernels"))
}

/// What was stored for `key` under a kind's name.
pub(crate) fn load(kind: &str, key: &str) -> Option<Vec<u8>> {
    let file = std::fs::read(folder()?.join(file_name(kind, key))).ok()?;
    checked(&file).map(<[u8]>::to_vec)
}

/// Stores `content` for `key`. A folder that can't be written to costs time later, and the certainty of the same choices.
pub(crate) fn store(kind: &str, key: &str, content: &[u8]) {
    if let Some(folder) = folder() {
        let _ = write(&folder.join(file_name(kind, key)), content);
    }
}

/// Whether something was stored for `key`.
pub(crate) fn contains(kind: &str, key: &str) -> bool {
    folder().is_some_and(|folder| folder.join(file_name(kind, key)).exists())
}

/// The right to make what `key` is for, which one thread of one process has at a time, until this is dropped.
#[derive(Debug)]
pub(crate) struct CacheLock(#[expect(dead_code, reason = "held for its lock")] File);

/// Waits for the lock of a key. `None` where the folder takes no files or the lock does not become free.
pub(crate) fn lock(kind: &str, key: &str) -> Option<CacheLock> {
    let folder = folder()?;
    std::fs::create_dir_all(&folder).ok()?;
    lock_at(&folder.join(format!(".{}.lock", file_name(kind, key))))
}

/// What `find` finds of an earlier measurement, or the lock under which to measure: processes that start together measure one after
/// the other and take the same, so that their sums have one order. `gpu` has no work left then: among it might be a sum that waits for
/// another process, which may wait for this lock.
pub(crate) fn choice_or_lock<T>(
    gpu: &Gpu,
    kind: &str,
    find: impl Fn() -> Option<T>,
) -> Result<T, Option<CacheLock>> {
    if let Some(choice) = find() {
        return Ok(choice);
    }
    // What fails here fails again where it is measured.
    let _ = gpu.synchronize();
    let lock = lock(kind, "choices");
    find().ok_or(lock)
}

fn lock_at(path: &Path) -> Option<CacheLock> {
    let file = File::create(path).ok()?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Some(CacheLock(file)),
            Err(TryLockError::WouldBlock) if begun.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(_) => return None,
        }
    }
}

fn file_name(kind: &str, key: &str) -> String {
    format!("{kind}-{:016x}", hash(key.as_bytes()))
}

/// To name and check files by; no defence against anybody.
fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = folder.join(format!(
        ".{name}.{}-{:?}.tmp",
        std::process::id(),
        std::thread::current().id()
    ));
    let mut file = std::fs::File::create(&part)?;
    file.write_all(&(content.len() as u64).to_le_bytes())?;
    file.write_all(&hash(content).to_le_bytes())?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&part, path)
}

fn checked(file: &[u8]) -> Option<&[u8]> {
    let (length, rest) = file.split_first_chunk::<8>()?;
    let (stated, content) = rest.split_first_chunk::<8>()?;
    let whole = u64::from_le_bytes(*length) == content.len() as u64;
    (whole && u64::from_le_bytes(*stated) == hash(content)).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn locks_are_held_one_after_the_other() {
        let path = std::env::temp_dir().join(format!("nextscale-lock-{}", std::process::id()));
        let (first, made) = (lock_at(&path).unwrap(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _second = lock_at(&path).unwrap();
                assert!(made.load(Ordering::SeqCst));
            });
            std::thread::sleep(Duration::from_millis(50));
            made.store(true, Ordering::SeqCst);
            drop(first);
        });
        std::fs::remove_file(&path).unwrap();
        assert!(lock_at(Path::new("/nowhere/at/all")).is_none());
    }

    #[test]
    fn a_damaged_file_is_not_used() {
        let dir = std::env::temp_dir().join(format!("nextscale-cache-{}", std::process::id()));
        let path = dir.join("x");
        write(&path, b"machine code").unwrap();
        let mut file = std::fs::read(&path).unwrap();
        assert_eq!(checked(&file), Some(&b"machine code"[..]));
        *file.last_mut().unwrap() ^= 1;
        assert_eq!(checked(&file), None);
        assert_eq!(checked(&file[..9]), None);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
