//! The repository's own bundles pass; changed numbers, missing parts and damaged files are found.

use super::*;
use crate::checkpoint::safetensors::{read_safetensors, write_safetensors};
use crate::checkpoint::{HostTensor, StateDict};
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

const KINDS: [&str; 9] = [
    "amp",
    "checkpoint",
    "interpolate",
    "sampling",
    "schedules",
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
        assert_eq!(kinds, KINDS);
    }
    assert_eq!(found.len(), 2 * KINDS.len());
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
