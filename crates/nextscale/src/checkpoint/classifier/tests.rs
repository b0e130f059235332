use super::*;
use crate::checkpoint::inspect::{FileKind, describe};
use crate::format::safetensors::{read_safetensors, write_safetensors};
use crate::format::{HostTensor, StateDict};
use crate::model::ForwardPass;
use nextscale_tensor::Tensor;
use std::path::PathBuf;

fn trained() -> TrainedClassifier {
    let config = ClassifierConfig {
        side: 16,
        widths: vec![8, 16],
        blocks: 1,
        classes: 2,
    };
    let mut classifier = Classifier::new(config, true).unwrap();
    classifier.init(5).unwrap();
    TrainedClassifier {
        classifier,
        class_names: vec!["a b".into(), "[c]".into()],
        canvas: Canvas {
            background: crate::canvas::Background::BLACK,
            ..Canvas::default()
        },
        record: ClassifierRecord {
            mid_reso: 1.25,
            images: 7,
            steps: 3,
            accuracy: 0.75,
            ..ClassifierRecord::default()
        },
    }
}

fn written(dir: &Path) -> PathBuf {
    let path = dir.join("f.bin");
    trained().write(&path).unwrap();
    path
}

#[test]
fn a_file_gives_back_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path());
    let (was, is) = (trained(), TrainedClassifier::open(&path).unwrap());
    assert_eq!(is.classifier.config, was.classifier.config);
    assert_eq!((&is.class_names, is.canvas), (&was.class_names, was.canvas));
    assert_eq!(is.record, was.record);
    assert_eq!(is.fingerprint().unwrap(), was.fingerprint().unwrap());
    let x = Tensor::from_vec([1, 16, 16, 3], (0..768).map(|i| (i as f32).sin()).collect());
    let features = |c: &TrainedClassifier| {
        let out = c.classifier.forward(&ForwardPass::off(), &x).unwrap();
        out.features.f32().unwrap().to_vec()
    };
    assert_eq!(features(&is), features(&was));
    let mut other = trained();
    other.classifier.init(6).unwrap();
    assert_ne!(other.fingerprint().unwrap(), was.fingerprint().unwrap());
}

#[test]
fn it_is_told_for_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let d = describe(written(dir.path())).unwrap();
    assert_eq!(d.kind, FileKind::Classifier);
    let text = d.to_string();
    for part in [
        "classifier of a folder's classes",
        "16x16 pixels",
        "16, after levels",
        "75.00 %",
        "[c]",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn weights_that_are_no_numbers_are_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path());
    let before = std::fs::read(&path).unwrap();
    let mut bad = trained();
    bad.classifier
        .params
        .import("head.bias", &[f32::NAN, 0.0])
        .unwrap();
    assert!(matches!(bad.write(&path), Err(Error::Diverged(_))));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

/// What is said of the file after `change`.
fn refused(change: impl FnOnce(&mut StateDict, &mut TextMetadata)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path());
    let (mut dict, mut metadata) = read_safetensors(&path).unwrap();
    change(&mut dict, &mut metadata);
    write_safetensors(&path, &dict, &metadata).unwrap();
    let e = TrainedClassifier::open(&path).err().unwrap();
    let text = e.to_string();
    assert_eq!(e.exit_code(), 2, "{text}");
    assert!(text.contains("f.bin: ") && !text.contains('\n'), "{text}");
    text
}

#[test]
fn damaged_and_foreign_files_are_refused_in_one_line() {
    let told = refused(|_, m| drop(m.remove(CLASSIFIER_KEY)));
    assert!(told.contains("holds no classifier"), "{told}");
    let told = refused(|d, _| {
        *d = d
            .iter()
            .skip(1)
            .map(|(n, t)| (n.into(), t.clone()))
            .collect()
    });
    assert!(told.contains("lacks \"stem.weight\""), "{told}");
    let told = refused(|d, _| {
        d.insert("head.bias", HostTensor::zeros_f32(&[3]).unwrap());
    });
    assert!(told.contains("\"head.bias\" has the shape [3]"), "{told}");
    let told = refused(|d, _| {
        d.insert("more", HostTensor::zeros_f32(&[1]).unwrap());
    });
    assert!(told.contains("\"more\""), "{told}");
    let told = refused(|d, _| {
        d.insert(
            "head.bias",
            HostTensor::from_f32(&[2], &[0.0, f32::INFINITY]).unwrap(),
        );
    });
    assert!(told.contains("no finite numbers"), "{told}");
    let told = refused(|_, m| {
        m.insert(CLASSES_KEY.into(), "a\nb\nc".into());
    });
    assert!(told.contains("names 3 classes and has 2"), "{told}");
    let told = refused(|_, m| {
        m.insert(CANVAS_KEY.into(), "{".into());
    });
    assert!(told.contains("nextscale.canvas is damaged"), "{told}");
    for (from, to, part) in [
        (
            "\"version\":1",
            "\"version\":2",
            "written by a newer nextscale",
        ),
        ("\"version\":1", "\"version\":\"x\"", "is damaged"),
        (
            "[8,16]",
            "[4096,4096]",
            "weights; get or make the file again",
        ),
        ("[8,16]", "[8,9]", "multiple of 8"),
        ("[8,16]", "[]", "widths is 0"),
        ("\"classes\":2", "\"classes\":1", "classes is 1"),
        ("\"blocks\":1", "\"blocks\":2", "lacks "),
        ("\"mid_reso\":1.25", "\"mid_reso\":0.0", "mid_reso is 0"),
        ("{", "", "is damaged"),
    ] {
        let told = refused(|_, m| {
            let text = m.get_mut(CLASSIFIER_KEY).unwrap();
            assert!(text.contains(from), "{text}");
            *text = text.replacen(from, to, 1);
        });
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn files_that_are_no_safetensors_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(dir.path());
    let bytes = std::fs::read(&path).unwrap();
    for bytes in [&bytes[..bytes.len() - 4], b"PK\x03\x04", b"abc"] {
        std::fs::write(&path, bytes).unwrap();
        let e = TrainedClassifier::open(&path).err().unwrap();
        assert_eq!(e.exit_code(), 2);
        assert!(e.to_string().contains("f.bin: "), "{e}");
    }
    let none = TrainedClassifier::open(&dir.path().join("none"))
        .err()
        .unwrap();
    assert!(none.to_string().contains("there is no such file"), "{none}");
}
