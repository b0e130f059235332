//! Whole small runs.

use super::STEPS_FILE;
use super::{TokenizerRun, TransformerRun, tokenizer_paths, transformer_paths};
use crate::Team;
use crate::checkpoint::{TrainerState, load_weights};
use crate::format::StateDict;
use crate::options::values::DeviceChoice;
use crate::options::{
    DataOptions, MachineOptions, OutputOptions, ScheduleOptions, TokenizerOptions,
    TransformerOptions,
};
use nextscale_tensor::rng::{Purpose, Stream};
use std::path::Path;

fn shapes() -> DataOptions {
    DataOptions {
        data_path: Some(super::BUILTIN_SHAPES.into()),
        ..DataOptions::default()
    }
}

/// Seven steps, with a save in between reports that are still out.
fn output(out: &Path) -> OutputOptions {
    OutputOptions {
        out: out.into(),
        stop_after: Some(7),
        save_every: 3,
        log_every: 1,
        ..OutputOptions::default()
    }
}

fn cpu() -> MachineOptions {
    MachineOptions {
        device: DeviceChoice::Cpu,
        ..MachineOptions::default()
    }
}

fn tokenizer_options(out: &Path) -> TokenizerOptions {
    TokenizerOptions {
        ch: 32,
        vocab: 32,
        pn: "1_2".into(),
        // Steps 2, 4 and 6 look for dead codes.
        revive: 2,
        data: DataOptions {
            mid_reso: 1.0,
            ..shapes()
        },
        schedule: ScheduleOptions {
            bs: 4,
            steps: Some(50),
            seed: Some(3),
            ..TokenizerOptions::default().schedule
        },
        output: output(out),
        machine: cpu(),
        ..TokenizerOptions::default()
    }
}

fn transformer_options(out: &Path, tokenizer: &Path) -> TransformerOptions {
    TransformerOptions {
        tokenizer: Some(tokenizer.into()),
        depth: 2,
        pn: "1_2".into(),
        data: shapes(),
        schedule: ScheduleOptions {
            bs: 6,
            ac: 2,
            ep: 1,
            seed: Some(5),
            ..ScheduleOptions::default()
        },
        output: output(out),
        machine: cpu(),
        ..TransformerOptions::default()
    }
}

/// The logged steps without what depends on the clock.
fn steps(out: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(out.join(STEPS_FILE)).unwrap();
    let timeless = |line| {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        let keys = line.as_object_mut().unwrap();
        for key in ["images_per_s", "data_wait"] {
            assert!(keys.remove(key).is_some());
        }
        line
    };
    text.lines().map(timeless).collect()
}

fn tensors(path: &Path) -> StateDict {
    match load_weights(path).unwrap() {
        crate::checkpoint::Loaded::Weights(w) => w.tensors,
        crate::checkpoint::Loaded::Trainer(_) => panic!("weights expected"),
    }
}

#[test]
fn reports_read_one_iteration_behind_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (now, later) = (dir.path().join("a"), dir.path().join("b"));
    for (out, pipelined) in [(&now, false), (&later, true)] {
        let run = TokenizerRun {
            options: &tokenizer_options(out),
            cmd: String::new(),
            team: Team::alone(),
            observers: Vec::new(),
        };
        assert_eq!(run.run_with(Some(pipelined)).unwrap().steps, 7);
    }
    assert_eq!(steps(&now).len(), 7);
    assert_eq!(steps(&now), steps(&later));
    let tokenizer = tokenizer_paths(&now).weights;
    let same = tensors(&tokenizer) == tensors(&tokenizer_paths(&later).weights);
    assert!(same, "the tokenizers differ");

    let (now, later) = (dir.path().join("c"), dir.path().join("d"));
    for (out, pipelined) in [(&now, false), (&later, true)] {
        let run = TransformerRun {
            options: &transformer_options(out, &tokenizer),
            cmd: String::new(),
            team: Team::alone(),
            observers: Vec::new(),
        };
        assert_eq!(run.run_with(Some(pipelined)).unwrap().steps, 7);
    }
    assert_eq!(steps(&now).len(), 7);
    assert_eq!(steps(&now), steps(&later));
    let load = |out: &Path| TrainerState::load_safetensors(transformer_paths(out).last).unwrap();
    let (a, b) = (load(&now), load(&later));
    assert!(a.var == b.var && a.exp_avg == b.exp_avg && a.exp_avg_sq == b.exp_avg_sq);
    assert!(a.extra == b.extra && a.adam_step == b.adam_step);
}

#[test]
fn numbers_that_are_none_are_named() {
    let check = |loss, norm| super::not_a_number(loss, norm, format_args!("step 7"));
    assert_eq!(check(1.0, Some(2.0)), None);
    assert_eq!(check(1.0, None), None);
    let text = check(f64::NAN, Some(1.0)).unwrap();
    assert_eq!(text, "the loss is NaN at step 7");
    let text = check(1.0, Some(f64::INFINITY)).unwrap();
    assert_eq!(text, "the norm of the gradients is inf at step 7");
}

/// A folder of twelve noisy images for training and two for validation, the one of that number cut short where there is one.
fn folder(root: &Path, broken: Option<u64>) {
    for (split, count) in [("train", 12), ("val", 2)] {
        let class = root.join(split).join("only");
        std::fs::create_dir_all(&class).unwrap();
        for i in 0..count {
            let mut draw = Stream::new(i, Purpose::Test, count, 0);
            let mut file = b"P6 32 32 255\n".to_vec();
            file.extend((0..3 * 32 * 32).map(|_| draw.below(256) as u8));
            if split == "train" && broken == Some(i) {
                file.truncate(20);
            }
            std::fs::write(class.join(format!("{i}.ppm")), file).unwrap();
        }
    }
}

#[test]
fn an_error_saves_the_last_whole_step_pipelined_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let images = dir.join("images");
    let data_path = Some(images.display().to_string());
    // The second breaks within a step whose first iteration was made.
    for (pipelined, broken) in [(false, 7), (true, 7), (false, 8), (true, 8)] {
        let file = format!("{broken}.ppm");
        let tokenizer = |out: &str, stop_after| {
            let mut options = tokenizer_options(&dir.join(out));
            options.data.data_path = data_path.clone();
            // Codes that moved for a step that was not finished leave no whole step to save.
            options.revive = if broken == 8 { 0 } else { 2 };
            options.schedule.bs = 2;
            options.schedule.ac = 2;
            options.output.stop_after = stop_after;
            options.output.eval_every = 0;
            options.output.save_every = 0;
            let run = TokenizerRun {
                options: &options,
                cmd: String::new(),
                team: Team::alone(),
                observers: Vec::new(),
            };
            run.run_with(Some(pipelined))
        };
        folder(&images, Some(broken));
        let e = tokenizer("t", None).unwrap_err();
        let done = steps(&dir.join("t")).len() as u64;
        assert!((1..6).contains(&done), "{done}");
        let told = format!("holds the state after step {done}: run");
        assert!(
            e.to_string().contains(&file) && e.to_string().contains(&told),
            "{e}"
        );
        assert_eq!(e.exit_code(), 2);
        folder(&images, None);
        tokenizer("t", Some(done)).unwrap();
        tokenizer("whole-t", Some(done)).unwrap();
        let state = |out: &str| std::fs::read(tokenizer_paths(&dir.join(out)).state).unwrap();
        assert!(state("t") == state("whole-t"), "pipelined: {pipelined}");

        let trained = tokenizer_paths(&dir.join("whole-t")).weights;
        let train = |out: &str, stop_after| {
            let mut options = transformer_options(&dir.join(out), &trained);
            options.data.data_path = data_path.clone();
            options.schedule.bs = 2;
            options.schedule.ac = 2;
            options.schedule.ep = 2;
            options.output.stop_after = stop_after;
            options.output.eval_every = 0;
            options.output.save_every = 0;
            let run = TransformerRun {
                options: &options,
                cmd: String::new(),
                team: Team::alone(),
                observers: Vec::new(),
            };
            run.run_with(Some(pipelined))
        };
        folder(&images, Some(7));
        let e = train("m", None).unwrap_err();
        let done = steps(&dir.join("m")).len() as u64;
        let told = format!("holds the state after step {done}: run");
        assert!(
            e.to_string().contains("7.ppm") && e.to_string().contains(&told),
            "{e}"
        );
        folder(&images, None);
        let saved = TrainerState::load_safetensors(transformer_paths(&dir.join("m")).last).unwrap();
        assert!(saved.g_it == Some(2 * done) && saved.pending.is_empty() && done > 0);
        train("whole-m", Some(done)).unwrap();
        let whole =
            TrainerState::load_safetensors(transformer_paths(&dir.join("whole-m")).last).unwrap();
        assert!(saved.var == whole.var && saved.exp_avg_sq == whole.exp_avg_sq);
        assert_eq!(saved.extra, whole.extra, "pipelined: {pipelined}");
        for out in ["t", "whole-t", "m", "whole-m"] {
            std::fs::remove_dir_all(dir.join(out)).unwrap();
        }
    }
}
