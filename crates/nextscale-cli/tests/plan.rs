//! `plan`: what it prints, and what it refuses; no GPU is needed.

mod common;

use common::{refused, succeed};
use serde_json::Value;

#[test]
fn a_plan_says_what_to_take_and_what_it_costs() {
    let text = succeed(&["plan", "--recipe=d30", "--gpus=64", "--gpu=h100-80g"]);
    for part in [
        "model      d30: depth 30, width 1920, 2.01 G parameters, 256 px",
        "gpus       64 of h100-80g on 8 hosts of 8",
        "take       --bs=1024 --ac=",
        "command    srun --nodes=8 --ntasks-per-node=8 nextscale train --recipe=d30",
        "AdamW's moments",
        "waiting for the slowest GPU",
        "350 epochs of 1281167 images",
        "GPU-hours",
        "assumptions",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn json_has_a_line_for_each_plan() {
    let text = succeed(&[
        "plan",
        "--recipe=d16,d20",
        "--gpus=8,64",
        "--gpu=a100-40g",
        "--from=tokens",
        "--json",
    ]);
    let plans: Vec<Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(plans.len(), 4);
    for p in &plans {
        let number = |name: &str| p[name].as_f64().unwrap();
        assert!(number("memory_needed") <= number("memory_there"), "{p}");
        let parts = number("ac") * number("batch") * number("gpus");
        assert_eq!(parts, number("bs"));
        let images_per_s = 1e3 * number("bs") / number("step_ms_all");
        assert!((images_per_s / number("images_per_s") - 1.0).abs() < 1e-9);
        assert_eq!(p["from"], "tokens");
    }
    let days: Vec<f64> = plans.iter().map(|p| p["days"].as_f64().unwrap()).collect();
    assert!(days[0] > days[1] && days[2] > days[3], "{days:?}");
}

#[test]
fn all_recipes_are_one_table() {
    let text = succeed(&["plan", "--all", "--gpu=h100-80g"]);
    let rows: Vec<&str> = text.lines().filter(|l| l.starts_with("| d")).collect();
    assert_eq!(rows.len(), 15, "{text}");
    let columns = |row: &str| row.matches('|').count();
    assert!(
        rows.iter().all(|r| columns(r) == columns(rows[0])),
        "{text}"
    );
    assert!(rows[2].starts_with("| d16 | 512 | 1024* |"), "{text}");
    // A row that can't be says why.
    let text = succeed(&[
        "plan",
        "--recipe=d16,d36-s",
        "--gpus=1",
        "--gpu=rtx3090-24g",
    ]);
    assert!(
        text.contains("| d36-s | 1 | d36-s with 1 image at a time needs "),
        "{text}"
    );
}

#[test]
fn without_a_gpu_the_kinds_that_there_are_are_named() {
    if nextscale_tensor::cuda::count() > 0 {
        println!("skipped: there is a GPU to measure");
        return;
    }
    for args in [&["plan"][..], &["plan", "--gpu=this"]] {
        let line = refused(args);
        assert!(line.contains("h100-80g, h200-141g"), "{line}");
    }
    let text = succeed(&["plan", "--gpu=list"]);
    assert!(
        text.lines().count() > 5 && text.contains("data sheet"),
        "{text}"
    );
}

#[test]
fn bad_input_is_one_line_that_says_what_to_do() {
    for (args, part) in [
        (&["--gpu=h1000"][..], "a100-80g"),
        (&["--gpu=h100-80g", "--gpus=12"], "multiple of 8"),
        (&["--gpu=h100-80g", "--gpus=0"], "at least 1"),
        (
            &["--gpu=h100-80g", "--gpus=8", "--bs=100"],
            "give 96 or 104",
        ),
        (
            &["--gpu=h100-80g", "--gpus=8", "--bs=96", "--ac=5"],
            "--bs=96",
        ),
        (&["--gpu=h100-80g", "--zero=1"], "--zero=1"),
        (&["--gpu=h100-80g", "--depth=0"], "--depth=0"),
        (&["--gpu=h100-80g", "--images=0"], "--images=0"),
        (&["--gpu=h100-80g", "--gpus=8", "--link=nan"], "--link"),
        (&["--gpu=rtx4090-24g", "--recipe=d36-s"], "it would fit on "),
    ] {
        let mut all = vec!["plan"];
        all.extend(args);
        let line = refused(&all);
        assert!(line.contains(part), "{part} in {line}");
    }
}
