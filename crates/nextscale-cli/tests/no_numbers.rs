//! Weights that are numbers and still make none, because they are too large: every command that computes with them says so in one
//! line and ends with exit code 2, and nothing is left behind.

mod common;

use common::{few_images, refused, run, succeed, tiny_tokenizer};
use nextscale::checkpoint::TrainerState;
use nextscale::format::StateDict;
use nextscale::format::safetensors::{read_safetensors, write_safetensors};
use std::fs;
use std::path::{Path, PathBuf};

struct Run {
    _dir: tempfile::TempDir,
    dir: PathBuf,
    data: String,
    image: String,
    tokenizer: PathBuf,
    checkpoint: PathBuf,
}

fn trained() -> Run {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().to_path_buf();
    let images = few_images(&dir);
    let run = Run {
        data: format!("--data_path={}", images.display()),
        image: images.join("val/class0/0.bmp").display().to_string(),
        tokenizer: tiny_tokenizer(&dir),
        checkpoint: dir.join("run/ar-ckpt-last.safetensors"),
        _dir: tmp,
        dir,
    };
    let out = run.dir.join("run");
    succeed(&texts(&train(&run, &run.tokenizer, &out)));
    run
}

fn train(r: &Run, tokenizer: &Path, out: &Path) -> Vec<String> {
    [
        "train",
        "--device=cpu",
        "--pn=1_2",
        "--depth=1",
        "--bs=2",
        "--ep=1",
        "--mid_reso=1",
        "--quiet",
    ]
    .into_iter()
    .map(str::to_owned)
    .chain([
        r.data.clone(),
        format!("--tokenizer={}", tokenizer.display()),
        format!("--out={}", out.display()),
    ])
    .collect()
}

fn texts(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

/// Safetensors with every value of a tensor times `factor`.
fn enlarged(from: &Path, to: &Path, tensor: &str, factor: f32) {
    let (mut dict, metadata) = read_safetensors(from).unwrap();
    let data = &mut dict.get_mut(tensor).unwrap().data;
    for word in data.as_chunks_mut::<4>().0 {
        let x = f32::from_le_bytes(*word) * factor;
        assert!(x.is_finite(), "the weights are numbers");
        *word = x.to_le_bytes();
    }
    write_safetensors(to, &dict, &metadata).unwrap();
}

/// The line, which names the file (or two, one of which it is), and nothing on standard output.
fn told(flags: &[&str], file: &Path) -> String {
    let flags = [flags, &["--device=cpu"]].concat();
    let out = run(&flags);
    assert!(out.stdout.is_empty(), "{flags:?}");
    let line = refused(&flags);
    let files = line
        .strip_prefix("nextscale: ")
        .and_then(|l| l.split_once(": "));
    let named = files.is_some_and(|(files, _)| files.split(" or ").any(|f| Path::new(f) == file));
    assert!(named, "{line}");
    assert!(line.contains("are no numbers"), "{line}");
    line
}

fn left(dir: &Path, name: &str) -> Vec<String> {
    let all = fs::read_dir(dir).unwrap();
    let names = all.map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|n| n.contains(name)).collect()
}

#[test]
fn a_tokenizer_that_overflows_is_refused_by_everything() {
    let r = trained();
    let bad = r.dir.join("bad.safetensors");
    let tokenizer = format!("--tokenizer={}", bad.display());
    let model = format!("--model={}", r.checkpoint.display());
    let out = |name: &str| format!("--out={}", r.dir.join(name).display());
    // The first makes a variance beyond float32, which a norm would make zeros of; the second features beyond float32.
    for (tensor, factor) in [
        ("encoder.conv_in.weight", 1e34),
        ("quant_conv.weight", 1e37),
    ] {
        enlarged(&r.tokenizer, &bad, tensor, factor);
        let line = told(
            &["tokenize", &tokenizer, &r.data, &out("k.safetensors")],
            &bad,
        );
        assert!(line.contains("features to be coded"), "{tensor}: {line}");
        told(&["reconstruct", &tokenizer, &r.data, &out("k.png")], &bad);
        told(&["reconstruct", &tokenizer, &r.image, &out("k.png")], &bad);
        assert_eq!(left(&r.dir, "k."), [""; 0], "{tensor}");
        let eval = run(&["eval", &model, &tokenizer, &r.data, "--device=cpu"]);
        assert_eq!(eval.status.code(), Some(2), "{tensor}");
        // Training ends at once as a run that has diverged.
        let trained = run(&texts(&train(&r, &bad, &r.dir.join("n"))));
        let text = String::from_utf8_lossy(&trained.stderr).into_owned();
        assert_eq!(trained.status.code(), Some(1), "{tensor}: {text}");
        assert!(text.contains("loss"), "{tensor}: {text}");
    }
    enlarged(&r.tokenizer, &bad, "decoder.conv_in.weight", 1e34);
    let line = told(&["reconstruct", &tokenizer, &r.data, &out("k.png")], &bad);
    assert!(line.contains("values of the network's images"), "{line}");
    // Its tokens are what they were.
    let [good, same] = [&r.tokenizer, &bad].map(|t| {
        let file = r.dir.join("tokens.safetensors");
        succeed(&[
            "tokenize",
            "--device=cpu",
            &format!("--tokenizer={}", t.display()),
            &format!("--out={}", file.display()),
            &r.data,
            "--force",
        ]);
        read_safetensors(&file).unwrap().0.get("tokens").cloned()
    });
    assert!(good.is_some() && good == same);
}

#[test]
fn a_transformer_that_overflows_is_refused_by_everything() {
    let r = trained();
    let bad = r.dir.join("bad.safetensors");
    let model = format!("--model={}", bad.display());
    let out = format!("--out={}", r.dir.join("k.png").display());
    let edit = ["edit", "--box=0,0,0.5,0.5", "--image", &r.image];
    for (tensor, factor) in [
        ("var_wo_ddp.blocks.0.ffn.fc1.weight", 1e38),
        // Queries and keys whose lengths are beyond float32.
        ("var_wo_ddp.blocks.0.attn.mat_qkv.weight", 1e34),
        ("vae_local.decoder.conv_in.weight", 1e34),
    ] {
        enlarged(&r.checkpoint, &bad, tensor, factor);
        let what = match tensor.starts_with("vae") {
            true => "values of the network's images",
            false => "tokens' logits",
        };
        for flags in [&["sample"][..], &["sample", "--more_smooth"], &edit] {
            let line = told(&[flags, &[&model, &out]].concat(), &bad);
            assert!(line.contains(what), "{tensor}: {line}");
        }
        assert_eq!(left(&r.dir, "k."), [""; 0], "{tensor}");
        if !tensor.starts_with("vae") {
            let line = told(&["eval", &model, &r.data], &bad);
            assert!(line.contains("scales' losses"), "{line}");
        }
    }
}

/// The averages of how often codes were used are figures: nothing that is computed depends on them.
#[test]
fn hit_averages_that_are_no_numbers_change_nothing() {
    let r = trained();
    let bad = r.dir.join("tokenizer-hits.safetensors");
    let (mut dict, metadata): (StateDict, _) = read_safetensors(&r.tokenizer).unwrap();
    let hits = dict.get_mut("quantize.ema_vocab_hit_SV").unwrap();
    hits.data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    write_safetensors(&bad, &dict, &metadata).unwrap();
    let picture = |tokenizer: &Path| {
        let out = r.dir.join("k.png");
        succeed(&[
            "reconstruct",
            "--device=cpu",
            "--force",
            &format!("--tokenizer={}", tokenizer.display()),
            &format!("--out={}", out.display()),
            &r.data,
        ]);
        fs::read(out).unwrap()
    };
    assert!(picture(&bad) == picture(&r.tokenizer));
    let text = succeed(&["info", &bad.display().to_string()]);
    assert!(text.contains("ema_vocab_hit_SV"), "{text}");
    let out = r.dir.join("hits");
    succeed(&texts(&train(&r, &bad, &out)));
    let kept = read_safetensors(out.join("ar-ckpt-last.safetensors"));
    let kept = kept.unwrap().0;
    let hits = kept.get("vae_local.quantize.ema_vocab_hit_SV").unwrap();
    assert!(hits.to_f32_vec().iter().all(|x| x.is_finite()));
}

/// A checkpoint of the reference says its epoch and the iteration in it; what began again at zero would repeat the run.
#[test]
fn a_foreign_checkpoint_of_an_absurd_epoch_is_refused() {
    let r = trained();
    let mut state = TrainerState::load_safetensors(&r.checkpoint).unwrap();
    state.extra.clear();
    // With three iterations an epoch the run would go on at the second, or at the very first.
    for (epoch, iter) in [(u64::MAX / 3 + 1, 0), (u64::MAX / 3, 1)] {
        (state.epoch, state.iter, state.g_it) = (epoch, iter, None);
        let out = r.dir.join("foreign");
        fs::create_dir_all(&out).unwrap();
        let file = out.join("ar-ckpt-last.pth");
        state.to_reference_pth(&file).unwrap();
        let line = refused(&texts(&train(&r, &r.tokenizer, &out)));
        assert!(line.contains("ar-ckpt-last.pth"), "{line}");
        assert!(line.contains("are beyond any run"), "{line}");
        fs::remove_dir_all(&out).unwrap();
    }
}
