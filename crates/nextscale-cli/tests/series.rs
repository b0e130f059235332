//! Pictures of several images that belong together: sweeps, ways between classes, animations.

mod common;

use common::runs::with_model;
use common::{refused, succeed};
use std::fs;
use std::path::{Path, PathBuf};

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

fn pixels(path: &Path) -> image::RgbImage {
    image::open(path).unwrap().into_rgb8()
}

/// Width, height and delay of every image of a GIF.
fn frames(path: &Path) -> Vec<(u16, u16, u16)> {
    let mut decoder = gif::DecodeOptions::new()
        .read_info(fs::File::open(path).unwrap())
        .unwrap();
    let mut all = Vec::new();
    while let Some(f) = decoder.read_next_frame().unwrap() {
        all.push((f.width, f.height, f.delay));
    }
    all
}

#[test]
fn sweeps_ways_and_animations() {
    let (tmp, model) = with_model();
    let dir = tmp.path();
    let model = flag("model", &model);
    let base = ["sample", "--device=cpu", "--seed=6", &model];
    let draw = |out: &str, more: &[&str]| -> PathBuf {
        let out = dir.join(out);
        succeed(&[&base[..], more, &[&flag("out", &out)]].concat());
        out
    };
    let tile = |of: &Path, n: usize| {
        let (again, n) = (flag("again", of), format!("--tile={n}"));
        let out = dir.join("tile.png");
        let to = flag("out", &out);
        succeed(&["sample", "--device=cpu", "--force", &again, &n, &to]);
        pixels(&out)
    };
    let not = |part: &str, more: &[&str]| {
        let line = refused(&[&base[..], more].concat());
        assert!(line.contains(part), "{part}: {line}");
    };
    let never = flag("out", &dir.join("never.png"));

    // Rows are values, columns images with the same numbers.
    let sweep = draw("sweep.png", &["--sweep", "cfg=0:3:1.5", "--per_class=2"]);
    let picture = pixels(&sweep);
    // "cfg=1.5" on the left, the names of classes above.
    assert_eq!(
        (picture.width(), picture.height()),
        (4 * 34 + 2 + 64, 3 * 34 + 2 + 16)
    );
    for (row, cfg) in ["0", "1.5", "3"].iter().enumerate() {
        let folder = draw(
            &format!("cfg{cfg}"),
            &[&format!("--cfg={cfg}"), "--per_class=2"],
        );
        for (column, name) in ["class0-0", "class0-1", "class1-0", "class1-1"]
            .iter()
            .enumerate()
        {
            let own = pixels(&folder.join(format!("{name}.png")));
            let (x, y) = (64 + 2 + 34 * column as u32, 16 + 2 + 34 * row as u32);
            let shown = image::imageops::crop_imm(&picture, x, y, 32, 32).to_image();
            assert!(shown == own, "{cfg} {name}");
            if column == 2 {
                assert!(tile(&sweep, row * 4 + column) == own);
            }
        }
    }
    let again = dir.join("again.png");
    succeed(&[
        "sample",
        "--device=cpu",
        &flag("again", &sweep),
        &flag("out", &again),
    ]);
    assert!(fs::read(&again).unwrap() == fs::read(&sweep).unwrap());
    draw(
        "sweep.jpg",
        &["--sweep=top_k=1,900", "--classes=1", "--labels=0"],
    );
    not(
        "--cfg and --sweep=cfg=1,2: both say",
        &["--sweep=cfg=1,2", "--cfg=1", &never],
    );
    not(
        "--sweep=cfg=1,x: \"x\" is no number",
        &["--sweep=cfg=1,x", &never],
    );
    not(
        "--sweep makes one picture",
        &["--sweep=cfg=1,2", &flag("out", &dir.join("d"))],
    );
    not(
        "--sweep makes one picture",
        &["--sweep=cfg=1,2", &flag("out", &dir.join("x.npz"))],
    );

    // The ends of a way are the classes' own images.
    let way = draw(
        "way.png",
        &["--interpolate=class0,class1", "--frames=3", "--per_class=2"],
    );
    let folder = draw("classes", &["--classes=class0", "--per_class=2"]);
    let other = draw("others", &["--classes=class1", "--per_class=2"]);
    for (n, own) in [
        (0, folder.join("class0-0.png")),
        (3, folder.join("class0-1.png")),
        (2, other.join("class1-0.png")),
        (5, other.join("class1-1.png")),
    ] {
        assert!(tile(&way, n) == pixels(&own), "{n}");
    }
    let middle = tile(&way, 1);
    let shown = {
        let picture = pixels(&way);
        let top = picture.height() - 2 * 34 - 2;
        image::imageops::crop_imm(&picture, 2 + 34, top + 2, 32, 32).to_image()
    };
    assert!(middle == shown);
    let gif = draw(
        "way.gif",
        &[
            "--interpolate=class0,class1",
            "--frames=5",
            "--frame_ms=100",
        ],
    );
    let want = [10, 10, 10, 10, 40].map(|delay| (32, 32, delay));
    assert_eq!(frames(&gif), want);
    not(
        "expected two classes, not 3",
        &["--interpolate=0,1,0", &never],
    );
    not(
        "from 2 to 1024",
        &["--interpolate=0,1", "--frames=1", &never],
    );
    not("\"x\" is no number", &["--interpolate=0,x", &never]);
    not(
        "--per_class=2: a GIF shows one row",
        &[
            "--interpolate=0,1",
            "--per_class=2",
            &flag("out", &dir.join("never.gif")),
        ],
    );
    not(
        "--interpolate makes one picture",
        &["--interpolate=0,1", &flag("out", &dir.join("d"))],
    );

    // A GIF an image, or the one that is asked for.
    let folder = draw("gifs", &["--classes=class1", "--scales=gif"]);
    assert_eq!(
        frames(&folder.join("class1-0_scales.gif")),
        [(32, 32, 20), (32, 32, 80)]
    );
    let one = draw("one.gif", &["--classes=class1", "--scales=gif"]);
    assert!(fs::read(one).unwrap() == fs::read(folder.join("class1-0_scales.gif")).unwrap());
    draw("one.png", &["--classes=class1", "--scales=strip"]);
    not("--scales writes many files", &["--scales=strip", &never]);
    not("--scales writes many files", &["--scales", &never]);
    assert!(!dir.join("never.png").exists() && !dir.join("d").exists());
}
