use super::*;
use crate::data::fixtures::input;
use crate::data::{Cut, Splits};

fn opened(root: &Path) -> Result<Splits> {
    Splits::open(root, &Cut::default())
}

/// Makes a data folder: each path gets a copy of a small picture (or text, where it does not end in png).
fn make(paths: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for path in paths {
        let path = root.path().join(path);
        if path.extension().is_none() {
            fs::create_dir_all(&path).unwrap();
            continue;
        }
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if path.extension().unwrap().eq_ignore_ascii_case("png") {
            fs::copy(input("synth_palette.png"), &path).unwrap();
        } else {
            fs::write(&path, "no picture").unwrap();
        }
    }
    root
}

/// Both halves of a data folder.
struct Halves {
    train: FolderSource,
    val: FolderSource,
}

fn halves(root: &Path) -> Halves {
    let [train, val] = ["train", "val"].map(|half| FolderSource::open(root.join(half)).unwrap());
    Halves { train, val }
}

fn refused(paths: &[&str], parts: &[&str]) {
    let root = make(paths);
    let error = opened(root.path()).err().unwrap();
    assert_eq!(error.exit_code(), 2, "{error}");
    let text = error.to_string();
    assert!(!text.contains('\n'));
    assert!(text.contains(root.path().to_str().unwrap()), "{text}");
    for part in parts {
        assert!(text.contains(part), "{text} lacks {part}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn classes_whose_names_are_no_text_stay_apart() {
    use std::os::unix::ffi::OsStrExt;
    let root = make(&["b/1.png"]);
    for name in [&b"\xff"[..], b"\xfe", b"a\xe9z"] {
        let class = root.path().join(OsStr::from_bytes(name));
        fs::create_dir(&class).unwrap();
        fs::write(class.join("1.png"), "").unwrap();
    }
    let source = FolderSource::open(root.path()).unwrap();
    assert_eq!(source.class_names(), ["a\\xe9z", "b", "\\xfe", "\\xff"]);
    for i in 0..source.len() {
        let folder = source.path(i).unwrap().parent().unwrap().to_owned();
        let class = &source.class_names()[source.label(i) as usize];
        assert_eq!(class, &class_name(folder.file_name().unwrap()));
    }
    let same = PathBuf::from(format!("{}/\\xff", root.path().display()));
    fs::create_dir(&same).unwrap();
    fs::write(same.join("1.png"), "").unwrap();
    let text = FolderSource::open(root.path()).unwrap_err().to_string();
    assert!(text.contains("two class folders"), "{text}");
}

#[test]
fn classes_and_files_come_in_order() {
    let root = make(&[
        "train/zebra/b.png",
        "train/zebra/a.PNG",
        "train/zebra/notes.txt",
        "train/ant/z.png",
        "train/ant/sub/c.png",
        "train/ant/sub-2/d.png",
        "train/ant/sub/deep/e.png",
        "train/readme.txt",
        "val/ant/1.png",
        "val/zebra/2.png",
    ]);
    let splits = halves(root.path());
    let train = &splits.train;
    assert_eq!(train.class_names(), ["ant", "zebra"]);
    let names: Vec<String> = (0..train.len())
        .map(|i| {
            train
                .path(i)
                .unwrap()
                .strip_prefix(root.path())
                .unwrap()
                .display()
                .to_string()
        })
        .collect();
    assert_eq!(
        names,
        [
            "train/ant/z.png",
            "train/ant/sub/c.png",
            "train/ant/sub-2/d.png",
            "train/ant/sub/deep/e.png",
            "train/zebra/a.PNG",
            "train/zebra/b.png",
        ]
    );
    assert_eq!(
        (0..6).map(|i| train.label(i)).collect::<Vec<_>>(),
        [0, 0, 0, 0, 1, 1]
    );
    assert_eq!(
        train.image(4).unwrap().height(),
        splits.val.image(0).unwrap().height()
    );
    assert!(train.name(0).ends_with("z.png"));
    assert_eq!(train.image(6).unwrap_err().exit_code(), 2);
}

#[test]
fn every_misfit_gets_its_line() {
    let missing = opened(Path::new("/no/such/folder")).err().unwrap();
    assert_eq!(missing.exit_code(), 2);
    assert!(
        missing
            .to_string()
            .contains("/no/such/folder: no such folder")
    );
    let file = input("china.jpg");
    assert!(
        opened(&file)
            .err()
            .unwrap()
            .to_string()
            .contains("not a folder")
    );
    refused(&["val/cat/a.png"], &["no train/"]);
    refused(&["notes.txt", "cat/b.txt"], &["no images"]);
    refused(&["notes.txt"], &["there are no images in it"]);
    refused(
        &["train/a.png", "val/cat/a.png"],
        &["training images lie in no class folders"],
    );
    refused(
        &["train/cat/a.png", "train/dog/x.txt", "val/cat/a.png"],
        &["train", "dog"],
    );
    refused(
        &[
            "train/a/1.png",
            "train/b",
            "train/c",
            "train/d",
            "train/e",
            "val/a/1.png",
        ],
        &["b, c, d and 1 more"],
    );
    refused(
        &[
            "train/cat/a.png",
            "train/dog/a.png",
            "val/cat/a.png",
            "val/cow/a.png",
        ],
        &["only train/ has dog", "only val/ has cow"],
    );
}

#[test]
fn a_bad_file_is_named() {
    let root = make(&["train/cat/a.jpg", "val/cat/b.png"]);
    let splits = halves(root.path());
    let error = splits.train.image(0).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("train/cat/a.jpg"), "{error}");
    fs::remove_file(root.path().join("train/cat/a.jpg")).unwrap();
    assert_eq!(splits.train.image(0).unwrap_err().exit_code(), 2);
}

#[cfg(unix)]
#[test]
fn links_are_followed_but_not_in_circles() {
    let root = make(&["train/cat/a.png", "val/cat/b.png", "elsewhere/c.png"]);
    let link = |from: &str, to: &str| {
        std::os::unix::fs::symlink(root.path().join(from), root.path().join(to)).unwrap();
    };
    link("train/cat", "train/cat/again");
    link("elsewhere", "train/cat/more");
    let splits = halves(root.path());
    let names: Vec<String> = (0..splits.train.len())
        .map(|i| splits.train.name(i))
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0].ends_with("cat/a.png") && names[1].ends_with("more/c.png"));
    let told = splits.train.left_out().unwrap();
    assert!(told.contains("1 link to a folder in which"), "{told}");
}

#[cfg(unix)]
#[test]
fn links_that_are_no_circle_count_as_often_as_they_lead() {
    let root = make(&["train/cat/a.png", "val/cat/b.png", "elsewhere/c.png"]);
    for name in ["train/cat/one", "train/cat/two"] {
        std::os::unix::fs::symlink(root.path().join("elsewhere"), root.path().join(name)).unwrap();
    }
    let splits = halves(root.path());
    let names: Vec<String> = (0..3).map(|i| splits.train.name(i)).collect();
    assert_eq!(splits.train.len(), 3, "{names:?}");
    assert!(names[1].ends_with("one/c.png") && names[2].ends_with("two/c.png"));
    assert_eq!(splits.train.left_out(), None);
}

#[cfg(unix)]
#[test]
fn folders_that_all_link_to_each_other_are_taken_once() {
    let classes: Vec<String> = (0..9).map(|i| format!("train/{i}")).collect();
    let images: Vec<String> = classes.iter().map(|c| format!("{c}/x.png")).collect();
    let images: Vec<&str> = images.iter().map(String::as_str).collect();
    let root = make(&images);
    for (from, to) in classes
        .iter()
        .flat_map(|a| classes.iter().map(move |b| (a, b)))
    {
        let name = format!("{to}/to{}", from.replace('/', "_"));
        std::os::unix::fs::symlink(root.path().join(from), root.path().join(name)).unwrap();
    }
    let train = FolderSource::open(root.path().join("train")).unwrap();
    assert_eq!(train.len(), 81);
    assert!(train.left_out().unwrap().contains("links to a folder"));
}

#[cfg(unix)]
#[test]
fn ways_that_double_at_every_step_are_refused() {
    let paths: Vec<String> = (0..30).map(|i| format!("steps/{i}/x.png")).collect();
    let mut paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    paths.push("train/a/y.png");
    let root = make(&paths);
    let link = |from: &str, to: String| {
        std::os::unix::fs::symlink(root.path().join(from), root.path().join(to)).unwrap();
    };
    for i in 1..30 {
        for side in ["left", "right"] {
            link(&format!("steps/{i}"), format!("steps/{}/{side}", i - 1));
        }
    }
    link("steps/0", "train/a/in".into());
    let error = FolderSource::open(root.path().join("train")).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("1000 times"));
}

#[test]
fn hidden_files_and_folders_are_left_out_and_counted() {
    let root = make(&[
        "train/a/1.png",
        "train/a/._1.png",
        "train/a/.cache/2.png",
        "train/a/.DS_Store/",
        "train/.ipynb_checkpoints/3.png",
        "train/__MACOSX/4.png",
        "val/a/5.png",
    ]);
    let splits = halves(root.path());
    assert_eq!(splits.train.class_names(), ["a"]);
    assert_eq!(splits.train.len(), 1);
    let told = splits.train.left_out().unwrap();
    assert!(
        told.starts_with("left out of the images: 5 hidden, for example "),
        "{told}"
    );
    assert_eq!(splits.val.left_out(), None);
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_left_out_of_a_class() {
    let root = make(&["train/a/1.png", "val/a/2.png"]);
    let socket = root.path().join("train/a/s.png");
    let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::os::unix::fs::symlink(&socket, root.path().join("train/a/link.png")).unwrap();
    let splits = halves(root.path());
    assert_eq!(splits.train.len(), 1);
    let told = splits.train.left_out().unwrap();
    assert!(
        told.starts_with("left out of the images: 2 that can't be opened"),
        "{told}"
    );
}
