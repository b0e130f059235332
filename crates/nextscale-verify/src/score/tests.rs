//! Changed scores are found. (The repository's bundle passes with all others, in `crate::tests`.)

use crate::{Bundle, Kind, Line, Machine, Verdict};
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};

fn fixture() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/score"))
}

/// A copy of the bundle with other facts.
fn changed(change: impl FnOnce(&mut Json)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let tensors = "score.safetensors";
    std::fs::copy(fixture().join(tensors), dir.path().join(tensors)).unwrap();
    let text = std::fs::read_to_string(fixture().join("score.json")).unwrap();
    let mut json = serde_json::from_str(&text).unwrap();
    change(&mut json);
    std::fs::write(dir.path().join("score.json"), json.to_string()).unwrap();
    dir
}

fn check(path: &Path) -> nextscale::Result<Vec<Line>> {
    let bundles = Bundle::find(path)?;
    let kinds: Vec<Kind> = bundles.iter().map(|b| b.kind).collect();
    assert_eq!(kinds, [Kind::Score]);
    let mut lines = Vec::new();
    bundles[0].check(Machine::CPU, &mut |line| lines.push(line.clone()))?;
    Ok(lines)
}

/// Few pictures, so that it does not take long.
#[test]
fn other_numbers_are_found() {
    let dir = changed(|json| {
        for kind in ["samples", "reference"] {
            json["sets"][kind]["images"] = json!(5);
            json["sets"][kind]["few"] = json!(4);
        }
        json["images"].as_object_mut().unwrap().remove("large");
        json["tensors"]["small.Mixed_6a"]["l2"] = json!(1.0);
        json["tensors"]["resize.clean.small"]["shape"] = json!([1, 3, 299, 298]);
        json["formula_scores"]["recall"] = json!(0.5);
        let adm = json["scores"]["adm"].as_object_mut().unwrap();
        adm.remove("precision");
    });
    let lines = check(dir.path()).unwrap();
    let with = |verdict| -> Vec<&str> {
        let lines = lines.iter().filter(|l| l.verdict == verdict);
        lines.map(|l| l.quantity.as_str()).collect()
    };
    let failed = with(Verdict::Fail);
    for name in [
        "small.Mixed_6a",
        "resize.clean.small",
        "formula.recall",
        "samples.features",
        "reference.spatial",
        "samples.clean-fid.features",
        "adm.fid",
        "adm.sfid",
        "adm.inception_score",
        "torch-fidelity.fid",
        "torch-fidelity.inception_score",
        "pytorch-fid.fid",
        "clean-fid.fid",
    ] {
        assert!(
            failed.contains(&format!("score/{name}").as_str()),
            "{name}: {failed:?}"
        );
    }
    let passed = with(Verdict::Pass);
    for name in [
        "small.Mixed_6b",
        "small.logits",
        "resize.tf1.small",
        "formula.precision",
    ] {
        assert!(passed.contains(&format!("score/{name}").as_str()), "{name}");
    }
    let left_out = with(Verdict::Unchecked);
    assert!(left_out.contains(&"score/large.Mixed_5b"), "{left_out:?}");
}

#[test]
fn facts_that_are_none_are_named_in_a_line() {
    let removed = |key: &'static str| {
        move |json: &mut Json| {
            json.as_object_mut().unwrap().remove(key);
        }
    };
    let told = |change: &dyn Fn(&mut Json)| check(changed(change).path()).unwrap_err();
    for (change, says) in [
        (
            &removed("fc_amplitude") as &dyn Fn(&mut Json),
            "fc_amplitude",
        ),
        (&removed("formula_features"), "\"width\""),
        (
            &|json| json["formula_features"]["width"] = json!(1u64 << 40),
            "\"width\"",
        ),
        (
            &|json| json["weights"]["fc.weight"] = json!([1000, 2048]),
            "fc.weight",
        ),
        (
            &|json| json["weights"]["fc.bias"] = json!("1008"),
            "fc.bias",
        ),
        (
            &|json| json["images"]["small"]["height"] = json!(-1),
            "\"height\"",
        ),
        (
            &|json| json["images"]["small"]["noisy"] = json!(17),
            "\"noisy\"",
        ),
    ] {
        let told = told(change);
        let text = told.to_string();
        assert!(told.exit_code() == 2 && text.contains(says), "{text}");
        assert!(!text.contains('\n'), "{text}");
    }
}
