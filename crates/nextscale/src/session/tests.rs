//! Whole small runs.

use super::{TokenizerRun, VarRun, tokenizer_paths, var_paths};
use crate::checkpoint::{StateDict, TrainerState, load_weights};
use crate::log::steps::{STEPS_FILE, StepRecord};
use crate::train::flags::DeviceChoice;
use crate::train::options::TrainOptions;
use crate::train::signal::StopSignal;
use crate::train::tokenizer_options::TokenizerOptions;
use std::path::Path;

fn tokenizer_options(out: &Path) -> TokenizerOptions {
    TokenizerOptions {
        data_path: Some(super::BUILTIN_SHAPES.into()),
        out: out.into(),
        device: DeviceChoice::Cpu,
        ch: 32,
        vocab: 32,
        pn: "1_2".into(),
        bs: 4,
        steps: Some(50),
        stop_after: Some(7),
        // Steps 2, 4 and 6 look for dead codes and step 3 saves, in between reports that are still out.
        revive: 2,
        save_every: 3,
        mid_reso: 1.0,
        seed: Some(3),
        log_every: 1,
        quiet: true,
        ..TokenizerOptions::default()
    }
}

fn train_options(out: &Path, tokenizer: &Path) -> TrainOptions {
    TrainOptions {
        data_path: Some(super::BUILTIN_SHAPES.into()),
        out: out.into(),
        tokenizer: Some(tokenizer.into()),
        device: DeviceChoice::Cpu,
        depth: 2,
        pn: "1_2".into(),
        bs: 6,
        ac: 2,
        ep: 1,
        seed: Some(5),
        stop_after: Some(7),
        save_every: 3,
        log_every: 1,
        quiet: true,
        ..TrainOptions::default()
    }
}

/// The logged steps without what depends on the clock.
fn steps(out: &Path) -> Vec<StepRecord> {
    let text = std::fs::read_to_string(out.join(STEPS_FILE)).unwrap();
    text.lines()
        .map(|l| StepRecord {
            images_per_s: 0.0,
            data_wait: 0.0,
            ..serde_json::from_str(l).unwrap()
        })
        .collect()
}

fn tensors(path: &Path) -> StateDict {
    match load_weights(path).unwrap() {
        crate::checkpoint::Loaded::Weights(w) => w.tensors,
        crate::checkpoint::Loaded::Trainer(_) => panic!("weights expected"),
    }
}

#[test]
fn reports_read_late_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (now, later) = (dir.path().join("a"), dir.path().join("b"));
    for (out, late) in [(&now, false), (&later, true)] {
        let run = TokenizerRun {
            options: &tokenizer_options(out),
            cmd: String::new(),
            stop: StopSignal::detached(),
        };
        assert_eq!(run.run_reading(Some(late)).unwrap().steps, 7);
    }
    assert_eq!(steps(&now).len(), 7);
    assert_eq!(steps(&now), steps(&later));
    let tokenizer = tokenizer_paths(&now).weights;
    let same = tensors(&tokenizer) == tensors(&tokenizer_paths(&later).weights);
    assert!(same, "the tokenizers differ");

    let (now, later) = (dir.path().join("c"), dir.path().join("d"));
    for (out, late) in [(&now, false), (&later, true)] {
        let run = VarRun {
            options: &train_options(out, &tokenizer),
            cmd: String::new(),
            stop: StopSignal::detached(),
        };
        assert_eq!(run.run_reading(Some(late)).unwrap().steps, 7);
    }
    assert_eq!(steps(&now).len(), 7);
    assert_eq!(steps(&now), steps(&later));
    let load = |out: &Path| TrainerState::load_safetensors(var_paths(out).last).unwrap();
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
