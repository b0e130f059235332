//! The repository's own bundles pass; changed numbers, missing parts and damaged files are found.

use super::*;
use nextscale::format::safetensors::{read_safetensors, write_safetensors};
use nextscale::format::{HostTensor, StateDict};
use std::fs;

fn fixtures() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures"))
}

/// Checks all bundles at `path`: counts and the lines that do not pass.
fn check(path: &Path) -> Result<(Counts, Vec<String>)> {
    let (mut total, mut odd) = (Counts::default(), Vec::new());
    for bundle in Bundle::find(path)? {
        let mut see = |line: &Line| {
            if line.verdict != Verdict::Pass {
                odd.push(format!("{} {line}", bundle.kind.name()));
            }
        };
        let c = bundle.check(Machine::CPU, &mut see)?;
        total.passed += c.passed;
        total.failed += c.failed;
        total.unchecked += c.unchecked;
    }
    Ok((total, odd))
}

/// A folder with copies of some bundles.
fn copy(kinds: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for kind in kinds {
        copy_folder(&fixtures().join(kind), &dir.path().join(kind));
    }
    dir
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::write(target, fs::read(path).unwrap()).unwrap();
        }
    }
}

/// Changes one tensor of a file.
fn change(path: &Path, name: &str, change: impl FnOnce(&mut HostTensor)) {
    let (mut tensors, meta) = read_safetensors(path).unwrap();
    change(tensors.get_mut(name).unwrap());
    write_safetensors(path, &tensors, &meta).unwrap();
}

/// Multiplies the largest element of a float32 tensor.
fn scale(t: &mut HostTensor, factor: f32) {
    let mut values = t.to_f32_vec();
    let largest = values.iter_mut().max_by(|a, b| a.abs().total_cmp(&b.abs()));
    *largest.unwrap() *= factor;
    *t = HostTensor::from_f32(&t.shape, &values).unwrap();
}

const KINDS: [&str; 10] = [
    "amp",
    "checkpoint",
    "interpolate",
    "sampling",
    "schedules",
    "score",
    "transforms",
    "vae",
    "var",
    "vqvae_train",
];

#[test]
fn every_bundle_of_the_repository_passes() {
    let found = Bundle::find(fixtures()).unwrap();
    for set in [fixtures(), fixtures().join("other")] {
        let here = found.iter().filter(|b| b.path.parent() == Some(&set));
        let kinds: Vec<&str> = here.map(|b| b.kind.name()).collect();
        // There is one network of scores, and one record of it.
        let once = set == fixtures();
        let known = KINDS.iter().filter(|kind| once || **kind != "score");
        assert_eq!(kinds, known.copied().collect::<Vec<_>>());
    }
    assert_eq!(found.len(), 2 * KINDS.len() - 1);
    for kind in KINDS {
        let (counts, odd) = check(&fixtures().join(kind)).unwrap();
        // The losses before a checkpoint was saved began from weights that are not recorded.
        assert!(
            counts.passed > 2 && odd.len() == usize::from(kind == "checkpoint"),
            "{odd:#?}"
        );
        assert_eq!(counts.failed, 0, "{odd:#?}");
    }
}

/// The same kinds with other sizes, depths, options, file names.
#[test]
fn nothing_about_the_first_bundles_is_taken_for_granted() {
    let (counts, odd) = check(&fixtures().join("other")).unwrap();
    assert_eq!((counts.failed, counts.unchecked), (0, 1), "{odd:#?}");
    assert!(counts.passed > 700, "{counts}");
    // Folders and files may have other names, gzip or not, and lack what is optional.
    let dir = tempfile::tempdir().unwrap();
    for (kind, name) in [
        ("vae", "vae"),
        ("var", "var"),
        ("sampling", "x"),
        ("vqvae_train", "y"),
    ] {
        copy_folder(&fixtures().join("other").join(kind), &dir.path().join(name));
    }
    let at = |name: &str| dir.path().join(name);
    for (from, to) in [
        ("vae/case6.safetensors", "vae/first.safetensors"),
        (
            "x/greedy_cfg2.25.safetensors",
            "x/greedy_cfg2.25_again.safetensors",
        ),
        ("y/train_forward.safetensors", "y/pass.safetensors"),
    ] {
        fs::rename(at(from), at(to)).unwrap();
    }
    for name in [
        "vae/noise_floor.json",
        "vae/vae_weights.pth.gz",
        "x/info.json",
        "y/grad_stats.json",
    ] {
        fs::remove_file(at(name)).unwrap();
    }
    let packed = fs::read(at("vae/vae_weights.safetensors.gz")).unwrap();
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut plain).unwrap();
    fs::write(at("vae/vae_weights.safetensors"), plain).unwrap();
    fs::remove_file(at("vae/vae_weights.safetensors.gz")).unwrap();
    let (counts, odd) = check(dir.path()).unwrap();
    let failed: Vec<&String> = odd.iter().filter(|l| l.contains("FAIL")).collect();
    // Without the list of them, gradients that are zero but for rounding can't be told from others.
    assert!(
        failed
            .iter()
            .all(|l| l.contains("grad.") && l.contains(".bias")),
        "{failed:#?}"
    );
    assert!(
        counts.passed > 480 && failed.len() <= 6,
        "{counts} {failed:#?}"
    );
}

#[test]
fn a_changed_number_fails_where_it_stands() {
    let dir = copy(&[
        "vae",
        "var",
        "sampling",
        "vqvae_train",
        "checkpoint",
        "interpolate",
    ]);
    let at = |name: &str| dir.path().join(name);
    change(&at("vae/case64.safetensors"), "enc.mid.block_1", |t| {
        scale(t, 1.001)
    });
    change(&at("vae/case256.safetensors"), "idx.9", |t| {
        let mut v = t.to_i64_vec().unwrap();
        v[100] = (v[100] + 1) % 128;
        *t = HostTensor::from_i64(&t.shape, &v).unwrap();
    });
    change(
        &at("var/nol2_grads.safetensors"),
        "blocks.1.ffn.fc1.bias",
        |t| scale(t, 1.01),
    );
    change(&at("var/l2_run20.safetensors"), "losses", |t| {
        scale(t, 1.0005)
    });
    change(
        &at("sampling/greedy_cfg4.0.safetensors"),
        "guided_logits.2",
        |t| scale(t, 1.001),
    );
    change(
        &at("vqvae_train/train_forward.safetensors"),
        "dist.ema_after.26",
        |t| scale(t, 1.01),
    );
    change(
        &at("checkpoint/checks.safetensors"),
        "exp_avg.head.bias",
        |t| scale(t, 1.0000002),
    );
    change(
        &at("interpolate/interp_512.safetensors"),
        "bicubic_9_to_32",
        |t| scale(t, 1.0001),
    );
    let (counts, odd) = check(dir.path()).unwrap();
    let failed: Vec<&String> = odd.iter().filter(|l| l.contains("FAIL")).collect();
    let expected = [
        "checkpoint FAIL  exp_avg.head.bias",
        "interpolate FAIL  interp_512/bicubic_9_to_32",
        "sampling FAIL  greedy_cfg4.0/guided_logits.2",
        "vae FAIL  case256/idx.9",
        "vae FAIL  case64/enc.mid.block_1",
        "var FAIL  l2/run20.losses",
        "var FAIL  nol2/grad.blocks.1.ffn.fc1.bias",
        "vqvae_train FAIL  train_forward/dist.ema_after.26",
    ];
    for lead in expected {
        assert!(
            failed.iter().any(|l| l.starts_with(lead)),
            "{lead} in {failed:#?}"
        );
    }
    // A wrong code spoils what is decoded from it as well.
    let follow = |l: &&&String| l.starts_with("vae FAIL  case256/");
    assert_eq!(
        counts.failed,
        expected.len() - 1 + failed.iter().filter(follow).count(),
        "{failed:#?}"
    );
}

#[test]
fn changed_texts_and_pixels_fail() {
    let dir = copy(&["amp", "schedules", "transforms"]);
    let edit = |name: &str, from: &str, to: &str| {
        let path = dir.path().join(name);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{name}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
    };
    edit("amp/scaler_trace.json", "\"last\": 9503", "\"last\": 9504");
    edit("schedules/lr_wd.csv", "0.000204", "0.000205");
    edit(
        "schedules/progressive_stage.csv",
        "0.8,1,10,100,",
        "0.8,1,10,100,1",
    );
    edit(
        "transforms/meta.json",
        "\"crop_left\": 22",
        "\"crop_left\": 21",
    );
    change(
        &dir.path().join("transforms/transforms.safetensors"),
        "synth_wide_png.R64",
        |t| t.data[5] ^= 8,
    );
    let (counts, odd) = check(dir.path()).unwrap();
    assert_eq!((counts.failed, counts.unchecked), (5, 0), "{odd:#?}");
}

#[test]
fn missing_parts_are_said_or_refused() {
    // Without floors and neighbours the READMEs' tolerances hold, and what needs a neighbour is not compared.
    let dir = copy(&["var"]);
    fs::remove_file(dir.path().join("var/noise_floor.json")).unwrap();
    fs::remove_file(dir.path().join("var/saln_weights.pth.gz")).unwrap();
    let (counts, odd) = check(dir.path()).unwrap();
    assert_eq!(counts.failed, 0, "{odd:#?}");
    assert!(
        counts.unchecked > 0 && odd.iter().all(|l| l.contains("../vae")),
        "{odd:#?}"
    );

    let refused = |path: &Path, why: &str| {
        let e = check(path).unwrap_err();
        assert!(e.exit_code() == 2 && e.to_string().contains(why), "{e}");
        assert!(!e.to_string().contains('\n'), "{e}");
    };
    for rest in ["", "sche,wpe,wd_end,it,lr,wd\n"] {
        let dir = copy(&["schedules"]);
        fs::write(dir.path().join("schedules/lr_wd.csv"), rest).unwrap();
        refused(dir.path(), "has no rows");
    }
    let dir = copy(&["sampling", "vqvae_train"]);
    refused(&dir.path().join("sampling"), "../vae");
    refused(&dir.path().join("vqvae_train"), "../vae");
    refused(&dir.path().join("none"), "no such folder");
    refused(&dir.path().join("sampling/info.json"), "is a file");
    fs::create_dir(dir.path().join("empty")).unwrap();
    refused(&dir.path().join("empty"), "no recorded numbers");
}

#[test]
fn damaged_files_are_refused_in_one_line() {
    let dir = copy(&["vae", "checkpoint"]);
    let refused = |name: &str, keep: usize| {
        let path = dir.path().join(name);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..keep.min(whole.len())]).unwrap();
        let e = check(path.parent().unwrap()).unwrap_err();
        assert!(e.exit_code() == 2 && !e.to_string().contains('\n'), "{e}");
        let file = path.file_name().unwrap().to_str().unwrap();
        assert!(e.to_string().contains(file), "{e} does not name {file}");
        fs::write(&path, whole).unwrap();
    };
    refused("vae/vae_weights.safetensors.gz", 5000);
    refused("vae/vae_weights.pth.gz", 400_000);
    refused("vae/case256.safetensors", 900_000);
    refused("vae/config.json", 100);
    refused("checkpoint/ar-ckpt-last.pth.gz", 1_000_000);
    // A tensor of the wrong shape.
    let path = dir.path().join("vae/case64.safetensors");
    change(&path, "image", |t| t.shape = vec![2, 64, 64, 3]);
    let e = check(&dir.path().join("vae")).unwrap_err();
    assert_eq!(e.exit_code(), 2, "{e}");
}

#[test]
fn unknown_quantities_are_shown() {
    let dir = copy(&["interpolate"]);
    let path = dir.path().join("interpolate/interp_64.safetensors");
    let (mut tensors, meta): (StateDict, _) = read_safetensors(&path).unwrap();
    tensors.insert(
        "median_4_to_2",
        HostTensor::zeros_f32(&[1, 2, 2, 2]).unwrap(),
    );
    write_safetensors(&path, &tensors, &meta).unwrap();
    let (counts, odd) = check(dir.path()).unwrap();
    assert_eq!((counts.failed, counts.unchecked), (0, 1), "{odd:#?}");
    assert!(odd[0].contains("median_4_to_2"));
}

/// Replaces a float32 tensor of a file by a part of it under another name.
fn thin(path: &Path, name: &str, new: &str, shape: &[usize], step: usize) {
    let (tensors, meta) = read_safetensors(path).unwrap();
    let mut out = StateDict::new();
    for (n, t) in tensors.iter() {
        if n != name {
            out.insert(n, t.clone());
            continue;
        }
        let kept = part::of(&t.to_f32_vec(), &t.shape, shape, step).unwrap();
        out.insert(new, HostTensor::from_f32(shape, &kept).unwrap());
    }
    write_safetensors(path, &out, &meta).unwrap();
}

/// Every n-th row and column, spread numbers, and statistics without the numbers themselves are compared, and are not waved through.
#[test]
fn parts_of_quantities_and_statistics_alone_are_compared() {
    let dir = copy(&["vae", "var", "sampling", "vqvae_train"]);
    let at = |name: &str| dir.path().join(name);
    let (whole, _) = check(dir.path()).unwrap();
    let thinned: [(&str, &str, &str, &[usize], usize); 10] = [
        (
            "vae/case64.safetensors",
            "recon",
            "recon_sub4",
            &[2, 3, 16, 16],
            4,
        ),
        (
            "vae/case64.safetensors",
            "idx_to_img.3",
            "idx_to_img.3_sub2",
            &[1, 3, 32, 32],
            2,
        ),
        (
            "vae/case64.safetensors",
            "idx_to_img_growing.2",
            "idx_to_img_growing.2_sub8",
            &[1, 3, 6, 6],
            8,
        ),
        (
            "vae/case64.safetensors",
            "enc.mid.block_1",
            "enc.mid.block_1",
            &[500],
            1,
        ),
        (
            "var/l2_forward.safetensors",
            "logits",
            "logits_sub7",
            &[2, 5, 19],
            7,
        ),
        (
            "var/l2_forward.safetensors",
            "x_embed",
            "x_embed",
            &[100],
            1,
        ),
        (
            "var/l2_extras.safetensors",
            "prog2.logits",
            "prog2.logits_sub2",
            &[2, 7, 64],
            2,
        ),
        (
            "var/l2_drop_masks.safetensors",
            "logits",
            "logits_sub3",
            &[4, 10, 43],
            3,
        ),
        (
            "sampling/greedy_cfg4.0.safetensors",
            "guided_logits.0",
            "guided_logits.0_sub2",
            &[2, 1, 64],
            2,
        ),
        (
            "vqvae_train/train_forward.safetensors",
            "rec",
            "rec_sub4",
            &[2, 3, 16, 16],
            4,
        ),
    ];
    for (file, name, new, shape, step) in thinned {
        thin(&at(file), name, new, shape, step);
    }
    let (counts, odd) = check(dir.path()).unwrap();
    assert!(odd.is_empty(), "{odd:#?}");
    assert_eq!(counts, whole);
    for name in [
        "var/nol2_grads.safetensors",
        "var/l2_params_after.safetensors",
    ] {
        fs::remove_file(at(name)).unwrap();
    }
    let (counts, odd) = check(&at("var")).unwrap();
    assert!(odd.is_empty() && counts.passed > 200, "{counts} {odd:#?}");
    // Each of them fails where it is changed.
    change(&at("vae/case64.safetensors"), "idx_to_img.3_sub2", |t| {
        scale(t, 1.01)
    });
    change(&at("var/l2_forward.safetensors"), "logits_sub7", |t| {
        scale(t, 1.001)
    });
    change(&at("var/l2_drop_masks.safetensors"), "logits_sub3", |t| {
        scale(t, 1.01)
    });
    change(
        &at("vqvae_train/train_forward.safetensors"),
        "rec_sub4",
        |t| scale(t, 1.001),
    );
    let edit = |name: &str, entry: &str, step: Option<&str>, key: &str| {
        let mut json: Json = serde_json::from_slice(&fs::read(at(name)).unwrap()).unwrap();
        let of = match step {
            Some(step) => &mut json[step],
            None => &mut json,
        };
        let value = of[entry][key].as_f64().unwrap();
        of[entry][key] = (1.01 * value).into();
        of["no.such.parameter"] = of[entry].clone();
        fs::write(at(name), json.to_string()).unwrap();
    };
    edit("var/nol2_grad_stats.json", "head.weight", None, "l2");
    edit(
        "var/l2_params_after_stats.json",
        "head.weight",
        Some("step5"),
        "l2",
    );
    let (_, odd) = check(dir.path()).unwrap();
    for line in [
        "vae FAIL  case64/idx_to_img.3_sub2",
        "var FAIL  l2/logits_sub7",
        "var FAIL  l2/drop_masks.logits_sub3",
        "vqvae_train FAIL  train_forward/rec_sub4",
        "var FAIL  nol2/grad_stats",
        "var FAIL  l2/l2_params_after_stats.json step5",
        "var --    nol2/grad_stats.no.such.parameter",
    ] {
        assert!(
            odd.iter().any(|l| l.starts_with(line)),
            "{line} in {odd:#?}"
        );
    }
}

/// Losses and gradient norms of the reference with label smoothing 0.1, from the weights and batches of the recorded run.
#[test]
fn a_run_with_label_smoothing_is_compared() {
    let losses = [
        6.9294386f32,
        6.0578337,
        5.98205,
        5.545519,
        4.407443,
        4.333277,
    ];
    let norms = [
        9.771197f32,
        7.4519362,
        6.6893253,
        5.9416094,
        5.4799495,
        4.2181897,
    ];
    let dir = copy(&["vae", "var"]);
    let at = |name: &str| dir.path().join("var").join(name);
    fs::rename(at("l2_run20.safetensors"), at("l2_smooth.safetensors")).unwrap();
    fs::remove_file(at("l2_run20.json")).unwrap();
    for (name, values) in [("losses", losses), ("grad_norms", norms)] {
        change(&at("l2_smooth.safetensors"), name, |t| {
            *t = HostTensor::from_f32(&[6], &values).unwrap();
        });
    }
    // Found by the first loss, or stated.
    for stated in [None, Some(0.1)] {
        if let Some(ls) = stated {
            fs::write(at("l2_smooth.json"), format!("{{\"label_smooth\": {ls}}}")).unwrap();
        }
        let mut lines = Vec::new();
        let bundle = &Bundle::find(dir.path().join("var")).unwrap()[0];
        let counts = bundle
            .check(Machine::CPU, &mut |l| lines.push(l.to_string()))
            .unwrap();
        assert_eq!((counts.failed, counts.unchecked), (0, 0), "{lines:#?}");
        for name in ["l2/smooth.losses", "l2/smooth.grad_norms"] {
            let start = format!("pass  {name} ");
            assert!(
                lines.iter().any(|l| l.starts_with(&start)),
                "{name} in {lines:#?}"
            );
        }
    }
    // With another smoothing than stated it is another run.
    fs::write(
        at("l2_smooth.json"),
        "{\"label_smooth\": 0.2, \"weather\": 3}",
    )
    .unwrap();
    let (_, odd) = check(&dir.path().join("var")).unwrap();
    assert!(
        odd.iter()
            .any(|l| l.starts_with("var FAIL  l2/smooth.losses")),
        "{odd:#?}"
    );
    assert!(
        odd.iter()
            .any(|l| l.starts_with("var --    l2/smooth.json weather")),
        "{odd:#?}"
    );
}

#[test]
fn late_losses_keep_within_the_bundles_own_floor() {
    let dir = copy(&["vae", "var"]);
    let at = |name: &str| dir.path().join("var").join(name);
    // The 20th loss is off by 1e-3, ten times the usual limit.
    let off = |by: f32, i: usize| {
        change(&at("l2_run20.safetensors"), "losses", |t| {
            let mut v = t.to_f32_vec();
            v[i] += by;
            *t = HostTensor::from_f32(&t.shape, &v).unwrap();
        });
    };
    off(1e-3, 19);
    let failed = || {
        let (_, odd) = check(&dir.path().join("var")).unwrap();
        odd.iter()
            .filter(|l| l.starts_with("var FAIL  l2/run20.losses"))
            .count()
    };
    assert_eq!(failed(), 1);
    let mut json: Json =
        serde_json::from_slice(&fs::read(at("noise_floor.json")).unwrap()).unwrap();
    json["run20"]["f32_vs_f64"]["losses"]["max_abs"] = 5e-4.into();
    fs::write(at("noise_floor.json"), json.to_string()).unwrap();
    assert_eq!(failed(), 0, "four times the floor");
    off(1.5e-3, 19);
    assert_eq!(failed(), 1, "five times the floor");
    off(-2.5e-3, 19);
    off(1.5e-3, 0);
    assert_eq!(failed(), 1, "early losses are held to the usual limit");
}

#[test]
fn what_is_left_out_is_named() {
    let dir = copy(&["var", "vae"]);
    fs::write(dir.path().join("vae/more.json"), "{\"a\": 1}").unwrap();
    let extra = |path: &str, name: &str| {
        let path = dir.path().join(path);
        let (mut tensors, meta): (StateDict, _) = read_safetensors(&path).unwrap();
        tensors.insert(name, HostTensor::zeros_f32(&[2]).unwrap());
        write_safetensors(&path, &tensors, &meta).unwrap();
    };
    extra("var/l2_run20.safetensors", "temperature");
    extra("var/l2_extras.safetensors", "lonely");
    extra("var/l2_drop_masks.safetensors", "wind");
    let (counts, odd) = check(dir.path()).unwrap();
    assert_eq!(counts.failed, 0, "{odd:#?}");
    assert_eq!(odd.len(), 4, "{odd:#?}");
    for name in [
        "more.json",
        "l2_run20/temperature",
        "l2_extras/lonely",
        "drop_masks.wind",
    ] {
        assert!(odd.iter().any(|l| l.contains(name)), "{name} in {odd:#?}");
    }
}
