//! Work other than training that several processes share: what comes out is that of one.

mod common;

use common::{bitmap, nextscale, refused, succeed};
use std::path::{Path, PathBuf};

/// A folder with 13 images for training and 5 for validation, and a tokenizer.
struct Case {
    dir: tempfile::TempDir,
    tokenizer: PathBuf,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (split, count) in [("train", 13), ("val", 5)] {
            for i in 0..count {
                let class = dir
                    .path()
                    .join("images")
                    .join(split)
                    .join(format!("c{}", i % 2));
                std::fs::create_dir_all(&class).unwrap();
                std::fs::write(class.join(format!("{i:02}.bmp")), bitmap(32, i + count)).unwrap();
            }
        }
        let out = dir.path().join("tokenizer");
        let made = format!(
            "train-tokenizer --data_path={} --out={} --pn=1_2 --ch=32 --vocab=32 --bs=4 --steps=2 --seed=3 --quiet",
            dir.path().join("images").display(),
            out.display()
        );
        succeed(&made.split(' ').collect::<Vec<_>>());
        let tokenizer = out.join("tokenizer.safetensors");
        Self { dir, tokenizer }
    }

    fn tokenize(&self, out: &str, more: &str) -> (Vec<String>, PathBuf) {
        let out = self.dir.path().join(out);
        let flags = format!(
            "tokenize --tokenizer={} --data_path={} --out={} --threads=1 {more}",
            self.tokenizer.display(),
            self.dir.path().join("images").display(),
            out.display()
        );
        (flags.split_whitespace().map(str::to_owned).collect(), out)
    }
}

fn files_of(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let name = |e: std::io::Result<std::fs::DirEntry>| e.unwrap().file_name();
    let names = entries.map(|e| name(e).to_string_lossy().into_owned());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn tokens_are_those_of_one_process() {
    let case = Case::new();
    let run = |out: &str, more: &str| {
        let (flags, out) = case.tokenize(out, more);
        let said = succeed(&flags.iter().map(String::as_str).collect::<Vec<_>>());
        (said, std::fs::read(out).unwrap())
    };
    let kinds = [
        "--batch=4",
        "--batch=6 --crops=3 --hflip --seed=5",
        "--split=val --batch=2",
    ];
    for (kind, flags) in kinds.into_iter().enumerate() {
        let (said, alone) = run(&format!("alone{kind}"), flags);
        // Of nine processes some have no batch at all.
        for processes in [2, 3, 9] {
            let out = format!("{kind}-{processes}");
            let (told, tokens) = run(&out, &format!("{flags} --procs={processes}"));
            assert!(tokens == alone, "{flags} {processes}");
            let name = format!("alone{kind}");
            assert_eq!(told, said.replace(&name, &out), "said once");
        }
    }
}

#[test]
fn samples_are_those_of_one_process() {
    let case = Case::new();
    let train = format!(
        "train --data_path={} --tokenizer={} --out={} --pn=1_2 --patch_size=16 --depth=2 --bs=4 --stop_after=1 --quiet",
        case.dir.path().join("images").display(),
        case.tokenizer.display(),
        case.dir.path().join("model").display()
    );
    succeed(&train.split(' ').collect::<Vec<_>>());
    let run = |out: &str, more: &str| {
        let out = case.dir.path().join(out);
        let model = case.dir.path().join("model/ar-ckpt-last.safetensors");
        let flags = format!(
            "sample --model={} --out={} --threads=1 --classes=0,1 --per_class=5 --seed=4 {more}",
            model.display(),
            out.display()
        );
        let said = succeed(&flags.split_whitespace().collect::<Vec<_>>());
        let read = |path: PathBuf| std::fs::read(path).unwrap();
        let files = match out.is_dir() {
            true => files_of(&out)
                .into_iter()
                .map(|f| (f.clone(), read(out.join(f))))
                .collect(),
            false => vec![(String::new(), read(out))],
        };
        (said, files)
    };
    // Four batches, the last of one image.
    let kinds = [
        (".npz", "--batch=3"),
        (".png", "--batch=3 --columns=4"),
        (".jpg", "--batch=3"),
        ("-sweep.png", "--batch=3 --sweep=cfg=0,1.5"),
        ("", "--batch=3"),
        ("-scales", "--batch=3 --scales"),
    ];
    for (ending, flags) in kinds {
        let (said, alone) = run(&format!("alone{ending}"), flags);
        assert_eq!(
            alone.len(),
            [1, 10, 30][usize::from(!ending.contains('.')) + usize::from(flags.contains("scales"))]
        );
        for processes in [2, 3, 7] {
            let out = format!("{processes}{ending}");
            let (told, files) = run(&out, &format!("{flags} --procs={processes}"));
            assert!(files == alone, "{ending} {processes}");
            assert_eq!(
                told,
                said.replace(&format!("alone{ending}"), &out),
                "said once"
            );
        }
    }
}

#[test]
fn an_image_that_can_t_be_read_ends_all_of_them() {
    let case = Case::new();
    let bad = case.dir.path().join("images/train/c1/09.bmp");
    std::fs::write(&bad, b"none").unwrap();
    let before = files_of(case.dir.path());
    let (flags, out) = case.tokenize("tokens", "--batch=2 --procs=3");
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let ended = nextscale(&flags).output().unwrap();
    let text = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(2), "{text}");
    assert!(
        text.contains("09.bmp") && !text.contains("panicked"),
        "{text}"
    );
    assert!(!out.exists());
    assert_eq!(files_of(case.dir.path()), before);
    // Left out, it is missing in the file of one process and of three.
    let skip = |out: &str, more: &str| {
        let (flags, out) = case.tokenize(out, &format!("--batch=2 --bad_images=skip {more}"));
        succeed(&flags.iter().map(String::as_str).collect::<Vec<_>>());
        std::fs::read(out).unwrap()
    };
    assert!(skip("one", "") == skip("three", "--procs=3"));
}

#[test]
fn a_training_step_is_timed_by_several_processes_together() {
    let bench = "bench train --steps=1 --pn=1_2 --threads=1 --bs=2 --procs=2 --zero=1";
    let out = succeed(&bench.split(' ').collect::<Vec<_>>());
    let lines: Vec<_> = out.lines().collect();
    let [line] = lines[..] else {
        panic!("{out}");
    };
    for told in ["\"processes\":2", "\"batch\":4", "\"zero\":1"] {
        assert!(line.contains(told), "{line}");
    }
    let text = refused(&["bench", "sample", "--procs=2"]);
    assert!(
        text.contains("only the training steps of both models"),
        "{text}"
    );
}
