//! Names of temporary files, and removing those that dead processes left.
//!
//! A name is `.NAME.MACHINE-PROCESS-COUNT.tmp`. MACHINE stands for one start of one host (or container): only there does a process number mean
//! anything. Files of other machines on a shared disk may be in use whatever their age, so they stay.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::active::is_active;
use crate::remark::remark;
use crate::{Error, Result};

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// How much of the final name a temporary one shows: file systems take names of 255 bytes at most.
const SHOWN: usize = 100;

/// A temporary file of another machine that was not written for so long is mentioned.
const QUIET: Duration = Duration::from_secs(3600);

/// A new name for the temporary file of the file called `name`.
pub(crate) fn name_for(name: &OsStr) -> String {
    let mut shown = name.to_string_lossy().into_owned();
    shown.truncate(shown.floor_char_boundary(SHOWN));
    format!(
        ".{shown}.{}-{}-{}.tmp",
        *MACHINE,
        std::process::id(),
        COUNTER.fetch_add(1, Ordering::Relaxed)
    )
}

/// Host, its start and its space of process numbers, in short.
static MACHINE: LazyLock<String> = LazyLock::new(|| {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let processes = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    machine(&[
        &read("/proc/sys/kernel/hostname"),
        &read("/proc/sys/kernel/random/boot_id"),
        &processes.to_string_lossy(),
    ])
});

fn machine(marks: &[&str]) -> String {
    format!("{:08x}", crc32c::crc32c(marks.join("\n").as_bytes()))
}

/// Who writes, or wrote, a temporary file.
#[derive(Debug, PartialEq, Eq)]
struct Owner<'a> {
    machine: &'a str,
    process: u32,
}

/// The owner in a temporary file's name.
fn owner(name: &str) -> Option<Owner<'_>> {
    let inner = name.strip_prefix('.')?.strip_suffix(".tmp")?;
    let (_, tail) = inner.rsplit_once('.')?;
    let mut parts = tail.split('-');
    let (machine, process, count) = (parts.next()?, parts.next()?, parts.next()?);
    let sound = machine.len() == 8
        && machine.bytes().all(|b| b.is_ascii_hexdigit())
        && count.parse::<u64>().is_ok()
        && parts.next().is_none();
    let process = process.parse().ok()?;
    sound.then_some(Owner { machine, process })
}

/// Removes temporary files that killed processes of this machine left in `folder`, and returns how many. Files of
/// processes that still run stay, and so do those of other machines.
///
/// # Errors
/// When the folder cannot be listed. A folder that does not exist holds nothing: 0.
pub fn clean_stale(folder: impl AsRef<Path>) -> Result<usize> {
    let folder = folder.as_ref();
    Ok(sort_out(folder).map_err(Error::io(folder))?.removed)
}

/// As [`clean_stale`], the first time that this process writes into `folder`.
pub(crate) fn clean_once(folder: &Path) {
    static SEEN: LazyLock<Mutex<HashSet<PathBuf>>> = LazyLock::new(Mutex::default);
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    // A folder that can't be listed may still be written to.
    if seen.insert(folder.to_path_buf())
        && let Ok(found) = sort_out(folder)
        && found.foreign > 0
    {
        remark(&format!(
            "{}: {} unfinished files of another machine, container or restart (.*.tmp) are left; delete them if nothing writes them any more",
            folder.display(),
            found.foreign
        ));
    }
}

/// What [`sort_out`] found.
struct Found {
    removed: usize,
    /// Of other machines, and not written for a while.
    foreign: usize,
}

fn sort_out(folder: &Path) -> io::Result<Found> {
    let mut found = Found {
        removed: 0,
        foreign: 0,
    };
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(owner) = name.to_str().and_then(owner) else {
            continue;
        };
        if owner.machine != *MACHINE {
            let written = entry.metadata().and_then(|m| m.modified());
            let quiet = written.is_ok_and(|at| {
                SystemTime::now()
                    .duration_since(at)
                    .is_ok_and(|age| age > QUIET)
            });
            found.foreign += usize::from(quiet);
            continue;
        }
        let in_use = if owner.process == std::process::id() {
            is_active(&name)
        } else {
            is_running(owner.process)
        };
        if !in_use && fs::remove_file(entry.path()).is_ok() {
            found.removed += 1;
        }
    }
    Ok(found)
}

/// Whether a process of that number runs here; yes where that cannot be known.
fn is_running(process: u32) -> bool {
    let proc = Path::new("/proc");
    !proc.join("self").exists() || proc.join(process.to_string()).exists()
}

#[cfg(test)]
mod tests {
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
    fn a_name_tells_its_owner() {
        let name = name_for(OsStr::new("a.b-c.npz"));
        let us = Owner {
            machine: &MACHINE,
            process: std::process::id(),
        };
        assert!(name.starts_with(".a.b-c.npz."), "{name}");
        assert_eq!(owner(&name), Some(us));
        assert_ne!(name, name_for(OsStr::new("a.b-c.npz")));
        let long = name_for(OsStr::new(&"ü".repeat(127)));
        assert!(long.len() < 160 && owner(&long).is_some(), "{long}");
        assert_ne!(machine(&["a", "1", "x"]), machine(&["b", "1", "x"]));
        assert_ne!(machine(&["a", "1", "x"]), machine(&["a", "2", "x"]));
        assert_ne!(machine(&["a", "1", "x"]), machine(&["a", "1", "y"]));
    }

    #[test]
    fn only_what_dead_processes_of_this_machine_left_goes() {
        let dir = tempfile::tempdir().unwrap();
        let dead = u32::MAX; // above every process number that a system gives
        let us = std::process::id();
        let machine = &*MACHINE;
        let other = if machine == "00000000" {
            "00000001"
        } else {
            "00000000"
        };
        let gone = [
            format!(".a.safetensors.{machine}-{dead}-0.tmp"),
            format!(".a.bin.{machine}-{us}-{}.tmp", u64::MAX),
        ];
        let stay = [
            format!(".a.bin.{other}-{dead}-0.tmp"),
            format!(".a.bin.{other}-{us}-{}.tmp", u64::MAX),
            format!(".a.bin.{machine}-1-0.tmp"),
            format!(".a.bin.{dead}-0.tmp"),
            format!(".a.bin.{machine}-{dead}-0-0.tmp"),
            ".hidden".into(),
            ".x.tmp".into(),
            "a.bin".into(),
            "notes.tmp".into(),
        ];
        for name in gone.iter().chain(&stay) {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        // By another spelling of the folder than the one that the live file was made with.
        let spelled = dir.path().join("../").join(dir.path().file_name().unwrap());
        let removed = std::cell::Cell::new(usize::MAX);
        std::fs::create_dir(dir.path().join("below")).unwrap();
        super::super::write_atomic(dir.path().join("below/live.bin"), |w| {
            removed.set(clean_stale(spelled.join("below")).map_err(io::Error::other)?);
            w.write_all(b"still here")
        })
        .unwrap();
        assert_eq!(removed.get(), 0);
        assert_eq!(clean_stale(&spelled).unwrap(), gone.len());
        let mut left: Vec<String> = stay.to_vec();
        left.push("below".into());
        left.sort();
        assert_eq!(names(dir.path()), left);
        assert_eq!(clean_stale(dir.path().join("nowhere")).unwrap(), 0);
    }

    #[test]
    fn writing_into_a_folder_cleans_it_once() {
        let dir = tempfile::tempdir().unwrap();
        let stale = dir
            .path()
            .join(format!(".x.npz.{}-{}-0.tmp", *MACHINE, u32::MAX));
        let write = || super::super::write_atomic(dir.path().join("y"), |w| w.write_all(b"y"));
        fs::write(&stale, "x").unwrap();
        write().unwrap();
        assert_eq!(names(dir.path()), ["y"]);
        fs::write(&stale, "x").unwrap();
        write().unwrap();
        assert!(stale.exists(), "listed once only");
    }
}
