//! Whole or not at all: full disks, kills, signals, modes and folders that cannot be synced.

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
            "format::atomic::tests::child_that_is_killed_while_saving",
        ])
        .env("NEXTSCALE_TEST_KILL_TARGET", &path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let started = || {
        names(dir.path()).iter().any(|n| n.ends_with(".tmp"))
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

#[test]
fn devices_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (link, error) = (dir.path().join("link"), "is a device or pipe");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    for path in [Path::new("/dev/null"), &link] {
        let text = write_atomic(path, |_| Ok(())).unwrap_err().to_string();
        assert!(text.contains(error), "{text}");
    }
    assert_eq!(names(dir.path()), ["link"]);
}

#[test]
fn a_name_as_long_as_names_may_be_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let name = "n".repeat(255);
    write_atomic(dir.path().join(&name), |w| w.write_all(b"x")).unwrap();
    assert_eq!(names(dir.path()), [name]);
}

#[cfg(unix)]
#[test]
fn a_replaced_file_keeps_its_mode_and_a_new_one_has_that_of_any_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let (plain, path) = (dir.path().join("plain"), dir.path().join("a.bin"));
    File::create(&plain).unwrap();
    let write = || write_atomic(&path, |w| w.write_all(b"x")).unwrap();
    write();
    assert_eq!(mode(&path), mode(&plain));
    for kept in [0o600, 0o664, 0o640, 0o444] {
        fs::set_permissions(&path, fs::Permissions::from_mode(kept)).unwrap();
        write();
        assert_eq!(mode(&path), kept);
    }
}

#[cfg(unix)]
#[test]
fn what_cannot_be_synced_is_no_failure() {
    // A pipe refuses with EINVAL, as folders of some network file systems do.
    let (_reader, writer) = io::pipe().unwrap();
    let pipe = File::from(std::os::fd::OwnedFd::from(writer));
    let refused = pipe.sync_all();
    assert_eq!(
        refused.as_ref().unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
    synced(refused).unwrap();
    // ENOSYS and ENOTSUP; EIO is an error.
    for (number, fails) in [(38, false), (95, false), (5, true)] {
        let outcome = Err(io::Error::from_raw_os_error(number));
        assert_eq!(synced(outcome).is_err(), fails, "{number}");
    }
    sync_folder(Path::new("/a folder that is not there"));
}

const LEAVE: &str = "NEXTSCALE_TEST_LEAVE";

/// Not a test of its own: the process that the next test starts. It ends itself while one file is whole and another is not.
#[test]
fn child_that_leaves() {
    let Some(dir) = std::env::var_os(LEAVE) else {
        return;
    };
    let dir = Path::new(&dir);
    let mut whole = Unfinished::create(&dir.join("whole")).unwrap();
    io::Write::write_all(&mut whole.file, b"all of it").unwrap();
    whole.finish().unwrap();
    let _begun = Unfinished::create(&dir.join("begun")).unwrap();
    let dropped = Unfinished::create(&dir.join("dropped")).unwrap();
    drop(dropped);
    assert_eq!(names(dir).len(), 2);
    leave(143);
}

#[test]
fn leaving_removes_what_is_not_whole_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "format::atomic::tests::child_that_leaves"])
        .env(LEAVE, dir.path())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(143));
    assert_eq!(names(dir.path()), ["whole"]);
    assert_eq!(fs::read(dir.path().join("whole")).unwrap(), b"all of it");
}
