//! Weights in the wrappings that people save them in.

use std::path::Path;

use super::convert::{ConvertPart, convert};
use super::inspect::{FileKind, describe};
use super::trainer_state::TrainerState;
use super::weights::{Loaded, ModelKind, load_part, load_weights};
use crate::format::fixtures::unpacked;
use crate::format::host::HostTensor;
use crate::format::pth::{PthBuilder, PthFile};
use crate::format::safetensors::{TextMetadata, read_safetensors, write_safetensors};
use crate::format::state_dict::StateDict;
use torch_pth::{Dict, Value};

fn fixture(name: &str) -> StateDict {
    let (_dir, path) = unpacked(name);
    read_safetensors(path).unwrap().0
}

/// A dict with other names.
fn renamed(dict: &StateDict, name: impl Fn(&str) -> String) -> StateDict {
    dict.clone()
        .into_iter()
        .map(|(n, t)| (name(&n), t))
        .collect()
}

/// A name as `torch.compile` of every block gives it.
fn blocks_compiled(name: &str) -> String {
    match name.strip_prefix("blocks.").and_then(|n| n.split_once('.')) {
        Some((i, inner)) => format!("blocks.{i}._orig_mod.{inner}"),
        None => name.to_owned(),
    }
}

fn assert_loads(path: &Path, part: ModelKind, want: &StateDict) {
    let found = load_part(path, part, None).unwrap();
    assert_eq!(found.tensors.len(), want.len());
    for (name, tensor) in want.iter() {
        assert!(found.tensors.get(name) == Some(tensor), "{name}");
    }
}

#[test]
fn prefixes_come_off_in_both_formats() {
    let dir = tempfile::tempdir().unwrap();
    let var = fixture("var/l2_weights.safetensors");
    type Wrap = fn(&str) -> String;
    let names: [(&str, Wrap); 5] = [
        ("ddp", |n| format!("module.{n}")),
        ("compiled", |n| format!("_orig_mod.{n}")),
        ("both", |n| format!("module._orig_mod.{n}")),
        ("other way round", |n| format!("_orig_mod.module.{n}")),
        ("blocks", blocks_compiled),
    ];
    for (what, name) in names {
        let wrapped = renamed(&var, name);
        let path = dir.path().join("w.safetensors");
        write_safetensors(&path, &wrapped, &TextMetadata::new()).unwrap();
        assert_loads(&path, ModelKind::Var, &var);
        assert_eq!(
            describe(&path).unwrap().kind,
            FileKind::VarWeights,
            "{what}"
        );
        let pth = dir.path().join("w.pth");
        let mut b = PthBuilder::new();
        let value = b.state_dict(&wrapped);
        b.write(&pth, &value).unwrap();
        assert_loads(&pth, ModelKind::Var, &var);
        let d = describe(&pth).unwrap();
        assert_eq!((d.kind, d.parts.len()), (FileKind::VarWeights, 1), "{what}");
        // As whole files, too: what is converted has the plain names.
        let out = dir.path().join("out.safetensors");
        convert(&pth, &out, ConvertPart::All, None).unwrap();
        assert_loads(&out, ModelKind::Var, &var);
    }
    let half: StateDict = var
        .clone()
        .into_iter()
        .enumerate()
        .map(|(i, (n, t))| (if i % 2 == 0 { format!("module.{n}") } else { n }, t))
        .collect();
    let path = dir.path().join("half.safetensors");
    write_safetensors(&path, &half, &TextMetadata::new()).unwrap();
    assert_loads(&path, ModelKind::Var, &var);
}

#[test]
fn weights_are_found_in_dicts_of_any_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.pth");
    let var = fixture("var/l2_weights.safetensors");
    let ddp = renamed(&var, |n| format!("module.{n}"));
    for key in [
        "state_dict",
        "model_state_dict",
        "model",
        "ema",
        "net",
        "a.b",
    ] {
        for (weights, nested) in [(&var, false), (&ddp, true)] {
            let mut b = PthBuilder::new();
            let inner = b.state_dict(weights);
            let mut top = Dict::from_pairs([(key, inner), ("epoch", Value::Int(3))]);
            if nested {
                top = Dict::from_pairs([("checkpoint", Value::Dict(top))]);
            }
            b.write(&path, &Value::Dict(top)).unwrap();
            assert_loads(&path, ModelKind::Var, &var);
            let Loaded::Weights(w) = load_weights(&path).unwrap() else {
                panic!("weights expected");
            };
            assert_eq!((w.part, w.others), (Some(ModelKind::Var), 0));
            let d = describe(&path).unwrap();
            let root = if nested {
                format!("checkpoint.{key}")
            } else {
                key.into()
            };
            assert_eq!((d.kind, d.roots), (FileKind::VarWeights, vec![root]));
        }
    }
}

#[test]
fn averaged_weights_are_taken_before_the_trained_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.pth");
    let ema = fixture("var/l2_weights.safetensors");
    let mut model = ema.clone();
    let zeros = HostTensor::zeros_f32(&model.get("pos_1LC").unwrap().shape).unwrap();
    model.insert("pos_1LC", zeros);
    // As torch.optim.swa_utils keeps them.
    let mut averaged = renamed(&ema, |n| format!("module.{n}"));
    averaged.insert("n_averaged", HostTensor::from_i64(&[], &[7]).unwrap());
    let mut b = PthBuilder::new();
    let pairs = [
        ("model", b.state_dict(&model)),
        ("ema", b.state_dict(&averaged)),
    ];
    b.write(&path, &Value::Dict(Dict::from_pairs(pairs)))
        .unwrap();
    assert_loads(&path, ModelKind::Var, &ema);
    let mut b = PthBuilder::new();
    let pairs = [
        ("first", b.state_dict(&model)),
        ("second", b.state_dict(&ema)),
    ];
    b.write(&path, &Value::Dict(Dict::from_pairs(pairs)))
        .unwrap();
    let text = load_part(&path, ModelKind::Var, None)
        .unwrap_err()
        .to_string();
    assert!(text.contains("\"first\" and \"second\""), "{text}");
}

#[test]
fn a_trainer_without_its_optimizer_holds_both_models() {
    let dir = tempfile::tempdir().unwrap();
    let var = fixture("var/l2_weights.safetensors");
    let vae = fixture("vae/vae_weights.safetensors");
    let path = dir.path().join("w.pth");
    let wrapped = renamed(&var, |n| format!("module._orig_mod.{n}"));
    let mut b = PthBuilder::new();
    let trainer = [
        ("vae_local", b.state_dict(&vae)),
        ("var_wo_ddp", b.state_dict(&wrapped)),
    ];
    let top = [("trainer", Value::Dict(Dict::from_pairs(trainer)))];
    b.write(&path, &Value::Dict(Dict::from_pairs(top))).unwrap();
    let flat = dir.path().join("w.safetensors");
    let mut both = renamed(&var, |n| format!("var_wo_ddp.{n}"));
    both.extend(renamed(&vae, |n| format!("vae_local.{n}")));
    write_safetensors(&flat, &both, &TextMetadata::new()).unwrap();
    for path in [&path, &flat] {
        assert_loads(path, ModelKind::Var, &var);
        assert_loads(path, ModelKind::Vae, &vae);
        let shape = load_part(path, ModelKind::Var, None)
            .unwrap()
            .var_shape(path)
            .unwrap();
        assert_eq!(shape.patch_nums, Some(vec![1, 2, 3, 4]));
        let d = describe(path).unwrap();
        assert!(d.kind == FileKind::BothWeights && d.var.is_some() && d.vae.is_some());
        let text = load_weights(path).unwrap_err().to_string();
        assert!(text.contains("`part`=var or `part`=vae"), "{text}");
        let out = dir.path().join("out.safetensors");
        convert(path, &out, ConvertPart::Vae, None).unwrap();
        assert_loads(&out, ModelKind::Vae, &vae);
    }
    let text = TrainerState::from_reference_pth(&path)
        .unwrap_err()
        .to_string();
    assert!(text.contains("lacks trainer.var_opt"), "{text}");
}

/// An object with its tensors in the order of a walk, which [`rebuilt`] puts back.
fn tensors_of(file: &mut PthFile, value: &Value, out: &mut Vec<HostTensor>) {
    match value {
        Value::Tensor(t) => out.push(file.tensor(t).unwrap()),
        Value::Dict(d) => d.items.iter().for_each(|(_, v)| tensors_of(file, v, out)),
        _ => {}
    }
}

fn rebuilt<'t>(
    b: &mut PthBuilder<'t>,
    value: &Value,
    tensors: &mut std::slice::Iter<'t, HostTensor>,
    name: &str,
) -> Value {
    match value {
        Value::Tensor(_) => b.tensor(tensors.next().unwrap()),
        Value::Dict(d) => {
            let items = d.items.iter().map(|(k, v)| {
                let key = match k {
                    Value::Str(k) if name == "var_wo_ddp" || name == "vae_local" => {
                        Value::str(format!("module._orig_mod.{k}"))
                    }
                    k => k.clone(),
                };
                let name = match k {
                    Value::Str(k) => k.to_string(),
                    _ => String::new(),
                };
                (key, rebuilt(b, v, tensors, &name))
            });
            Value::Dict(Dict {
                items: items.collect(),
                ordered: d.ordered,
                ..Dict::default()
            })
        }
        other => other.clone(),
    }
}

#[test]
fn a_trainer_with_wrapped_models_resumes() {
    let (dir, path) = unpacked("checkpoint/ar-ckpt-last.pth");
    let plain = TrainerState::from_reference_pth(&path).unwrap();
    let (mut file, value) = PthFile::open(&path).unwrap();
    let mut tensors = Vec::new();
    tensors_of(&mut file, &value, &mut tensors);
    let wrapped = dir.path().join("wrapped.pth");
    let mut b = PthBuilder::new();
    let value = rebuilt(&mut b, &value, &mut tensors.iter(), "");
    b.write(&wrapped, &value).unwrap();
    let state = TrainerState::from_reference_pth(&wrapped).unwrap();
    assert!(state == plain);
    assert_loads(&wrapped, ModelKind::Var, &plain.var);
    assert_loads(&wrapped, ModelKind::Vae, &plain.vae);
    assert_eq!(describe(&wrapped).unwrap().kind, FileKind::Trainer);
}

#[test]
fn values_that_are_no_numbers_are_counted_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut var = fixture("var/l2_weights.safetensors");
    let sound = dir.path().join("sound.safetensors");
    write_safetensors(&sound, &var, &TextMetadata::new()).unwrap();
    // Its mask holds −∞, as it should.
    assert!(var.contains("attn_bias_for_masking"));
    assert!(describe(&sound).unwrap().non_finite.is_empty());
    let bias = var.get_mut("head.bias").unwrap();
    bias.data[..8].copy_from_slice(&[f32::NAN.to_le_bytes(), f32::INFINITY.to_le_bytes()].concat());
    let all = bias.numel() as u64;
    let bad = dir.path().join("bad.safetensors");
    write_safetensors(&bad, &var, &TextMetadata::new()).unwrap();
    let pth = dir.path().join("bad.pth");
    let report = convert(&bad, &pth, ConvertPart::All, None).unwrap();
    assert!(
        report
            .notes
            .iter()
            .any(|n| n.contains("2 of the") && n.contains("head.bias")),
        "{:?}",
        report.notes
    );
    for path in [&bad, &pth] {
        let d = describe(path).unwrap();
        assert_eq!(d.non_finite.tensors, [("head.bias".to_owned(), 2, all)]);
        let text = d.to_string();
        assert!(text.contains("NOT FINITE 2 of the"), "{text}");
    }
}
