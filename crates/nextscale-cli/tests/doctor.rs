//! What `doctor` says, on machines with a GPU and without.

mod common;

use common::{nextscale, refused, succeed};

#[test]
fn libraries_can_be_left_out() {
    let doctor = |without: &str| {
        let mut c = nextscale(&["doctor"]);
        c.env("NEXTSCALE_WITHOUT", without).output().unwrap()
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let out = doctor("cudnn, NCCL");
    assert!(out.status.success());
    let all = text(out.stdout);
    for name in ["cuDNN", "NCCL"] {
        let line = format!("left out     {name} by NEXTSCALE_WITHOUT");
        assert!(all.lines().any(|l| l == line), "{all}");
        assert!(!all.contains(&format!("library      {name}")), "{all}");
    }
    let out = doctor("cudnn,cudann");
    assert_eq!(out.status.code(), Some(2));
    let line = text(out.stderr);
    assert!(
        line.contains("\"cudann\"") && line.contains("cuDNN"),
        "{line}"
    );
    assert_eq!(line.lines().count(), 1, "{line}");
}

/// Sums over TCP, as machines without GPUs have them.
#[test]
fn processes_on_cpus_try_their_sums() {
    for procs in [2, 3] {
        let flag = format!("--procs={procs}");
        let args = ["doctor", "--nccl", &flag, "--device=cpu", "--largest=2"];
        let text = succeed(&args);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1, "{text}");
        let start = format!("TCP          all {procs} ranks: ok, ");
        assert!(lines[0].starts_with(&start), "{text}");
        assert!(lines[0].ends_with(" at 2 MiB"), "{text}");
    }
}

#[test]
fn a_process_that_does_not_come_is_named_in_time() {
    let begun = std::time::Instant::now();
    let args = [
        "doctor",
        "--nccl",
        "--device=cpu",
        "--deadline=2",
        "--rank=0",
        "--world_size=2",
        "--master=127.0.0.1",
    ];
    let mut c = nextscale(&args);
    let out = c.env("NEXTSCALE_JOB", "doctor-alone").output().unwrap();
    let line = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(1), "{line}");
    assert!(
        line.contains("rank 1") && line.lines().count() == 1,
        "{line}"
    );
    assert!(begun.elapsed().as_secs() < 30);
}

#[test]
fn trying_sums_needs_several_processes_and_only_it_takes_them() {
    let line = refused(&["doctor", "--nccl", "--device=cpu"]);
    assert!(line.contains("--procs"), "{line}");
    let line = refused(&["doctor", "--procs=2"]);
    assert!(line.contains("--nccl"), "{line}");
    let line = nextscale(&["doctor", "--deadline=3"]).output().unwrap();
    assert_eq!(line.status.code(), Some(2));
}

/// A machine without a GPU is told what it can do; where it has no use for NVIDIA's libraries none is called missing.
#[test]
fn cores_vectors_and_memory_are_told_and_only_what_is_wanted_is_missing() {
    let text = succeed(&["doctor"]);
    let line = |start: &str| {
        let found = text.lines().find(|l| l.starts_with(start));
        found.unwrap_or_else(|| panic!("{start}: {text}"))
    };
    let cpu = line("cpu          ");
    assert!(cpu.contains("core") && cpu.ends_with(" at once"), "{cpu}");
    if cfg!(target_os = "linux") {
        let memory = line("memory       ");
        assert!(memory.contains(" GiB can be had of the "), "{memory}");
    }
    let missing = text.lines().any(|l| l.starts_with("missing "));
    match text.contains("gpu          none, and nothing is missing") {
        true => {
            assert!(!missing, "{text}");
            assert!(line("gpu ").contains("32 to 64 pixels"), "{text}");
            line("with a GPU   CUDA 12");
        }
        false => {
            line("gpu ");
            line("supported    CUDA 12");
        }
    }
}
