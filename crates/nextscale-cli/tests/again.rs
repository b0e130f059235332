//! PNG files say how they were drawn, and are drawn again from that.

mod common;

use common::runs::{Transformer, texts, with_model};
use common::{nextscale, refused, succeed};
use std::fs;
use std::path::{Path, PathBuf};

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

/// The texts of a PNG file by keyword.
fn text(path: &Path, keyword: &str) -> String {
    let file = std::io::BufReader::new(fs::File::open(path).unwrap());
    let reader = png::Decoder::new(file).read_info().unwrap();
    let all = &reader.info().utf8_text;
    let chunk = all.iter().find(|t| t.keyword == keyword);
    chunk.expect(keyword).get_text().unwrap()
}

fn record(path: &Path) -> serde_json::Value {
    serde_json::from_str(&text(path, "nextscale")).unwrap()
}

fn pixels(path: &Path) -> image::RgbImage {
    image::open(path).unwrap().into_rgb8()
}

struct Case {
    _dir: tempfile::TempDir,
    dir: PathBuf,
    model: PathBuf,
}

impl Case {
    fn new() -> Self {
        let (tmp, model) = with_model();
        let dir = tmp.path().to_path_buf();
        Self {
            _dir: tmp,
            dir,
            model,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn sample(&self, out: &str, more: &[&str]) -> PathBuf {
        let out = self.at(out);
        let (model, to) = (flag("model", &self.model), flag("out", &out));
        succeed(&[&["sample", "--device=cpu", &model, &to], more].concat());
        out
    }

    /// Draws again, and hands over the file with what was said.
    fn again(&self, file: &Path, more: &[&str]) -> (PathBuf, String) {
        let out = self.at("again.png");
        let (again, to) = (flag("again", file), flag("out", &out));
        let base = ["sample", "--device=cpu", "--force", &again, &to];
        let ended = nextscale(&[&base[..], more].concat()).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.success(), "{said}");
        (out, said)
    }
}

/// All ways to draw, on one model.
#[test]
fn pictures_are_drawn_again_byte_for_byte() {
    let case = Case::new();
    let flags = [
        "--classes=class1,class0",
        "--per_class=3",
        "--seed=4",
        "--cfg=2.1",
        "--top_p=0.9",
        "--batch=4",
    ];
    let folder = case.sample("folder", &flags);
    let mut names: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let want = [
        "class0-0.png",
        "class0-1.png",
        "class0-2.png",
        "class1-0.png",
        "class1-1.png",
        "class1-2.png",
    ];
    assert_eq!(names, want);
    for name in &names {
        let (again, said) = case.again(&folder.join(name), &[]);
        assert_eq!(said, "");
        assert!(
            fs::read(again).unwrap() == fs::read(folder.join(name)).unwrap(),
            "{name}"
        );
    }
    let r = record(&folder.join("class0-1.png"));
    assert_eq!(r["command"], "sample");
    assert_eq!(r["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(r["model"]["file"], case.model.display().to_string());
    assert_eq!(r["image"]["class"], 0);
    assert_eq!(r["image"]["class_name"], "class0");
    assert_eq!(r["image"]["number"], 4);
    assert_eq!(
        (&r["flags"]["seed"], &r["flags"]["cfg"]),
        (&4.into(), &2.1.into())
    );
    let description = text(&folder.join("class0-1.png"), "Description");
    assert!(
        description.starts_with("Image 4 of class 0 (class0) by nextscale")
            && description.contains("--cfg=2.1"),
        "{description}"
    );

    // A grid whole, and one of its images as the folder has it.
    let grid = case.sample("grid.png", &[&flags[..], &["--columns=4"]].concat());
    let (again, said) = case.again(&grid, &["--batch=1"]);
    assert_eq!(said, "");
    assert!(fs::read(again).unwrap() == fs::read(&grid).unwrap());
    let (tile, _) = case.again(&grid, &["--tile=4"]);
    assert!(fs::read(&tile).unwrap() == fs::read(folder.join("class0-1.png")).unwrap());
    let again = flag("again", &grid);
    let line = refused(&["sample", &again, "--tile=6"]);
    assert!(
        line.contains("shows 6 images") && line.contains("0 to 5"),
        "{line}"
    );
    // Pixels of images are where they always were, right of the names.
    let bare = case.sample(
        "bare.png",
        &[&flags[..], &["--columns=4", "--labels=0"]].concat(),
    );
    let (grid, bare) = (pixels(&grid), pixels(&bare));
    let left = grid.width() - bare.width();
    assert!(left > 48 && grid.height() == bare.height());
    let cut = image::imageops::crop_imm(&grid, left, 0, bare.width(), bare.height()).to_image();
    assert!(cut == bare);
    // The name of the first row, and none in the other picture.
    assert!((0..left).any(|x| (0..34).any(|y| grid.get_pixel(x, y).0 == [0; 3])));

    // Pictures after a scale, as files and as a strip.
    let one = ["--classes=class1", "--per_class=2", "--seed=9"];
    let files = case.sample("files", &[&one[..], &["--scales"]].concat());
    let strips = case.sample("strips", &[&one[..], &["--scales=strip"]].concat());
    for name in ["class1-1_scale0.png", "class1-1.png"] {
        let (again, _) = case.again(&files.join(name), &[]);
        assert!(
            fs::read(again).unwrap() == fs::read(files.join(name)).unwrap(),
            "{name}"
        );
    }
    let strip = strips.join("class1-1_scales.png");
    let (again, _) = case.again(&strip, &[]);
    assert!(fs::read(again).unwrap() == fs::read(&strip).unwrap());
    let strip = pixels(&strip);
    assert_eq!((strip.width(), strip.height()), (2 * 34 + 2, 36));
    for k in 0..2 {
        let scale = pixels(&files.join(format!("class1-1_scale{k}.png")));
        let x = 2 + 34 * k;
        assert!(
            image::imageops::crop_imm(&strip, x, 2, 32, 32).to_image() == scale,
            "{k}"
        );
    }
    assert!(pixels(&files.join("class1-1_scale1.png")) == pixels(&files.join("class1-1.png")));
}

#[test]
fn flags_beside_it_win_and_other_weights_are_refused() {
    let case = Case::new();
    let folder = case.sample("folder", &["--classes=class1", "--seed=2"]);
    let file = folder.join("class1-0.png");
    let (out, said) = case.again(&file, &["--cfg=0", "--classes=class0", "--top_k=900"]);
    assert!(
        said.contains("it was drawn with cfg=1.5; --cfg=0 is taken")
            && said.contains("other classes are drawn")
            && !said.contains("top_k"),
        "{said}"
    );
    let r = record(&out);
    assert_eq!(
        (&r["flags"]["cfg"], &r["image"]["class"]),
        (&0.0.into(), &0.into())
    );
    let own = case.sample("own", &["--classes=class0", "--seed=2", "--cfg=0"]);
    assert!(fs::read(&out).unwrap() == fs::read(own.join("class0-0.png")).unwrap());
    // A flag as it was, and more images of the same seed.
    let (_, said) = case.again(&file, &["--cfg=1.5"]);
    assert_eq!(said, "");
    let (out, _) = case.again(&file, &["--per_class=3"]);
    assert_eq!(pixels(&out).height(), 36);

    // The model has moved, or is another.
    let moved = case.at("moved.safetensors");
    fs::rename(&case.model, &moved).unwrap();
    let again = flag("again", &file);
    let line = refused(&["sample", "--device=cpu", &again]);
    assert!(
        line.contains("which is not there; give the model with --model=FILE"),
        "{line}"
    );
    let model = flag("model", &moved);
    let (out, said) = case.again(&file, &[&model]);
    assert_eq!(said, "");
    assert!(pixels(&out) == pixels(&file));
    succeed(&texts(&Transformer.flags(&case.dir, "other", &["--ep=2"])));
    let other = flag("model", &case.at("other").join(Transformer.last()));
    let to = flag("out", &case.at("never.png"));
    let line = refused(&["sample", "--device=cpu", &again, &other, &to]);
    assert!(
        line.contains("other weights of the model") && line.contains("--other_weights"),
        "{line}"
    );
    assert!(!case.at("never.png").exists());
    let (out, said) = case.again(&file, &[&other, "--other_weights"]);
    assert!(said.contains("other weights of the model"), "{said}");
    assert!(record(&out)["model"]["fingerprint"] != record(&file)["model"]["fingerprint"]);

    // Files that say nothing, or nothing that can be read.
    let bare = case.at("bare.png");
    pixels(&file).save(&bare).unwrap();
    let line = refused(&["sample", &flag("again", &bare)]);
    assert!(line.contains("does not say how it was drawn"), "{line}");
    for (json, part) in [
        ("[]".to_owned(), "can't be read"),
        (
            text(&file, "nextscale").replace("\"per_class\":1", "\"per_class\":0"),
            "damaged",
        ),
        (
            text(&file, "nextscale").replace("\"per_class\":1", "\"per_class\":1,\"x\":1"),
            "unknown field 'x'",
        ),
        (
            text(&file, "nextscale").replace("\"classes\":[1]", "\"classes\":[7]"),
            "class 7",
        ),
        (
            text(&file, "nextscale").replace("\"fp32\"", "\"fp3\""),
            "fp3",
        ),
    ] {
        let mut encoder = png::Encoder::new(fs::File::create(&bare).unwrap(), 1, 1);
        encoder.add_itxt_chunk("nextscale".into(), json).unwrap();
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&[0]).unwrap();
        writer.finish().unwrap();
        let line = refused(&["sample", "--device=cpu", &flag("again", &bare), &model, &to]);
        assert!(line.contains(part), "{part}: {line}");
    }
    let line = refused(&["sample", "--again=nowhere.png"]);
    assert!(line.contains("nowhere.png"), "{line}");
    let line = refused(&["sample", &model, "--tile=0"]);
    assert!(line.contains("--again"), "{line}");
}
