//! A run that is killed goes on exactly where its last checkpoint was, whenever the kill comes.

mod common;

use common::{few_images, nextscale, refused, succeed, tiny_tokenizer, tiny_tokenizer_of};
use nextscale::checkpoint::TrainerState;
use nextscale_tensor::rng::{Purpose, Stream};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Flags of the run under test.
fn flags(tokenizer: &Path, out: &Path, more: &[&str]) -> Vec<String> {
    let mut f: Vec<String> = [
        "train",
        "--data_path=builtin:shapes",
        "--pn=1_2",
        "--depth=2",
        "--bs=6",
        "--ac=2",
        "--ep=1",
        "--mid_reso=1.125",
        "--hflip=1",
        "--seed=5",
        "--log_every=1",
        "--quiet",
        "--threads=2",
    ]
    .iter()
    .map(|s| (*s).to_owned())
    .collect();
    f.push(format!("--tokenizer={}", tokenizer.display()));
    f.push(format!("--out={}", out.display()));
    f.extend(more.iter().map(|s| (*s).to_owned()));
    f
}

/// Starts the run, kills it after `pause`; whether it was still going.
fn start_and_kill(flags: &[String], pause: Duration) -> bool {
    let args: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut child = nextscale(&args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(pause);
    let alive = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    alive
}

/// The logged steps without what depends on the clock.
fn steps(out: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(out.join("steps.jsonl")).unwrap();
    text.lines()
        .map(|line| {
            let mut v: serde_json::Value = serde_json::from_str(line).unwrap();
            let o = v.as_object_mut().unwrap();
            o.remove("images_per_s");
            o.remove("data_wait");
            v.to_string()
        })
        .collect()
}

#[test]
fn killed_runs_end_bit_for_bit_like_whole_ones() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tiny_tokenizer(dir.path());
    let limits = ["--stop_after=24", "--save_every=3"];
    let whole = dir.path().join("whole");
    let f = flags(&tokenizer, &whole, &limits);
    let start = Instant::now();
    succeed(&f.iter().map(String::as_str).collect::<Vec<_>>());
    let time = start.elapsed();
    let broken = dir.path().join("broken");
    let f = flags(&tokenizer, &broken, &limits);
    let mut draw = Stream::new(1, Purpose::Test, 0, 1);
    let mut kills = 0;
    while kills < 3 {
        // Somewhere within the time that the whole run took.
        let share = 0.2 + 0.6 * draw.uniform();
        if !start_and_kill(&f, time.mul_f32(share / 2.0)) {
            break;
        }
        kills += 1;
    }
    assert!(kills > 0, "the run was over before it could be killed");
    succeed(&f.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(steps(&whole), steps(&broken));
    let load =
        |dir: &Path| TrainerState::load_safetensors(dir.join("ar-ckpt-last.safetensors")).unwrap();
    let (a, b) = (load(&whole), load(&broken));
    assert_eq!(a.g_it, Some(48));
    assert!(a.var == b.var && a.exp_avg == b.exp_avg && a.exp_avg_sq == b.exp_avg_sq);
    assert!(a.extra == b.extra && a.config == b.config && a.adam_step == b.adam_step);
}

#[test]
fn fifty_kills_while_saving_leave_a_folder_that_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tiny_tokenizer(dir.path());
    let out = dir.path().join("run");
    // A checkpoint after every step of a small batch: most of the time goes into saving.
    let f = flags(&tokenizer, &out, &["--save_every=1", "--bs=2"]);
    let last = out.join("ar-ckpt-last.safetensors");
    let mut draw = Stream::new(2, Purpose::Test, 0, 1);
    let mut before = 0;
    let mut kills = 0;
    for _ in 0..200 {
        if kills == 50 {
            break;
        }
        let pause = Duration::from_millis(u64::from(120 + draw.below(260)));
        assert!(start_and_kill(&f, pause), "the run ended by itself");
        if !last.exists() {
            continue;
        }
        kills += 1;
        let state = TrainerState::load_safetensors(&last).unwrap();
        let now = state.g_it.unwrap();
        assert!(now >= before, "a run went back from {before} to {now}");
        before = now;
    }
    assert_eq!(kills, 50, "too few runs lived to their first checkpoint");
    let mut rest = f.clone();
    rest.push(format!("--stop_after={}", before / 2 + 2));
    let text = succeed(&rest.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(text.contains("stopped after step"), "{text}");
    // Nothing of the killed runs is left lying about.
    let stale = std::fs::read_dir(&out)
        .unwrap()
        .filter(|e| {
            e.as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .ends_with(".tmp")
        })
        .count();
    assert_eq!(stale, 0);
}

#[test]
fn a_fitted_run_goes_on_with_the_accumulation_it_began_with() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tiny_tokenizer(dir.path());
    let run = |out: &Path, more: &[&str]| {
        let flags = flags(&tokenizer, out, more);
        succeed(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    };
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    run(&whole, &["--stop_after=3"]);
    run(&parts, &["--stop_after=1", "--fit"]);
    // Whatever the flag says now, and whatever would fit.
    run(&parts, &["--stop_after=3", "--ac=1", "--fit"]);
    assert_eq!(steps(&whole), steps(&parts));
}

/// Flags of a short run over few images, three iterations an epoch.
fn short(dir: &Path, out: &str, more: &[&str]) -> Vec<String> {
    let mut f: Vec<String> = [
        "train",
        "--pn=1_2",
        "--depth=2",
        "--bs=4",
        "--ac=2",
        "--ep=2",
    ]
    .iter()
    .chain(&["--seed=5", "--mid_reso=1", "--quiet", "--threads=2"])
    .chain(more)
    .map(|s| (*s).to_owned())
    .collect();
    f.push(format!("--data_path={}", dir.join("images").display()));
    f.push(format!(
        "--tokenizer={}",
        dir.join("tokenizer/tokenizer.safetensors").display()
    ));
    f.push(format!("--out={}", dir.join(out).display()));
    f
}

fn texts(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

#[test]
fn a_checkpoint_between_two_updates_holds_half_a_step() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    tiny_tokenizer(dir);
    few_images(dir);
    // So fast that the first epoch's model, saved after three iterations, stays the best.
    let more = ["--eval_every=1", "--tblr=10", "--wp=0"];
    succeed(&texts(&short(dir, "whole", &more)));
    let whole = dir.join("whole");
    let best = TrainerState::load_safetensors(whole.join("ar-ckpt-best.safetensors")).unwrap();
    assert_eq!(best.g_it, Some(3));
    assert!(!best.pending.is_empty());
    let again = dir.join("again");
    std::fs::create_dir(&again).unwrap();
    let last = "ar-ckpt-last.safetensors";
    std::fs::copy(whole.join("ar-ckpt-best.safetensors"), again.join(last)).unwrap();
    succeed(&texts(&short(dir, "again", &more)));
    let [a, b] = [whole, again].map(|d| TrainerState::load_safetensors(d.join(last)).unwrap());
    assert_eq!((a.g_it, b.g_it), (Some(6), Some(6)));
    assert!(a.var == b.var && a.exp_avg == b.exp_avg && a.exp_avg_sq == b.exp_avg_sq);
    assert!(a.pending.is_empty() && b.pending.is_empty());
}

#[test]
fn a_checkpoint_that_is_due_at_an_epochs_end_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    tiny_tokenizer(dir);
    few_images(dir);
    // Three updates an epoch and one evaluation, at the very end: what else saves is asked for.
    let flags = short(
        dir,
        "run",
        &["--ac=1", "--eval_every=0", "--save_every=3", "--ep=200"],
    );
    let last = dir.join("run/ar-ckpt-last.safetensors");
    let mut child = nextscale(&texts(&flags))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while !last.exists() && child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(60), "no checkpoint");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let done = TrainerState::load_safetensors(&last).unwrap().g_it.unwrap();
    assert!(done < 600 && done.is_multiple_of(3), "{done}");
}

#[test]
fn a_run_goes_on_with_its_own_tokenizer_only() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let tokenizer = tiny_tokenizer(dir);
    few_images(dir);
    succeed(&texts(&short(dir, "run", &["--stop_after=1"])));
    // Trained again in its place.
    let folder = tokenizer.parent().unwrap();
    let kept = dir.join("kept");
    std::fs::rename(folder, &kept).unwrap();
    tiny_tokenizer_of(dir, "4");
    let line = refused(&texts(&short(dir, "run", &[])));
    assert!(
        line.contains("ar-ckpt-last.safetensors") && line.contains("another tokenizer"),
        "{line}"
    );
    std::fs::remove_dir_all(folder).unwrap();
    std::fs::rename(&kept, folder).unwrap();
    succeed(&texts(&short(dir, "run", &[])));
    // The tokenizer's own run keeps its settings.
    let images = format!("--data_path={}", dir.join("images").display());
    let out = format!("--out={}", dir.join("own").display());
    let base = [
        "train-tokenizer",
        &images,
        &out,
        "--pn=1_2",
        "--ch=32",
        "--vocab=32",
        "--bs=4",
        "--steps=4",
        "--mid_reso=1",
        "--seed=3",
        "--quiet",
        "--threads=2",
    ];
    let with = |more: &[&'static str]| [&base[..], more].concat();
    succeed(&with(&["--stop_after=1"]));
    let line = refused(&with(&["--quant_resi=0.25"]));
    assert!(line.contains("quant_resi was 0.5"), "{line}");
    succeed(&with(&["--beta=0.3"]));
}
