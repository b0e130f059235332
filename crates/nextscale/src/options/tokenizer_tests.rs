//! Flags of the tokenizer's training as read from a command line.

use crate::console::on_terminal;
use clap::Parser;
use proptest::prelude::*;

use super::TokenizerArgs;
use super::tokenizer::{TokenizerOptions, parse_betas};
use nextscale_tensor::Precision;

#[derive(Parser)]
#[command(no_binary_name = true)]
struct Cli {
    #[command(flatten)]
    args: TokenizerArgs,
}

fn parse(line: &str) -> TokenizerOptions {
    Cli::try_parse_from(line.split_whitespace())
        .unwrap()
        .args
        .options
}

#[test]
fn no_flags_are_the_defaults_and_resolve() {
    assert_eq!(parse(""), TokenizerOptions::default());
    let plan = parse("").resolve(2).unwrap();
    assert_eq!(
        (plan.batch, plan.global_batch, plan.image_size),
        (32, 64, 256)
    );
    assert_eq!(plan.betas, (0.9, 0.95));
    let horizon = plan.horizon(6401).unwrap();
    assert_eq!((horizon.its_per_epoch, horizon.max_it), (101, 2020));
    assert_eq!(horizon.schedule.warmup_its, 40.4);
    assert!(plan.horizon(0).is_err());
}

#[test]
fn precision_is_asked_for_or_follows_tf32() {
    for (line, want) in [
        ("", Precision::Tf32),
        ("--tf32=0", Precision::Fp32),
        ("--tf32=0 --precision=bf16", Precision::Bf16),
        ("--precision=fp32", Precision::Fp32),
        ("--precision=fp16", Precision::Fp16),
    ] {
        assert_eq!(parse(line).resolve(1).unwrap().precision, want, "{line}");
    }
    assert!(Cli::try_parse_from(["--precision=half"]).is_err());
}

#[test]
fn steps_replace_epochs() {
    let plan = parse("--steps=300 --bs=4 --pn=1_2_4 --wp=2 --znorm=1")
        .resolve(1)
        .unwrap();
    let horizon = plan.horizon(10).unwrap();
    assert_eq!((horizon.max_it, horizon.its_per_epoch), (300, 3));
    assert_eq!(horizon.schedule.warmup_its, 6.0);
    assert_eq!(plan.image_size, 64);
    // Steps are counted whole, whatever each of them accumulates.
    let plan = parse("--steps=300 --bs=4 --ac=2 --pn=1_2_4")
        .resolve(1)
        .unwrap();
    let horizon = plan.horizon(10).unwrap();
    assert_eq!(
        (plan.batch, horizon.max_it, horizon.its_per_epoch),
        (2, 600, 5)
    );
}

#[test]
fn each_bad_flag_is_named() {
    for flag in [
        "--ch=0",
        "--ch=100",
        "--ch_mult=1_1_1_1_1_1_1_1",
        "--ch_mult=1_1_2_2_0",
        "--num_res_blocks=0",
        "--vocab=1",
        "--cvae=0",
        "--pn=2_1",
        "--quant_resi=2",
        "--quant_resi=NaN",
        "--dropout=1",
        "--beta=-1",
        "--lr=0",
        "--lr=inf",
        "--betas=0.9",
        "--betas=0.9_1",
        "--wd=-0.1",
        "--bs=0",
        "--ep=0",
        "--steps=0",
        "--wp=21",
        "--sche=step",
        "--mid_reso=0.5",
        "--stop_after=0",
    ] {
        let message = on_terminal(&parse(flag).resolve(1).unwrap_err().to_string());
        assert!(
            message.starts_with(&format!("{flag}: ")),
            "{flag}: {message}"
        );
        assert!(!message.contains('\n'), "{message}");
    }
    let message = on_terminal(&parse("--l1=0 --l2=0").resolve(1).unwrap_err().to_string());
    assert!(message.starts_with("--l2=0: "), "{message}");
    let message = on_terminal(&parse("--bs=3").resolve(8).unwrap_err().to_string());
    assert!(
        message.starts_with("--bs=3: less than one image"),
        "{message}"
    );
    let message = on_terminal(
        &parse("--sche=exp --wpe=0")
            .resolve(1)
            .unwrap_err()
            .to_string(),
    );
    assert!(message.starts_with("--wpe=0: "), "{message}");
}

#[test]
fn options_read_back_from_json() {
    let options = parse(
        "--lr=1e-3 --steps=7 --device=cuda:1 --seed=5 --bad_images=fail --precision=bf16 --val_share=0.1 --background=black --aspect=pad",
    );
    let text = serde_json::to_string(&options).unwrap();
    assert_eq!(
        serde_json::from_str::<TokenizerOptions>(&text).unwrap(),
        options
    );
}

proptest! {
    #[test]
    fn betas_parse_or_are_refused(text in "[0-9._e+-]{0,12}") {
        if let Ok((first, second)) = parse_betas(&text) {
            prop_assert!((0.0..1.0).contains(&first) && (0.0..1.0).contains(&second));
        }
    }
}
