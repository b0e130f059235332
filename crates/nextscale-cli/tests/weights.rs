//! Weights as people save and spoil them: prefixes of wrappers, values that are no numbers, checkpoints of the reference.

mod common;

use common::{few_images, pixels, refused, succeed, tiny_tokenizer};
use nextscale::checkpoint::TrainerState;
use nextscale::format::StateDict;
use nextscale::format::safetensors::{TextMetadata, read_safetensors, write_safetensors};
use std::fs;
use std::path::{Path, PathBuf};

struct Run {
    _dir: tempfile::TempDir,
    dir: PathBuf,
    data: String,
    tokenizer: PathBuf,
    checkpoint: PathBuf,
}

fn run() -> Run {
    let tmp = tempfile::tempdir().unwrap();
    let dir = tmp.path().to_path_buf();
    let run = Run {
        data: format!("--data_path={}", few_images(&dir).display()),
        tokenizer: tiny_tokenizer(&dir),
        checkpoint: dir.join("run/ar-ckpt-last.safetensors"),
        _dir: tmp,
        dir,
    };
    let out = format!("--out={}", run.dir.join("run").display());
    succeed(&texts(&train(&run, &["--ep=1", "--seed=5", &out])));
    run
}

fn train(r: &Run, more: &[&str]) -> Vec<String> {
    [
        "train",
        "--device=cpu",
        "--pn=1_2",
        "--depth=1",
        "--bs=5",
        "--mid_reso=1",
        "--quiet",
    ]
    .iter()
    .chain(more)
    .map(|s| (*s).to_owned())
    .chain([
        r.data.clone(),
        format!("--tokenizer={}", r.tokenizer.display()),
    ])
    .collect()
}

fn texts(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

/// Safetensors with one value of a tensor changed.
fn spoilt(from: &Path, to: &Path, tensor: &str, value: f32) {
    let (mut dict, metadata) = read_safetensors(from).unwrap();
    dict.get_mut(tensor).unwrap().data[..4].copy_from_slice(&value.to_le_bytes());
    write_safetensors(to, &dict, &metadata).unwrap();
}

#[test]
fn wrapped_weights_draw_the_same_pictures() {
    let r = run();
    let weights = r.dir.join("w.safetensors");
    let path = |p: &Path| p.display().to_string();
    succeed(&[
        "convert",
        &path(&r.checkpoint),
        &path(&weights),
        "--part=var",
    ]);
    let (plain, metadata) = read_safetensors(&weights).unwrap();
    let draw = |model: &Path| -> Vec<u8> {
        let out = r.dir.join("x.png");
        succeed(&[
            "sample",
            "--device=cpu",
            "--force",
            &format!("--model={}", model.display()),
            &format!("--tokenizer={}", r.tokenizer.display()),
            &format!("--out={}", out.display()),
        ]);
        pixels(out)
    };
    let want = draw(&weights);
    for prefix in [
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "state_dict.model.",
    ] {
        let wrapped: StateDict = plain
            .clone()
            .into_iter()
            .map(|(n, t)| (format!("{prefix}{n}"), t))
            .collect();
        let file = r.dir.join("p.safetensors");
        write_safetensors(&file, &wrapped, &metadata).unwrap();
        assert!(draw(&file) == want, "{prefix}");
    }
}

#[test]
fn weights_that_are_no_numbers_are_refused_by_name() {
    let r = run();
    let path = |p: &Path| p.display().to_string();
    let bad = r.dir.join("bad.safetensors");
    let fc1 = "var_wo_ddp.blocks.0.ffn.fc1.weight";
    let image = few_images(&r.dir).join("val/class0/0.bmp");
    let model = format!("--model={}", bad.display());
    let out = format!("--out={}", r.dir.join("x.png").display());
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        spoilt(&r.checkpoint, &bad, fc1, value);
        let flags: [Vec<&str>; 3] = [
            vec!["sample", &model, &out],
            vec!["eval", &model, &r.data],
            vec![
                "edit",
                &model,
                &out,
                "--image",
                image.to_str().unwrap(),
                "--box=0,0,0.5,0.5",
            ],
        ];
        for mut flags in flags {
            flags.push("--device=cpu");
            let text = refused(&flags);
            assert!(
                text.contains("1 of the 16384 values of tensor \"blocks.0.ffn.fc1.weight\""),
                "{text}"
            );
        }
        let text = succeed(&["info", &path(&bad)]);
        assert!(text.contains("NOT FINITE 1 of the 16384 values"), "{text}");
    }
    let to = r.dir.join("converted.pth");
    let text = succeed(&["convert", &path(&bad), &path(&to), "--part=var"]);
    assert!(text.contains("note: 1 of the 16384 values"), "{text}");
    assert!(succeed(&["info", &path(&r.checkpoint)]).contains("all are finite numbers"));

    // A run does not go on from such weights, nor from such averages of gradients.
    let run_out = format!("--out={}", r.dir.join("run").display());
    let good = fs::read(&r.checkpoint).unwrap();
    for tensor in [fc1, "var_opt.exp_avg.blocks.0.ffn.fc1.weight"] {
        spoilt(&r.checkpoint, &bad, tensor, f32::NAN);
        fs::copy(&bad, &r.checkpoint).unwrap();
        let text = refused(&texts(&train(&r, &["--ep=2", &run_out])));
        assert!(text.contains("1 of the 16384 values"), "{text}");
        fs::write(&r.checkpoint, &good).unwrap();
    }

    // The tokenizer's likewise, whoever asks for it.
    let bias = "decoder.conv_out.bias";
    let tokenizer = r.dir.join("bad-tokenizer.safetensors");
    spoilt(&r.tokenizer, &tokenizer, bias, f32::NAN);
    let flag = format!("--tokenizer={}", tokenizer.display());
    let token_file = format!("--out={}", r.dir.join("k.safetensors").display());
    let fresh = format!("--out={}", r.dir.join("fresh").display());
    for flags in [
        vec!["reconstruct", &flag, &out, image.to_str().unwrap()],
        vec!["tokenize", &flag, &token_file, &r.data],
        vec![
            "train",
            &flag,
            &fresh,
            &r.data,
            "--pn=1_2",
            "--depth=1",
            "--bs=5",
            "--ep=1",
        ],
    ] {
        let flags = [&flags[..], &["--device=cpu"]].concat();
        let text = refused(&flags);
        assert!(
            text.contains("1 of the 3 values of tensor \"decoder.conv_out.bias\""),
            "{text}"
        );
    }
    assert!(!r.dir.join("fresh").exists() && !r.dir.join("k.safetensors").exists());
}

#[test]
fn a_picture_without_numbers_does_not_end_a_run() {
    let r = run();
    // A decoder that overflows; the encoder, which makes what is learnt, is sound.
    let (mut dict, metadata) = read_safetensors(&r.tokenizer).unwrap();
    for (name, values) in [
        ("decoder.norm_out.bias", &[3e38f32][..]),
        ("decoder.conv_out.weight", &[3e38, -3e38]),
    ] {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        dict.get_mut(name).unwrap().data[..bytes.len()].copy_from_slice(&bytes);
    }
    write_safetensors(&r.tokenizer, &dict, &metadata).unwrap();
    let out = r.dir.join("loud");
    let flag = format!("--out={}", out.display());
    let more = ["--ep=2", "--eval_every=1", "--seed=5", &flag];
    let ended = common::run(&texts(&train(&r, &more)));
    let text = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
    for line in text.lines() {
        assert!(
            line.starts_with("warning: ")
                && line.contains(" values of the network's images are no numbers")
                && line.ends_with("the run goes on without this picture"),
            "{line}"
        );
    }
    assert!(out.join("ar-ckpt-best.safetensors").exists());
}

#[test]
fn half_precision_weights_are_looked_at_too() {
    let r = run();
    let weights = r.dir.join("w.safetensors");
    let path = |p: &Path| p.display().to_string();
    succeed(&[
        "convert",
        &path(&r.checkpoint),
        &path(&weights),
        "--part=var",
    ]);
    let (plain, metadata) = read_safetensors(&weights).unwrap();
    use nextscale::format::{HostDType, HostTensor};
    let as_type =
        |dtype: HostDType, of: fn(f32) -> Vec<u8>, nan: &[u8], metadata: &TextMetadata| {
            let mut dict: StateDict = plain
                .iter()
                .map(|(n, t)| {
                    let data = t.to_f32_vec().into_iter().flat_map(of).collect();
                    let t = HostTensor::new(dtype, t.shape.clone(), data).unwrap();
                    (n.to_owned(), t)
                })
                .collect();
            dict.get_mut("head.bias").unwrap().data[..nan.len()].copy_from_slice(nan);
            let file = r.dir.join("h.safetensors");
            write_safetensors(&file, &dict, metadata).unwrap();
            file
        };
    let bf16 = |x: f32| x.to_le_bytes()[2..].to_vec();
    let f64 = |x: f32| f64::from(x).to_le_bytes().to_vec();
    let doubled = f64::NAN.to_le_bytes();
    let too_large = 1e300f64.to_le_bytes();
    type Bytes = fn(f32) -> Vec<u8>;
    let cases: [(HostDType, Bytes, &[u8]); 4] = [
        (HostDType::BF16, bf16, &[0xc0, 0x7f]),
        (HostDType::BF16, bf16, &[0x80, 0xff]),
        (HostDType::F64, f64, &doubled),
        (HostDType::F64, f64, &too_large),
    ];
    for (dtype, of, bits) in cases {
        let file = as_type(dtype, of, bits, &metadata);
        let text = refused(&[
            "sample",
            "--device=cpu",
            &format!("--model={}", file.display()),
            &format!("--tokenizer={}", r.tokenizer.display()),
            &format!("--out={}", r.dir.join("x.png").display()),
        ]);
        assert!(
            text.contains("1 of the 32 values of tensor \"head.bias\""),
            "{dtype}: {text}"
        );
    }
}

#[test]
fn a_checkpoint_of_the_reference_brings_its_seed() {
    let r = run();
    let mut state = TrainerState::load_safetensors(&r.checkpoint).unwrap();
    // As the reference writes it: nothing of ours beside it.
    state.extra.clear();
    state.g_it = None;
    state.args.insert("seed".into(), 77.into());
    let resume = |name: &str, state: &TrainerState, more: &[&str]| {
        let out = r.dir.join(name);
        fs::create_dir_all(&out).unwrap();
        state
            .to_reference_pth(out.join("ar-ckpt-last.pth"))
            .unwrap();
        let flag = format!("--out={}", out.display());
        let more = [&["--ep=2", &flag], more].concat();
        (out, train(&r, &more))
    };
    let seed = |out: &Path| {
        let state = TrainerState::load_safetensors(out.join("ar-ckpt-last.safetensors")).unwrap();
        state.args.get("seed").and_then(|s| s.as_u64())
    };
    let (out, flags) = resume("taken", &state, &[]);
    succeed(&texts(&flags));
    assert_eq!(seed(&out), Some(77));
    let (_, flags) = resume("other", &state, &["--seed=5"]);
    let text = refused(&texts(&flags));
    assert!(text.contains("started with seed 77"), "{text}");
    // One that began without a seed takes any.
    state.args.insert("seed".into(), serde_json::Value::Null);
    let (out, flags) = resume("none", &state, &["--seed=9"]);
    succeed(&texts(&flags));
    assert_eq!(seed(&out), Some(9));
}
