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
    let splits = Splits::open(root, &Cut::default()).unwrap();
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
    let error = Splits::open(root, &Cut::default())
        .err()
        .expect("it is refused");
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
    let cases: [(Make, &[&str]); 8] = [
        (
            |root| numbered(&root.join("train-1.tar"), &["0"]),
            &["both the folder ", "/train and", "train-1.tar"],
        ),
        (
            |root| numbered(&root.join("data/train-1.tar"), &["0"]),
            &["both the folder ", "/train and", "data/train-1.tar"],
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

/// Names from the data folder on.
fn names(root: &Path, source: &dyn ImageSource) -> Vec<String> {
    let below = |i| {
        let name = source.name(i);
        let start = root.display().to_string();
        name.strip_prefix(&start).unwrap()[1..].to_owned()
    };
    (0..source.len()).map(below).collect()
}

#[test]
fn a_folder_without_validation_images_is_cut() {
    type Make = fn(&Path, usize);
    let of_class: Make = |root, i| image(root.join(format!("c{}/{i}.ppm", i % 2)));
    let in_train: Make = |root, i| image(root.join(format!("train/c{}/{i}.ppm", i % 2)));
    let below: Make = |root, i| image(root.join(format!("data/c{}/{i}.ppm", i % 2)));
    let flat: Make = |root, i| image(root.join(format!("{i}.ppm")));
    let flat_train: Make = |root, i| image(root.join(format!("train/{i}.ppm")));
    let mut taken = Vec::new();
    for (make, classes) in [
        (of_class, 2),
        (in_train, 2),
        (below, 2),
        (flat, 1),
        (flat_train, 1),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        (0..40).for_each(|i| make(root, i));
        let splits = Splits::open(root, &Cut::default()).unwrap();
        assert_eq!(splits.train.class_names().len(), classes);
        let [train, val] = [&splits.train, &splits.val].map(|s| names(root, s.as_ref()));
        assert_eq!(train.len() + val.len(), 40);
        assert!((classes..10).contains(&val.len()), "{val:?}");
        assert!(val.iter().all(|name| !train.contains(name)));
        let told = splits.remarks.concat();
        assert!(
            told.contains(&format!("{} of 40 images", val.len())),
            "{told}"
        );
        let last = |name: &String| name.rsplit_once('c').map(|c| c.1.to_owned());
        taken.push(val.iter().map(last).collect::<Vec<_>>());
        // A larger share of the same images.
        let cut = Cut {
            val_share: Some(0.5),
            ..Cut::default()
        };
        let wider = names(root, Splits::open(root, &cut).unwrap().val.as_ref());
        assert!(val.iter().all(|name| wider.contains(name)) && wider.len() > 10);
    }
    // By what an image is called below its own folder.
    assert_eq!(taken[0], taken[1]);
    assert_eq!(taken[0], taken[2]);
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    numbered(&root.join("00000.tar"), &["0"; 30]);
    let splits = Splits::open(root, &Cut::default()).unwrap();
    assert_eq!(splits.train.len() + splits.val.len(), 30);
    assert!(splits.val.len() < 8 && splits.val.image(0).is_ok());
}

#[test]
fn other_names_and_places_of_validation_images_are_known() {
    for name in ["val", "validation", "valid", "test"] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        image(root.join("train/a/0.ppm"));
        image(root.join(name).join("a/1.ppm"));
        assert_eq!(opened(root).2, [0], "{name}");
        let cut = Cut {
            val_share: Some(0.5),
            ..Cut::default()
        };
        let text = Splits::open(root, &cut).err().unwrap().to_string();
        assert!(text.contains("there are validation images"), "{text}");
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    image(root.join("here/b/0.ppm"));
    image(root.join("here/a/0.ppm"));
    image(root.join("there/a/1.ppm"));
    image(root.join("there/b/2.ppm"));
    let cut = Cut {
        val_path: Some(root.join("there")),
        ..Cut::default()
    };
    let splits = Splits::open(&root.join("here"), &cut).unwrap();
    assert_eq!(
        names(root, splits.val.as_ref()),
        ["there/a/1.ppm", "there/b/2.ppm"]
    );
    assert_eq!(splits.train.len(), 2);
    let cut = Cut {
        val_path: Some(root.join("nowhere")),
        ..Cut::default()
    };
    let text = Splits::open(&root.join("here"), &cut)
        .err()
        .unwrap()
        .to_string();
    assert!(text.contains("nowhere: no such folder"), "{text}");
    // A class called train, or training images beside others?
    image(root.join("rail/train/0.ppm"));
    image(root.join("rail/tram/0.ppm"));
    let text = refused(&root.join("rail"));
    assert!(
        text.contains("rail/train and in ") && text.contains("rail/tram"),
        "{text}"
    );
    image(root.join("one/0.ppm"));
    assert!(refused(&root.join("one")).contains("one image only"));
}

#[test]
fn metadata_names_the_classes() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for i in 0..3 {
        image(root.join(format!("train/{i}.ppm")));
        image(root.join(format!("train/more/{i}.ppm")));
    }
    image(root.join("val/9.ppm"));
    let write = |name: &str, text: &str| fs::write(root.join(name), text).unwrap();
    write(
        "train/metadata.csv",
        "file_name,label\nmore/1.ppm,dog\n0.ppm,ant\n2.ppm,dog\n",
    );
    write(
        "val/metadata.jsonl",
        "{\"file_name\": \"9.ppm\", \"label\": \"dog\"}\n",
    );
    let (classes, train, val) = opened(root);
    assert_eq!(classes, ["ant", "dog"]);
    assert_eq!((train, val), (vec![0, 1, 1], vec![1]));
    let splits = Splits::open(root, &Cut::default()).unwrap();
    let told = splits.remarks.concat();
    assert!(told.contains("3 that the metadata does not name"), "{told}");
    write(
        "val/metadata.jsonl",
        "{\"file_name\": \"9.ppm\", \"label\": \"cow\"}\n",
    );
    assert!(refused(root).contains("\"cow\", which is none of the 2 classes"));
    write("train/metadata.csv", "file_name,label\n../x.ppm,dog\n");
    assert!(refused(root).contains("../x.ppm is no path below"));
    write("train/metadata.csv", "file_name,label\n7.ppm,dog\n");
    assert!(refused(root).contains("7.ppm, and there is no such image"));
    // One file for both, in the data folder.
    fs::remove_file(root.join("train/metadata.csv")).unwrap();
    fs::remove_file(root.join("val/metadata.jsonl")).unwrap();
    write(
        "metadata.csv",
        "file_name,label\ntrain/0.ppm,1\ntrain/1.ppm,0\nval/9.ppm,0\n",
    );
    let (classes, train, val) = opened(root);
    assert_eq!(classes, ["0", "1"]);
    assert_eq!((train, val), (vec![1, 0], vec![0]));
    // Captions make no classes.
    write("metadata.csv", "file_name,text\ntrain/0.ppm,a cat\n");
    fs::remove_dir_all(root.join("train/more")).unwrap();
    let splits = Splits::open(root, &Cut::default()).unwrap();
    assert_eq!(
        (splits.train.len(), splits.train.class_names().len()),
        (3, 1)
    );
    assert!(splits.remarks.concat().contains("it is not used"));
    // A table that names no images stands for nothing where folders say the classes, and is asked about where they don't.
    write("metadata.csv", "image_id,label\n0,cat\n");
    let text = refused(root);
    assert!(
        text.contains("is called file_name, which names the images; rename"),
        "{text}"
    );
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "train/a/0.ppm",
        "train/b/1.ppm",
        "val/a/2.ppm",
        "val/b/3.ppm",
    ] {
        image(dir.path().join(name));
    }
    fs::write(
        dir.path().join("train/metadata.csv"),
        "image_id,label\n0,cat\n",
    )
    .unwrap();
    let splits = Splits::open(dir.path(), &Cut::default()).unwrap();
    assert_eq!(splits.train.class_names(), ["a", "b"]);
    assert!(splits.remarks.concat().contains("it is not used"));
    // Other classes beside are told with the names of the folders that are meant.
    let val = tempfile::tempdir().unwrap();
    image(val.path().join("c/0.ppm"));
    let cut = Cut {
        val_path: Some(val.path().to_path_buf()),
        ..Cut::default()
    };
    let text = Splits::open(dir.path(), &cut).err().unwrap().to_string();
    assert!(
        text.starts_with("`val_path`=") && text.contains("only this folder has c"),
        "{text}"
    );
    // A class that is called as validation images are.
    let dir = tempfile::tempdir().unwrap();
    for name in ["valid/0.ppm", "invalid/1.ppm"] {
        image(dir.path().join(name));
    }
    let text = refused(dir.path());
    assert!(
        text.contains("if it is one of the classes, give its folder another name"),
        "{text}"
    );
}

#[test]
fn what_lies_beside_class_folders_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for i in 0..6 {
        image(root.join(format!("a/{i}.ppm")));
    }
    image(root.join("cover.ppm"));
    fs::create_dir(root.join("scripts")).unwrap();
    fs::write(root.join("scripts/run.sh"), "").unwrap();
    let splits = Splits::open(root, &Cut::default()).unwrap();
    assert_eq!(splits.train.class_names(), ["a"]);
    let told = splits.remarks.concat();
    assert!(told.contains("1 beside the class folders"), "{told}");
    assert!(told.contains("1 folder without an image"), "{told}");
}

/// Class names, and how many images train and validate.
fn counts(root: &Path, cut: &Cut) -> (Vec<String>, usize, usize) {
    let splits = Splits::open(root, cut).unwrap();
    let classes = splits.train.class_names().to_vec();
    (classes, splits.train.len(), splits.val.len())
}

#[test]
fn splits_are_found_however_they_are_written_and_one_folder_down() {
    for (train, val) in [
        ("Train", "Val"),
        ("TRAINING", "Validation"),
        ("set-1/train", "set-1/val"),
        ("data/train", "data/test"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        for class in ["a", "b"] {
            image(dir.path().join(train).join(class).join("0.ppm"));
            image(dir.path().join(train).join(class).join("1.ppm"));
            image(dir.path().join(val).join(class).join("2.ppm"));
        }
        let classes = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(
            counts(dir.path(), &Cut::default()),
            (classes, 4, 2),
            "{train}"
        );
    }
    // A folder of class folders alone in another one.
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for i in 0..4 {
        image(root.join(format!("images/c{}/{i}.ppm", i % 2)));
    }
    let splits = Splits::open(root, &Cut::default()).unwrap();
    assert_eq!(splits.train.class_names(), ["c0", "c1"]);
    let told = splits.remarks.concat();
    assert!(
        told.contains("images are those of ") && told.contains("classes: c0, c1"),
        "{told}"
    );
    // Names that tell splits and are none.
    let dir = tempfile::tempdir().unwrap();
    image(dir.path().join("train_images/a/0.ppm"));
    image(dir.path().join("test_images/a/0.ppm"));
    let text = refused(dir.path());
    assert!(
        text.contains("train_images") && text.contains("`val_path`="),
        "{text}"
    );
}

#[test]
fn what_lies_around_images_does_not_stop_them() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for i in 0..6 {
        image(root.join(format!("train/c{}/{i}.ppm", i % 2)));
        image(root.join(format!("test/{i}.ppm")));
    }
    fs::create_dir(root.join("annotations")).unwrap();
    fs::write(root.join("annotations/labels.tar.gz"), "").unwrap();
    fs::write(root.join("all.tgz"), "").unwrap();
    let splits = Splits::open(root, &Cut::default()).unwrap();
    assert_eq!(splits.train.len() + splits.val.len(), 6);
    let told = splits.remarks.concat();
    assert!(told.contains("test is left out"), "{told}");
    // Images that lie deeper count too, unless validation images are named.
    image(root.join("held/more/9.ppm"));
    let text = refused(root);
    assert!(
        text.contains("train and in ") && text.contains("held"),
        "{text}"
    );
    image(root.join("held/c0/9.ppm"));
    image(root.join("held/c1/9.ppm"));
    fs::remove_dir_all(root.join("held/more")).unwrap();
    let cut = Cut {
        val_path: Some(root.join("held")),
        ..Cut::default()
    };
    assert_eq!(counts(root, &cut).2, 2);
    // Images beside folders.
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    (0..6).for_each(|i| image(root.join(format!("{i}.ppm"))));
    fs::create_dir(root.join("scripts")).unwrap();
    assert_eq!(counts(root, &Cut::default()).0.len(), 1);
    image(root.join("thumbs/0.ppm"));
    let text = refused(root);
    assert!(
        text.contains("6 images lie beside its folders and 1 in them"),
        "{text}"
    );
    (0..6).for_each(|i| image(root.join(format!("thumbs/{i}.ppm"))));
    assert_eq!(counts(root, &Cut::default()).0, ["thumbs"]);
    // A shard among pictures.
    numbered(&root.join("left.tar"), &["0"]);
    let text = refused(root);
    assert!(text.contains("both images and the shard"), "{text}");
}

#[test]
fn a_tar_of_a_folder_is_cut_as_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let names: Vec<String> = (0..40).map(|i| format!("c{}/{i}.ppm", i % 2)).collect();
    names
        .iter()
        .for_each(|name| image(root.join("folder").join(name)));
    let members: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), PPM)).collect();
    shard(&root.join("tar/000.tar"), &members[..30]);
    shard(&root.join("tar/001.tar"), &members[30..]);
    let val = |folder: &str| {
        let splits = Splits::open(&root.join(folder), &Cut::default()).unwrap();
        let keys = (0..splits.val.len()).map(|i| splits.val.key(i).unwrap());
        keys.collect::<std::collections::BTreeSet<_>>()
    };
    assert!(!val("folder").is_empty());
    assert_eq!(val("folder"), val("tar"));
}
