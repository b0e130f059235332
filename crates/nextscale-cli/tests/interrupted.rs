//! A run that is ended early, by a signal or by an error, keeps every whole step, says so by its exit code, and goes on to the
//! uninterrupted run's end, bit for bit.

mod common;

use common::runs::{Tokenizer, Transformer, assert_same_end, content, held, logs, prepared, texts};
use common::{bitmap, nextscale, run, succeed};
use nextscale_tensor::rng::{Purpose, Stream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn start(flags: &[String]) -> Child {
    nextscale(&texts(flags))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn wait_until(child: &mut Child, what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(
            child.try_wait().unwrap().is_none(),
            "the run ended by itself"
        );
        assert!(start.elapsed() < Duration::from_secs(60), "too long");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn send(child: &Child, signal: &str) {
    let sent = Command::new("sh")
        .args(["-c", &format!("kill -{signal} {}", child.id())])
        .status()
        .unwrap();
    assert!(sent.success());
}

/// Waits until the process has a handler for this signal, after which it is not simply ended by it. Whether the process is there still.
fn is_watching(child: &mut Child, number: u32) -> bool {
    let path = format!("/proc/{}/status", child.id());
    let start = Instant::now();
    loop {
        let status = std::fs::read_to_string(&path).unwrap_or_default();
        let mask = status.lines().find_map(|l| l.strip_prefix("SigCgt:"));
        let mask = mask.map_or(0, |m| u64::from_str_radix(m.trim(), 16).unwrap());
        if mask >> (number - 1) & 1 == 1 {
            return true;
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "too long");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a run started here can hear a hang-up: not under `nohup`.
fn hang_ups_are_heard() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    u64::from_str_radix(mask.unwrap().trim(), 16).unwrap() & 1 == 0
}

/// Exit code, standard output and standard error.
fn end(child: Child) -> (Option<i32>, String, String) {
    let out = child.wait_with_output().unwrap();
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

#[test]
fn signals_save_and_end_with_their_code() {
    let dir = prepared();
    let dir = dir.path();
    for trainer in [Tokenizer, Transformer] {
        let hang_up = hang_ups_are_heard().then_some(("HUP", 129));
        for (signal, code) in [("INT", 130), ("TERM", 143)].into_iter().chain(hang_up) {
            let flags = trainer.flags(dir, signal, &["--ep=100000", "--eval_every=0"]);
            let out = dir.join(signal);
            let mut child = start(&flags);
            wait_until(&mut child, || logs(&out)[0].len() > 1);
            send(&child, signal);
            let (ended, told, warned) = end(child);
            assert_eq!(ended, Some(code), "{warned}");
            assert!(
                warned.starts_with(&format!("SIG{signal}: stopping")),
                "{warned}"
            );
            assert!(
                told.starts_with(&format!("stopped by SIG{signal} after step")),
                "{told}"
            );
            assert_eq!(held(&out, trainer) as usize, logs(&out)[0].len());
            std::fs::remove_dir_all(&out).unwrap();
        }
        // What --stop_after asks for is done, and so is a whole run.
        for more in [&["--stop_after=1"][..], &["--ep=1"]] {
            assert!(
                run(&texts(&trainer.flags(dir, "done", more)))
                    .status
                    .success()
            );
        }
    }
}

#[test]
fn an_ignored_hang_up_stays_ignored() {
    let dir = prepared();
    let dir = dir.path();
    let flags = Transformer.flags(dir, "run", &["--ep=100000", "--eval_every=0"]);
    let out = dir.join("run");
    let mut child = Command::new("sh")
        .args([
            "-c",
            "trap '' HUP; exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_nextscale"),
        ])
        .args(&flags)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until(&mut child, || logs(&out)[0].len() > 1);
    send(&child, "HUP");
    let before = logs(&out)[0].len();
    wait_until(&mut child, || logs(&out)[0].len() > before + 5);
    send(&child, "TERM");
    assert_eq!(end(child).0, Some(143));
}

#[test]
fn a_stopped_quickstart_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [
        "quickstart".to_owned(),
        format!("--out={}", dir.path().display()),
        "--device=cpu".into(),
        "--threads=1".into(),
    ];
    let mut child = start(&flags);
    let tokenizer = dir.path().join("tokenizer");
    wait_until(&mut child, || tokenizer.join("run.lock").exists());
    send(&child, "INT");
    let (code, told, warned) = end(child);
    assert_eq!(code, Some(130), "{warned}");
    // Before its first step there is nothing to save.
    let at_once = warned.contains("SIGINT: stopped at once");
    assert!(
        at_once || told.contains("stopped; run the same command again"),
        "{told}{warned}"
    );
    assert!(!dir.path().join("var").exists());
}

#[test]
fn runs_interrupted_anywhere_end_like_whole_ones() {
    let dir = prepared();
    let dir = dir.path();
    let mut draw = Stream::new(3, Purpose::Test, 0, 1);
    for trainer in [Tokenizer, Transformer] {
        let flags = |out: &str| trainer.flags(dir, out, &["--ep=6"]);
        let begun = Instant::now();
        succeed(&texts(&flags("whole")));
        let time = begun.elapsed();
        let out = dir.join("parts");
        let mut before = 0;
        let hang_up = hang_ups_are_heard().then_some(("HUP", 1, Some(129)));
        let signals = [
            ("INT", 2, Some(130)),
            ("KILL", 2, None),
            ("TERM", 15, Some(143)),
        ];
        let more = [("KILL", 2, None), ("INT", 2, Some(130))];
        for (i, (signal, number, code)) in
            signals.into_iter().chain(hang_up).chain(more).enumerate()
        {
            let mut child = start(&flags("parts"));
            assert!(is_watching(&mut child, number));
            if i == 0 {
                // So that there is something to lose.
                wait_until(&mut child, || logs(&out)[0].len() > 1);
            }
            std::thread::sleep(time.mul_f32(0.4 * draw.uniform()));
            send(&child, signal);
            let (ended, told, warned) = end(child);
            let now = held(&out, trainer);
            assert!(now >= before, "{trainer:?}: {now} steps after {before}");
            assert!(now > 0);
            before = now;
            if ended == Some(0) {
                assert!(told.starts_with("done after 12 steps"), "{told}");
                break;
            }
            assert_eq!(ended, code, "{trainer:?}, SIG{signal}: {warned}");
            if code.is_some() {
                assert_eq!(
                    now as usize,
                    logs(&out)[0].len(),
                    "{trainer:?}, SIG{signal}"
                );
            }
        }
        succeed(&texts(&flags("parts")));
        assert_same_end(trainer, &dir.join("whole"), &dir.join("parts"));
        std::fs::remove_dir_all(dir.join("whole")).unwrap();
        std::fs::remove_dir_all(dir.join("parts")).unwrap();
    }
}

#[test]
fn a_bad_validation_image_is_named_at_the_start_and_loses_nothing() {
    let dir = prepared();
    let dir = dir.path();
    let image = dir.join("images/val/class1/1.bmp");
    let good = std::fs::read(&image).unwrap();
    for trainer in [Tokenizer, Transformer] {
        let more = ["--ep=4", "--eval_every=2"];
        succeed(&texts(&trainer.flags(dir, "whole", &more)));
        std::fs::write(&image, "").unwrap();
        let flags = trainer.flags(dir, "parts", &more);
        let out = dir.join("parts");
        for _ in 0..2 {
            let ended = run(&texts(&flags));
            let text = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert_eq!(ended.status.code(), Some(2), "{text}");
            let error = text.lines().last().unwrap();
            assert!(
                error.contains("1.bmp") && error.contains("holds the state after step 4"),
                "{text}"
            );
            assert!(
                text.starts_with("warning: validation image ") && text.contains("is empty"),
                "{text}"
            );
            assert_eq!(held(&out, trainer), 4);
        }
        std::fs::write(&image, &good).unwrap();
        succeed(&texts(&flags));
        assert_same_end(trainer, &dir.join("whole"), &out);
        std::fs::remove_dir_all(dir.join("whole")).unwrap();
        std::fs::remove_dir_all(out).unwrap();
    }
}

#[test]
fn a_training_image_that_goes_away_loses_nothing() {
    let dir = prepared();
    let dir = dir.path();
    let (image, aside) = (dir.join("images/train/class0/2.bmp"), dir.join("aside"));
    // Too long to be kept in memory: it is read in every epoch.
    let mut long = b"P6 32 320 255\n".to_vec();
    long.extend((0..32 * 320 * 3).map(|i| (i % 251) as u8));
    std::fs::write(&image, long).unwrap();
    for trainer in [Tokenizer, Transformer] {
        let endless = ["--ep=100000", "--eval_every=0"];
        let flags = trainer.flags(dir, "parts", &endless);
        let out = dir.join("parts");
        let mut child = start(&flags);
        wait_until(&mut child, || logs(&out)[0].len() > 3);
        std::fs::rename(&image, &aside).unwrap();
        let (code, _, text) = end(child);
        std::fs::rename(&aside, &image).unwrap();
        assert_eq!(code, Some(2), "{text}");
        let done = held(&out, trainer);
        assert_eq!(done as usize, logs(&out)[0].len());
        assert!(
            text.contains("2.bmp") && text.contains(&format!("holds the state after step {done}:")),
            "{text}"
        );
        let limit = format!("--stop_after={}", done + 3);
        let both = |out| trainer.flags(dir, out, &[&endless[..], &[&limit]].concat());
        succeed(&texts(&both("parts")));
        succeed(&texts(&both("whole")));
        assert_eq!(logs(&dir.join("whole")), logs(&out));
        let last = trainer.last();
        assert_eq!(
            content(&dir.join("whole").join(last)),
            content(&out.join(last))
        );
        std::fs::remove_dir_all(dir.join("whole")).unwrap();
        std::fs::remove_dir_all(out).unwrap();
    }
}

#[test]
fn a_signal_does_not_wait_for_an_evaluation() {
    let dir = prepared();
    let dir = dir.path();
    for i in 0..150u64 {
        let path = dir.join(format!("images/val/class0/more{i}.bmp"));
        std::fs::write(path, bitmap(32, 100 + i)).unwrap();
    }
    for trainer in [Tokenizer, Transformer] {
        let flags = trainer.flags(dir, "run", &["--ep=2"]);
        let out = dir.join("run");
        let mut child = start(&flags);
        // The state is there when the evaluation begins.
        wait_until(&mut child, || out.join(trainer.last()).exists());
        send(&child, "TERM");
        let (code, _, text) = end(child);
        assert_eq!(code, Some(143), "{text}");
        assert_eq!((held(&out, trainer), logs(&out)[1].len()), (2, 0));
        let told = succeed(&texts(&flags));
        assert!(told.starts_with("done after 4 steps"), "{told}");
        succeed(&texts(&trainer.flags(dir, "whole", &["--ep=2"])));
        assert_same_end(trainer, &dir.join("whole"), &out);
        std::fs::remove_dir_all(dir.join("whole")).unwrap();
        std::fs::remove_dir_all(out).unwrap();
    }
}
