//! A run that is ended early, by a signal or by an error, keeps every whole step, says so by its exit code, and goes on to the
//! uninterrupted run's end, bit for bit.

mod common;

use common::{bitmap, few_images, nextscale, refused, run, succeed, tiny_tokenizer};
use nextscale::checkpoint::TrainerState;
use nextscale_tensor::rng::{Purpose, Stream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The two trainers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trainer {
    Tokenizer,
    Transformer,
}

use Trainer::{Tokenizer, Transformer};

impl Trainer {
    /// Flags of a small run over `dir/images` in `dir/out`: steps of four images, an evaluation after every epoch.
    fn flags(self, dir: &Path, out: &str, more: &[&str]) -> Vec<String> {
        let own: &[&str] = match self {
            Tokenizer => &["train-tokenizer", "--ch=32", "--vocab=32"],
            Transformer => &["train", "--depth=2"],
        };
        let mut flags: Vec<String> = own
            .iter()
            .chain(&["--pn=1_2", "--bs=4", "--seed=5", "--mid_reso=1", "--quiet"])
            .chain(&[
                "--threads=1",
                "--workers=1",
                "--log_every=1",
                "--eval_every=1",
            ])
            .chain(more)
            .map(|s| (*s).to_owned())
            .collect();
        if self == Transformer {
            let tokenizer = dir.join("tokenizer/tokenizer.safetensors");
            flags.push(format!("--tokenizer={}", tokenizer.display()));
        }
        flags.push(format!("--data_path={}", dir.join("images").display()));
        flags.push(format!("--out={}", dir.join(out).display()));
        flags
    }

    fn last(self) -> &'static str {
        match self {
            Tokenizer => "tokenizer-ckpt-last.safetensors",
            Transformer => "ar-ckpt-last.safetensors",
        }
    }

    /// The files that a run leaves to go on from and to use.
    fn files(self) -> &'static [&'static str] {
        match self {
            Tokenizer => &[
                "tokenizer-ckpt-last.safetensors",
                "tokenizer.safetensors",
                "tokenizer-best.safetensors",
            ],
            Transformer => &["ar-ckpt-last.safetensors", "ar-ckpt-best.safetensors"],
        }
    }
}

/// A folder with a tokenizer and images of both splits.
fn prepared() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    tiny_tokenizer(dir.path());
    few_images(dir.path());
    dir
}

fn texts(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

/// A line of a log without what depends on the clock.
fn timeless(line: &str) -> String {
    let mut v: serde_json::Value = serde_json::from_str(line).unwrap();
    let o = v.as_object_mut().unwrap();
    for key in ["images_per_s", "data_wait", "remain_time", "finish_time"] {
        o.remove(key);
    }
    v.to_string()
}

/// The lines of steps.jsonl and, after its first one, log.txt.
fn logs(out: &Path) -> [Vec<String>; 2] {
    [("steps.jsonl", 0), ("log.txt", 1)].map(|(name, skip)| {
        let text = std::fs::read_to_string(out.join(name)).unwrap_or_default();
        // A line that is being written has no end yet.
        let whole = text.split_inclusive('\n').filter(|l| l.ends_with('\n'));
        whole.skip(skip).map(timeless).collect()
    })
}

/// Steps that a checkpoint holds.
fn held(out: &Path, trainer: Trainer) -> u64 {
    let bytes = std::fs::read(out.join(trainer.last())).unwrap();
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(1 << 20)]).into_owned();
    let key = match trainer {
        Tokenizer => r#"\"it\":"#,
        Transformer => r#"\"g_it\":"#,
    };
    let at = text.find(key).unwrap() + key.len();
    let digits: String = text[at..]
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().unwrap()
}

/// What a file holds, without the command line in it.
fn content(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (text, tensors) = bytes[8..].split_at(header);
    let text = String::from_utf8_lossy(text);
    let start = text.find(r#"\"cmd\":\""#);
    let text = match start {
        Some(at) => {
            let end = at + 9 + text[at + 9..].find(r#"\""#).unwrap();
            format!("{}{}", &text[..at], &text[end..])
        }
        None => text.into_owned(),
    };
    // Headers differ in their padding only where command lines differ in length.
    format!("{} {:?}", text.trim_end(), nextscale_sum(tensors))
}

/// A checksum that shows any change.
fn nextscale_sum(bytes: &[u8]) -> (u64, usize) {
    let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3)
    });
    (sum, bytes.len())
}

fn assert_same_end(trainer: Trainer, whole: &Path, other: &Path) {
    assert_eq!(logs(whole), logs(other), "{trainer:?}");
    for name in trainer.files() {
        assert_eq!(
            content(&whole.join(name)),
            content(&other.join(name)),
            "{trainer:?}: {name}"
        );
    }
}

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
        for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
            let flags = trainer.flags(dir, signal, &["--ep=100000", "--eval_every=0"]);
            let out = dir.join(signal);
            let mut child = start(&flags);
            wait_until(&mut child, || logs(&out)[0].len() > 1);
            send(&child, signal);
            let (ended, told, warned) = end(child);
            assert_eq!(ended, Some(code), "{warned}");
            assert!(
                warned.starts_with(&format!("SIG{signal}: saving")),
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
    assert!(
        told.contains("stopped; run the same command again"),
        "{told}"
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
        for signal in ["INT", "HUP", "KILL", "TERM", "KILL", "INT"] {
            let mut child = start(&flags("parts"));
            std::thread::sleep(time.mul_f32(0.9 * draw.uniform()));
            if child.try_wait().unwrap().is_some() {
                break;
            }
            send(&child, signal);
            child.wait().unwrap();
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

#[test]
fn a_checkpoint_out_of_reach_is_not_taken_for_missing() {
    let dir = prepared();
    let dir = dir.path();
    for trainer in [Tokenizer, Transformer] {
        let flags = trainer.flags(dir, "run", &["--ep=3"]);
        let out = dir.join("run");
        succeed(&texts(&trainer.flags(
            dir,
            "run",
            &["--ep=3", "--stop_after=3"],
        )));
        let (last, away) = (out.join(trainer.last()), dir.join("away"));
        let before = logs(&out);
        std::fs::rename(&last, &away).unwrap();
        std::os::unix::fs::symlink(dir.join("unmounted"), &last).unwrap();
        let line = refused(&texts(&flags));
        assert!(
            line.contains(trainer.last()) && line.contains("link to a file"),
            "{line}"
        );
        std::fs::remove_file(&last).unwrap();
        // Only the one before it is there.
        let line = refused(&texts(&flags));
        assert!(
            line.contains("is missing") && line.contains("last.1.safetensors"),
            "{line}"
        );
        assert_eq!(logs(&out), before);
        std::os::unix::fs::symlink(&away, &last).unwrap();
        succeed(&texts(&flags));
        std::fs::remove_dir_all(out).unwrap();
    }
}

#[test]
fn accumulation_stays_what_it_was() {
    let dir = prepared();
    let dir = dir.path();
    let with = |more: &[&str]| Transformer.flags(dir, "run", more);
    succeed(&texts(&with(&[
        "--ep=4",
        "--bs=2",
        "--ac=1",
        "--stop_after=3",
    ])));
    // As many images an iteration, so as many iterations an epoch.
    let line = refused(&texts(&with(&["--ep=4", "--bs=4", "--ac=2"])));
    assert!(
        line.contains("--ac=2: ") && line.contains("was made with --ac=1"),
        "{line}"
    );
    succeed(&texts(&with(&["--ep=4", "--bs=2", "--ac=1"])));
}

/// The names in a folder that begin like checkpoints.
fn checkpoints(out: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(out)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n.contains("ckpt"))
        .collect();
    names.sort();
    names
}

#[test]
fn diverged_weights_are_not_saved() {
    let dir = prepared();
    let dir = dir.path();
    for (trainer, rate) in [(Tokenizer, "--lr"), (Transformer, "--tblr")] {
        let fast = format!("{rate}=1e300");
        let with = |more: &[&str]| {
            trainer.flags(
                dir,
                "run",
                &[&["--ep=100", "--eval_every=0"], more].concat(),
            )
        };
        let out = dir.join("run");
        let fails = |flags: &[String]| {
            let ended = run(&texts(flags));
            let text = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert_eq!(ended.status.code(), Some(1), "{text}");
            assert!(text.contains("the run has diverged"), "{text}");
            text
        };
        // After the very first update, before any loss shows it; then by the next loss.
        for limit in ["--stop_after=1", "--stop_after=5"] {
            let text = fails(&with(&[&fast, limit]));
            assert!(
                text.contains(&format!(
                    "nothing was saved before; start again with a lower {rate}"
                )),
                "{text}"
            );
            assert_eq!(checkpoints(&out), [""; 0]);
        }
        succeed(&texts(&with(&["--save_every=2", "--stop_after=4"])));
        let last = content(&out.join(trainer.last()));
        for limit in ["--stop_after=5", "--stop_after=9"] {
            let text = fails(&with(&[&fast, "--save_every=1", limit]));
            let earlier = trainer.last().replace("last", "last.1");
            for part in [
                trainer.last(),
                "after step 4",
                &earlier,
                &format!("a lower {rate}"),
            ] {
                assert!(text.contains(part), "{part} in {text}");
            }
            assert_eq!(content(&out.join(trainer.last())), last);
        }
        succeed(&texts(&with(&["--stop_after=6"])));
        std::fs::remove_dir_all(out).unwrap();
    }
}

#[test]
fn as_many_checkpoints_are_kept_as_asked_for() {
    let dir = prepared();
    let dir = dir.path();
    let steps = |name: &str| {
        let path = dir.join("run").join(name);
        TrainerState::load_safetensors(path).unwrap().g_it.unwrap()
    };
    let with = |keep: &str| {
        let flags = [
            "--ep=100",
            "--eval_every=0",
            "--save_every=2",
            "--stop_after=7",
            keep,
        ];
        succeed(&texts(&Transformer.flags(dir, "run", &flags)));
        let out: PathBuf = dir.join("run");
        checkpoints(&out)
            .iter()
            .map(|n| steps(n))
            .collect::<Vec<_>>()
    };
    // In the order of their names: the one before the last, the one before that, the last.
    assert_eq!(with("--keep=3"), [6, 4, 7]);
    std::fs::remove_dir_all(dir.join("run")).unwrap();
    assert_eq!(with("--keep=2"), [6, 7]);
    std::fs::remove_dir_all(dir.join("run")).unwrap();
    assert_eq!(with("--keep=1"), [7]);
}

#[test]
fn a_checkpoint_that_cant_be_written_does_not_end_training() {
    let dir = prepared();
    let dir = dir.path();
    let more = ["--ep=100", "--eval_every=0", "--save_every=2"];
    let with = |limit: &str| Transformer.flags(dir, "run", &[&more[..], &[limit]].concat());
    succeed(&texts(&with("--stop_after=3")));
    let last = content(&dir.join("run/ar-ckpt-last.safetensors"));
    // No file may grow beyond 100 blocks: enough for logs, too little for a checkpoint.
    let ended = Command::new("sh")
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_nextscale"),
        ])
        .args(with("--stop_after=7"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    for (line, step) in lines.iter().zip([4, 6]) {
        assert!(
            line.starts_with("warning: ")
                && line.contains(&format!("after step {step} is not saved")),
            "{line}"
        );
    }
    assert!(
        lines[2].contains("after step 7 is not saved")
            && lines[2].contains("holds the state after step 3"),
        "{text}"
    );
    assert_eq!(content(&dir.join("run/ar-ckpt-last.safetensors")), last);
    assert_eq!(logs(&dir.join("run"))[0].len(), 7);
}
