//! A training checkpoint: its layout, its content, what our own writer makes of it, and what resuming from it gives.

use super::compare::{Limit, difference, sampled};
use super::folder::Folder;
use super::machine::HALF_LOSSES;
use super::models::{Tokenizer, same_tensors, transformer};
use super::recorded::Recorded;
use super::report::Report;
use super::var::Batches;
use nextscale::checkpoint::TrainerState;
use nextscale::format::StateDict;
use nextscale::model::Pyramid;
use nextscale::model::state::load_buffer;
use nextscale::model::var::Var;
use nextscale::model::var::state_dict::param_groups;
use nextscale::train::progressive::Stage;
use nextscale::train::var_trainer::{TransformerStep, VarTrainer};
use nextscale::{Error, Result};
use serde_json::{Map, Value as Json, json};
use torch_pth::{Dict, PthFile, TensorRef, Value};

/// How near each loss after resuming must be.
const LOSSES: f64 = 1e-5;

/// Checks every training checkpoint of the folder.
pub(super) fn check(folder: &Folder, report: &mut Report<'_>) -> Result<()> {
    let layout = json_of(folder, |j| j.get("var_keys").is_some())?;
    let mut checks = None;
    for stem in folder.stems(".safetensors") {
        let name = format!("{stem}.safetensors");
        if super::kind_of_tensors(&folder.tensor_names(&name)?) == Some(super::Kind::Checkpoint) {
            checks = Some(folder.tensors(&name)?);
        }
    }
    let mut seen = false;
    for stem in folder.stems(".pth") {
        let name = format!("{stem}.pth");
        let (value, state) = folder.with_file(&name, |path| {
            let state = TrainerState::from_reference_pth(path)?;
            Ok((PthFile::open(path)?.1, state))
        })?;
        seen = true;
        check_layout("", &value, &layout, report);
        check_written(folder, &state, &layout, report)?;
        let source = folder.file(&name).display().to_string();
        let var = transformer(
            folder.machine,
            &state.var,
            &source,
            &json!({"patch_nums": state.config.patch_nums}),
            true,
        )?;
        check_order(&layout, &var, report);
        if let Some(step) = layout["step_value"].as_f64() {
            report.same("step_value", &(state.adam_step as f64), &step);
        }
        if let Some(checks) = &checks {
            check_values(checks, &state, report)?;
            resume(folder, checks, (state, var, &source), report)?;
        }
    }
    if seen {
        Ok(())
    } else {
        Err(Error::input(format!(
            "{}: holds no training checkpoint (a .pth or .pth.gz file)",
            folder.path().display()
        )))
    }
}

/// The first JSON file that fits, or null.
fn json_of(folder: &Folder, fits: impl Fn(&Json) -> bool) -> Result<Json> {
    for stem in folder.stems(".json") {
        let json = folder.json(&format!("{stem}.json"))?;
        if fits(&json) {
            return Ok(json);
        }
    }
    Ok(Json::Null)
}

/// Compares keys, types and values of a checkpoint's objects with `layout.json`.
fn check_layout(label: &str, value: &Value, layout: &Json, report: &mut Report<'_>) {
    let none = Dict::default();
    let dict = |v: Option<&'_ Value>| match v {
        Some(Value::Dict(d)) => d.clone(),
        _ => none.clone(),
    };
    let top = dict(Some(value));
    let trainer = dict(top.get("trainer"));
    let config = dict(trainer.get("config"));
    let optimizer = dict(dict(trainer.get("var_opt")).get("optimizer"));
    let first = dict(dict(optimizer.get("state")).items.first().map(|i| &i.1));
    let types: Map<String, Json> = config
        .items
        .iter()
        .map(|(k, v)| (text(k), json!(v.type_name())))
        .collect();
    for (key, got) in [
        ("top", keys(&top)),
        ("trainer", keys(&trainer)),
        ("config", plain(&Value::Dict(config.clone()))),
        ("config_types", Json::Object(types)),
        ("var_keys", keys(&dict(trainer.get("var_wo_ddp")))),
        (
            "vae_key_count",
            json!(dict(trainer.get("vae_local")).items.len()),
        ),
        ("optimizer_keys", keys(&optimizer)),
        ("state_entry_types", plain(&Value::Dict(first))),
        (
            "param_groups",
            optimizer.get("param_groups").map_or(Json::Null, plain),
        ),
        ("args", top.get("args").map_or(Json::Null, plain)),
    ] {
        if let Some(want) = layout.get(key) {
            let note = first_difference(&got, want).unwrap_or_default();
            report.fact(format!("{label}{key}"), note.is_empty(), note);
        }
    }
}

/// A dict's key as text.
fn text(key: &Value) -> String {
    match key {
        Value::Str(s) => s.to_string(),
        Value::Int(i) => i.to_string(),
        other => format!("{other:?}"),
    }
}

fn keys(dict: &Dict) -> Json {
    dict.items.iter().map(|(k, _)| text(k)).collect()
}

/// An object as JSON; a tensor as the text of its shape and type.
fn plain(value: &Value) -> Json {
    match value {
        Value::None => Json::Null,
        Value::Bool(b) => json!(b),
        Value::Int(i) => json!(i),
        Value::Float(f) => json!(f),
        Value::Str(s) => json!(&**s),
        Value::Bytes(b) => json!(b.to_vec()),
        Value::List(l) | Value::Tuple(l) | Value::Set(l) => l.iter().map(plain).collect(),
        Value::Dict(d) => Json::Object(d.items.iter().map(|(k, v)| (text(k), plain(v))).collect()),
        Value::Tensor(t) => json!(tensor_text(t)),
        Value::DType(d) => json!(format!("torch.{}", d.torch_name())),
    }
}

/// A tensor's shape and type as Python prints them: `Tensor(1, 64)torch.float32`.
fn tensor_text(t: &TensorRef) -> String {
    let sizes: Vec<String> = t.shape().iter().map(usize::to_string).collect();
    let comma = if sizes.len() == 1 { "," } else { "" };
    format!(
        "Tensor({}{comma})torch.{}",
        sizes.join(", "),
        t.dtype().torch_name()
    )
}

/// Where two JSON values differ first, in words.
fn first_difference(got: &Json, want: &Json) -> Option<String> {
    match (got, want) {
        (Json::Object(g), Json::Object(w)) => {
            let names = g.keys().filter(|k| !w.contains_key(*k));
            if let Some(extra) = names.into_iter().next() {
                return Some(format!("{extra} is not recorded"));
            }
            w.iter().find_map(|(k, w)| match g.get(k) {
                None => Some(format!("{k} is missing")),
                Some(g) => first_difference(g, w).map(|d| format!("{k}: {d}")),
            })
        }
        (Json::Array(g), Json::Array(w)) if g.len() == w.len() => g
            .iter()
            .zip(w)
            .enumerate()
            .find_map(|(i, (g, w))| first_difference(g, w).map(|d| format!("entry {i}: {d}"))),
        (Json::Array(g), Json::Array(w)) => {
            Some(format!("{} entries, recorded are {}", g.len(), w.len()))
        }
        _ if got == want => None,
        _ => Some(format!("{got}, recorded is {want}")),
    }
}

/// Writes the state in both formats and compares what is read back, and the layout of the reference's format.
fn check_written(
    folder: &Folder,
    state: &TrainerState,
    layout: &Json,
    report: &mut Report<'_>,
) -> Result<()> {
    let dir = tempfile::tempdir().map_err(|e| {
        Error::failed(format!(
            "no temporary folder for {}: {e}",
            folder.path().display()
        ))
    })?;
    let pth = dir.path().join("written.pth");
    state.to_reference_pth(&pth)?;
    let (_, value) = PthFile::open(&pth)?;
    check_layout("written ", &value, layout, report);
    let back = TrainerState::from_reference_pth(&pth)?;
    report.fact("written .pth reads back", back == *state, "");
    let native = dir.path().join("written.safetensors");
    state.save_safetensors(&native)?;
    let back = TrainerState::load_safetensors(&native)?;
    report.fact("written .safetensors reads back", back == *state, "");
    Ok(())
}

/// Compares the numbering of the optimizer's states with ours.
fn check_order(layout: &Json, var: &Var, report: &mut Report<'_>) {
    let Some(want) = layout["index_to_name"].as_array() else {
        return;
    };
    let infos = var.params.infos();
    let groups = param_groups(
        infos
            .iter()
            .map(|i| (i.name.as_str(), i.shape.dims().len())),
    );
    let got: Vec<Json> = groups
        .iter()
        .flat_map(|g| &g.names)
        .map(|name| json!(name))
        .collect();
    report.same("index_to_name", &got, want);
}

/// Compares sampled parameters and moments, which must be the stored ones.
fn check_values(checks: &Recorded, state: &TrainerState, report: &mut Report<'_>) -> Result<()> {
    let parts: [(&str, &StateDict); 3] = [
        ("param", &state.var),
        ("exp_avg", &state.exp_avg),
        ("exp_avg_sq", &state.exp_avg_sq),
    ];
    for name in checks.names() {
        let part = parts
            .iter()
            .find_map(|(lead, dict)| Some((name.strip_prefix(lead)?.strip_prefix('.')?, dict)));
        match part {
            Some((param, dict)) => match dict.get(param) {
                Some(t) => {
                    let want = checks.f32(name)?;
                    report.numbers(
                        name,
                        &sampled(&t.to_f32_vec(), want.len()),
                        &want,
                        Limit::EXACT,
                    );
                }
                None => report.fact(name, false, "the checkpoint lacks it"),
            },
            None if name == "losses_before_save" => {
                report.unchecked(name, "the weights that they began from are not recorded");
            }
            None if name == "losses_after_resume" => {}
            None => report.unchecked(name, "no known quantity"),
        }
    }
    Ok(())
}

/// Goes on training and compares the losses.
fn resume(
    folder: &Folder,
    checks: &Recorded,
    (state, var, source): (TrainerState, Var, &str),
    report: &mut Report<'_>,
) -> Result<()> {
    let name = "losses_after_resume";
    if !checks.has(name) {
        return Ok(());
    }
    let want = checks.f64(name)?;
    let Some(batches) = batches(folder, &var)? else {
        report.unchecked(name, "it needs the images of a run in ../var");
        return Ok(());
    };
    // A checkpoint states none of its tokenizer's options; the tokenizer is that of ../vae.
    let options = match folder.sibling("vae") {
        Some(f) if f.has("config.json") => f.json("config.json")?["vae"].clone(),
        _ => Json::Null,
    };
    let pyramid = Pyramid::square(&state.config.patch_nums)?;
    let tokenizer = Tokenizer::of_dict(
        folder.machine,
        state.vae.clone(),
        source.to_owned(),
        &options,
    )?;
    let vqvae = tokenizer.build(&pyramid, false)?;
    if let Some(f) = folder.sibling("vae")
        && let Ok(beside) = Tokenizer::open(&f)
    {
        same_tensors(
            "vae_local = ../vae".into(),
            &state.vae,
            &beside.dict,
            report,
        );
    }
    let mut tokens = Vec::new();
    for i in 0..batches.count() {
        let images = batches.images_of(i)?.to(folder.machine.device)?;
        tokens.push(vqvae.tokenize(&images, &pyramid)?);
    }
    let mut trainer = VarTrainer::new(vqvae, var, state.config.label_smooth as f32, 0)?;
    load_buffer(
        &mut trainer.opt.exp_avg,
        &trainer.var.params,
        &state.exp_avg,
    )?;
    load_buffer(
        &mut trainer.opt.exp_avg_sq,
        &trainer.var.params,
        &state.exp_avg_sq,
    )?;
    let scaler = trainer.opt.scaler()?;
    trainer.opt.resume(state.adam_step, scaler)?;
    let clip = state
        .args
        .get("tclip")
        .and_then(Json::as_f64)
        .unwrap_or(2.0);
    let mut losses = Vec::new();
    for it in (state.adam_step..).take(want.len()) {
        let i = (it % batches.count() as u64) as usize;
        let plan = TransformerStep {
            it,
            lr: state.adam.lr,
            wd: state.adam.weight_decay,
            clip: (clip > 0.0).then_some(clip),
            accumulate: 1,
            update: true,
            stage: Stage::ALL,
        };
        losses.push(
            trainer
                .step_tokens(&tokens[i], &batches.labels[i], &plan)?
                .read()?
                .loss,
        );
    }
    let d = difference(&losses, &want);
    let machine = report.machine();
    let limit = if machine.is_half() {
        HALF_LOSSES
    } else {
        machine.slack() * LOSSES
    };
    report.judged(
        name,
        d.max_rel <= limit,
        d,
        format!("limit {limit:e} of each, largest {:.1e}", d.max_rel),
    );
    Ok(())
}

/// The images of the first run in `../var` that this transformer can train on.
fn batches(folder: &Folder, var: &Var) -> Result<Option<Batches>> {
    let Some(beside) = folder.sibling("var") else {
        return Ok(None);
    };
    for stem in beside.stems(".safetensors") {
        let name = format!("{stem}.safetensors");
        let names = beside.tensor_names(&name)?;
        let has = |n: &str| names.iter().any(|x| x == n);
        if has("images_u8") && has("losses") && has("labels") {
            return Batches::read(&beside.tensors(&name)?, var.config.classes).map(Some);
        }
    }
    Ok(None)
}
