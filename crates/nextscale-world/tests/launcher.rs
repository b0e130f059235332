//! The launcher of one machine: naming, exit codes, signals, restarts, and its own death.

mod common;
#[path = "common/process.rs"]
mod process;
#[path = "../examples/world_member.rs"]
mod world_member;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use process::{Ended, Process, become_member};
use rustix::process::Signal;

#[test]
fn member_process() {
    become_member();
}

fn launch(args: &str) -> Process {
    Process::start(args, &[])
}

fn lines<'a>(ended: &'a Ended, words: &str) -> Vec<&'a str> {
    let all = ended.out.lines().chain(ended.err.lines());
    all.filter(|line| line.contains(words)).collect()
}

/// Processes that a launcher with this number started and that still live.
fn living(launcher: u32) -> usize {
    let mark = format!("NEXTSCALE_JOB=launch {launcher}\0");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let ours = processes.filter(|process| {
        let environ = fs::read(process.path().join("environ")).unwrap_or_default();
        environ
            .windows(mark.len())
            .any(|window| window == mark.as_bytes())
    });
    ours.count()
}

fn until(what: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(40);
    while !what() {
        assert!(Instant::now() < end, "waited in vain");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn all_end_well() {
    let ended = launch("--procs=3").end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(lines(&ended, "of 3 by Launch done").len(), 3);
    assert_eq!(lines(&ended, "[rank 2] rank 2 on ").len(), 1);
    assert!(lines(&ended, "[rank 0]").is_empty());
}

#[test]
fn the_first_that_failed_is_named_and_gives_the_exit_code() {
    for (act, code, words) in [
        ("kill", 137, "rank 2 ended by signal 9 (SIGKILL)"),
        ("exit", 3, "rank 2 ended with exit code 3"),
        ("input", 2, "rank 2 ended with exit code 2"),
    ] {
        let ended = launch(&format!(
            "--procs=3 --max-restarts=0 --steps=1000 --at=2:4:{act}"
        ))
        .end();
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert_eq!(lines(&ended, words), [words]);
    }
}

#[test]
fn one_that_hangs_after_a_failure_is_ended() {
    let ended = launch("--procs=2 --patience=0.5 --at=1:4:kill --at=0:4:hang").end();
    assert_eq!(ended.code, Some(137), "{ended:?}");
}

#[test]
fn all_are_started_again() {
    let ended = launch("--procs=3 --max-restarts=2 --steps=30 --at=1:7:kill").end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(lines(&ended, "are started again (restart 1 of 2)").len(), 1);
    assert_eq!(lines(&ended, "done, local rank").len(), 3);
    assert_eq!(lines(&ended, ", started again").len(), 3);
    // What the user gave stays wrong.
    let ended = launch("--procs=2 --max-restarts=2 --at=1:7:input").end();
    assert_eq!(ended.code, Some(2));
    assert!(lines(&ended, "started again").is_empty());
}

#[test]
fn signals_reach_all() {
    for (signal, orderly, code) in [
        (Signal::INT, true, 130),
        (Signal::TERM, true, 130),
        (Signal::TERM, false, 143),
        (Signal::HUP, false, 129),
    ] {
        let orderly = if orderly { "--orderly" } else { "" };
        let launcher = launch(&format!(
            "--procs=3 --max-restarts=3 --steps=1000000 --pause=0.005 {orderly}"
        ));
        until(|| living(launcher.id()) == 3);
        // Time to get to their steps, where they handle signals.
        thread::sleep(Duration::from_millis(800));
        let id = launcher.id();
        launcher.signal(signal);
        let ended = launcher.end();
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(lines(&ended, "started again (").is_empty());
        assert_eq!(living(id), 0);
    }
}

#[test]
fn nobody_stays_when_the_launcher_is_killed() {
    let launcher = launch("--procs=3 --steps=1000000 --pause=0.005");
    let id = launcher.id();
    until(|| living(id) == 3);
    thread::sleep(Duration::from_millis(300));
    launcher.signal(Signal::KILL);
    launcher.end();
    until(|| living(id) == 0);
}
