//! Averaged weights: kept through a stop, evaluated, and chosen among a file's weights.

mod common;

use common::runs::{Tokenizer, Transformer};
use common::{few_images, refused, run, succeed, tiny_tokenizer};
use nextscale::checkpoint::{ModelKind, WeightsKind, load_part};
use nextscale::format::StateDict;
use std::path::Path;

fn go(flags: &[String]) {
    succeed(&flags.iter().map(String::as_str).collect::<Vec<_>>());
}

fn tensors(file: &Path, part: ModelKind, kind: Option<WeightsKind>) -> StateDict {
    load_part(file, part, kind).unwrap().tensors
}

#[test]
fn an_average_goes_on_after_a_stop_and_is_what_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    few_images(dir);
    tiny_tokenizer(dir);
    for (trainer, part) in [(Tokenizer, ModelKind::Vae), (Transformer, ModelKind::Var)] {
        // Two iterations an epoch, of which a step is made: the stop comes within the run.
        let flags = |out: &str, more: &[&str]| {
            let own = ["--ema=0.9", "--ep=6", "--ac=2"];
            // Large enough to see in losses.
            let rate = match trainer {
                Tokenizer => "--lr=0.001",
                Transformer => "--tblr=0.05",
            };
            trainer.flags(dir, out, &[&own[..], &[rate], more].concat())
        };
        let file = |out: &str| dir.join(out).join(trainer.last());
        go(&flags("whole", &[]));
        go(&flags("parts", &["--stop_after=3"]));
        go(&flags("parts", &[]));
        let whole = file("whole");
        let [averaged, trained] =
            [WeightsKind::Averaged, WeightsKind::Trained].map(|k| tensors(&whole, part, Some(k)));
        assert!(averaged != trained, "{trainer:?}");
        for (kind, want) in [
            (None, &averaged),
            (Some(WeightsKind::Averaged), &averaged),
            (Some(WeightsKind::Trained), &trained),
        ] {
            assert!(tensors(&file("parts"), part, kind) == *want, "{trainer:?}");
        }
        // What the file holds is told.
        let info = succeed(&["info", whole.to_str().unwrap()]);
        let average = if trainer == Tokenizer {
            "vae_ema"
        } else {
            "var_ema"
        };
        for word in ["training checkpoint", average, "optimizer"] {
            assert!(info.contains(word), "{word} in {info}");
        }
        // The weights learn the same whether they are averaged or not.
        let plain: Vec<String> = flags("plain", &[])
            .into_iter()
            .filter(|f| !f.starts_with("--ema"))
            .collect();
        go(&plain);
        assert!(
            tensors(&file("plain"), part, None) == trained,
            "{trainer:?}"
        );
        if trainer == Tokenizer {
            let used = dir.join("whole/tokenizer.safetensors");
            assert!(tensors(&used, part, None) == averaged);
        }
        // An average that begins late begins at the weights, and one that ends is told of.
        let more: Vec<String> = flags("plain", &["--ep=7"])
            .into_iter()
            .filter(|f| f != "--ep=6")
            .collect();
        go(&more);
        assert!(tensors(&file("plain"), part, Some(WeightsKind::Averaged)) != trained);
        let without: Vec<&str> = more
            .iter()
            .map(String::as_str)
            .filter(|f| !f.starts_with("--ema"))
            .collect();
        let told = String::from_utf8_lossy(&run(&without).stderr).into_owned();
        assert!(told.contains("holds averaged weights"), "{told}");
    }
    let model = format!(
        "--model={}",
        dir.join("whole").join(Transformer.last()).display()
    );
    let images = format!("--data_path={}", dir.join("images").display());
    let losses =
        |more: &[&str]| succeed(&[&["eval", &model, &images, "--device=cpu"], more].concat());
    let averaged = losses(&[]);
    assert!(averaged == losses(&["--weights=ema"]) && averaged != losses(&["--weights=raw"]));
    let whole = dir.join("whole").join(Transformer.last());
    let out = dir.join("averaged.safetensors");
    let convert = ["convert", "--weights=ema", "--force"];
    let files = [whole.to_str().unwrap(), out.to_str().unwrap()];
    succeed(&[&convert[..], &files[..]].concat());
    assert!(
        tensors(&out, ModelKind::Var, None)
            == tensors(&whole, ModelKind::Var, Some(WeightsKind::Averaged))
    );
    // A file without averages has none to choose.
    let line = refused(&[&convert[..], &[files[1], "x.safetensors"]].concat());
    assert!(line.contains("holds no averaged weights"), "{line}");
}
