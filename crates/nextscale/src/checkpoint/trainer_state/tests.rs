//! The reference's training checkpoint, ours, and the way between them.

use std::fs;
use std::io::Read;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::format::fixtures::{fixture, json, unpacked};
use crate::format::host::HostTensor;
use crate::format::pth::{PthBuilder, PthFile};
use crate::format::safetensors::{
    SafetensorsFile, TextMetadata, read_safetensors, write_safetensors,
};
use crate::model::var::state_dict::is_buffer;
use torch_pth::{Dict, Value};

const CKPT: &str = "checkpoint/ar-ckpt-last.pth";

fn reference() -> TrainerState {
    let (_dir, path) = unpacked(CKPT);
    TrainerState::from_reference_pth(path).unwrap()
}

/// An object with every tensor replaced by its data, so that two files can be compared whole.
fn with_data(file: &mut PthFile, value: &Value) -> Value {
    let all =
        |file: &mut PthFile, v: &[Value]| v.iter().map(|x| with_data(file, x)).collect::<Vec<_>>();
    match value {
        Value::Tensor(t) => {
            let h = file.tensor(t).unwrap();
            let shape = h.shape.iter().map(|&n| Value::Int(n as i64)).collect();
            Value::Tuple(vec![
                Value::DType(t.dtype()),
                Value::List(shape),
                Value::Bytes(h.data.into()),
            ])
        }
        Value::List(v) => Value::List(all(file, v)),
        Value::Tuple(v) => Value::Tuple(all(file, v)),
        Value::Dict(d) => Value::Dict(Dict {
            items: d
                .items
                .iter()
                .map(|(k, v)| (k.clone(), with_data(file, v)))
                .collect(),
            attrs: d
                .attrs
                .iter()
                .map(|(k, v)| (k.clone(), with_data(file, v)))
                .collect(),
            ordered: d.ordered,
        }),
        other => other.clone(),
    }
}

fn whole(path: &Path) -> Value {
    let (mut file, value) = PthFile::open(path).unwrap();
    with_data(&mut file, &value)
}

#[test]
fn the_reference_s_checkpoint_is_read_as_its_layout_says() {
    let s = reference();
    let layout = json("checkpoint/layout.json");
    assert_eq!(
        (s.epoch, s.iter, s.g_it, s.adam_step, &s.scaler),
        (2, 0, None, 3, &None)
    );
    assert_eq!(serde_json::to_value(&s.config).unwrap(), layout["config"]);
    assert_eq!(Json::Object(s.args.clone()), layout["args"]);
    let keys = |d: &StateDict| Json::from(d.names().collect::<Vec<_>>());
    assert_eq!(keys(&s.var), layout["var_keys"]);
    assert_eq!(
        s.vae.len() as u64,
        layout["vae_key_count"].as_u64().unwrap()
    );
    assert_eq!(keys(&s.exp_avg), layout["index_to_name"]);
    assert_eq!(keys(&s.exp_avg_sq), layout["index_to_name"]);
    assert_eq!(
        (s.adam.lr, s.adam.weight_decay, s.adam.betas, s.adam.eps),
        (1e-3, 0.05, [0.9, 0.95], 1e-8)
    );
    assert_eq!(s.adam.flags["foreach"], Json::Bool(false));

    let (_dir, vae) = unpacked("vae/vae_weights.safetensors");
    let (vae, _) = read_safetensors(vae).unwrap();
    assert!(
        vae.iter().all(|(n, t)| s.vae.get(n) == Some(t)),
        "the tokenizer is the one of the vae fixtures"
    );
}

#[test]
fn values_equal_the_sampled_ones() {
    let s = reference();
    let (checks, _) = read_safetensors(fixture("checkpoint/checks.safetensors")).unwrap();
    let mut compared = 0;
    for (prefix, dict) in [
        ("param.", &s.var),
        ("exp_avg.", &s.exp_avg),
        ("exp_avg_sq.", &s.exp_avg_sq),
    ] {
        for (name, tensor) in dict.iter().filter(|(n, _)| !is_buffer(n)) {
            let all = tensor.to_f32_vec();
            let n = all.len();
            let sampled: Vec<f32> = if n <= 64 {
                all
            } else {
                (0..64).map(|k| all[k * n / 64]).collect()
            };
            assert_eq!(
                checks.get(&format!("{prefix}{name}")).unwrap().to_f32_vec(),
                sampled,
                "{prefix}{name}"
            );
            compared += 1;
        }
    }
    assert_eq!(compared, 3 * 22);
}

#[test]
fn the_reference_s_file_survives_reading_and_writing_whole() {
    let (dir, path) = unpacked(CKPT);
    let state = TrainerState::from_reference_pth(&path).unwrap();
    let again = dir.path().join("again.pth");
    state.to_reference_pth(&again).unwrap();
    // Every key, type, order, attribute and bit.
    assert_eq!(whole(&again), whole(&path));
}

#[test]
fn nothing_is_lost_over_our_own_file() {
    let (dir, path) = unpacked(CKPT);
    let mut state = TrainerState::from_reference_pth(&path).unwrap();
    let (ours, back) = (dir.path().join("a.safetensors"), dir.path().join("b.pth"));
    state.save_safetensors(&ours).unwrap();
    assert_eq!(TrainerState::load_safetensors(&ours).unwrap(), state);
    TrainerState::load_safetensors(&ours)
        .unwrap()
        .to_reference_pth(&back)
        .unwrap();
    assert_eq!(whole(&back), whole(&path));

    // What only we keep, and float16 training's scaler.
    state.g_it = Some(1234);
    state.extra.insert("seed".into(), 7.into());
    state.extra.insert(
        "best".into(),
        serde_json::json!({ "L": 0.1, "acc": [1e-300, 3.0] }),
    );
    let scaler = &json("amp/scaler_trace.json")["state_dict_at_end"];
    state.scaler = Some(ScalerState {
        scale: scaler["scale"].as_f64().unwrap(),
        growth_factor: scaler["growth_factor"].as_f64().unwrap(),
        backoff_factor: scaler["backoff_factor"].as_f64().unwrap(),
        growth_interval: scaler["growth_interval"].as_u64().unwrap(),
        growth_tracker: scaler["_growth_tracker"].as_u64().unwrap(),
    });
    state.to_reference_pth(&back).unwrap();
    let state2 = TrainerState::from_reference_pth(&back).unwrap();
    assert_eq!(state2, state);
    state2.save_safetensors(&ours).unwrap();
    let first = fs::read(&ours).unwrap();
    TrainerState::load_safetensors(&ours)
        .unwrap()
        .save_safetensors(&ours)
        .unwrap();
    assert_eq!(fs::read(&ours).unwrap(), first);
    let Value::Dict(top) = whole(&back) else {
        panic!()
    };
    let Some(Value::Dict(trainer)) = top.get("trainer") else {
        panic!()
    };
    let Some(Value::Dict(opt)) = trainer.get("var_opt") else {
        panic!()
    };
    let Some(Value::Dict(s)) = opt.get("scaler") else {
        panic!()
    };
    assert_eq!(Json::Object(super::args::to_json(s).unwrap()), *scaler);
}

#[test]
fn names_in_our_file_are_the_reference_s_behind_a_prefix() {
    let (dir, path) = (tempfile::tempdir().unwrap(), reference());
    let file = dir.path().join("a.safetensors");
    path.save_safetensors(&file).unwrap();
    let mut f = SafetensorsFile::open(&file).unwrap();
    for name in [
        "var_wo_ddp.head.weight",
        "vae_local.quant_conv.bias",
        "var_opt.exp_avg.pos_start",
        "var_opt.exp_avg_sq.pos_start",
    ] {
        f.read(name).unwrap();
    }
}

#[test]
fn a_state_without_buffers_in_another_order_becomes_the_reference_s() {
    let (dir, path) = unpacked(CKPT);
    let mut state = TrainerState::from_reference_pth(&path).unwrap();
    let versions = state.var.module_versions.take();
    let mut names: Vec<_> = std::mem::take(&mut state.var)
        .into_iter()
        .filter(|(n, _)| !is_buffer(n))
        .collect();
    names.reverse();
    state.var = names.into_iter().collect();
    state.var.module_versions = versions;
    let mut moments: Vec<_> = std::mem::take(&mut state.exp_avg).into_iter().collect();
    moments.reverse();
    state.exp_avg = moments.into_iter().collect();
    let again = dir.path().join("again.pth");
    state.to_reference_pth(&again).unwrap();
    assert_eq!(whole(&again), whole(&path));
}

#[test]
fn a_new_run_without_optimizer_state_is_saved_too() {
    let mut state = reference();
    let dir = tempfile::tempdir().unwrap();
    (state.exp_avg, state.exp_avg_sq, state.adam_step) = Default::default();
    (state.vae, state.args) = Default::default();
    let (a, b) = (dir.path().join("a.pth"), dir.path().join("b.safetensors"));
    state.to_reference_pth(&a).unwrap();
    assert_eq!(TrainerState::from_reference_pth(&a).unwrap(), state);
    state.save_safetensors(&b).unwrap();
    assert_eq!(TrainerState::load_safetensors(&b).unwrap(), state);
}

/// Changes the reference's object and reads it again.
fn changed(change: impl FnOnce(&mut Value)) -> String {
    let (dir, path) = unpacked(CKPT);
    let (mut file, mut value) = PthFile::open(&path).unwrap();
    change(&mut value);
    // Only the description matters: all tensors become zeros of their shapes.
    fn refill<'a>(
        v: &mut Value,
        zeros: &'a [HostTensor],
        next: &mut usize,
        b: &mut PthBuilder<'a>,
    ) {
        match v {
            Value::Tensor(_) => {
                *v = b.tensor(&zeros[*next]);
                *next += 1;
            }
            Value::Dict(d) => d
                .items
                .iter_mut()
                .for_each(|(_, v)| refill(v, zeros, next, b)),
            _ => {}
        }
    }
    fn collect(v: &Value, file: &mut PthFile, out: &mut Vec<HostTensor>) {
        match v {
            Value::Tensor(t) => out.push(file.tensor(t).unwrap()),
            Value::Dict(d) => d.items.iter().for_each(|(_, v)| collect(v, file, out)),
            _ => {}
        }
    }
    let mut tensors = vec![];
    collect(&value, &mut file, &mut tensors);
    let mut b = PthBuilder::new();
    refill(&mut value, &tensors, &mut 0, &mut b);
    let broken = dir.path().join("broken.pth");
    b.write(&broken, &value).unwrap();
    let err = TrainerState::from_reference_pth(&broken).unwrap_err();
    assert_eq!(err.exit_code(), 2);
    assert!(err.to_string().contains("broken.pth"), "{err}");
    err.to_string()
}

fn entry<'v>(mut v: &'v mut Value, path: &[&str]) -> &'v mut Dict {
    for key in path {
        let Value::Dict(d) = v else { panic!("{key}") };
        v = &mut d
            .items
            .iter_mut()
            .find(|(k, _)| *k == Value::str(*key))
            .unwrap()
            .1;
    }
    let Value::Dict(d) = v else { panic!() };
    d
}

#[test]
fn checkpoints_that_do_not_fit_together_are_refused() {
    assert!(
        changed(|v| entry(v, &[])
            .items
            .retain(|(k, _)| *k != Value::str("epoch")))
        .contains("lacks epoch")
    );
    let opt = ["trainer", "var_opt", "optimizer"];
    let text = changed(|v| {
        entry(v, &[opt.as_slice(), &["state"]].concat()).items[3].0 = Value::Int(99);
    });
    assert!(text.contains("99"), "{text}");
    let text = changed(|v| {
        let d = entry(v, &[opt.as_slice(), &["state"]].concat());
        let (a, b) = (d.items[0].1.clone(), d.items[1].1.clone());
        (d.items[0].1, d.items[1].1) = (b, a);
    });
    assert!(text.contains("shape"), "{text}");
    let text = changed(|v| {
        entry(v, &["trainer", "config"])
            .items
            .retain(|(k, _)| *k != Value::str("patch_nums"))
    });
    assert!(text.contains("trainer.config.patch_nums"), "{text}");
    let text =
        changed(|v| entry(v, &["trainer", "var_wo_ddp"]).items[0].0 = Value::str("other.weight"));
    assert!(text.contains("param"), "{text}");
    let text = changed(|v| {
        entry(v, &["trainer", "var_wo_ddp"])
            .items
            .push((Value::str("x"), Value::Float(1.0)))
    });
    assert!(text.contains("\"x\" is of type float"), "{text}");
}

#[test]
fn our_file_is_checked_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    let t = HostTensor::from_f32(&[1], &[1.0]).unwrap();
    let dict: StateDict = [("x".to_owned(), t)].into_iter().collect();
    let try_with = |text: Option<&str>| {
        let meta: TextMetadata = text
            .map(|t| ("nextscale.trainer".to_owned(), t.to_owned()))
            .into_iter()
            .collect();
        write_safetensors(&path, &dict, &meta).unwrap();
        let err = TrainerState::load_safetensors(&path).unwrap_err();
        assert_eq!(err.exit_code(), 2);
        err.to_string()
    };
    assert!(try_with(None).contains("only tensors"));
    assert!(try_with(Some("{")).contains("damaged"));
    assert!(try_with(Some("{\"version\": 4}")).contains("newer"));
    assert!(try_with(Some("{\"version\": 1}")).contains("damaged"));

    let mut state = reference();
    state
        .exp_avg
        .insert("stranger", HostTensor::from_f32(&[1], &[0.0]).unwrap());
    assert!(
        state
            .save_safetensors(&path)
            .unwrap_err()
            .to_string()
            .contains("stranger")
    );
    assert!(state.to_reference_pth(dir.path().join("b.pth")).is_err());
    // Gradients of half a step make it a file that older programs can't go on from, and only they do.
    let mut state = reference();
    let layout = |state: &TrainerState| {
        state.save_safetensors(&path).unwrap();
        assert_eq!(TrainerState::load_safetensors(&path).unwrap(), *state);
        let file = SafetensorsFile::open(&path).unwrap();
        let header: serde_json::Value =
            serde_json::from_str(&file.metadata()["nextscale.trainer"]).unwrap();
        header["version"].clone()
    };
    assert_eq!(layout(&state), 1);
    state.pending = state.exp_avg.clone();
    assert_eq!(layout(&state), 2);
    let mut state = reference();
    state.adam.lr = f64::NAN;
    assert!(
        state
            .save_safetensors(&path)
            .unwrap_err()
            .to_string()
            .contains("finite")
    );
}

/// The pickle of the reference's checkpoint.
fn reference_pickle() -> Vec<u8> {
    let (_dir, path) = unpacked(CKPT);
    let mut zip = zip::ZipArchive::new(fs::File::open(path).unwrap()).unwrap();
    let mut bytes = vec![];
    zip.by_name("ar-ckpt-last/data.pkl")
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

#[test]
fn damaged_checkpoints_never_panic() {
    let whole = reference_pickle();
    assert!(Parsed::new(&torch_pth::pickle::from_bytes(&whole).unwrap()).is_ok());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(400));
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4);
    runner
        .run(&changes, |changes| {
            let mut bytes = whole.clone();
            for (at, b) in changes {
                let at = at.index(bytes.len());
                bytes[at] = b;
            }
            if let Ok(value) = torch_pth::pickle::from_bytes(&bytes) {
                let _ = Parsed::new(&value);
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn parts_that_only_this_program_knows_stay_in_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut state = reference();
    state.others.insert("var_ema".into(), state.var.clone());
    let ours = dir.path().join("a.safetensors");
    state.save_safetensors(&ours).unwrap();
    assert!(TrainerState::load_safetensors(&ours).unwrap() == state);
    // A conversion keeps them, or says that it can't.
    let copy = dir.path().join("b.safetensors");
    let report =
        crate::checkpoint::convert::convert(&ours, &copy, Default::default(), None).unwrap();
    assert!(report.notes.is_empty(), "{:?}", report.notes);
    assert_eq!(fs::read(&ours).unwrap(), fs::read(&copy).unwrap());
    let theirs = dir.path().join("b.pth");
    let report =
        crate::checkpoint::convert::convert(&ours, &theirs, Default::default(), None).unwrap();
    assert_eq!(
        report.notes,
        ["left out: var_ema, for which the reference's file has no place"]
    );
}
