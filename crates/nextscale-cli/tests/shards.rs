//! Training from tar shards and Parquet files is training from the folder with the same images.

mod common;

use common::runs::{Tokenizer, Trainer, Transformer, assert_same_end, texts};
use common::{refused, run, succeed, tiny_tokenizer};
use std::fs;
use std::path::{Path, PathBuf};
use tar::{Builder, Header};

/// Images in class folders, and Parquet files with the same in the same order.
fn fixtures() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fixtures/shards"
    ))
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    found.sort();
    found
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// Every split's images with their paths below the split.
fn images(split: &str) -> Vec<(String, Vec<u8>)> {
    let classes = sorted(&fixtures().join("images").join(split));
    let of_class = |class: &PathBuf| {
        let path = |image: &PathBuf| format!("{}/{}", name(class), name(image));
        sorted(class)
            .iter()
            .map(|image| (path(image), fs::read(image).unwrap()))
            .collect::<Vec<_>>()
    };
    classes.iter().flat_map(of_class).collect()
}

fn tar(path: &Path, members: &[(String, Vec<u8>)]) {
    let mut builder = Builder::new(fs::File::create(path).unwrap());
    for (name, content) in members {
        let mut header = Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder
            .append_data(&mut header, name, content.as_slice())
            .unwrap();
    }
    builder.finish().unwrap();
}

/// A data folder, always of the same name.
fn make(root: &Path, kind: &str) {
    if root.exists() {
        fs::remove_dir_all(root).unwrap();
    }
    fs::create_dir(root).unwrap();
    for split in ["train", "val"] {
        let folder = root.join(split);
        match kind {
            "folder" => {
                for (path, content) in images(split) {
                    let path = folder.join(path);
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(path, content).unwrap();
                }
            }
            "folders in tar" => {
                fs::create_dir(&folder).unwrap();
                for (i, part) in images(split).chunks(5).enumerate() {
                    tar(&folder.join(format!("{i}.tar")), part);
                }
            }
            "samples in tar" => {
                let classes = ["ant", "bee", "cow"];
                let sample = |(i, (path, content)): (usize, (String, Vec<u8>))| {
                    let label = classes
                        .iter()
                        .position(|class| path.starts_with(class))
                        .unwrap();
                    [
                        (format!("{i}.png"), content),
                        (format!("{i}.cls"), label.to_string().into_bytes()),
                    ]
                };
                let members: Vec<_> = images(split)
                    .into_iter()
                    .enumerate()
                    .flat_map(sample)
                    .collect();
                tar(&root.join(format!("set-{split}-0.tar")), &members);
                fs::write(root.join("classes.txt"), classes.join("\n")).unwrap();
            }
            parquet => {
                let data = root.join("data");
                fs::create_dir_all(&data).unwrap();
                let (from, to) = match split {
                    "train" => (parquet, "train-00000-of-00001.parquet"),
                    _ => ("val.parquet", "validation-00000-of-00001.parquet"),
                };
                fs::copy(fixtures().join(from), data.join(to)).unwrap();
            }
        }
    }
}

/// Flags of a run of three steps an epoch, two epochs, an evaluation after each.
fn flags(trainer: Trainer, dir: &Path, out: &str, more: &[&str]) -> Vec<String> {
    trainer.flags(dir, out, &[&["--ep=2", "--hflip=1"][..], more].concat())
}

#[test]
fn steps_are_the_same_bit_for_bit_and_a_run_goes_on_from_any() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    tiny_tokenizer(dir);
    let data = dir.join("images");
    for trainer in [Tokenizer, Transformer] {
        make(&data, "folder");
        succeed(&texts(&flags(trainer, dir, "folder", &[])));
        // Stopped in the first epoch; it is gone on with from shards.
        succeed(&texts(&flags(trainer, dir, "resumed", &["--stop_after=2"])));
        for (i, kind) in [
            "folders in tar",
            "samples in tar",
            "snappy.parquet",
            "zstd2.parquet",
        ]
        .iter()
        .enumerate()
        {
            if trainer == Tokenizer && i % 2 == 1 {
                continue;
            }
            make(&data, kind);
            let out = format!("run{i}");
            succeed(&texts(&flags(trainer, dir, &out, &[])));
            assert_same_end(trainer, &dir.join("folder"), &dir.join(&out));
            if i == 2 {
                succeed(&texts(&flags(trainer, dir, "resumed", &[])));
                assert_same_end(trainer, &dir.join("folder"), &dir.join("resumed"));
            }
            for out in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
                if name(&out).starts_with("run") {
                    fs::remove_dir_all(out).unwrap();
                }
            }
        }
        for out in ["folder", "resumed"] {
            fs::remove_dir_all(dir.join(out)).unwrap();
        }
    }
}

#[test]
fn other_commands_take_shards_too() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let tokenizer = format!("--tokenizer={}", tiny_tokenizer(dir).display());
    let data = dir.join("images");
    let from = format!("--data_path={}", data.display());
    let mut seen: Vec<(String, Vec<u8>)> = Vec::new();
    for kind in ["folder", "samples in tar", "gzip.parquet"] {
        make(&data, kind);
        let file = dir.join("tokens.safetensors");
        let out = format!("--out={}", file.display());
        succeed(&[
            "tokenize",
            &from,
            &tokenizer,
            &out,
            "--pn=1_2",
            "--crops=2",
            "--force",
        ]);
        let picture = format!("--out={}", dir.join("picture.png").display());
        let figures = succeed(&[
            "reconstruct",
            &from,
            &tokenizer,
            &picture,
            "--pn=1_2",
            "--force",
        ]);
        let own = (figures.replace(kind, ""), fs::read(file).unwrap());
        if let Some(first) = seen.first() {
            assert_eq!(first.0, own.0, "{kind}");
            assert!(first.1 == own.1, "{kind}: other tokens");
        }
        seen.push(own);
    }
}

#[test]
fn bad_shards_are_refused_in_one_line_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("images");
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("tokenizer.safetensors"), "mine").unwrap();
    let from = format!("--data_path={}", data.display());
    let to = format!("--out={}", out.display());
    let args = [
        "train-tokenizer",
        "--pn=1_2",
        "--ch=32",
        "--vocab=32",
        "--bs=4",
        "--steps=1",
        &from,
        &to,
    ];
    let cut = |path: PathBuf, by: u64| {
        let size = fs::metadata(&path).unwrap().len();
        fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(size - by)
            .unwrap();
    };
    type Spoil<'a> = (&'a str, &'a dyn Fn(), &'a [&'a str]);
    let train = data.join("train");
    let hub = data.join("data/train-00000-of-00001.parquet");
    let copy = |bad: &str| assert!(fs::copy(fixtures().join(bad), &hub).is_ok());
    let cases: [Spoil<'_>; 9] = [
        (
            "folders in tar",
            &|| cut(train.join("1.tar"), 3000),
            &["train/1.tar", "truncated"],
        ),
        (
            "folders in tar",
            &|| tar(&train.join("9.tar"), &[("x.png".into(), vec![1])]),
            &["9.tar:x.png", "no label"],
        ),
        (
            "folders in tar",
            &|| fs::write(train.join("9.tar"), [7; 4096]).unwrap(),
            &["9.tar", "no tar file"],
        ),
        (
            "folders in tar",
            &|| fs::write(train.join("9.tar.gz"), "").unwrap(),
            &["9.tar.gz", "gunzip"],
        ),
        (
            "samples in tar",
            &|| fs::write(data.join("classes.txt"), "ant\nbee\n").unwrap(),
            &["set-train-0.tar:8.png", "label 2"],
        ),
        (
            "snappy.parquet",
            &|| cut(hub.clone(), 300),
            &["train-00000-of-00001.parquet", "truncated"],
        ),
        (
            "snappy.parquet",
            &|| copy("bad-brotli.parquet"),
            &["train-00000-of-00001.parquet", "Brotli"],
        ),
        (
            "snappy.parquet",
            &|| copy("bad-no-image.parquet"),
            &["train-00000-of-00001.parquet", "no column of images"],
        ),
        (
            "snappy.parquet",
            &|| copy("bad-label.parquet"),
            &["train-00000-of-00001.parquet:row 2", "label 3"],
        ),
    ];
    for (kind, spoil, parts) in cases {
        make(&data, kind);
        spoil();
        let line = refused(&args);
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
        assert_eq!(
            fs::read_to_string(out.join("tokenizer.safetensors")).unwrap(),
            "mine"
        );
        assert_eq!(fs::read_dir(&out).unwrap().count(), 1, "{line}");
    }
    // An image that can't be decoded is named with its member.
    make(&data, "folders in tar");
    tar(
        &train.join("9.tar"),
        &[("ant/x.png".into(), b"nonsense".to_vec())],
    );
    fs::remove_file(out.join("tokenizer.safetensors")).unwrap();
    let bad = [&args[..5], &["--steps=4", "--quiet", &from, &to]].concat();
    let output = run(&bad);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("9.tar:ant/x.png: can't be decoded"), "{text}");
    succeed(&[&bad[..], &["--bad_images=skip"]].concat());
}
