//! Classes go by their names: those that a model was trained on are kept in its file and held against every other folder.

mod common;

use common::{few_images, pixels, refused, run, succeed, tiny_tokenizer, tiny_tokenizer_of};
use std::fs;
use std::path::{Path, PathBuf};

/// A data folder `name` with an image of each class for training and one for validation, other ones for every class.
fn folder(dir: &Path, name: &str, classes: &[(&str, usize)]) -> PathBuf {
    let images = few_images(dir);
    let of = |split: &str, n: usize| {
        let class = images.join(split).join(format!("class{}", n % 2));
        let mut files: Vec<PathBuf> = fs::read_dir(class)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        files.sort();
        files.swap_remove(n / 2 % files.len())
    };
    let root = dir.join(name);
    for (class, n) in classes {
        for split in ["train", "val"] {
            let to = root.join(split).join(class);
            fs::create_dir_all(&to).unwrap();
            fs::copy(of("train", *n), to.join("0.bmp")).unwrap();
        }
    }
    root
}

struct Model {
    _dir: tempfile::TempDir,
    dir: PathBuf,
    data: PathBuf,
    tokenizer: PathBuf,
    checkpoint: PathBuf,
}

/// A model of the classes a, "b, x" and c, trained just long enough that its classes differ.
fn model() -> Model {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().to_path_buf();
    let tokenizer = tiny_tokenizer_of(&dir, "7");
    let data = folder(&dir, "data", &[("a", 0), ("b, x", 1), ("c", 2)]);
    let model = Model {
        checkpoint: dir.join("run/ar-ckpt-last.safetensors"),
        _dir: tmp,
        dir,
        data,
        tokenizer,
    };
    succeed(&texts(&train(&model, &model.data, "run", &["--ep=12"])));
    model
}

fn train(m: &Model, data: &Path, out: &str, more: &[&str]) -> Vec<String> {
    let mut f: Vec<String> = [
        "train",
        "--device=cpu",
        "--pn=1_2",
        "--depth=1",
        "--bs=3",
        "--tblr=0.03",
        "--hd=1",
        "--alng=1",
        "--aln=1",
        "--seed=5",
        "--mid_reso=1",
        "--eval_every=0",
        "--quiet",
        "--threads=1",
    ]
    .iter()
    .chain(more)
    .map(|s| (*s).to_owned())
    .collect();
    f.push(format!("--data_path={}", data.display()));
    f.push(format!("--tokenizer={}", m.tokenizer.display()));
    f.push(format!("--out={}", m.dir.join(out).display()));
    f
}

fn texts(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

fn sample(checkpoint: &Path, out: &Path, more: &[&str]) -> Vec<String> {
    [
        "sample",
        "--device=cpu",
        "--threads=1",
        "--cfg=4",
        "--top_k=0",
        "--top_p=0",
        "--force",
    ]
    .iter()
    .chain(more)
    .map(|s| (*s).to_owned())
    .chain([
        format!("--model={}", checkpoint.display()),
        format!("--out={}", out.display()),
    ])
    .collect()
}

/// The picture that these flags draw.
fn drawn(m: &Model, more: &[&str]) -> Vec<u8> {
    let out = m.dir.join("picture.png");
    succeed(&texts(&sample(&m.checkpoint, &out, more)));
    pixels(&out)
}

/// Loss and number of tokens that `eval` prints over all scales.
fn judged(m: &Model, data: &Path) -> (f64, f64, String) {
    let text = succeed(&[
        "eval",
        "--device=cpu",
        "--threads=1",
        "--mid_reso=1",
        &format!("--model={}", m.checkpoint.display()),
        &format!("--data_path={}", data.display()),
    ]);
    let all = text.lines().find(|line| line.starts_with("all "));
    let words: Vec<&str> = all.expect(&text).split_whitespace().collect();
    let number = |i: usize| words[i].parse().unwrap();
    (number(2), number(1), text.clone())
}

#[test]
fn names_draw_their_own_class() {
    let m = model();
    let by_number: Vec<Vec<u8>> = ["0", "1", "2"]
        .iter()
        .map(|n| drawn(&m, &[&format!("--classes={n}")]))
        .collect();
    assert!(by_number[0] != by_number[1] && by_number[1] != by_number[2]);
    // Without a folder, with the whole one, and with one that has some of the classes.
    let part = folder(&m.dir, "part", &[("b, x", 1), ("c", 2)]);
    let folders = [
        vec![],
        vec![format!("--data_path={}", m.data.display())],
        vec![format!("--data_path={}", part.display())],
    ];
    for more in &folders {
        for (class, n) in [("a", 0), ("b, x", 1), ("\"b, x\"", 1), ("c", 2)] {
            let mut flags = vec![format!("--classes={class}")];
            flags.extend(more.iter().cloned());
            assert!(drawn(&m, &texts(&flags)) == by_number[n], "{flags:?}");
        }
    }
    let list = drawn(&m, &["--classes=c,\"b, x\",a", "--columns=3"]);
    assert!(list == drawn(&m, &["--classes=2,1,0", "--columns=3"]));
    // Names that the model does not know.
    let out = m.dir.join("none.png");
    let text = refused(&texts(&sample(&m.checkpoint, &out, &["--classes=d"])));
    assert!(
        text.contains("\"d\" is no number") && text.contains("\"b, x\""),
        "{text}"
    );
    let other = folder(&m.dir, "other", &[("a", 0), ("d", 1), ("c", 2)]);
    let data = format!("--data_path={}", other.display());
    let flags = sample(&m.checkpoint, &out, &["--classes=a", &data]);
    let text = refused(&texts(&flags));
    assert!(
        text.contains("its class \"d\" is none of the 3 classes"),
        "{text}"
    );
    let text = succeed(&["info", &m.checkpoint.display().to_string()]);
    assert!(
        text.contains("classes    3: \"a\", \"b, x\", \"c\""),
        "{text}"
    );
    let text = succeed(&["info", &m.tokenizer.display().to_string()]);
    assert!(text.contains("classes    "), "{text}");
}

#[test]
fn parts_of_the_classes_are_judged_as_what_they_are() {
    let m = model();
    let (whole, tokens, text) = judged(&m, &m.data);
    assert!(!text.contains("of the model's"), "{text}");
    let mut sum = 0.0;
    for (i, class) in ["a", "b, x", "c"].into_iter().enumerate() {
        let part = folder(&m.dir, &format!("part{i}"), &[(class, i)]);
        let (loss, n, text) = judged(&m, &part);
        assert!(text.starts_with("1 of the model's 3 classes\n"), "{text}");
        assert_eq!(3.0 * n, tokens);
        sum += loss / 3.0;
        // The same images as another class are judged otherwise.
        let wrong = folder(&m.dir, &format!("wrong{i}"), &[("a", i)]);
        let (other, _, _) = judged(&m, &wrong);
        assert!(
            i == 0 || (other - loss).abs() > 0.01,
            "{class}: {loss} {other}"
        );
    }
    assert!((sum - whole).abs() < 2e-4, "{sum} {whole}");
}

#[test]
fn names_go_with_the_weights() {
    let m = model();
    let convert = |to: &str, more: &[&str]| -> (PathBuf, String) {
        let to = m.dir.join(to);
        let from = m.checkpoint.display().to_string();
        let path = to.display().to_string();
        let mut flags = vec!["convert", from.as_str(), path.as_str()];
        flags.extend(more);
        (to.clone(), succeed(&flags))
    };
    let as_is = drawn(&m, &["--classes=c"]);
    let tokenizer = format!("--tokenizer={}", m.tokenizer.display());
    let out = m.dir.join("other.png");
    for (file, more) in [
        ("whole.pth", vec![]),
        ("var.safetensors", vec!["--part=var"]),
    ] {
        let (path, _) = convert(file, &more);
        succeed(&texts(&sample(&path, &out, &["--classes=c", &tokenizer])));
        assert!(pixels(&out) == as_is, "{file}");
    }
    // Bare weights as .pth have no place for them: told, and only a folder with all classes gives names.
    let (bare, told) = convert("var.pth", &["--part=var"]);
    assert!(told.contains("the names of the classes"), "{told}");
    let info = succeed(&["info", &bare.display().to_string()]);
    assert!(info.contains("does not say what they are called"), "{info}");
    let text = refused(&texts(&sample(&bare, &out, &["--classes=c", &tokenizer])));
    assert!(text.contains("--data_path"), "{text}");
    let whole = format!("--data_path={}", m.data.display());
    succeed(&texts(&sample(
        &bare,
        &out,
        &["--classes=c", &whole, &tokenizer],
    )));
    assert!(pixels(&out) == as_is);
    // The picture knows them still, with their place beside the grid.
    let again = m.dir.join("again.png");
    let (from, to) = (
        format!("--again={}", out.display()),
        format!("--out={}", again.display()),
    );
    succeed(&["sample", "--device=cpu", &from, &to]);
    assert!(fs::read(&again).unwrap() == fs::read(&out).unwrap());
    let part = folder(&m.dir, "part", &[("b, x", 1), ("c", 2)]);
    let part = format!("--data_path={}", part.display());
    let text = refused(&texts(&sample(
        &bare,
        &out,
        &["--classes=c", &part, &tokenizer],
    )));
    assert!(text.contains("holds 2 classes, the model has 3"), "{text}");
    let flags = [
        "eval",
        "--device=cpu",
        &format!("--model={}", bare.display()),
        &tokenizer,
        &part,
    ];
    assert!(refused(&flags).contains("holds 2 classes, the model has 3"));
}

#[test]
fn a_run_goes_on_with_its_own_classes_only() {
    let m = model();
    for (name, classes, told) in [
        (
            "renamed",
            ["a", "bb", "c"],
            "class 1 is \"b, x\" there and \"bb\" here",
        ),
        (
            "swapped",
            ["b, x", "c", "d"],
            "class 0 is \"a\" there and \"b, x\" here",
        ),
    ] {
        let classes = [(classes[0], 0), (classes[1], 1), (classes[2], 2)];
        let data = folder(&m.dir, name, &classes);
        let text = refused(&texts(&train(&m, &data, "run", &["--ep=14"])));
        assert!(text.contains(told), "{text}");
    }
    // Other settings and another number of images are told, and it goes on.
    let class = m.data.join("train/a");
    fs::copy(class.join("0.bmp"), class.join("1.bmp")).unwrap();
    let flags = train(&m, &m.data, "run", &["--ep=14", "--hflip=1", "--bs=4"]);
    let out = run(&texts(&flags));
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{text}");
    for told in [
        "3 training images and goes on with 4",
        "--hflip=0 and goes on with --hflip=1",
    ] {
        assert_eq!(text.matches(told).count(), 1, "{text}");
    }
    assert!(!text.contains("mid_reso"), "{text}");
    // Told once: the run's checkpoint now says so itself.
    let out = run(&texts(&train(
        &m,
        &m.data,
        "run",
        &["--ep=15", "--hflip=1", "--bs=4"],
    )));
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        out.status.success() && !text.contains("goes on with"),
        "{text}"
    );
}

#[test]
fn a_tokenizer_s_run_knows_its_classes_too() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let data = folder(dir, "data", &[("a", 0), ("b", 1)]);
    let other = folder(dir, "other", &[("a", 0), ("c", 1)]);
    let flags = |data: &Path, steps: &str| -> Vec<String> {
        [
            "train-tokenizer",
            "--device=cpu",
            "--pn=1_2",
            "--ch=32",
            "--vocab=32",
            "--bs=2",
            "--quiet",
        ]
        .iter()
        .map(|s| (*s).to_owned())
        .chain([
            format!("--data_path={}", data.display()),
            format!("--out={}", dir.join("t").display()),
            format!("--steps={steps}"),
        ])
        .collect()
    };
    succeed(&texts(&flags(&data, "1")));
    let text = refused(&texts(&flags(&other, "2")));
    assert!(
        text.contains("class 1 is \"b\" there and \"c\" here"),
        "{text}"
    );
    let file = dir.join("t/tokenizer.safetensors").display().to_string();
    let text = succeed(&["info", &file]);
    assert!(text.contains("classes    2: \"a\", \"b\""), "{text}");
}

#[test]
fn token_files_of_other_classes_are_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path();
    let tokenizer = format!("--tokenizer={}", tiny_tokenizer(dir).display());
    let make = |name: &str, classes: &[(&str, usize)], split: &str| -> String {
        let data = folder(dir, name, classes);
        let out = dir
            .join(format!("{name}-{split}.safetensors"))
            .display()
            .to_string();
        succeed(&[
            "tokenize",
            "--device=cpu",
            &tokenizer,
            &format!("--data_path={}", data.display()),
            &format!("--split={split}"),
            &format!("--out={out}"),
        ]);
        out
    };
    let train = make("data", &[("a\nb", 0), ("c", 1)], "train");
    let val = make("data", &[("a\nb", 0), ("c", 1)], "val");
    let other = make("other", &[("a\nb", 0), ("d", 1)], "val");
    let info = succeed(&["info", &train]);
    assert!(
        info.contains("token file") && info.contains("2: \"a\\nb\", \"c\""),
        "{info}"
    );
    let out = dir.join("run");
    let flags = |val: &str| -> Vec<String> {
        [
            "train",
            "--device=cpu",
            "--pn=1_2",
            "--depth=1",
            "--bs=2",
            "--ep=1",
            "--quiet",
        ]
        .iter()
        .map(|s| (*s).to_owned())
        .chain([
            format!("--tokens={train}"),
            format!("--val_tokens={val}"),
            format!("--out={}", out.display()),
            tokenizer.clone(),
        ])
        .collect()
    };
    let text = refused(&texts(&flags(&other)));
    assert!(
        text.contains("class 1 is \"c\" there and \"d\" here"),
        "{text}"
    );
    succeed(&texts(&flags(&val)));
    let checkpoint = out.join("ar-ckpt-last.safetensors").display().to_string();
    let info = succeed(&["info", &checkpoint]);
    assert!(info.contains("2: \"a\\nb\", \"c\""), "{info}");
}
