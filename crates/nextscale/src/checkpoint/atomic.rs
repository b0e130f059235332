//! Writing a file whole or not at all.
//!
//! The content goes to a temporary file in the same folder, is forced to disk, and only then takes the
//! final name. Whatever goes wrong before (a full disk, a kill, a power cut), the file of that name stays
//! what it was. A killed process leaves a `.NAME.PID-N.tmp` behind, which nothing reads and
//! [`clean_stale`] removes.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::{Error, Result};

/// What [`write_atomic`] hands out: somewhere to write, with seeking (archives need it).
pub trait WriteSeek: Write + Seek {}
impl<T: Write + Seek + ?Sized> WriteSeek for T {}

/// Temporary files that this process is writing right now, which [`clean_stale`] must leave alone.
static ACTIVE: LazyLock<Mutex<HashSet<PathBuf>>> = LazyLock::new(Mutex::default);
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Removes its file when dropped, unless it was kept.
struct TempFile {
    path: PathBuf,
    kept: bool,
}

impl TempFile {
    fn active() -> std::sync::MutexGuard<'static, HashSet<PathBuf>> {
        ACTIVE.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing to tell the caller here: the error that brought us here is the one that matters.
            let _ = fs::remove_file(&self.path);
        }
        Self::active().remove(&self.path);
    }
}

/// Writes the file at `path` by calling `write`, so that the name shows either the old or the whole new content.
/// A symbolic link is followed: the file that it points to is replaced.
///
/// # Errors
/// Any error of `write`, of the disk or of the folder; the old file is then unchanged and the temporary one removed.
pub fn write_atomic<F>(path: impl AsRef<Path>, write: F) -> Result<()>
where
    F: FnOnce(&mut dyn WriteSeek) -> io::Result<()>,
{
    let path = path.as_ref();
    try_write(path, write).map_err(Error::io(path))
}

fn try_write<F>(path: &Path, write: F) -> io::Result<()>
where
    F: FnOnce(&mut dyn WriteSeek) -> io::Result<()>,
{
    let target = match fs::symlink_metadata(path) {
        Ok(m) if m.is_symlink() => fs::canonicalize(path)?,
        _ => path.to_path_buf(),
    };
    if target.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::IsADirectory,
            "is a folder, a file is to be written here",
        ));
    }
    let name = target
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "is not the name of a file"))?;
    let folder = match target.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };

    let mut temp_name = std::ffi::OsString::from(".");
    temp_name.push(name);
    temp_name.push(format!(
        ".{}-{}.tmp",
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    ));
    let mut temp = TempFile {
        path: folder.join(temp_name),
        kept: false,
    };
    TempFile::active().insert(temp.path.clone());

    // A file of this very name can only be the remains of a dead process that had our number.
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&temp.path)?);
    write(&mut out)?;
    out.flush()?;
    out.into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_all()?;
    fs::rename(&temp.path, &target)?;
    temp.kept = true;
    sync_folder(folder)
}

/// Makes a rename in `folder` survive a power cut, where the system can do that.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        match File::open(folder)?.sync_all() {
            // Some network file systems cannot sync a folder; the file itself is synced.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
                ) =>
            {
                Ok(())
            }
            other => other,
        }
    } else {
        Ok(())
    }
}

/// Removes temporary files that killed processes left in `folder`, and returns how many. Files of processes that
/// still run on this machine stay. Meant for the start of a run, by one process.
///
/// # Errors
/// When the folder cannot be listed. A folder that does not exist holds nothing: 0.
pub fn clean_stale(folder: impl AsRef<Path>) -> Result<usize> {
    let folder = folder.as_ref();
    let entries = match fs::read_dir(folder) {
        Ok(e) => e,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(Error::io(folder)(e)),
    };
    let mut removed = 0;
    for entry in entries {
        let path = entry.map_err(Error::io(folder))?.path();
        let Some(pid) = path
            .file_name()
            .and_then(|n| n.to_str())
            .and_then(temp_owner)
        else {
            continue;
        };
        let in_use = if pid == std::process::id() {
            TempFile::active().contains(&path)
        } else {
            is_running(pid)
        };
        if !in_use && fs::remove_file(&path).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}

/// The process number in a name of the form `.NAME.PID-N.tmp`.
fn temp_owner(name: &str) -> Option<u32> {
    let inner = name.strip_prefix('.')?.strip_suffix(".tmp")?;
    let (_, tail) = inner.rsplit_once('.')?;
    let (pid, count) = tail.split_once('-')?;
    count.parse::<u64>().ok()?;
    pid.parse().ok()
}

/// Whether a process of that number runs here; yes where that cannot be known.
fn is_running(pid: u32) -> bool {
    let proc = Path::new("/proc");
    !proc.join("self").exists() || proc.join(pid.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut v: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        v.sort();
        v
    }

    #[test]
    fn writes_replaces_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        for text in ["first", "second, longer", "3"] {
            write_atomic(&path, |w| w.write_all(text.as_bytes())).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(names(dir.path()), ["a.bin"]);
    }

    #[test]
    fn a_full_disk_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        fs::write(&path, "old").unwrap();
        let err = write_atomic(&path, |w| {
            w.write_all(&[7; 3 << 20])?;
            // The real error of a full disk, from the device made for it.
            let mut full = File::options().write(true).open("/dev/full")?;
            full.write_all(b"x")
        })
        .unwrap_err();
        assert!(
            err.to_string().contains("a.bin") && err.to_string().contains("No space left"),
            "{err}"
        );
        assert_eq!(err.exit_code(), 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(dir.path()), ["a.bin"]);
    }

    #[test]
    fn folders_and_missing_folders_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            write_atomic(dir.path(), |_| Ok(()))
                .unwrap_err()
                .to_string()
                .contains("folder")
        );
        let missing = dir.path().join("no/where.bin");
        assert!(
            write_atomic(&missing, |_| Ok(()))
                .unwrap_err()
                .to_string()
                .contains("where.bin")
        );
        assert!(names(dir.path()).is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("real"), "old").unwrap();
        std::os::unix::fs::symlink(dir.path().join("real"), dir.path().join("link")).unwrap();
        write_atomic(dir.path().join("link"), |w| w.write_all(b"new")).unwrap();
        assert!(
            fs::symlink_metadata(dir.path().join("link"))
                .unwrap()
                .is_symlink()
        );
        assert_eq!(fs::read_to_string(dir.path().join("real")).unwrap(), "new");
    }

    #[test]
    fn stale_files_go_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let gone = u32::MAX; // above every process number that a system gives
        let stale = format!(".a.safetensors.{gone}-0.tmp");
        let own_remains = format!(".a.bin.{}-{}.tmp", std::process::id(), u64::MAX);
        for n in [
            stale.as_str(),
            &own_remains,
            "a.bin",
            ".hidden",
            ".x.tmp",
            "notes.tmp",
            ".a.12.tmp",
        ] {
            fs::write(dir.path().join(n), "x").unwrap();
        }
        let path = dir.path().join("live.bin");
        let removed = std::cell::Cell::new(0);
        write_atomic(&path, |w| {
            removed.set(clean_stale(dir.path()).map_err(io::Error::other)?);
            w.write_all(b"still here")
        })
        .unwrap();
        assert_eq!(removed.get(), 2);
        assert_eq!(fs::read_to_string(&path).unwrap(), "still here");
        assert_eq!(
            names(dir.path()),
            [
                ".a.12.tmp",
                ".hidden",
                ".x.tmp",
                "a.bin",
                "live.bin",
                "notes.tmp"
            ]
        );
        assert_eq!(clean_stale(dir.path().join("nowhere")).unwrap(), 0);
    }

    /// Not a test of its own: the process that the next test kills while it saves.
    #[test]
    fn child_that_is_killed_while_saving() {
        let Some(path) = std::env::var_os("NEXTSCALE_TEST_KILL_TARGET") else {
            return;
        };
        let _ = write_atomic(path, |w| {
            loop {
                w.write_all(&[1; 4096])?;
                std::thread::sleep(Duration::from_micros(200));
            }
        });
    }

    #[test]
    fn a_kill_during_a_save_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ckpt.safetensors");
        fs::write(&path, "the old one").unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "checkpoint::atomic::tests::child_that_is_killed_while_saving",
            ])
            .env("NEXTSCALE_TEST_KILL_TARGET", &path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        let started = || {
            names(dir.path()).iter().any(|n| temp_owner(n).is_some())
                && fs::read_dir(dir.path())
                    .unwrap()
                    .any(|e| e.unwrap().metadata().is_ok_and(|m| m.len() > 1 << 16))
        };
        while !started() {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "the child never began to save"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(clean_stale(dir.path()).unwrap(), 0, "the child still runs");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "the old one");
        assert_eq!(clean_stale(dir.path()).unwrap(), 1);
        assert_eq!(names(dir.path()), ["ckpt.safetensors"]);
    }
}
