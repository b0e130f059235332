//! Tests of the flags of `train`, their recipes and what follows from them.

use crate::console::on_terminal;
use clap::Parser;
use proptest::prelude::*;

use super::values::{BadImages, DeviceChoice};
use super::{Recipe, ScheduleOptions, TransformerArgs, TransformerOptions};
use crate::train::schedule::Curve;
use nextscale_tensor::Precision;

#[derive(Parser)]
#[command(no_binary_name = true)]
struct Cli {
    #[command(flatten)]
    args: TransformerArgs,
}

fn parse(line: &str) -> TransformerOptions {
    Cli::try_parse_from(line.split_whitespace())
        .unwrap()
        .args
        .options
}

fn refusal(line: &str, world: usize) -> String {
    let message = on_terminal(&parse(line).resolve(world).unwrap_err().to_string());
    assert!(!message.contains('\n'), "{message}");
    message
}

#[test]
fn the_command_is_well_formed() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
    let help = Cli::command().render_long_help().to_string();
    for flag in [
        "--data_path",
        "--mid_reso",
        "--stop_after",
        "--patch_size",
        "--exp_name",
    ] {
        assert!(help.contains(flag), "{flag}");
    }
    assert!(!help.contains("--data-path"));
}

#[test]
fn no_flags_are_the_defaults() {
    assert_eq!(parse(""), TransformerOptions::default());
}

#[test]
fn values_in_the_reference_style() {
    let options = parse(
        "--data_path=/data --depth=20 --ini=-1 --saln=1 --anorm=False --hflip=true --afuse=0 --pn=1-2-3 --seed=7 \
         --workers=-1 --out=runs/a --device=cuda:1 --bad_images=fail --tokenizer=vae.pth --exp_name=test",
    );
    assert_eq!(options.data.data_path.as_deref(), Some("/data"));
    assert_eq!(
        (options.depth, options.ini, options.schedule.seed),
        (20, -1.0, Some(7))
    );
    assert!(options.saln && !options.anorm && options.data.hflip && !options.afuse);
    assert_eq!(
        (options.data.workers, options.machine.device),
        (-1, DeviceChoice::Cuda(Some(1)))
    );
    assert_eq!(options.data.bad_images, BadImages::Fail);
    assert_eq!(options.resolve(1).unwrap().patch_nums, [1, 2, 3]);
    assert!(Cli::try_parse_from(["--saln=yes"]).is_err());
    assert!(Cli::try_parse_from(["--data-path=x"]).is_err());
}

#[test]
fn every_flag_of_the_reference_is_taken() {
    // `utils/arg_util.py` of FoundationVision/VAR, with values that its parser takes.
    let all = "--data_path=/d --exp_name=a --vfast=1 --tfast=2 --depth=16 --ini=-1 --hd=0.02 --aln=0.5 --alng=1e-5 --fp16=1 \
         --tblr=1e-4 --tlr=0.1 --twd=0.05 --twde=0.1 --tclip=2 --ls=0.1 --bs=768 --batch_size=8 --glb_batch_size=8 --ac=1 \
         --ep=250 --wp=1 --wp0=0.005 --wpe=0.01 --sche=lin0 --opt=adamw --afuse=False --saln=True --anorm=1 --fuse=0 --pn=256 \
         --patch_size=16 --patch_nums=(1,2) --resos=(1,2) --data_load_reso=256 --mid_reso=1.125 --hflip=0 --workers=-1 --pg=0.5 \
         --pg0=4 --pgwp=1 --cmd=x --branch=x --commit_id=x --commit_msg=x --acc_mean=1 --acc_tail=1 --L_mean=1 --L_tail=1 \
         --vacc_mean=1 --vacc_tail=1 --vL_mean=1 --vL_tail=1 --grad_norm=1 --cur_lr=1 --cur_wd=1 --cur_it=1 --cur_ep=1 \
         --remain_time=1 --finish_time=1 --local_out_dir_path=runs/x --tb_log_dir_path=x --log_txt_path=x --last_ckpt_path=x \
         --tf32=1 --device=cpu --seed=0 --same_seed_for_all_ranks=7 --local_debug=1 --dbg_nan=True --local-rank=0 --data_name=imagenet";
    let args = Cli::try_parse_from(all.split_whitespace()).unwrap().args;
    assert_eq!(args.options.output.out.to_str(), Some("runs/x"));
    assert!(args.options.resolve(1).is_ok());
    // What does nothing is told; what does something is not.
    let told = |name: &str| {
        let start = format!("--{name}=");
        args.does_nothing.iter().any(|l| l.starts_with(&start))
    };
    for name in [
        "tlr",
        "data_name",
        "dbg_nan",
        "same_seed_for_all_ranks",
        "local_debug",
        "vfast",
        "tfast",
        "afuse",
        "fuse",
        "batch_size",
        "patch_nums",
        "last_ckpt_path",
    ] {
        assert!(told(name), "{name} in {:?}", args.does_nothing);
    }
    assert!(!told("seed") && !told("saln") && !told("local_out_dir_path"));
    let line = &args.does_nothing[0];
    assert_eq!(
        line,
        "--tlr=0.1: does nothing: the learning rate is worked out from --tblr, --bs and --ac, as in the reference"
    );
    // Asked for what is done anyway, nothing is said.
    let usual = "--vfast=0 --afuse=1 --fuse=True --local_debug=False --dbg_nan=0 --depth=8";
    let args = Cli::try_parse_from(usual.split_whitespace()).unwrap().args;
    assert_eq!(args.does_nothing, Vec::<String>::new());
}

#[test]
fn recipes_are_their_published_flags() {
    for (recipe, flags) in [
        (
            "d16",
            "--depth=16 --bs=768 --ep=200 --fp16=1 --alng=1e-3 --wpe=0.1",
        ),
        (
            "d20",
            "--depth=20 --bs=768 --ep=250 --fp16=1 --alng=1e-3 --wpe=0.1",
        ),
        (
            "d24",
            "--depth=24 --bs=768 --ep=350 --tblr=8e-5 --fp16=1 --alng=1e-4 --wpe=0.01",
        ),
        (
            "d30",
            "--depth=30 --bs=1024 --ep=350 --tblr=8e-5 --fp16=1 --alng=1e-5 --wpe=0.01 --twde=0.08",
        ),
        (
            "d36-s",
            "--depth=36 --saln=1 --pn=512 --bs=768 --ep=350 --tblr=8e-5 --fp16=1 --alng=5e-6 --wpe=0.01 --twde=0.08",
        ),
    ] {
        let by_name = parse(&format!("--recipe={recipe}"));
        let spelled = TransformerOptions {
            recipe: by_name.recipe,
            ..parse(&format!("{flags} --background=drop"))
        };
        assert!(by_name.recipe.is_some());
        assert_eq!(by_name, spelled, "{recipe}");
    }
}

#[test]
fn given_flags_win_over_the_recipe() {
    // Also where the given value is the flag's default.
    let options = parse("--bs=8 --recipe=d30 --tblr=1e-4 --fp16=0");
    assert_eq!(
        (options.schedule.bs, options.tblr, options.fp16),
        (8, 1e-4, 0)
    );
    assert_eq!((options.depth, options.twde), (30, 0.08));
    assert_eq!(options.recipe, Some(Recipe::D30));
    let options = parse("--recipe=d36-s --saln=0 --pn=256");
    assert!(!options.saln);
    assert_eq!(options.pn, "256");
}

#[test]
fn a_precision_that_was_given_is_kept_by_a_recipe_that_is_chosen_later() {
    let args = |line: &str| Cli::try_parse_from(line.split_whitespace()).unwrap().args;
    let given = args("--recipe=auto --precision=fp32");
    assert!(given.was_given("fp16") && !given.was_given("depth"));
    assert!(!args("--recipe=auto").was_given("fp16"));
    let mut options = given.options.clone();
    Recipe::Small128.apply(&mut options, |flag| given.was_given(flag));
    assert_eq!((options.fp16, options.depth), (0, 8));
}

#[test]
fn what_follows_from_the_defaults() {
    let plan = parse("--recipe=d16").resolve(8).unwrap();
    assert_eq!((plan.batch, plan.global_batch), (96, 768));
    assert_eq!(plan.lr, 1e-4 * 768.0 / 256.0);
    assert_eq!((plan.wd, plan.wd_end), (0.05, 0.05));
    assert_eq!(plan.precision, Precision::Fp16);
    assert_eq!(
        (plan.tokens, plan.image_size, plan.clip),
        (680, 256, Some(2.0))
    );
    assert_eq!(
        plan.resolutions,
        [16, 32, 48, 64, 80, 96, 128, 160, 208, 256]
    );
    assert_eq!(
        plan.tb_dir.to_str(),
        Some("local_output/tb-VARd16__pn1_2_3_4_5_6_8_10_13_16__b768ep200adamlr0.0001wd0.05")
    );
    let horizon = plan.horizon(1_281_167).unwrap();
    assert_eq!((horizon.its_per_epoch, horizon.max_it), (1669, 333_800));
    assert_eq!(horizon.warmup_its, 4.0 * 1669.0);
    assert_eq!(plan.warmup_epochs(&horizon), 4.0);
    assert_eq!(plan.ramp_epochs(&horizon), 200.0 / 300.0);
    assert_eq!(horizon.epochs, 200);
    assert_eq!(plan.stages(&horizon), None);
}

#[test]
fn batches_round_half_to_even_and_scale_the_rate() {
    let plan = parse("--bs=10 --ac=4 --tclip=0 --twde=0.08 --wp=1.5 --workers=99")
        .resolve(1)
        .unwrap();
    // 10 / 4 = 2.5 rounds to 2; a step sees 2 images four times.
    assert_eq!((plan.batch, plan.global_batch), (2, 2));
    assert_eq!(plan.lr, 4.0 * 1e-4 * 2.0 / 256.0);
    assert_eq!((plan.clip, plan.wd_end), (None, 0.08));
    assert_eq!(plan.warmup_epochs(&plan.horizon(20).unwrap()), 1.5);
    assert_eq!(plan.workers, 2);
    // Of several processes each has as many.
    let plan = parse("--bs=24 --ac=2").resolve(4).unwrap();
    assert_eq!((plan.batch, plan.global_batch), (3, 12));
    assert_eq!(plan.lr, 2.0 * 1e-4 * 12.0 / 256.0);
    assert_eq!(
        refusal("--bs=20 --ac=2", 4),
        "--bs=20: can't be shared by 4 processes in --ac=2 iterations; give 16 or 24"
    );
    assert_eq!(
        refusal("--bs=7", 2),
        "--bs=7: can't be shared by 2 processes; give 6 or 8"
    );
}

#[test]
fn progressive_training_sets_the_schedule() {
    let plan = parse("--pg=0.8 --pg0=1 --sche=cos --bs=4 --ep=10")
        .resolve(1)
        .unwrap();
    assert_eq!(plan.curve, Curve::Bend(0.8));
    let horizon = plan.horizon(40).unwrap();
    let stages = plan.stages(&horizon).unwrap();
    assert_eq!((stages.first, stages.scales, stages.max_it), (1, 10, 100));
    assert_eq!(stages.ramp_its, 10.0 / 300.0 * 10.0);
    // The bend is where the flag's short form puts it.
    let plan = parse("--pg=0.123456789").resolve(1).unwrap();
    assert_eq!(plan.curve, Curve::Bend(0.123457));
    // Without progressive training the first stage is not looked at.
    assert!(parse("--pn=1_2").resolve(1).is_ok());
}

#[test]
fn odd_characters_stay_out_of_the_folder_name() {
    let plan = parse("--pn=1-2-3 --tblr=8e-5 --twd=0 --bs=7 --opt=ADAM")
        .resolve(1)
        .unwrap();
    assert_eq!(
        plan.tb_dir.file_name().unwrap(),
        "tb-VARd16__pn1-2-3__b7ep250ADAMlr8e-05wd0"
    );
}

#[test]
fn each_bad_flag_is_named() {
    for flag in [
        "--depth=0",
        "--pn=",
        "--pn=0",
        "--pn=1_x",
        "--pn=2_1",
        "--bs=0",
        "--ac=0",
        "--ep=0",
        "--sche=linear",
        "--opt=lion",
        "--ls=1",
        "--ls=-0.1",
        "--mid_reso=0.9",
        "--mid_reso=nan",
        "--patch_size=12",
        "--fp16=3",
        "--tblr=0",
        "--tblr=-1",
        "--tblr=inf",
        "--twd=-1",
        "--twde=nan",
        "--tclip=nan",
        "--wp=-1",
        "--wp=251",
        "--wp0=nan",
        "--wpe=-1",
        "--pg=1.5",
        "--pg=-0.5",
        "--pgwp=-1",
        "--ini=inf",
        "--hd=nan",
        "--stop_after=0",
    ] {
        let message = refusal(flag, 1);
        let value = flag.replace("nan", "NaN");
        assert!(
            message.starts_with(&format!("{value}: ")),
            "{flag}: {message}"
        );
    }
    assert!(
        refusal("--pg=0.5 --pg0=3 --pn=1_2_3", 1).starts_with("--pg0=3: there are only 3 scales")
    );
    assert!(refusal("--sche=exp --wpe=0", 1).starts_with("--wpe=0: "));
    assert_eq!(
        refusal("--bs=8 --ac=4", 8),
        "--bs=8: less than one image for each of 8 processes and --ac=4 accumulated iterations; raise it to at least 32"
    );
}

#[test]
fn no_images_are_refused() {
    let message = on_terminal(
        &parse("")
            .resolve(1)
            .unwrap()
            .horizon(0)
            .unwrap_err()
            .to_string(),
    );
    assert!(message.contains("no training images"), "{message}");
}

#[test]
fn options_read_back_from_json() {
    let options = parse("--recipe=d36-s --seed=3 --stop_after=5 --out=x --device=cpu");
    let text = serde_json::to_string(&options).unwrap();
    assert!(text.contains(r#""recipe":"d36-s""#), "{text}");
    assert_eq!(
        serde_json::from_str::<TransformerOptions>(&text).unwrap(),
        options
    );
    // Older or shorter files take defaults for what they lack; unknown keys are refused.
    assert_eq!(
        serde_json::from_str::<TransformerOptions>("{}").unwrap(),
        TransformerOptions::default()
    );
    assert!(serde_json::from_str::<TransformerOptions>(r#"{"dept":1}"#).is_err());
}

proptest! {
    #[test]
    fn any_text_for_the_listed_flags_gives_a_plan_or_one_line(pn in "\\PC{0,8}", sche in "\\PC{0,8}", opt in "\\PC{0,8}") {
        let schedule = ScheduleOptions { sche, ..ScheduleOptions::default() };
        let options = TransformerOptions { pn, opt, schedule, ..TransformerOptions::default() };
        if let Err(error) = options.resolve(1) {
            prop_assert!(on_terminal(&error.to_string()).starts_with("--"));
        }
    }

    #[test]
    fn any_numbers_give_finite_plans(bs in 0usize..100_000, ac in 0usize..50, ep in 0usize..500, world in 1usize..300, images in 0usize..100_000) {
        let schedule = ScheduleOptions { bs, ac, ep, ..ScheduleOptions::default() };
        let options = TransformerOptions { schedule, ..TransformerOptions::default() };
        if let Ok(plan) = options.resolve(world) {
            prop_assert!(plan.batch >= 1 && plan.global_batch == plan.batch * world);
            if let Ok(horizon) = plan.horizon(images) {
                let last = horizon.schedule.at(horizon.max_it - 1);
                prop_assert!(last.lr.is_finite() && last.lr > 0.0 && last.wd.is_finite());
            }
        }
    }
}

#[test]
fn a_run_may_be_counted_in_steps() {
    let plan = parse("--bs=8 --ac=2 --steps=30").resolve(1).unwrap();
    // 10 images are 3 iterations of 4.
    let horizon = plan.horizon(10).unwrap();
    assert_eq!((horizon.its_per_epoch, horizon.max_it), (3, 60));
    assert_eq!(horizon.epochs, 20);
    assert!((horizon.warmup_its - 1.2).abs() < 1e-9);
    let plan = parse("--bs=8 --steps=7").resolve(1).unwrap();
    let horizon = plan.horizon(20).unwrap();
    assert_eq!((horizon.its_per_epoch, horizon.max_it), (3, 7));
    assert_eq!(horizon.epochs, 3);
    let done: Vec<u64> = (0..=7).map(|it| horizon.epochs_done(it)).collect();
    assert_eq!(done, [0, 0, 0, 1, 1, 1, 2, 3]);
    assert!(parse("--steps=0").resolve(1).is_err());
}

#[test]
fn a_precision_in_words_is_the_flags_of_the_reference() {
    for (words, reference) in [
        ("--precision=fp32", "--fp16=0 --tf32=0"),
        ("--precision=tf32", "--fp16=0 --tf32=1"),
        ("--precision=fp16", "--fp16=1"),
        ("--precision=bf16 --tf32=0", "--fp16=2 --tf32=0"),
        ("--precision=bf16 --fp16=2", "--fp16=2"),
        ("--recipe=d16 --precision=bf16", "--recipe=d16 --fp16=2"),
        ("--recipe=d16 --precision=tf32", "--recipe=d16 --fp16=0"),
    ] {
        assert_eq!(parse(words), parse(reference), "{words}");
    }
    for (line, part) in [
        (
            "--precision=bf16 --fp16=1",
            "`precision`=bf16 is `fp16`=2; give one",
        ),
        ("--precision=fp32 --tf32=1", "`precision`=fp32 is `tf32`=0"),
        ("--precision=half", "half"),
    ] {
        let words = line.split_whitespace();
        let text = Cli::try_parse_from(words).err().unwrap().to_string();
        assert!(text.contains(part), "{text}");
    }
}
