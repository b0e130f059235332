//! Where `sample` and `edit` write, and what a region selects.

mod common;

use common::runs::{Transformer, prepared, texts};
use common::{bitmap, nextscale, refused, succeed, tiny_tokenizer_of};
use std::fs;
use std::path::Path;

/// A folder of images, a tokenizer and a model of two classes that has hardly learnt anything.
fn with_model() -> tempfile::TempDir {
    let dir = prepared();
    succeed(&texts(&Transformer.flags(dir.path(), "run", &["--ep=1"])));
    dir
}

fn model(dir: &Path) -> String {
    flag("model", &dir.join("run").join(Transformer.last()))
}

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

#[test]
fn a_tokenizer_with_other_codes_than_the_models_own_is_refused() {
    let tmp = with_model();
    let model = model(tmp.path());
    let other = tempfile::tempdir().unwrap();
    let other = flag("tokenizer", &tiny_tokenizer_of(other.path(), "9"));
    let out = flag("out", &tmp.path().join("out"));
    let base = ["sample", "--device=cpu", "--classes=0", &model, &out];
    let line = refused(&[&base[..], &[&other]].concat());
    assert!(
        line.contains("trained on the codes of another tokenizer"),
        "{line}"
    );
    let own = flag(
        "tokenizer",
        &tmp.path().join("tokenizer/tokenizer.safetensors"),
    );
    succeed(&[&base[..], &[&own]].concat());
}

#[test]
fn a_name_is_a_picture_a_folder_or_refused() {
    let tmp = with_model();
    let model = model(tmp.path());
    let out = tmp.path().join("out");
    fs::create_dir(&out).unwrap();
    let base = ["sample", "--device=cpu", "--classes=0", &model];
    let to = |name: &str| format!("--out={}/{name}", out.display());
    for name in [
        "o.gif", "o.jfif", "o.heic", "o.jp2", "o.pth", "o.txt", ".png", "o.jpg ", "o.png.",
    ] {
        let line = refused(&[&base[..], &[&to(name)]].concat());
        assert!(line.contains("give a name ending in .png"), "{line}");
    }
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
    // 1,000 images in rows of 8 are 4,252 pixels high, 4,000 are 17,002; the class's name takes 56 across.
    let line = refused(
        &[
            &base[..],
            &["--per_class=4000", "--columns=8", &to("o.webp")],
        ]
        .concat(),
    );
    assert!(line.contains("330 by 17002 pixels"), "{line}");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
    for name in ["run-1.5", "model.d16/", "plain"] {
        succeed(&[&base[..], &[&to(name)]].concat());
        assert!(out.join(name).join("class0-0.png").is_file(), "{name}");
    }
    succeed(&[&base[..], &["--force", &to("model.d16")]].concat());
    for (name, magic) in [
        ("o.PNG", &b"\x89PNG"[..]),
        ("o.Jpeg", b"\xff\xd8"),
        ("o.webp", b"RIFF"),
    ] {
        succeed(&[&base[..], &[&to(name)]].concat());
        assert!(
            fs::read(out.join(name)).unwrap().starts_with(magic),
            "{name}"
        );
    }
}

#[test]
fn regions_that_select_nothing_or_everything_are_told() {
    let tmp = with_model();
    let dir = tmp.path();
    let model = model(dir);
    let image = flag("image", &dir.join("images/val/class0/0.bmp"));
    let out = flag("out", &dir.join("e.png"));
    let base = [
        "edit",
        "--device=cpu",
        "--count=1",
        "--force",
        &model,
        &image,
        &out,
    ];
    // 32 × 32 pixels, all of one gray.
    let gray = |name: &str, level: u8| {
        let mut bytes = bitmap(32, 0);
        bytes[54..].fill(level);
        let path = dir.join(name);
        fs::write(&path, bytes).unwrap();
        flag("mask", &path)
    };
    for region in [
        &["--box=0.99,0.99,1,1"][..],
        &["--box=0,0,1,1", "--mode=outpaint"],
        &[&gray("black.bmp", 0)],
        &[&gray("dark.bmp", 100)],
        &[&gray("white.bmp", 255), "--mode=outpaint"],
    ] {
        let line = refused(&[&base[..], region].concat());
        assert!(
            line.contains("selects nothing to draw anew") && line.contains("1/2 of the width"),
            "{line}"
        );
        assert!(!dir.join("e.png").exists());
    }
    for (region, whole) in [
        (&["--box=0,0,1,1"][..], true),
        (&[&gray("gray.bmp", 128)], true),
        (&[&gray("ones.bmp", 1)], true),
        (&["--box=0,0,0.5,0.5"], false),
    ] {
        let flags = [&base[..], region].concat();
        let ended = nextscale(&flags).output().unwrap();
        let text = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.success(), "{text}");
        assert_eq!(text.contains("it selects the whole image"), whole, "{text}");
    }
}
