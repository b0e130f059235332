//! Folders of pictures as people have them, from the command line.

mod common;

use common::{refused, run, succeed};
use std::path::Path;
use std::process::Output;

/// A folder of two classes with `count` pictures each and no validation images; the corner of every picture is transparent.
fn pictures(dir: &Path, count: u8) {
    for class in ["flags", "tools"] {
        let folder = dir.join(class);
        std::fs::create_dir_all(&folder).unwrap();
        for i in 0..count {
            let pixel = |x: u32, y: u32| {
                let alpha = if x + y < 20 { 0 } else { 255 };
                image::Rgba([i.wrapping_mul(20), x as u8, y as u8, alpha])
            };
            let picture = image::RgbaImage::from_fn(30, 40, pixel);
            picture.save(folder.join(format!("{i}.png"))).unwrap();
        }
    }
    std::fs::create_dir(dir.join("scripts")).unwrap();
}

fn told(out: &Output) -> String {
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(0), "{text}");
    text
}

#[test]
fn class_folders_alone_are_enough() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("pictures");
    pictures(&data, 8);
    let data = format!("--data_path={}", data.display());
    let at = |name: &str| format!("--out={}", dir.path().join(name).display());
    let [tokenizer, model, other, third] = ["tokenizer", "model", "other", "third"].map(at);
    let small = ["--ch=32", "--vocab=32", "--bs=4", "--steps=1"];
    let sizes = ["--pn=1_2_4", "--ch_mult=1_2_2"];
    let flags = [
        &["train-tokenizer", &data[..], &tokenizer],
        &small[..],
        &sizes,
    ]
    .concat();
    let text = told(&run(&flags));
    for part in [
        "14 training and 2 validation images; 16x16 pixels, 21 tokens an image",
        "1 folder without an image",
        "2 of 16 images are taken to validate, by a hash of their names (--val_share=0.05)",
        "14 of 14 training images have transparent parts; they are laid over white (--background)",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    // The transformer's sizes are those of the tokenizer.
    let file = dir.path().join("tokenizer/tokenizer.safetensors");
    let file = format!("--tokenizer={}", file.display());
    let train = ["train", &data[..], &file, "--depth=1", "--bs=4", "--ep=1"];
    let text = told(&run(&[&train[..], &[&model[..]]].concat()));
    assert!(text.contains("16x16 pixels, 21 tokens an image"), "{text}");
    // They go on as they began, unless told otherwise.
    let again = [&train[..], &[&model[..], "--background=drop", "--ep=2"]].concat();
    let text = told(&run(&again));
    let part = "began with --background=white and goes on with --background=drop";
    assert!(text.contains(part), "{text}");
    let text = refused(&[&train[..], &[&other[..], "--pn=1_2_3"]].concat());
    assert!(text.contains("--pn ends at 3x3"), "{text}");
    let text = refused(&[&train[..], &[&other[..], "--val_share=1"]].concat());
    assert!(
        text.contains("--val_share=1: ") && text.contains("less than 1"),
        "{text}"
    );
    // Its tokens say the sizes too.
    let tokens = dir.path().join("tokens.safetensors");
    let out = format!("--out={}", tokens.display());
    succeed(&["tokenize", &file, &data, &out]);
    let tokens = format!("--tokens={}", tokens.display());
    let from_tokens = ["train", &tokens, "--depth=1", "--bs=4", "--ep=1", &third];
    let text = told(&run(&from_tokens));
    assert!(
        text.contains("tokens of 14 training images") && text.contains("16x16 pixels"),
        "{text}"
    );
}

#[test]
fn a_folder_of_one_kind_is_one_class() {
    let dir = tempfile::tempdir().unwrap();
    pictures(dir.path(), 6);
    let data = dir.path().join("flags");
    let flags = [
        "train-tokenizer",
        &format!("--data_path={}", data.display()),
        &format!("--val_path={}", dir.path().join("tools").display()),
        "--background=000080",
        "--aspect=pad",
        &format!("--out={}", dir.path().join("out").display()),
        "--pn=1_2_4",
        "--ch_mult=1_2_2",
        "--ch=32",
        "--vocab=32",
        "--bs=4",
        "--steps=1",
    ];
    let text = told(&run(&flags));
    assert!(
        text.contains("6 training and 6 validation images"),
        "{text}"
    );
    assert!(text.contains("laid over 000080"), "{text}");
    let empty = dir.path().join("scripts");
    let text = refused(&[
        "train-tokenizer",
        &format!("--data_path={}", empty.display()),
    ]);
    assert!(
        text.contains("scripts") && text.contains("no images in it"),
        "{text}"
    );
}

#[test]
fn a_size_stands_for_its_flags() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("pictures");
    pictures(&data, 6);
    let data = format!("--data_path={}", data.display());
    let out = format!("--out={}", dir.path().join("out").display());
    let small = ["--ch=32", "--vocab=32", "--bs=4", "--steps=1"];
    let flags = [
        &["train-tokenizer", &data[..], &out, "--size=32"],
        &small[..],
    ]
    .concat();
    let text = told(&run(&flags));
    assert!(text.contains("32x32 pixels, 130 tokens an image"), "{text}");
    let text = refused(&[&flags[..], &["--pn=1_2"]].concat());
    assert!(text.contains("--size") && text.contains("--pn"), "{text}");
    let text = refused(&["train-tokenizer", "--size=50"]);
    assert!(
        text.contains("--size") && text.contains("32, 64, 96, 128"),
        "{text}"
    );
    // A transformer of another size than its tokenizer's.
    let file = dir.path().join("out/tokenizer.safetensors");
    let file = format!("--tokenizer={}", file.display());
    let text = refused(&["train", &data, &file, "--size=64"]);
    assert!(
        text.contains("--patch_size=8") && text.contains("--patch_size=4"),
        "{text}"
    );
}
