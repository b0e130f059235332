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
        text.contains("finished before, ") && text.contains("learnt in "),
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
        text.contains("finished before, ") && !text.contains("\nstep 1/"),
        "{text}"
    );
    assert!(!learnt.exists());
    // Without the pictures what is left is done again.
    std::fs::remove_file(moved.join("samples.png")).unwrap();
    let text = told(&run(&flags_there));
    assert!(
        text.contains("going on as ") && !text.contains("\nstep 1/"),
        "{text}"
    );
    assert!(moved.join("samples.png").is_file());
    std::fs::rename(&moved, &learnt).unwrap();
    // The same folder by another name.
    let same = folder.clone() + "/../pictures/";
    let text = told(&run(&[
        "learn",
        &same,
        &out,
        "--size=32",
        "--device=cpu",
        "--minutes=0.1",
    ]));
    assert!(text.contains("finished before, "), "{text}");
    // Weights that are gone come from the checkpoint again.
    let weights = learnt.join("tokenizer/tokenizer.safetensors");
    let before = std::fs::read(&weights).unwrap();
    std::fs::remove_file(&weights).unwrap();
    let text = told(&run(&short));
    assert!(text.contains("learnt in "), "{text}");
    assert!(std::fs::read(&weights).unwrap() == before);
    // Results among the images would be taken for some of them.
    let text = refused(&["learn", &folder, &format!("--out={folder}/new/learnt")]);
    assert!(
        text.contains("new/learnt: lies in the folder of the images"),
        "{text}"
    );
    let file = folder.clone() + "/blue/0.png";
    let text = refused(&["learn", "builtin:shapes", &format!("--out={file}")]);
    assert!(text.contains("0.png: is a file; "), "{text}");
    let text = refused(&["learn", "nowhere-at-all"]);
    assert!(
        text.contains(": nowhere-at-all: no such folder") && !text.contains("--data_path"),
        "{text}"
    );
    let other = [&flags[..], &["--minutes=0.2"]].concat();
    let text = refused(&other);
    assert!(
        text.contains("learn.json: was begun with --minutes=0.1, not with --minutes=0.2"),
        "{text}"
    );
    let text = refused(&[&flags[..], &["--minutes=0"]].concat());
    assert!(text.contains("--minutes=0: "), "{text}");
}

/// The first pixel of a picture.
fn corner(path: &Path) -> [u8; 3] {
    image::open(path).unwrap().into_rgb8().get_pixel(2, 2).0
}

#[test]
fn what_pictures_are_laid_on_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for class in ["a", "b"] {
        std::fs::create_dir_all(at(&format!("data/{class}"))).unwrap();
        for i in 0..6u8 {
            // Nothing of it is to be seen.
            let clear = image::RgbaImage::from_pixel(40, 60, image::Rgba([200, i, 9, 0]));
            clear.save(at(&format!("data/{class}/{i}.png"))).unwrap();
        }
    }
    let data = format!("--data_path={}", at("data").display());
    let small = ["--size=32", "--vocab=32", "--ch=32", "--bs=2", "--steps=1"];
    let shared = [&data[..], "--device=cpu", "--seed=1"];
    let out = |name: &str| format!("--out={}", at(name).display());
    let black = ["--background=0000ff", "--aspect=pad"];
    let tokenizer = [&["train-tokenizer"][..], &small, &shared, &black];
    told(&run(
        &[&tokenizer.concat()[..], &[&out("tokenizer")]].concat()
    ));
    let file = at("tokenizer/tokenizer.safetensors").display().to_string();
    let file = format!("--tokenizer={file}");
    let train = ["train", "--depth=1", "--bs=2", "--steps=1", &file];
    told(&run(&[&train[..], &shared, &[&out("model")]].concat()));
    let model = at("model/ar-ckpt-last.safetensors").display().to_string();
    let info = told(&run(&["info", &model]));
    assert!(info.contains("laid over 0000ff, set in squares"), "{info}");

    let image = at("data/a/0.png").display().to_string();
    let picture = at("seen.png");
    let seen = format!("--out={}", picture.display());
    let back = [
        "reconstruct",
        &image,
        &file,
        &seen,
        "--force",
        "--device=cpu",
    ];
    for (more, want) in [
        (&[][..], [0, 0, 255]),
        (&["--background=white"], [255, 255, 255]),
        (&["--background=drop", "--aspect=crop"], [200, 0, 9]),
    ] {
        told(&run(&[&back[..], more].concat()));
        assert_eq!(corner(&picture), want, "{more:?}");
    }
    let (model, image) = (format!("--model={model}"), format!("--image={image}"));
    let edit = ["edit", &model, &image, "--box=0,0,0.5,0.5", "--count=1"];
    let edit = [&edit[..], &[&seen, "--force", "--device=cpu"]].concat();
    told(&run(&edit));
    assert_eq!(corner(&picture), [0, 0, 255]);
    told(&run(&[&edit[..], &["--background=white"]].concat()));
    assert_eq!(corner(&picture), [255, 255, 255]);
    // And where tokens were made on the way.
    let tokens = at("t.safetensors").display().to_string();
    let made = [
        "tokenize",
        &file,
        shared[0],
        "--device=cpu",
        "--background=black",
    ];
    told(&run(&[&made[..], &[&out("t.safetensors")]].concat()));
    let tokens = format!("--tokens={tokens}");
    let train = [
        "train",
        "--depth=1",
        "--bs=2",
        "--steps=1",
        &tokens,
        "--device=cpu",
    ];
    told(&run(&[&train[..], &[&out("of_tokens")]].concat()));
    let info = told(&run(&[
        "info",
        &at("of_tokens/ar-ckpt-last.safetensors")
            .display()
            .to_string(),
    ]));
    assert!(info.contains("laid over black, set in squares"), "{info}");
}

#[test]
fn a_run_that_goes_on_with_another_length_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let out = format!("--out={}", dir.path().join("run").display());
    let flags = [
        "train-tokenizer",
        "--data_path=builtin:shapes",
        "--size=32",
        "--vocab=32",
        "--ch=32",
    ];
    let flags = [&flags[..], &["--bs=2", "--device=cpu", "--threads=1", &out]].concat();
    told(&run(
        &[&flags[..], &["--steps=3", "--stop_after=1"]].concat()
    ));
    let text = told(&run(
        &[&flags[..], &["--steps=3", "--stop_after=2"]].concat()
    ));
    assert!(!text.contains("was planned for"), "{text}");
    let text = told(&run(&[&flags[..], &["--steps=4"]].concat()));
    assert!(
        text.contains("--steps: the run was planned for 3 steps and goes on for 4"),
        "{text}"
    );
}
