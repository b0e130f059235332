//! `train-features`: a file from a folder, and what is refused.

mod common;

use common::{few_images, nextscale, refused, run, succeed};

#[test]
fn a_folder_gives_a_file_that_says_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let images = few_images(dir.path()).display().to_string();
    let file = dir.path().join("f.safetensors");
    let out = format!("--out={}", file.display());
    let base = ["train-features", &images, &out, "--size=16", "--batch=4"];
    let done = run(&[&base[..], &["--epochs=2", "--device=cpu", "--hflip"]].concat());
    let (said, told) = (
        String::from_utf8(done.stdout).unwrap(),
        String::from_utf8(done.stderr).unwrap(),
    );
    assert!(done.status.success(), "{told}");
    assert!(
        said.starts_with("held-out accuracy ") && said.contains("of 2 images"),
        "{said}"
    );
    assert!(told.contains("epoch 2.0/2.0  loss "), "{told}");
    let info = succeed(&["info", &file.display().to_string()]);
    for part in [
        "to take features from",
        "16x16 pixels",
        "4 steps of 4",
        "\"class0\"",
    ] {
        assert!(info.contains(part), "{part}: {info}");
    }

    // The same again, by the other name of the folder, is the same file.
    let before = std::fs::read(&file).unwrap();
    let line = refused(&[&base[..], &["--steps=4"]].concat());
    assert!(line.contains("exists already"), "{line}");
    let data = format!("--data-path={images}");
    succeed(&[
        "train_features",
        &data,
        &out,
        "--size=16",
        "--batch=4",
        "--hflip",
        "--ep=2",
        "--force",
    ]);
    assert_eq!(std::fs::read(&file).unwrap(), before);

    // An image that can't be read is refused, or left out and told.
    let broken = dir.path().join("images/train/class0/broken.png");
    std::fs::write(&broken, "no picture").unwrap();
    let again = [&base[..], &["--ep=1", "--force"]].concat();
    let all = run(&again);
    assert_eq!(all.status.code(), Some(2));
    assert_eq!(std::fs::read(&file).unwrap(), before);
    let skipped = run(&[&again[..], &["--bad_images=skip"]].concat());
    let told = String::from_utf8(skipped.stderr).unwrap();
    assert!(skipped.status.success(), "{told}");
    assert!(
        told.contains("broken.png") && told.contains("1 image left out"),
        "{told}"
    );
    std::fs::remove_file(&broken).unwrap();

    // It is no model.
    let line = refused(&["eval", &format!("--model={}", file.display()), &images]);
    assert!(line.contains("f.safetensors"), "{line}");
}

#[test]
fn what_cant_be_used_is_refused_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let images = few_images(dir.path());
    let folder = images.display().to_string();
    let file = dir.path().join("f.safetensors");
    let out = format!("--out={}", file.display());
    let one = images.join("train").join("class0").display().to_string();
    let line = refused(&["train-features", &one, &out, "--steps=1"]);
    assert!(
        line.contains("all images are of one class, \"class0\""),
        "{line}"
    );
    let line = refused(&[
        "train-features",
        &format!("--data_path={one}"),
        &out,
        "--steps=1",
    ]);
    assert!(line.contains("--data_path="), "{line}");
    for (flag, told) in [
        ("--size=8", "--size=8: "),
        ("--batch=0", "--batch=0: "),
        ("--steps=0", "--steps=0: "),
        ("--minutes=0", "--minutes=0: "),
        ("--lr=0", "--lr=0: "),
        ("--val_share=2", "--val_share=2: "),
        ("--steps=many", "many"),
    ] {
        let line = refused(&["train-features", &folder, &out, flag]);
        assert!(line.contains(told), "{line}");
    }
    let line = refused(&["train-features", &folder, &out, "--ep=1", "--minutes=1"]);
    assert!(
        line.contains("--minutes") && line.contains("--ep"),
        "{line}"
    );
    let line = refused(&[
        "train-features",
        &folder,
        &format!("--out={folder}"),
        "--force",
        "--steps=1",
    ]);
    assert!(line.contains("is a folder"), "{line}");
    let none = dir.path().join("none").join("f").display().to_string();
    let line = refused(&[
        "train-features",
        &folder,
        &format!("--out={none}"),
        "--steps=1",
    ]);
    assert!(line.contains("there is no folder"), "{line}");
    assert!(!file.exists());
}

#[cfg(unix)]
#[test]
fn a_signal_ends_it_without_a_file() {
    use std::io::{BufRead, BufReader};
    let dir = tempfile::tempdir().unwrap();
    let out = format!("--out={}", dir.path().join("f").display());
    let mut child = nextscale(&[
        "train-features",
        "builtin:shapes",
        &out,
        "--size=16",
        "--ep=1000",
    ])
    .stderr(std::process::Stdio::piped())
    .spawn()
    .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("epochs)")));
    let pid = child.id().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-INT", &pid])
        .status();
    assert!(sent.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
}
