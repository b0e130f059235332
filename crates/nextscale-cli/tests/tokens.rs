//! Training from a token file is training from the images that it was made of, bit for bit.

mod common;

use common::{pixels, refused, succeed};
use nextscale::checkpoint::TrainerState;
use nextscale::data::tokens::TokenFile;
use nextscale_tensor::rng::{Purpose, Stream};
use std::fs;
use std::path::{Path, PathBuf};

/// A picture of noise in blocks, 24-bit BMP.
fn picture(path: &Path, number: u64) {
    let (w, h) = (44usize, 40usize);
    let draw = Stream::new(1, Purpose::Test, number, 0);
    let mut bytes = b"BM".to_vec();
    let size = (54 + 3 * w * h) as u32;
    for word in [size, 0, 54, 40, w as u32, h as u32] {
        bytes.extend(word.to_le_bytes());
    }
    for half in [1u16, 24] {
        bytes.extend(half.to_le_bytes());
    }
    bytes.resize(54, 0);
    for i in 0..w * h {
        let block = (i / w / 8 * 8 + i % w / 8) as u64;
        bytes.extend(&draw.word_at(block).to_le_bytes()[..3]);
    }
    fs::write(path, bytes).unwrap();
}

/// Eight training and three validation images of two classes.
fn folder(dir: &Path) -> PathBuf {
    let root = dir.join("images");
    for (split, each) in [("train", [5, 3]), ("val", [1, 2])] {
        for (class, n) in ["cat", "dog"].iter().zip(each) {
            let folder = root.join(split).join(class);
            fs::create_dir_all(&folder).unwrap();
            for i in 0..n {
                let number = (split.len() * 100 + class.len() * 10) as u64 + i;
                picture(&folder.join(format!("{i}.bmp")), number + n * 7);
            }
        }
    }
    root
}

/// A tokenizer that has barely been trained.
fn barely_trained(out: &Path, data: &str, (vocab, seed): (usize, u64)) -> PathBuf {
    succeed(&[
        "train-tokenizer",
        data,
        &flag("out", out),
        "--pn=1_2",
        "--ch=32",
        &format!("--vocab={vocab}"),
        "--bs=4",
        "--steps=1",
        &format!("--seed={seed}"),
        "--threads=2",
        "--quiet",
    ]);
    out.join("tokenizer.safetensors")
}

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

fn run(fixed: &[&str], more: &[&str]) -> String {
    succeed(&[fixed, more].concat())
}

/// Lines of a log without what depends on the clock.
fn log(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|l| l.starts_with('{'));
    lines
        .map(|l| {
            let mut v: serde_json::Value = serde_json::from_str(l).unwrap();
            let o = v.as_object_mut().unwrap();
            for key in ["images_per_s", "data_wait", "remain_time", "finish_time"] {
                o.remove(key);
            }
            // The log's first line.
            o.remove("cmd");
            o.remove("tb_log_dir_path");
            v
        })
        .collect()
}

struct Run {
    steps: Vec<serde_json::Value>,
    epochs: Vec<serde_json::Value>,
    state: TrainerState,
}

fn read(out: &Path) -> Run {
    Run {
        steps: log(&out.join("steps.jsonl")),
        epochs: log(&out.join("log.txt")),
        state: TrainerState::load_safetensors(out.join("ar-ckpt-last.safetensors")).unwrap(),
    }
}

fn same(a: &Run, b: &Run) {
    assert_eq!(a.steps, b.steps);
    assert_eq!(a.epochs, b.epochs);
    let (a, b) = (&a.state, &b.state);
    assert!(a.var == b.var && a.exp_avg == b.exp_avg && a.exp_avg_sq == b.exp_avg_sq);
    assert!(a.g_it == b.g_it && a.adam_step == b.adam_step);
}

const TRAIN: [&str; 11] = [
    "train",
    "--pn=1_2",
    "--depth=2",
    "--bs=6",
    "--ac=2",
    "--ep=4",
    "--eval_every=2",
    "--seed=5",
    "--log_every=1",
    "--quiet",
    "--threads=2",
];

#[test]
fn tokens_train_like_their_images() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let data = flag("data_path", &folder(dir.path()));
    let tokenizer = flag(
        "tokenizer",
        &barely_trained(&at("tokenizer"), &data, (32, 3)),
    );
    let (train, val) = (at("train.safetensors"), at("val.safetensors"));
    let made = run(
        &[
            "tokenize",
            &tokenizer,
            &data,
            "--threads=2",
            "--crops=4",
            "--hflip",
            "--seed=5",
        ],
        &[&flag("out", &train)],
    );
    assert!(made.contains("8 images, 4 crops"), "{made}");
    // Another batch size and number of threads make the same file.
    let again = at("again.safetensors");
    run(
        &[
            "tokenize",
            &tokenizer,
            &data,
            "--threads=1",
            "--crops=4",
            "--hflip=1",
            "--seed=5",
        ],
        &["--batch=5", "--workers=1", &flag("out", &again)],
    );
    assert!(fs::read(&train).unwrap() == fs::read(&again).unwrap());
    run(
        &["tokenize", &tokenizer, &data, "--split=val"],
        &[&flag("out", &val)],
    );
    let file = TokenFile::open(&train).unwrap();
    assert_eq!((file.len(), file.crops(), file.classes().len()), (8, 4, 2));
    assert_eq!(TokenFile::open(&val).unwrap().crops(), 1);

    let (images, tokens, alone, broken) = (at("a"), at("b"), at("c"), at("d"));
    run(
        &TRAIN,
        &[&tokenizer, &data, "--hflip=1", &flag("out", &images)],
    );
    let (train, val) = (flag("tokens", &train), flag("val_tokens", &val));
    let from = [train.as_str(), &val];
    run(
        &TRAIN,
        &[&tokenizer, from[0], from[1], &flag("out", &tokens)],
    );
    run(&TRAIN, &[from[0], from[1], &flag("out", &alone)]);
    for stop in ["--stop_after=1", "--stop_after=4", "--save_every=1"] {
        run(&TRAIN, &[from[0], from[1], &flag("out", &broken), stop]);
    }
    let (images, a, b, c) = (read(&images), read(&tokens), read(&alone), read(&broken));
    assert_eq!(images.steps.len(), 6);
    let evaluated = |e: &serde_json::Value| e["vL_mean"].is_number();
    assert!(images.epochs.iter().any(evaluated));
    for other in [&a, &b, &c] {
        same(&images, other);
    }
    // A checkpoint holds the tokenizer where it was given.
    assert!(images.state.vae == a.state.vae && b.state.vae.is_empty());
    let sample = ["sample", "--cfg=0", "--threads=2"];
    let model = |out: &Path| flag("model", &out.join("ar-ckpt-last.safetensors"));
    run(&sample, &[&model(&tokens), &flag("out", &at("x.png"))]);
    let line = refused(&[&sample[..], &[&model(&alone), &flag("out", &at("y.png"))]].concat());
    assert!(
        line.contains("tokenizer") && line.contains("--tokenizer=FILE"),
        "{line}"
    );
    run(
        &sample,
        &[&model(&alone), &tokenizer, &flag("out", &at("y.png"))],
    );
    assert!(pixels(at("x.png")) == pixels(at("y.png")));
    // Codes of another tokenizer of the same shape would mean something else.
    let other = flag("tokenizer", &barely_trained(&at("other"), &data, (32, 4)));
    let line = refused(
        &[
            &sample[..],
            &[&model(&alone), &other, &flag("out", &at("z.png"))],
        ]
        .concat(),
    );
    assert!(
        line.contains("another tokenizer")
            && line.contains("ar-ckpt-last")
            && !at("z.png").exists(),
        "{line}"
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let data = flag("data_path", &folder(dir.path()));
    let tokenizer = flag(
        "tokenizer",
        &barely_trained(&at("tokenizer"), &data, (32, 3)),
    );
    let file = at("t.safetensors");
    let out = flag("out", &file);
    let make = ["tokenize", &tokenizer, &data, &out];
    for (more, word) in [
        (&["--crops=0"][..], "--crops=0"),
        (&["--crops=2", "--split=val"], "--split=val"),
        (&["--hflip=1"], "--crops=2"),
        (&["--batch=0"], "--batch=0"),
    ] {
        let line = refused(&[&make[..], more].concat());
        assert!(line.contains(word), "{line}");
    }
    run(&make, &[]);
    assert!(refused(&make).contains("exists already"));

    let to = flag("out", &at("run"));
    let tokens = flag("tokens", &file);
    let base = ["train", "--depth=1", "--bs=4", "--ep=1", "--quiet", &to];
    let no = |more: &[&str], words: &[&str]| {
        let line = refused(&[&base[..], more].concat());
        assert!(words.iter().all(|w| line.contains(w)), "{line}");
        assert!(!at("run").exists(), "nothing was made for a refused run");
    };
    let name = file.display().to_string();
    no(&["--pn=1_2", &tokens, &data], &["--tokens", "--data_path"]);
    no(&["--pn=1_2", &data, "--val_tokens=x"], &["--val_tokens"]);
    no(&["--pn=1_2_3", &tokens], &[&name, "--pn=1_2"]);
    no(&["--pn=1_2", &tokens, "--hflip=1"], &[&name, "--hflip"]);
    no(
        &["--pn=1_2", &tokens, "--patch_size=8"],
        &["--patch_size=16"],
    );
    no(&["--pn=1_2", "--tokens=/no/such/file"], &["/no/such/file"]);
    // Another tokenizer than the file's.
    let other = barely_trained(&at("other"), &data, (48, 3));
    let foreign = flag("tokenizer", &other);
    no(
        &["--pn=1_2", &tokens, &foreign],
        &[&name, "another tokenizer"],
    );
    let theirs = at("theirs.safetensors");
    run(
        &[
            "tokenize",
            &foreign,
            &data,
            "--split=val",
            &flag("out", &theirs),
        ],
        &[],
    );
    let val = flag("val_tokens", &theirs);
    no(
        &["--pn=1_2", &tokens, &val],
        &["--val_tokens", "another tokenizer"],
    );
    // A file cut short, one that is no token file, and a token that is no code.
    let whole = fs::read(&file).unwrap();
    let bad = at("bad.safetensors");
    let flag_bad = flag("tokens", &bad);
    let bad_name = bad.display().to_string();
    fs::write(&bad, &whole[..whole.len() - 1]).unwrap();
    no(&["--pn=1_2", &flag_bad], &[&bad_name, "truncated"]);
    fs::copy(at("tokenizer/tokenizer.safetensors"), &bad).unwrap();
    no(&["--pn=1_2", &flag_bad], &[&bad_name, "nextscale tokenize"]);
    let mut wrong = whole.clone();
    let n = wrong.len();
    wrong[n - 80..].fill(0xff);
    fs::write(&bad, &wrong).unwrap();
    let line = refused(&[&base[..], &["--pn=1_2", &flag_bad]].concat());
    assert!(line.contains(&bad_name) && line.contains("65535"), "{line}");
}
