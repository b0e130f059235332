use super::*;
use std::fs;
use std::path::PathBuf;
use tar::{Builder, Header};

const PPM: &[u8] = b"P6 1 1 255\n\x01\x02\x03";

fn shard(path: &Path, members: &[(&str, &[u8])]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut builder = Builder::new(fs::File::create(path).unwrap());
    for (name, content) in members {
        let mut header = Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.finish().unwrap();
}

fn numbered(path: &Path, labels: &[&str]) {
    let names: Vec<[String; 2]> = (0..labels.len())
        .map(|i| [format!("{i}.ppm"), format!("{i}.cls")])
        .collect();
    let members = names.iter().zip(labels);
    let members: Vec<(&str, &[u8])> = members
        .flat_map(|([image, label], class)| {
            [(image.as_str(), PPM), (label.as_str(), class.as_bytes())]
        })
        .collect();
    shard(path, &members);
}

fn named(path: &Path, classes: &[&str]) {
    let names: Vec<String> = classes
        .iter()
        .map(|class| format!("{class}/0.ppm"))
        .collect();
    shard(
        path,
        &names
            .iter()
            .map(|name| (name.as_str(), PPM))
            .collect::<Vec<_>>(),
    );
}

fn image(path: PathBuf) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, PPM).unwrap();
}

fn labels(source: &dyn ImageSource) -> Vec<u32> {
    (0..source.len()).map(|i| source.label(i)).collect()
}

fn opened(root: &Path) -> (Vec<String>, Vec<u32>, Vec<u32>) {
    let splits = Splits::open(root).unwrap();
    assert_eq!(splits.train.class_names(), splits.val.class_names());
    for source in [&splits.train, &splits.val] {
        (0..source.len()).for_each(|i| assert!(source.image(i).is_ok() && source.probe(i).is_ok()));
    }
    (
        splits.train.class_names().to_vec(),
        labels(splits.train.as_ref()),
        labels(splits.val.as_ref()),
    )
}

fn refused(root: &Path) -> String {
    let error = Splits::open(root).err().expect("it is refused");
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

#[test]
fn layouts_are_recognised_by_what_is_there() {
    let numbers = |n: u32| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
    for (train, val) in [
        ("train/0.tar", "val/0.tar"),
        ("train/0.tar", "validation/0.tar"),
        ("train-0.tar", "val-0.tar"),
        (
            "data/train-00000-of-00001.tar",
            "data/validation-00000-of-00001.tar",
        ),
        (
            "imagenet1k-train-0000.tar",
            "imagenet1k-validation-0000.tar",
        ),
        ("train.tar", "test.tar"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        numbered(&dir.path().join(train), &["1", "0", "1"]);
        numbered(&dir.path().join(val), &["1"]);
        // Another test split is left alone where there is one for validation.
        if val.starts_with("val-") {
            numbered(&dir.path().join("test-0.tar"), &["7"]);
        }
        assert_eq!(
            opened(dir.path()),
            (numbers(2), vec![1, 0, 1], vec![1]),
            "{train}"
        );
        assert_eq!(
            opened(dir.path()).1.len(),
            3,
            "{train}: again, with its index"
        );
    }
    let fixtures = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fixtures/shards"
    ));
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::copy(
        fixtures.join("snappy.parquet"),
        data.join("train-00000-of-00001.parquet"),
    )
    .unwrap();
    fs::copy(
        fixtures.join("val.parquet"),
        data.join("validation-00000-of-00001.parquet"),
    )
    .unwrap();
    let (classes, train, val) = opened(dir.path());
    assert_eq!(classes, ["ant", "bee", "cow"]);
    assert_eq!((train.len(), val), (12, vec![0, 0, 1, 1, 2, 2]));
}

#[test]
fn splits_of_different_kinds_share_their_classes() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    named(&root.join("train/0.tar"), &["b", "a"]);
    image(root.join("val/a/0.ppm"));
    image(root.join("val/b/0.ppm"));
    let classes = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(opened(root), (classes.clone(), vec![1, 0], vec![0, 1]));
    fs::remove_dir_all(root.join("val")).unwrap();
    numbered(&root.join("val/0.tar"), &["1", "0"]);
    assert_eq!(opened(root), (classes.clone(), vec![1, 0], vec![1, 0]));
    named(&root.join("val/0.tar"), &["b", "a"]);
    assert_eq!(opened(root), (classes, vec![1, 0], vec![1, 0]));
    named(&root.join("val/0.tar"), &["b", "c"]);
    let text = refused(root);
    assert!(
        text.contains("only train/ has a and only val/ has c"),
        "{text}"
    );
    // Numbers in the names' order, from a list.
    numbered(&root.join("train/0.tar"), &["2", "0"]);
    numbered(&root.join("val/0.tar"), &["1"]);
    let text = refused(root);
    assert!(
        text.contains("none is 1") && text.contains("classes.txt"),
        "{text}"
    );
    fs::write(root.join("classes.txt"), "ant\nbee\ncow\n").unwrap();
    assert_eq!(opened(root).0, ["ant", "bee", "cow"]);
    numbered(&root.join("val/0.tar"), &["1", "3"]);
    let text = refused(root);
    assert!(
        text.contains("0.tar:1.ppm: has label 3") && text.contains("3 classes (0 to 2)"),
        "{text}"
    );
    fs::write(root.join("classes.txt"), "ant\nbee\nant\n").unwrap();
    assert!(refused(root).contains("two classes are called \"ant\""));
}

#[test]
fn what_can_be_understood_in_two_ways_is_refused() {
    type Make = fn(&Path);
    let cases: [(Make, &[&str]); 9] = [
        (
            |root| numbered(&root.join("train-1.tar"), &["0"]),
            &["both the folder train/", "train-1.tar"],
        ),
        (
            |root| numbered(&root.join("data/train-1.tar"), &["0"]),
            &["both the folder train/", "data/train-1.tar"],
        ),
        (
            |root| image(root.join("train/cat/0.ppm")),
            &["both folders and the shard", "0.tar"],
        ),
        (
            |root| image(root.join("train/0.ppm")),
            &["both images and the shard"],
        ),
        (
            |root| fs::write(root.join("train/1.parquet"), "").unwrap(),
            &["0.tar and ", "1.parquet"],
        ),
        (
            |root| fs::write(root.join("train/1.tar.gz"), "").unwrap(),
            &["1.tar.gz", "gunzip"],
        ),
        (
            |root| fs::write(root.join("val/1.tar.zst"), "").unwrap(),
            &["1.tar.zst", "unzstd"],
        ),
        (
            |root| fs::remove_dir_all(root.join("val")).unwrap(),
            &["there is no val/"],
        ),
        (
            |root| fs::write(root.join("val/0.tar"), [0; 1024]).unwrap(),
            &["0.tar", "no image in it"],
        ),
    ];
    for (make, parts) in cases {
        let dir = tempfile::tempdir().unwrap();
        numbered(&dir.path().join("train/0.tar"), &["0"]);
        numbered(&dir.path().join("val/0.tar"), &["0"]);
        make(dir.path());
        let text = refused(dir.path());
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    numbered(&root.join("train-0.tar"), &["0"]);
    assert!(refused(root).contains("no shards of validation images"));
    numbered(&root.join("train-val-0.tar"), &["0"]);
    assert!(refused(root).contains("tells several splits"));
    fs::rename(root.join("train-val-0.tar"), root.join("more.tar")).unwrap();
    assert!(refused(root).contains("more.tar: its name does not tell its split"));
    fs::create_dir(root.join("data")).unwrap();
    fs::rename(root.join("more.tar"), root.join("data/val.tar")).unwrap();
    let text = refused(root);
    assert!(
        text.contains("train-0.tar and ") && text.contains("val.tar"),
        "{text}"
    );
}
