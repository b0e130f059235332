use super::*;
use crate::data::{Cut, Splits};

/// A data folder with class folders for training, and four validation images without.
fn root() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for class in ["train/n1", "train/n2", "train/n3", "val"] {
        let folder = dir.path().join(class);
        fs::create_dir_all(&folder).unwrap();
        for i in 1..=4 {
            fs::write(
                folder.join(format!("V_{i}.JPEG")),
                b"P6 1 1 255\n\x01\x02\x03",
            )
            .unwrap();
        }
    }
    fs::write(dir.path().join("val/._V_1.JPEG"), b"").unwrap();
    dir
}

fn labels(root: &Path, files: &[(&str, &str)]) -> Result<Vec<u32>> {
    for (name, text) in files {
        fs::write(root.join(name), text).unwrap();
    }
    let opened = Splits::open(root, &Cut::default()).map(|splits| {
        assert_eq!(splits.val.class_names(), ["n1", "n2", "n3"]);
        assert_eq!(splits.remarks.len(), 1, "{:?}", splits.remarks);
        let val = splits.val;
        assert!(val.name(0).ends_with("V_1.JPEG") && val.image(3).is_ok());
        (0..val.len()).map(|i| val.label(i)).collect()
    });
    files
        .iter()
        .for_each(|(name, _)| fs::remove_file(root.join(name)).unwrap());
    opened
}

#[test]
fn labels_come_in_the_forms_in_which_they_are_given_away() {
    let dir = root();
    let of = |files: &[(&str, &str)]| labels(dir.path(), files).unwrap();
    let kit = ("map_clsloc.txt", "n3 1 kit_fox\nn1 2 setter\nn2 3 husky\n");
    for text in [
        "V_4.JPEG 0\nV_1.JPEG 2\nV_2.JPEG 1\nV_3.JPEG 2\n",
        "V_1.JPEG n3\r\nV_2.JPEG n2\r\nV_3.JPEG n3\r\nV_4.JPEG n1\r\n",
        "V_1 n3\nV_2 n2\nV_3 n3\nV_4 n1\nnot_there n1\n",
        "2\n1\n2\n0\n\n",
        "n3\nn2\nn3\nn1",
    ] {
        assert_eq!(of(&[("val_labels.txt", text)]), [2, 1, 2, 0], "{text}");
        assert_eq!(of(&[("val/val.txt", text)]), [2, 1, 2, 0], "{text}");
    }
    let kaggle = "ImageId,PredictionString\nV_2,n2 1 2 3 4\nV_1,n3 85 1 499 272 n3 1 1 2 2\nV_4,n1 1 1 1 1\nV_3,n3 \n";
    assert_eq!(of(&[("LOC_val_solution.csv", kaggle)]), [2, 1, 2, 0]);
    let truth = ("ILSVRC2012_validation_ground_truth.txt", "1\n3\n1\n2\n");
    assert_eq!(of(&[truth, kit]), [2, 1, 2, 0]);
}

#[test]
fn labels_that_are_not_certain_are_refused() {
    let dir = root();
    let text = |files: &[(&str, &str)]| {
        let error = labels(dir.path(), files).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    };
    assert!(text(&[]).contains("need a file of labels"));
    let two = text(&[("val.txt", "0\n"), ("val_labels.txt", "0\n")]);
    assert!(two.contains("two files of labels"), "{two}");
    let truth = "ILSVRC2012_validation_ground_truth.txt";
    for (name, content, part) in [
        (
            truth,
            "1\n3\n1\n2\n",
            "map_clsloc.txt of its development kit",
        ),
        ("val.txt", "0\n1\n2\n", "has 3 labels"),
        (
            "val.txt",
            "0\n1\n2\n4\n",
            "val.txt: line 4: label 4 is out of range",
        ),
        ("val.txt", "0\n1\n-2\n1\n", "line 3: label -2"),
        (
            "val.txt",
            "n1\nn7\nn1\nn1\n",
            "line 2: \"n7\" is none of the 3 classes",
        ),
        (
            "val.txt",
            "V_1.JPEG 0\nV_2.JPEG 0\nV_3.JPEG 0\n",
            "V_4.JPEG: ",
        ),
        (
            "val.txt",
            "V_1.JPEG 0\nV_1.JPEG 1\n",
            "line 2: V_1.JPEG has had another class",
        ),
        ("val.txt", "V_1.JPEG 0\n1\n", "line 2: some lines have"),
    ] {
        let text = text(&[(name, content)]);
        assert!(text.contains(part), "{text}");
    }
    let kit = text(&[
        ("val.txt", "9\n1\n1\n1\n"),
        ("map_clsloc.txt", "n3 1 kit_fox\n"),
    ]);
    assert!(
        kit.contains("line 1: map_clsloc.txt has no class 9"),
        "{kit}"
    );
    let kit = text(&[("val.txt", "1\n1\n1\n1\n"), ("map_clsloc.txt", "n3 one\n")]);
    assert!(kit.contains("map_clsloc.txt: line 1: expected"), "{kit}");
}
