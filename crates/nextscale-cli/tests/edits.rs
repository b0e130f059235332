//! `edit`: single files and pictures of all, what they say, and an image's own pixels put back.

mod common;

use common::runs::with_model;
use common::{bitmap, pixels, refused, succeed};
use std::fs;
use std::path::{Path, PathBuf};

const SIDE: usize = 32;

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

fn record(path: &Path) -> serde_json::Value {
    let file = std::io::BufReader::new(fs::File::open(path).unwrap());
    let reader = png::Decoder::new(file).read_info().unwrap();
    let all = &reader.info().utf8_text;
    let chunk = all.iter().find(|t| t.keyword == "nextscale").unwrap();
    serde_json::from_str(&chunk.get_text().unwrap()).unwrap()
}

#[test]
fn results_are_files_or_one_picture_and_keep_what_they_should() {
    let (tmp, model) = with_model();
    let dir = tmp.path();
    let source = dir.join("source.bmp");
    let bytes = bitmap(SIDE as u32, 77);
    fs::write(&source, &bytes).unwrap();
    let (model, image) = (flag("model", &model), flag("image", &source));
    let base = [
        "edit",
        "--device=cpu",
        "--count=2",
        "--seed=3",
        "--box=0.5,0.5,1,1",
        &model,
        &image,
    ];
    let edit = |out: &str, more: &[&str]| -> PathBuf {
        let out = dir.join(out);
        let to = flag("out", &out);
        succeed(&[&base[..], more, &[&to]].concat());
        out
    };
    let plain = edit("plain", &["--class=class1"]);
    let grid = edit("grid.png", &["--class=class1"]);
    let shown = image::open(&grid).unwrap().into_rgb8();
    let tile = |n: u32| {
        let view = image::imageops::crop_imm(&shown, 2 + 34 * n, 2, 32, 32);
        view.to_image().into_raw()
    };
    // Lines from the bottom, blue first.
    let lines = bytes[54..].chunks(SIDE * 3).rev();
    let own: Vec<u8> = lines
        .flat_map(|line| line.chunks(3).flat_map(|p| [p[2], p[1], p[0]]))
        .collect();
    assert!(tile(0) == own);
    for n in 0..2 {
        let file = plain.join(format!("class1-{n}.png"));
        assert!(pixels(&file) == tile(2 + n), "{n}");
        let r = record(&file);
        assert_eq!(
            (&r["command"], &r["image"]["number"]),
            (&"edit".into(), &n.into())
        );
        assert_eq!(
            (&r["image"]["class_name"], &r["flags"]["seed"]),
            (&"class1".into(), &3.into())
        );
        assert_eq!(r["flags"]["box"], "0.5,0.5,1,1");
        let sum = r["flags"]["image_sha256"].as_str().unwrap();
        assert_eq!(sum, nextscale::format::sha256_of(&source).unwrap());
    }
    assert_eq!(record(&grid)["flags"]["count"], 2);
    assert_eq!(fs::read_dir(&plain).unwrap().count(), 2);
    let line = refused(&["sample", &flag("again", &grid)]);
    assert!(line.contains("made by \"edit\""), "{line}");
    let to = flag("out", &plain);
    let line = refused(&[&base[..], &[&to]].concat());
    assert!(line.contains("the folder is not empty"), "{line}");
    // Without a class.
    assert!(edit("none", &[]).join("edit-1.png").is_file());

    // The image's own pixels outside, what was drawn inside, and something between on the way.
    let drawn = pixels(plain.join("class1-0.png"));
    let differs = |a: &[u8], b: &[u8], x: usize, y: usize| {
        let at = (y * SIDE + x) * 3;
        a[at..at + 3] != b[at..at + 3]
    };
    let all = || (0..SIDE).flat_map(|y| (0..SIDE).map(move |x| (x, y)));
    let outside = |x: usize, y: usize, by: usize| x + by < 16 || y + by < 16;
    assert!(all().any(|(x, y)| outside(x, y, 8) && differs(&drawn, &own, x, y)));
    for (name, more, feather) in [
        ("kept", &["--keep_original"][..], 1),
        ("wide", &["--keep_original", "--feather=6"], 6),
        ("hard", &["--keep_original", "--feather=0"], 0),
    ] {
        let folder = edit(name, &[&["--class=class1"], more].concat());
        let file = folder.join("class1-0.png");
        let kept = pixels(&file);
        assert_eq!(record(&file)["flags"]["feather"], feather);
        for (x, y) in all() {
            let (is_far, is_inside) = (outside(x, y, feather + 1), !outside(x, y, 0));
            assert!(!(is_far && differs(&kept, &own, x, y)), "{name} {x} {y}");
            assert!(
                !(is_inside && differs(&kept, &drawn, x, y)),
                "{name} {x} {y}"
            );
            for c in 0..3 {
                let [k, d, o] = [&kept, &drawn, &own].map(|p| p[(y * SIDE + x) * 3 + c]);
                assert!((d.min(o)..=d.max(o)).contains(&k), "{name} {x} {y}");
            }
        }
        let between =
            all().any(|(x, y)| differs(&kept, &own, x, y) && differs(&kept, &drawn, x, y));
        assert_eq!(between, feather > 0, "{name}");
    }
    let line = refused(&[&base[..], &["--feather=3"]].concat());
    assert!(line.contains("--keep_original"), "{line}");
}
