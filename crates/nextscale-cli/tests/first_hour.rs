//! From a folder of pictures to samples, as `check` and `learn` have it.

mod common;

use common::{refused, run};
use std::path::Path;
use std::process::Output;

/// Two classes of pictures that differ in colour, some of them no squares, one of them damaged.
fn pictures(dir: &Path) {
    for (class, color) in [("red cats", [200, 20, 20]), ("blue", [20, 20, 200])] {
        let folder = dir.join(class);
        std::fs::create_dir_all(&folder).unwrap();
        for i in 0..12u32 {
            let [r, g, b] = color;
            let picture = image::RgbImage::from_fn(40 + i % 3 * 20, 40, |x, y| match x * y % 7 {
                0 => image::Rgb([255, 255, i as u8]),
                _ => image::Rgb([r, g, b]),
            });
            picture.save(folder.join(format!("{i}.png"))).unwrap();
        }
    }
    let one = dir.join("blue/3.png");
    std::fs::copy(&one, dir.join("red cats/copy.png")).unwrap();
    std::fs::write(dir.join("blue/damaged.png"), b"no picture").unwrap();
}

fn told(out: &Output) -> String {
    let text = [out.stdout.as_slice(), &out.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert_eq!(out.status.code(), Some(0), "{text}");
    text
}

#[test]
fn check_tells_what_a_folder_is_like_and_suggests_commands() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("my pictures");
    pictures(&data);
    let picture = dir.path().join("seen.png");
    let out = format!("--out={}", picture.display());
    let folder = data.display().to_string();
    let text = told(&run(&["check", &folder, &out, "--size=32", "--device=cpu"]));
    for part in [
        "images       26: ",
        "red cats 1",
        "shorter side 40 to 40 pixels",
        "are no squares; cut to one, an image loses",
        "1 can't be read; --bad_images=skip",
        "damaged.png",
        "/my pictures' --size=32 --minutes=30 --device=cpu\n",
        "train-tokenizer --recipe=small-32 ",
        "train-tokenizer --recipe=small-32 ",
        "train --recipe=small-32 --ep=200 ",
        "--device=cpu --bad_images=skip --out=tokenizer\n",
        "8000 steps of ",
        "a loss of 6.24",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    let seen = image::open(&picture).unwrap();
    assert!(seen.height() > 64 && seen.width() > 8 * 32);
    // What is there stays, and what can't be written is known before all images are looked at.
    let text = refused(&["check", &folder, &out]);
    assert!(
        text.contains("exists already") && text.contains("--force"),
        "{text}"
    );
    for wrong in ["seen.gif", "nowhere/seen.png"] {
        let text = refused(&["check", &folder, &format!("--out={wrong}")]);
        assert!(text.contains(&format!("--out={wrong}: ")), "{text}");
    }
    let padded = ["check", &folder, &out, "--force", "--only_look"];
    told(&run(&[&padded[..], &["--size=32", "--aspect=pad"]].concat()));
    assert_ne!(image::open(&picture).unwrap(), seen);

    let only = told(&run(&["check", &folder, "--only_look", "--aspect=pad"]));
    assert!(only.contains("laid on one (--aspect=pad)"), "{only}");
    assert!(!only.contains("learn"), "{only}");
    let text = refused(&["check", &folder, "--size=100"]);
    assert!(
        text.contains("--size=100: give 32, 64, 128 or 256"),
        "{text}"
    );
    let text = refused(&["check", "nowhere-at-all"]);
    assert!(text.contains("nowhere-at-all"), "{text}");
}

#[test]
fn recipes_are_taken_by_both_trainers_and_chosen_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("pictures");
    pictures(&data);
    let data = format!("--data_path={}", data.display());
    let at = |name: &str| format!("--out={}", dir.path().join(name).display());
    let shared = [&data[..], "--device=cpu", "--bad_images=skip", "--seed=1"];
    let auto = ["train-tokenizer", "--recipe=auto", "--steps=1", "--bs=2"];
    let text = told(&run(&[&auto[..], &shared[..], &[&at("tokenizer")]].concat()));
    let chosen = "training images of about 40 pixels and a CPU with ";
    assert!(
        text.contains("--recipe=auto: 2") && text.contains(chosen),
        "{text}"
    );
    assert!(text.contains("as --recipe=small-32 --steps=1"), "{text}");
    assert!(text.contains("32x32 pixels, 130 tokens"), "{text}");
    let file = dir.path().join("tokenizer/tokenizer.safetensors");
    let file = format!("--tokenizer={}", file.display());
    let train = [
        "train",
        "--recipe=auto",
        "--steps=1",
        "--bs=2",
        "--depth=1",
        &file,
    ];
    let text = told(&run(&[&train[..], &shared[..], &[&at("model")]].concat()));
    assert!(text.contains("as --recipe=small-32 --steps=1"), "{text}");
    assert!(text.contains("chance 6.2383; by scale: "), "{text}");
    assert!(
        text.contains("warning: the whole run has 1 step, "),
        "{text}"
    );
    assert!(text.contains("needs about "), "{text}");
    let lines = std::fs::read_to_string(dir.path().join("model/evaluations.jsonl")).unwrap();
    assert!(lines.contains("\"chance\":6.238"), "{lines}");
    // Beside flags that say how many threads and processes there are.
    for (i, flag) in ["--threads=1", "--procs=2"].into_iter().enumerate() {
        let out = at(&format!("with{i}"));
        let text = told(&run(&[&auto[..], &shared[..], &[flag, &out]].concat()));
        assert_eq!(
            text.matches("as --recipe=small-32 --steps=1").count(),
            1,
            "{text}"
        );
    }
    let text = refused(&["train-tokenizer", "--recipe=d16", &data]);
    assert!(
        text.contains("--recipe=d16: it is a transformer's"),
        "{text}"
    );
    let text = refused(&["train", "--recipe=auto"]);
    assert!(text.contains("--data_path is missing"), "{text}");
}

#[test]
fn learn_goes_from_a_folder_to_samples_and_is_done_once() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("pictures");
    pictures(&data);
    let folder = data.display().to_string();
    let learnt = dir.path().join("learnt");
    let out = format!("--out={}", learnt.display());
    let flags = ["learn", &folder, &out, "--size=32", "--device=cpu"];
    let short = [&flags[..], &["--minutes=0.1"]].concat();
    let text = told(&run(&short));
    for part in [
        "1/5  looking at the images",
        "training images of 2 classes in ",
        "recipe small-32",
        "5/5  drawing and judging samples",
        "learnt in ",
        "of 200 samples and ",
        "--classes=blue",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    for name in [
        "samples.png",
        "reconstruction.png",
        "summary.json",
        "learn.json",
    ] {
        assert!(learnt.join(name).is_file(), "{name}");
    }
    // Nothing is trained again.
    let text = told(&run(&short));
    assert!(
        text.contains("going on as ") && text.contains("learnt in "),
        "{text}"
    );
    assert!(!text.contains("\nstep 1/"), "{text}");
    // Nor where the folder was moved meanwhile.
    let moved = dir.path().join("moved");
    std::fs::rename(&learnt, &moved).unwrap();
    let there = format!("--out={}", moved.display());
    let flags_there = [
        "learn",
        &folder,
        &there,
        "--size=32",
        "--device=cpu",
        "--minutes=0.1",
    ];
    let text = told(&run(&flags_there));
    assert!(
        text.contains("learnt in ") && !text.contains("\nstep 1/"),
        "{text}"
    );
    assert!(!learnt.exists());
    std::fs::rename(&moved, &learnt).unwrap();
    let other = [&flags[..], &["--minutes=0.2"]].concat();
    let text = refused(&other);
    assert!(
        text.contains("learn.json: was begun with --minutes=0.1, not 0.2"),
        "{text}"
    );
    let text = refused(&[&flags[..], &["--minutes=0"]].concat());
    assert!(text.contains("--minutes=0: "), "{text}");
}
