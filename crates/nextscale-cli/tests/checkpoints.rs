//! The checkpoint to go on from: never taken for missing, never replaced by one that is worth less, and not alone.

mod common;

use common::runs::{Tokenizer, Transformer, content, held, logs, prepared, texts};
use common::{refused, run, succeed};
use nextscale::checkpoint::TrainerState;
use std::path::{Path, PathBuf};
use std::process::Command;

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
fn weights_that_cant_be_written_do_not_end_a_tokenizers_training() {
    let dir = prepared();
    let dir = dir.path();
    let flags = Tokenizer.flags(dir, "run", &["--ep=3"]);
    let (out, whole) = (dir.join("run"), dir.join("whole"));
    succeed(&texts(&Tokenizer.flags(dir, "whole", &["--ep=3"])));
    let weights = out.join("tokenizer.safetensors");
    let after = |line: &str, text: &str| {
        assert!(
            line.starts_with("warning: ") && line.ends_with(text),
            "{line}"
        );
    };
    for name in ["folder", "link"] {
        std::fs::create_dir(&out).unwrap();
        match name {
            "folder" => std::fs::create_dir(&weights).unwrap(),
            _ => std::os::unix::fs::symlink(dir.join("unmounted"), &weights).unwrap(),
        }
        // Without them no run is done, and the evaluation of its end is made again.
        for attempt in 0..2 {
            let ended = run(&texts(&flags));
            let text = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert_eq!(ended.status.code(), Some(2), "{name}: {text}");
            assert!(!text.contains("is not saved"), "{text}");
            let mut lines: Vec<&str> = text.lines().collect();
            let error = lines.pop().unwrap();
            assert!(
                error.contains("/tokenizer.safetensors: ")
                    && error.contains("holds the state after step 6: run the same command again"),
                "{error}"
            );
            if attempt == 0 {
                // A folder is something, which is not replaced before the first evaluation.
                if name == "link" {
                    after(
                        lines.remove(0),
                        "the state is saved, the weights to use are not",
                    );
                }
                assert_eq!(lines.len(), 2, "{text}");
                let text = "the run goes on without the weights of this evaluation";
                lines.iter().for_each(|line| after(line, text));
            } else {
                assert_eq!(lines, [""; 0]);
            }
            assert_eq!(held(&out, Tokenizer), 6);
        }
        match name {
            "folder" => std::fs::remove_dir(&weights).unwrap(),
            _ => std::fs::remove_file(&weights).unwrap(),
        }
        succeed(&texts(&flags));
        assert_eq!(logs(&out), logs(&whole));
        let weights = |out: &Path| content(&out.join("tokenizer.safetensors"));
        assert_eq!(weights(&out), weights(&whole));
        std::fs::remove_dir_all(&out).unwrap();
    }
    // The same of the best ones: on the way a run goes on without them.
    let best = |out: &Path| out.join("tokenizer-best.safetensors");
    std::fs::create_dir_all(best(&out)).unwrap();
    let ended = run(&texts(&flags));
    let text = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(2), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    for line in &lines[..2] {
        after(line, "the run goes on without these best weights");
    }
    assert!(lines[2].contains("run the same command again"), "{text}");
    std::fs::remove_dir(best(&out)).unwrap();
    succeed(&texts(&flags));
    assert_eq!(
        content(&weights),
        content(&whole.join("tokenizer.safetensors"))
    );
    assert_eq!(content(&best(&out)), content(&best(&whole)));
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
