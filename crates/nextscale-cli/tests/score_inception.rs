//! `score` with the Inception network: protocols, what is kept of statistics and by what they were made, and files of arrays.

mod common;

use common::{bitmap, refused, run, succeed};
use serde_json::{Value, json};
use std::fs::{File, write};
use std::io::{BufWriter, Write};
use std::path::Path;

/// A file with the network's names and shapes and weights of no meaning. No file of real ones is small enough to lie here.
fn network(path: &Path) {
    let facts = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fixtures/score/score.json"
    );
    let text = std::fs::read_to_string(facts).unwrap();
    let shapes: Value = serde_json::from_str(&text).unwrap();
    let shapes = shapes["weights"].as_object().unwrap();
    let extents = |shape: &Value| -> Vec<u64> {
        let all = shape.as_array().unwrap().iter();
        all.map(|n| n.as_u64().unwrap()).collect()
    };
    let mut head = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in shapes {
        let begin = end;
        end += 4 * extents(shape).iter().product::<u64>();
        let offsets = [begin, end];
        head.insert(
            name.clone(),
            json!({ "dtype": "F32", "shape": shape, "data_offsets": offsets }),
        );
    }
    let head = Value::Object(head).to_string();
    let mut file = BufWriter::new(File::create(path).unwrap());
    file.write_all(&(head.len() as u64).to_le_bytes()).unwrap();
    file.write_all(head.as_bytes()).unwrap();
    let mut state = 1u32;
    for (name, shape) in shapes {
        let shape = extents(shape);
        let fan: u64 = shape.iter().skip(1).product();
        let scale = (6.0 / fan as f32).sqrt();
        for _ in 0..shape.iter().product::<u64>() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let even = (state >> 8) as f32 / (1 << 23) as f32 - 1.0;
            let value = match shape.len() {
                0 => 0.0,
                1 if name.ends_with("running_mean") || name.ends_with("bias") => 0.1 * even,
                1 => 1.0 + 0.1 * even,
                _ => scale * even,
            };
            file.write_all(&value.to_le_bytes()).unwrap();
        }
    }
    file.flush().unwrap();
}

/// An `.npz` file of arrays, each with its numpy type and shape.
fn npz(path: &Path, arrays: &[(&str, &str, &str, &[u8])]) {
    let mut zip = zip::ZipWriter::new(File::create(path).unwrap());
    let options = zip::write::SimpleFileOptions::default();
    for (name, kind, shape, bytes) in arrays {
        let dict = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n");
        zip.start_file(format!("{name}.npy"), options).unwrap();
        zip.write_all(b"\x93NUMPY\x01\x00").unwrap();
        zip.write_all(&(dict.len() as u16).to_le_bytes()).unwrap();
        zip.write_all(dict.as_bytes()).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
}

fn rows(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    report["results"].as_array().unwrap().clone()
}

#[test]
fn protocols_statistics_and_arrays() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    network(&dir.path().join("net.safetensors"));
    for (folder, seed, sides) in [("a", 1, [20, 20, 36, 20]), ("b", 50, [24, 24, 24, 24])] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
        for (i, side) in sides.into_iter().enumerate() {
            let image = bitmap(side, seed + i as u64);
            write(dir.path().join(folder).join(format!("{i}.bmp")), image).unwrap();
        }
    }
    let features = format!("--features={}", at("net.safetensors"));
    let out = format!("--out={}", at("score.json"));
    let base = [
        "score",
        &at("a"),
        &features,
        &out,
        "--device=cpu",
        "--force",
    ];
    let score = |more: &[&str]| -> (String, Vec<Value>) {
        let said = succeed(&[&base, more].concat());
        (said, rows(&dir.path().join("score.json")))
    };
    let no = |more: &[&str], parts: &[&str]| {
        let line = refused(&[&base, more].concat());
        for part in parts {
            assert!(line.contains(part), "{part}: {line}");
        }
    };
    let reference = format!("--reference={}", at("b"));

    // Images of two sizes at once or one by one: the same numbers.
    let several = "--protocol=adm,torch-fidelity,pytorch-fid";
    let (said, all) = score(&[&reference, several, "--metrics=fid,is,pr"]);
    assert!(
        said.contains("different protocols can't be compared"),
        "{said}"
    );
    assert!(said.contains("SHA-256 "), "{said}");
    assert_eq!(all.len(), 3);
    let number = |row: &Value, name: &str| row[name].as_f64().unwrap();
    let fid = |row: &Value| number(row, "frechet_distance");
    assert!((fid(&all[0]) - fid(&all[1])).abs() < 1e-9 * fid(&all[0]));
    assert!(all[2]["precision"].is_null() && all[2]["inception_score"].is_null());
    let (_, single) = score(&[&reference, "--metrics=is,pr", "--batch=1"]);
    for name in ["inception_score", "precision", "recall"] {
        let (got, want) = (number(&single[0], name), number(&all[0], name));
        assert!(
            (got - want).abs() < 1e-4 * want.max(1.0),
            "{name}: {got} {want}"
        );
    }

    // Statistics know by what they were made.
    let kept = at("kept.npz");
    let save = format!("--save_statistics={kept}");
    let flags = [
        "score",
        &at("b"),
        &features,
        &out,
        "--device=cpu",
        "--force",
        &save,
    ];
    succeed(&[&flags[..], &["--metrics=fid"]].concat());
    let reference = format!("--reference={kept}");
    let (_, again) = score(&[&reference, "--metrics=fid"]);
    assert!((fid(&again[0]) - fid(&all[0])).abs() < 1e-6 * fid(&all[0]));
    no(
        &[&reference, "--protocol=pytorch-fid"],
        &["kept.npz", "by adm", "pytorch-fid"],
    );

    // Arrays of images: whole or cut, with labels of any integers.
    let images: Vec<u8> = (0..4 * 24 * 24 * 3)
        .map(|i| (i * 7919 % 251) as u8)
        .collect();
    let labels: Vec<u8> = (0..4i64).flat_map(i64::to_le_bytes).collect();
    let arrays = [
        ("arr_0", "|u1", "(4, 24, 24, 3)", &images[..]),
        ("arr_1", "<i8", "(4,)", &labels[..]),
    ];
    npz(&dir.path().join("images.npz"), &arrays);
    let score_of = |more: &[&str]| {
        let flags = [
            "score",
            &at("images.npz"),
            &features,
            &out,
            "--force",
            "--metrics=is",
        ];
        succeed(&[&flags[..], &["--device=cpu"], more].concat());
        number(&rows(&dir.path().join("score.json"))[0], "inception_score")
    };
    let (whole, cut) = (score_of(&[]), score_of(&["--size=12"]));
    assert!(
        whole >= 1.0 && (whole / cut - 1.0).abs() > 1e-6,
        "{whole} {cut}"
    );
    let negative: Vec<u8> = (-1..3i64).flat_map(i64::to_le_bytes).collect();
    npz(
        &dir.path().join("labels.npz"),
        &[arrays[0], ("arr_1", "<i8", "(4,)", &negative)],
    );
    no(
        &[&format!("--reference={}", at("labels.npz"))],
        &["labels.npz", "arr_1", "-1"],
    );
    for (shape, part) in [
        ("(1000000000000, 24, 24, 3)", "takes"),
        ("(4, 1000000, 1000000, 3)", "takes"),
        ("(6, 24, 24, 2)", "[N, height, width, 3]"),
    ] {
        let name = "huge.npz";
        npz(&dir.path().join(name), &[("arr_0", "|u1", shape, &images)]);
        no(&[&format!("--reference={}", at(name))], &[name, part]);
    }

    // Flags that would change nothing, and names of files that are one.
    no(&["--cfg=2"], &["--cfg", "nothing is drawn"]);
    no(&["--mid_reso=1.5"], &["--mid_reso", "--size"]);
    no(&["--metrics=fid"], &["--metrics=fid", "--reference"]);
    no(&["--count=1000000000000000"], &["--count=1000000000000000"]);
    let line = refused(&[
        "score",
        &at("a"),
        &features,
        &save,
        &format!("--out={kept}"),
        "--force",
    ]);
    assert!(
        line.contains("--save_statistics=") && line.contains("--out"),
        "{line}"
    );
    let line = refused(&["score", &at("a"), &features, "--out=nowhere/score.json"]);
    assert!(
        line.contains("--out=nowhere/score.json: there is no folder"),
        "{line}"
    );
    let line = refused(&["score", &at("a"), &out, "--force"]);
    assert!(
        line.contains("--features=FILE is missing") && line.contains("train-features"),
        "{line}"
    );
}

#[test]
fn protocols_see_the_colours_under_transparency() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    network(&dir.path().join("net.safetensors"));
    for name in ["clear", "opaque"] {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        for i in 0..4u32 {
            let mut image = image::RgbaImage::new(16, 16);
            for (x, y, pixel) in image.enumerate_pixels_mut() {
                let alpha = if name == "clear" { (x * 16) as u8 } else { 255 };
                *pixel = image::Rgba([
                    (x * 15 + i) as u8,
                    (y * 14) as u8,
                    (x * y + 9 * i) as u8,
                    alpha,
                ]);
            }
            image
                .save(dir.path().join(name).join(format!("{i}.png")))
                .unwrap();
        }
    }
    let out = format!("--out={}", at("score.json"));
    let features = format!("--features={}", at("net.safetensors"));
    let score = |folder: &str, more: &[&str]| {
        let flags = [
            "score",
            &at(folder),
            &features,
            &out,
            "--device=cpu",
            "--force",
            "--metrics=is",
        ];
        assert!(run(&[&flags, more].concat()).status.success());
        rows(&dir.path().join("score.json"))[0]["inception_score"]
            .as_f64()
            .unwrap()
    };
    let opaque = score("opaque", &[]);
    assert_eq!(score("clear", &[]), opaque);
    assert_ne!(score("clear", &["--background=white"]), opaque);
}
