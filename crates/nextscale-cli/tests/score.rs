//! `score`: numbers of folders, files and models by features of one's own, and what is refused.

mod common;

use common::runs::with_model;
use common::{bitmap, few_images, nextscale, refused, run, succeed};
use serde_json::Value;
use std::fs::write;
use std::path::{Path, PathBuf};

/// A network of features for the two classes of a folder's images.
fn features(dir: &Path, images: &Path) -> String {
    let file = dir.join("features.safetensors");
    succeed(&[
        "train-features",
        &images.display().to_string(),
        &format!("--out={}", file.display()),
        "--size=32",
        "--steps=4",
        "--batch=4",
        "--device=cpu",
    ]);
    format!("--features={}", file.display())
}

/// A folder of `n` noisy images of `side` pixels.
fn noise(dir: &Path, n: u64, side: u32) -> PathBuf {
    std::fs::create_dir_all(dir).unwrap();
    for i in 0..n {
        write(dir.join(format!("{i}.bmp")), bitmap(side, 100 + i)).unwrap();
    }
    dir.to_owned()
}

fn report(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn number(row: &Value, name: &str) -> f64 {
    row[name]
        .as_f64()
        .unwrap_or_else(|| panic!("{name}: {row}"))
}

#[test]
fn folders_files_and_statistics_give_the_same_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let images = few_images(dir.path());
    let features = features(dir.path(), &images);
    let samples = noise(&dir.path().join("samples"), 6, 32)
        .display()
        .to_string();
    let train = images.join("train").display().to_string();
    let out = |name: &str| format!("--out={}", at(name));
    let score = |more: &[&str], name: &str| -> Value {
        succeed(&[&["score", &features, &out(name), "--device=cpu"], more].concat());
        report(Path::new(&at(name)))
    };

    let whole = score(&[&samples, &format!("--reference={train}")], "whole.json");
    let row = &whole["results"][0];
    assert_eq!(row["protocol"], "own-features");
    assert_eq!(whole["samples"]["count"], 6);
    assert_eq!(whole["reference"]["count"], 5);
    assert_eq!(whole["network"]["sha256"].as_str().unwrap().len(), 64);
    assert!(number(row, "frechet_distance") > 0.0);
    assert!((0.0..=1.0).contains(&number(row, "precision")));
    // The samples' folder has no classes that the network knows; the reference's has.
    assert!(row["class_accuracy"].is_null());
    assert!((0.0..=1.0).contains(&number(row, "reference_class_accuracy")));
    let told = whole["remarks"].to_string();
    assert!(told.contains("singular"), "{told}");

    // Kept statistics say the same of distances, and nothing of neighbours.
    let kept = at("kept.npz");
    let save = format!("--save_statistics={kept}");
    let alone = score(&[&train, &save], "alone.json");
    assert!(alone["results"][0]["frechet_distance"].is_null());
    let again = score(&[&samples, &format!("--reference={kept}")], "again.json");
    let other = &again["results"][0];
    let (a, b) = (
        number(row, "frechet_distance"),
        number(other, "frechet_distance"),
    );
    assert!((a - b).abs() < 1e-9 * a, "{a} {b}");
    assert!(other["precision"].is_null());
    assert_eq!(again["reference"]["count"], 5);

    // To itself the distance is none, and all is among its like.
    let same = score(&[&samples, &format!("--reference={samples}")], "same.json");
    let same = &same["results"][0];
    assert!(number(same, "frechet_distance").abs() < 1e-6);
    assert_eq!(
        (number(same, "precision"), number(same, "recall")),
        (1.0, 1.0)
    );

    // A split is what trainings take of a folder.
    let split = |folder: &str, name: &str, more: &[&str]| -> Value {
        let reference = format!("--reference={folder}:{name}");
        score(&[&[&samples[..], &reference], more].concat(), "split.json")
    };
    let _ = std::fs::remove_file(at("split.json"));
    let ready = split(&images.display().to_string(), "train", &[]);
    assert_eq!(ready["results"], whole["results"]);
    let counts = ["train", "val"].map(|name| {
        std::fs::remove_file(at("split.json")).unwrap();
        let cut = split(&train, name, &["--val_share=0.5"]);
        cut["reference"]["count"].as_u64().unwrap()
    });
    assert!(counts.iter().all(|n| *n > 0), "{counts:?}");
    assert_eq!(counts.iter().sum::<u64>(), 5);

    let with = |more: &[&str]| {
        let words: [&str; 4] = ["score", &samples, &features, &out("new.json")];
        refused(&[&words[..], more].concat())
    };
    let reference = format!("--reference={train}");
    let line = with(&[&reference, "--val_share=0.5"]);
    assert!(line.contains("FOLDER:val"), "{line}");
    let line = with(&["--save_statistics=a.npz", "--protocol=adm,pytorch-fid"]);
    assert!(line.contains("--save_statistics: "), "{line}");
    let line = with(&["--save_statistics=a.npz", "--sweep=cfg=1,2"]);
    assert!(line.contains("--save_statistics: "), "{line}");

    let line = refused(&["score", &samples, &features, &out("whole.json")]);
    assert!(line.contains("exists already"), "{line}");
}

#[test]
fn models_are_drawn_from_and_tokenizers_send_images_through() {
    let (dir, model) = with_model();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let images = dir.path().join("images");
    let features = features(dir.path(), &images);
    let model = model.display().to_string();
    let reference = format!("--reference={}", images.join("train").display());
    let base = |what: &str, name: &str| -> Vec<String> {
        let words = [
            "score",
            what,
            &features,
            &reference,
            "--device=cpu",
            "--batch=4",
        ];
        let words = words.map(str::to_owned).into_iter();
        words.chain([format!("--out={}", at(name))]).collect()
    };
    let run = |mut flags: Vec<String>, more: &[&str]| -> String {
        flags.extend(more.iter().map(|m| (*m).to_owned()));
        succeed(&flags.iter().map(String::as_str).collect::<Vec<_>>())
    };

    let sweep = ["--count=6", "--seed=3", "--sweep", "cfg=0,2", "top_p=0,0.5"];
    let said = run(base(&model, "swept.json"), &sweep);
    assert!(said.contains("own-features    0      0"), "{said}");
    let swept = report(Path::new(&at("swept.json")));
    let rows = swept["results"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    assert_eq!(swept["samples"]["drawn"]["seed"], 3);
    assert!(rows.iter().all(|r| r["class_accuracy"].is_number()));
    let plot = std::fs::read_to_string(at("swept.svg")).unwrap();
    assert!(
        plot.starts_with("<svg") || plot.starts_with("<?xml"),
        "{plot}"
    );

    // One of its rows alone, in other batches, is the same.
    let one = [
        "--count=6",
        "--seed=3",
        "--cfg=2",
        "--top_p=0.5",
        "--batch=5",
    ];
    run(base(&model, "one.json"), &one);
    let one = report(Path::new(&at("one.json")));
    let [a, b] = [&rows[3], &one["results"][0]].map(|r| number(r, "frechet_distance"));
    assert!((a - b).abs() < 1e-6 * a.abs(), "{a} {b}");

    // The same images from a file.
    let npz = at("six.npz");
    let flags = [
        "--per_class=3",
        "--seed=3",
        "--cfg=2",
        "--top_p=0.5",
        "--device=cpu",
    ];
    let model_flag = format!("--model={model}");
    succeed(
        &[
            &["sample", &model_flag, &format!("--out={npz}")],
            &flags[..],
        ]
        .concat(),
    );
    run(base(&npz, "file.json"), &[]);
    let file = report(Path::new(&at("file.json")));
    assert_eq!(file["samples"]["count"], 6);
    assert!(file["results"][0]["class_accuracy"].is_null());

    let tokenizer = at("tokenizer/tokenizer.safetensors");
    let said = run(base(&tokenizer, "back.json"), &[]);
    assert!(said.contains("PSNR"), "{said}");
    let back = report(Path::new(&at("back.json")));
    assert!(number(&back["results"][0], "psnr_db") > 0.0);
    assert!(number(&back["results"][0], "ssim") <= 1.0);
}

#[test]
fn what_cant_be_scored_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let images = few_images(dir.path());
    let features = features(dir.path(), &images);
    let samples = noise(&dir.path().join("samples"), 3, 20)
        .display()
        .to_string();
    write(dir.path().join("notes.npz"), "no archive").unwrap();
    write(dir.path().join("weights.pth"), "no weights").unwrap();
    let out = format!("--out={}", at("x.json"));
    let whole = images.display().to_string();
    let cases: [(&[&str], &[&str]); 10] = [
        (&[&samples, "--features=missing.pth"], &["missing.pth"]),
        (
            &[&samples, &format!("--features={}", at("weights.pth"))],
            &["weights.pth"],
        ),
        (&[&at("none"), &features], &["none", "no such file"]),
        (
            &[&at("notes.npz"), &features],
            &["notes.npz", "no .npz archive"],
        ),
        (&[&samples, &features, "--reference=nowhere"], &["nowhere"]),
        (
            &[&whole, &features],
            &["training images and others apart", "val"],
        ),
        (
            &[&samples, &features, "--protocol=adm"],
            &["--protocol=adm", "Inception"],
        ),
        (
            &[&samples, &features, "--metrics=is"],
            &["--metrics=is", "own-features"],
        ),
        (
            &[&samples, &features, "--sweep", "cfg=0,1"],
            &["--sweep", "nothing is drawn"],
        ),
        (&[&samples, &features, "--batch=0"], &["--batch=0"]),
    ];
    for (flags, parts) in cases {
        let line = refused(&[&["score", &out, "--device=cpu"], flags].concat());
        for part in parts {
            assert!(line.contains(part), "{part}: {line}");
        }
    }
    assert!(!Path::new(&at("x.json")).exists());

    // A damaged image is named, or left out.
    write(dir.path().join("samples/3.png"), "no picture").unwrap();
    let reference = format!("--reference={}", images.join("train").display());
    let base = [
        "score",
        &samples,
        &features,
        &reference,
        &out,
        "--device=cpu",
    ];
    let line = refused(&base);
    assert!(line.contains("3.png"), "{line}");
    let done = run(&[&base[..], &["--bad_images=skip"]].concat());
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success() && told.contains("3.png"), "{told}");
    // Three are too few for three neighbours of each.
    let row = &report(Path::new(&at("x.json")))["results"][0];
    assert!(row["precision"].is_null() && row["frechet_distance"].is_number());
    assert!(
        told.contains("precision and recall need more than 3"),
        "{told}"
    );
}

#[test]
fn a_training_judges_samples_with_its_evaluations() {
    let dir = common::runs::prepared();
    let features = features(dir.path(), &dir.path().join("images"));
    let features = features.replace("--features=", "--score_features=");
    let more = [
        "--ep=2",
        "--ema=0.9",
        "--score_every=2",
        "--score_samples=8",
        &features,
    ];
    let flags = common::runs::Trainer::Transformer.flags(dir.path(), "run", &more);
    succeed(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    let text = std::fs::read_to_string(dir.path().join("run/evaluations.jsonl")).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0]["feature_distance"].is_null());
    for name in ["feature_distance", "feature_distance_raw", "class_accuracy"] {
        assert!(lines[1][name].is_number(), "{name}: {text}");
    }
    // Nothing that judges is refused late.
    let wrong = ["--score_every=1"];
    let flags = common::runs::Trainer::Transformer.flags(dir.path(), "other", &wrong);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let done = nextscale(&flags).output().unwrap();
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(2), "{told}");
    assert!(
        told.contains("--score_every=1") && told.contains("--score_features"),
        "{told}"
    );
}
