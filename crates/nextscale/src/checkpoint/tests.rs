//! Whole files: loading, describing and converting the fixtures.

use std::fs;
use std::path::{Path, PathBuf};

use super::convert::{ConvertPart, convert};
use super::inspect::{FileKind, describe};
use super::trainer_state::TrainerState;
use super::weights::{Loaded, ModelKind, PATCH_NUMS_KEY, load_part, load_weights};
use crate::format::fixtures::unpacked;
use crate::format::host::HostTensor;
use crate::format::pth::PthBuilder;
use crate::format::safetensors::{TextMetadata, write_safetensors};
use crate::format::state_dict::StateDict;
use crate::model::var::state_dict::VarShape;
use crate::model::vqvae::state_dict::{PhiKind, VaeShape};
use torch_pth::{Dict, Value};

const CKPT: &str = "checkpoint/ar-ckpt-last.pth";

fn weights(path: &Path) -> StateDict {
    match load_weights(path).unwrap() {
        Loaded::Weights(w) => w.tensors,
        Loaded::Trainer(_) => panic!("a training checkpoint"),
    }
}

fn vae_shape() -> VaeShape {
    VaeShape {
        ch: 32,
        ch_mult: vec![1, 1, 2, 2, 4],
        num_res_blocks: 2,
        cvae: 32,
        vocab_size: 128,
        phi: PhiKind::Partial(4),
        quant_conv_ks: 3,
        num_scales: Some(4),
    }
}

fn var_shape(depth: usize, shared_aln: bool, anorm: bool) -> VarShape {
    VarShape {
        depth,
        width: 64 * depth,
        heads: depth,
        ffn_width: 256 * depth,
        num_classes: 10,
        shared_aln,
        anorm,
        vocab_size: 128,
        cvae: 32,
        seq_len: 30,
        first_len: 1,
        num_scales: 4,
        patch_nums: Some(vec![1, 2, 3, 4]),
    }
}

#[test]
fn descriptions_of_the_fixtures() {
    for (name, shape, parameters) in [
        ("var/l2_weights.pth", var_shape(2, false, true), 653_060),
        (
            "var/l2_weights.safetensors",
            var_shape(2, false, true),
            653_060,
        ),
        (
            "var/nol2_weights.safetensors",
            var_shape(2, false, false),
            653_056,
        ),
        ("var/saln_weights.pth", var_shape(2, true, true), 555_524),
    ] {
        let (_dir, path) = unpacked(name);
        let d = describe(&path).unwrap();
        assert_eq!(
            (d.kind, &d.var, d.vae.as_ref()),
            (FileKind::VarWeights, &Some(shape.clone()), None),
            "{name}"
        );
        assert_eq!(d.parts[0].parameters, parameters, "{name}");
        let w = load_part(&path, ModelKind::Var, None).unwrap();
        assert_eq!(w.var_shape(&path).unwrap(), shape);
        assert_eq!(w.tensors.num_bytes() as u64, d.parts[0].bytes);
    }
    for name in ["vae/vae_weights.pth", "vae/vae_weights.safetensors"] {
        let (_dir, path) = unpacked(name);
        let d = describe(&path).unwrap();
        assert_eq!(
            (d.kind, d.vae, d.var),
            (FileKind::VaeWeights, Some(vae_shape()), None)
        );
        assert_eq!(
            (d.parts[0].parameters, d.parts[0].tensors),
            (4_485_891, 324)
        );
        assert_eq!(
            load_part(&path, ModelKind::Vae, None)
                .unwrap()
                .vae_shape(&path)
                .unwrap(),
            vae_shape()
        );
    }
}

#[test]
fn a_training_checkpoint_is_described_alike_in_both_formats() {
    let (dir, pth) = unpacked(CKPT);
    let st = dir.path().join("c.safetensors");
    assert!(convert(&pth, &st, ConvertPart::All, None).unwrap().trainer);
    let (a, b) = (describe(&pth).unwrap(), describe(&st).unwrap());
    for d in [&a, &b] {
        assert_eq!(
            (d.kind, &d.vae, &d.var),
            (
                FileKind::Trainer,
                &Some(vae_shape()),
                &Some(var_shape(1, false, true))
            )
        );
        let p = d.progress.as_ref().unwrap();
        assert_eq!((p.epoch, p.iter, p.adam_step), (2, 0, 3));
    }
    assert_eq!(a.parts, b.parts);
    let text = a.to_string();
    assert!(
        text.contains("patch numbers 1_2_3_4") && text.contains("epoch 2"),
        "{text}"
    );
}

#[test]
fn every_conversion_and_back_is_exact() {
    for name in ["vae/vae_weights", "var/l2_weights", "var/saln_weights"] {
        let (dir, pth) = unpacked(&format!("{name}.pth"));
        let (a, b) = (dir.path().join("a.safetensors"), dir.path().join("b.pth"));
        let report = convert(&pth, &a, ConvertPart::All, None).unwrap();
        assert!(!report.trainer && report.notes.is_empty(), "{report:?}");
        convert(&a, &b, ConvertPart::All, None).unwrap();
        let original = weights(&pth);
        for back in [weights(&a), weights(&b)] {
            assert!(
                back == original && back.module_versions == original.module_versions,
                "{name}"
            );
        }
    }
    let (dir, pth) = unpacked(CKPT);
    let (a, b, c) = (
        dir.path().join("a.safetensors"),
        dir.path().join("b.pth"),
        dir.path().join("c.safetensors"),
    );
    convert(&pth, &a, ConvertPart::All, None).unwrap();
    convert(&a, &b, ConvertPart::All, None).unwrap();
    convert(&b, &c, ConvertPart::All, None).unwrap();
    assert_eq!(
        TrainerState::from_reference_pth(&b).unwrap(),
        TrainerState::from_reference_pth(&pth).unwrap()
    );
    assert_eq!(fs::read(&a).unwrap(), fs::read(&c).unwrap());
}

#[test]
fn parts_come_out_of_a_training_checkpoint() {
    let (dir, pth) = unpacked(CKPT);
    let at = |n: &str| -> PathBuf { dir.path().join(n) };
    let state = TrainerState::from_reference_pth(&pth).unwrap();
    let ours = at("ours.safetensors");
    state.save_safetensors(&ours).unwrap();
    for input in [&pth, &ours] {
        for output in [at("part.pth"), at("part.safetensors")] {
            convert(input, &output, ConvertPart::Var, None).unwrap();
            assert!(weights(&output) == state.var);
            assert_eq!(
                load_part(&output, ModelKind::Var, None).unwrap().patch_nums,
                Some(vec![1, 2, 3, 4])
            );
            convert(input, &output, ConvertPart::Vae, None).unwrap();
            assert!(weights(&output) == state.vae);
        }
        let w = load_part(input, ModelKind::Vae, None).unwrap();
        assert!(w.from_trainer && w.tensors == state.vae);
    }
}

#[test]
fn a_transformer_without_buffers_gets_them_where_they_can_be_told() {
    let (dir, path) = unpacked("var/l2_weights.pth");
    let original = weights(&path);
    let bare: StateDict = original
        .clone()
        .into_iter()
        .filter(|(n, _)| !crate::model::var::state_dict::is_buffer(n))
        .collect();
    let (a, b) = (dir.path().join("a.safetensors"), dir.path().join("b.pth"));
    let meta: TextMetadata = [
        (PATCH_NUMS_KEY.into(), "1_2_3_4".into()),
        ("note".into(), "x".into()),
    ]
    .into();
    write_safetensors(&a, &bare, &meta).unwrap();
    let report = convert(&a, &b, ConvertPart::All, None).unwrap();
    assert!(weights(&b) == original);
    assert!(
        report.notes[0].contains("4 buffers") && report.notes[1].contains("note"),
        "{report:?}"
    );

    write_safetensors(&a, &bare, &TextMetadata::new()).unwrap();
    let report = convert(&a, &b, ConvertPart::All, None).unwrap();
    assert!(report.notes[0].contains("strict=False"), "{report:?}");
    assert_eq!(describe(&b).unwrap().var.unwrap().patch_nums, None);

    let wrong: TextMetadata = [(PATCH_NUMS_KEY.into(), "1_2".into())].into();
    write_safetensors(&a, &bare, &wrong).unwrap();
    assert!(
        convert(&a, &b, ConvertPart::All, None)
            .unwrap_err()
            .to_string()
            .contains("30")
    );
    assert!(
        load_part(&a, ModelKind::Var, None)
            .unwrap()
            .var_shape(&a)
            .unwrap_err()
            .to_string()
            .contains("30 tokens")
    );
}

#[test]
fn wrong_files_get_one_clear_line() {
    let (dir, vae) = unpacked("vae/vae_weights.safetensors");
    let out = dir.path().join("o.pth");
    let one_line = |err: crate::Error| {
        let text = err.to_string();
        assert!(err.exit_code() == 2 && !text.contains('\n'), "{text}");
        text
    };
    assert!(
        one_line(load_part(&vae, ModelKind::Var, None).unwrap_err())
            .contains("holds the weights of a VQVAE")
    );
    assert!(
        one_line(convert(&vae, dir.path().join("o.bin"), ConvertPart::All, None).unwrap_err())
            .contains("o.bin")
    );
    assert!(
        one_line(convert(&vae, &vae, ConvertPart::All, None).unwrap_err())
            .contains("both input and output")
    );
    assert!(
        one_line(convert(dir.path(), &out, ConvertPart::All, None).unwrap_err()).contains("folder")
    );
    assert!(
        one_line(convert(dir.path().join("no.pth"), &out, ConvertPart::All, None).unwrap_err())
            .contains("no such file")
    );

    let foreign = dir.path().join("f.pth");
    let t = HostTensor::from_f32(&[2], &[1.0, 2.0]).unwrap();
    let mut b = PthBuilder::new();
    let value = Value::Dict(Dict::from_pairs([("conv1.weight", b.tensor(&t))]));
    b.write(&foreign, &value).unwrap();
    let d = describe(&foreign).unwrap();
    assert_eq!(
        (d.kind, d.names, d.parts[0].parameters),
        (FileKind::Foreign, vec!["conv1.weight".to_owned()], 2)
    );
    assert!(
        one_line(load_part(&foreign, ModelKind::Var, None).unwrap_err()).contains("conv1.weight")
    );
    let wrapped = Value::Dict(Dict::from_pairs([
        ("state_dict", value),
        ("epoch", Value::Int(3)),
    ]));
    b.write(&foreign, &wrapped).unwrap();
    assert!(one_line(load_weights(&foreign).unwrap_err()).contains("state_dict, epoch"));
    assert_eq!(describe(&foreign).unwrap().names, ["state_dict", "epoch"]);

    // A transformer whose tensors contradict each other.
    let (_dir, path) = unpacked("var/l2_weights.pth");
    let mut var = weights(&path);
    var.insert("head.weight", HostTensor::zeros_f32(&[128, 64]).unwrap());
    let bad = dir.path().join("bad.safetensors");
    write_safetensors(&bad, &var, &TextMetadata::new()).unwrap();
    let text = one_line(describe(&bad).unwrap_err());
    assert!(
        text.contains("head.weight") && text.contains("[128, 64]"),
        "{text}"
    );
}

#[test]
fn truncated_files_are_named() {
    for name in [CKPT, "var/l2_weights.safetensors"] {
        let (_dir, path) = unpacked(name);
        let whole = fs::read(&path).unwrap();
        for part in [1, 3, 9] {
            fs::write(&path, &whole[..whole.len() * part / 10]).unwrap();
            let err = load_weights(&path).unwrap_err();
            assert!(
                err.to_string().contains("truncated") && err.exit_code() == 2,
                "{err}"
            );
            assert!(describe(&path).is_err());
        }
    }
}

#[test]
fn kinds_of_phi_are_told_apart() {
    let (_dir, path) = unpacked("vae/vae_weights.pth");
    let all = weights(&path);
    let with = |rename: fn(&str) -> Option<String>| {
        let d: StateDict = all
            .clone()
            .into_iter()
            .filter_map(|(n, t)| Some((rename(&n)?, t)))
            .collect();
        VaeShape::infer(&(&d).into()).unwrap().phi
    };
    assert_eq!(with(|n| Some(n.into())), PhiKind::Partial(4));
    assert_eq!(
        with(|n| Some(n.replace("qresi_ls.", ""))),
        PhiKind::PerScale(4)
    );
    assert_eq!(
        with(|n| Some(n.replace("qresi_ls.0", "qresi"))),
        PhiKind::Shared
    );
    assert_eq!(
        with(|n| (!n.contains("qresi_ls")).then(|| n.into())),
        PhiKind::None
    );
}
