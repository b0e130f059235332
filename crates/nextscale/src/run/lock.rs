//! One run at a time in an output folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use crate::{Error, Result};

/// Name of the lock file inside the output folder.
pub const LOCK_FILE: &str = "run.lock";

/// Holds an output folder for as long as it lives. The operating system lets go when the process ends,
/// however it ends, so a file left behind never stands in a rerun's way; it is not deleted, for a rerun may
/// already have it open.
#[derive(Debug)]
pub struct RunLock {
    warning: Option<String>,
    file: File,
}

impl RunLock {
    /// Takes the folder `dir`, which must exist.
    ///
    /// # Errors
    /// [`Error::Input`] naming the folder while another live process holds it; [`Error::Io`] if the lock
    /// file can't be opened.
    pub fn acquire(dir: &Path) -> Result<Self> {
        let path = dir.join(LOCK_FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io(&path))?;
        let warning = match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only for the message: an unreadable file just leaves the number out.
                let _ = file.read_to_string(&mut holder);
                let holder = match holder.trim().parse::<u32>() {
                    Ok(process) => format!("process {process}"),
                    Err(_) => "another process".to_owned(),
                };
                return Err(Error::input(format!(
                    "`out`={}: {holder} is already running in this folder; stop it or choose another folder",
                    dir.display()
                )));
            }
            outcome => without_lock(dir, outcome),
        };
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(Error::io(&path))?;
        Ok(Self { warning, file })
    }

    /// What the user should know, where the file system can't protect the folder.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }
}

/// The warning where a lock could not be had: some network file systems have none, and a run there must still be possible.
fn without_lock(dir: &Path, outcome: Result<(), TryLockError>) -> Option<String> {
    let Err(TryLockError::Error(cause)) = outcome else {
        return None;
    };
    Some(format!(
        "{}: the file system can't lock files ({cause}), so a second run in the folder would not be noticed",
        dir.display()
    ))
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // Closing the file would do, were it not for a child process that is just being started and still
        // has a copy of it.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    const DIR: &str = "NEXTSCALE_TEST_LOCK_DIR";

    /// Not a test of its own: the process that the test below starts and kills.
    #[test]
    fn child() {
        let Some(dir) = std::env::var_os(DIR) else {
            return;
        };
        let _lock = RunLock::acquire(Path::new(&dir)).unwrap();
        println!("held");
        // Ends when the parent closes the pipe, should it fail before killing us.
        let _ = std::io::stdin().read_line(&mut String::new());
    }

    #[test]
    fn a_second_run_is_refused_while_the_first_lives_and_not_after_a_kill() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["run::lock::tests::child", "--exact", "--nocapture"])
            .env(DIR, dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("held")));
        let error = RunLock::acquire(dir.path()).unwrap_err();
        let message = error.to_string();
        assert_eq!(error.exit_code(), 2);
        assert!(
            message.contains(&format!("process {} is already", child.id())),
            "{message}"
        );
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(dir.path().join(LOCK_FILE).exists());
        let lock = RunLock::acquire(dir.path()).unwrap();
        assert_eq!(lock.warning(), None);
        // Within one process too.
        assert!(RunLock::acquire(dir.path()).is_err());
        drop(lock);
        RunLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn a_file_system_without_locks_only_warns() {
        let dir = Path::new("run");
        assert_eq!(without_lock(dir, Ok(())), None);
        // ENOLCK, ENOSYS, EOPNOTSUPP
        for number in [37, 38, 95] {
            let cause = std::io::Error::from_raw_os_error(number);
            let text = without_lock(dir, Err(TryLockError::Error(cause))).unwrap();
            assert!(
                text.starts_with("run: the file system can't lock")
                    && text.contains(&format!("(os error {number})")),
                "{text}"
            );
        }
    }

    #[test]
    fn a_missing_folder_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = RunLock::acquire(&dir.path().join("none")).unwrap_err();
        assert!(error.to_string().contains("none"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}
