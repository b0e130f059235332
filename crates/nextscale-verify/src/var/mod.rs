//! The transformer: forward pass, gradients, optimizer steps, runs, guidance labels, smoothing, progressive stages,
//! stochastic depth.

mod extras;
mod pass;
mod runs;
mod same_weights;
mod steps;

use super::compare::Limit;
use super::floor::Floors;
use super::folder::Folder;
use super::grads::unscaled;
use super::machine::{Machine, host};
use super::models::{self, Tokenizer, check_formats, check_var_state, weight_stems};
use super::part;
use super::recorded::Recorded;
use super::report::Report;
use super::tokens::Maps;
use nextscale::format::StateDict;
use nextscale::model::ForwardPass;
use nextscale::model::var::Var;
use nextscale::model::vqvae::Vqvae;
use nextscale::{Error, Result};
use nextscale_tensor::Tensor;
pub(super) use pass::{Batch, Options, Pass};
use serde_json::Value as Json;
pub(super) use steps::Batches;

/// What the README suggests where no floor is recorded: logits and block outputs.
const OUTPUTS: Limit = Limit::relative(1e-5).or_absolute(5e-5);
/// The same for losses.
const LOSSES: Limit = Limit::relative(1e-5);
/// The same for gradients.
const GRADIENTS: Limit = Limit::relative(1e-4);

/// What `config.json` says of a variant: what is compared, and what is of training alone or the same in every transformer.
const OPTIONS: [&str; 18] = [
    "depth",
    "embed_dim",
    "num_heads",
    "head_dim",
    "mlp_ratio",
    "num_classes",
    "L",
    "V",
    "Cvae",
    "n_params",
    "attn_scale",
    "shared_aln",
    "attn_l2_norm",
    "patch_nums",
    "norm_eps",
    "cond_drop_rate_in_fixtures",
    "cond_drop_rate_default",
    "drop_path_rate_default",
];

/// The folder with what its parts share.
struct Context<'a> {
    folder: &'a Folder,
    floors: Floors,
    config: Json,
    /// Of `../vae`, where it is there.
    tokenizer: Option<Tokenizer>,
    hyper: steps::Hyper,
}

/// One variant's weights and options.
struct Variant<'a> {
    machine: Machine,
    name: &'a str,
    dict: &'a StateDict,
    source: &'a str,
    options: &'a Json,
}

impl Variant<'_> {
    /// A fresh transformer.
    fn build(&self, trainable: bool) -> Result<Var> {
        models::transformer(
            self.machine,
            self.dict,
            self.source,
            self.options,
            trainable,
        )
    }

    fn label(&self, what: impl std::fmt::Display) -> String {
        format!("{}/{what}", self.name)
    }
}

/// Checks every variant of the folder.
pub(super) fn check(folder: &Folder, report: &mut Report<'_>) -> Result<()> {
    check_formats(folder, report)?;
    let config = if folder.has("config.json") {
        folder.json("config.json")?
    } else {
        Json::Null
    };
    let tokenizer = match folder.sibling("vae") {
        Some(f) => Some(Tokenizer::open(&f)?.in_float32()),
        None => None,
    };
    let context = Context {
        folder,
        floors: Floors::open(folder)?,
        config,
        tokenizer,
        hyper: steps::Hyper::read(folder)?,
    };
    let stems = weight_stems(folder);
    if stems.is_empty() {
        return Err(Error::input(format!(
            "{}: holds no weights (*_weights.safetensors or .pth)",
            folder.path().display()
        )));
    }
    let names: Vec<&str> = stems
        .iter()
        .map(|s| s.strip_suffix("weights").unwrap_or(s).trim_end_matches('_'))
        .collect();
    for (stem, name) in stems.iter().zip(&names) {
        let (dict, source) = models::weights(folder, stem)?;
        let variant = Variant {
            machine: folder.machine,
            name,
            dict: &dict,
            source: &source,
            options: &context.config["variants"][*name],
        };
        describe(&context, &variant, report)?;
        for file in folder.stems(".safetensors") {
            // A variant's name may begin another's.
            let owner = names
                .iter()
                .filter(|n| part_of(file, n).is_some())
                .max_by_key(|n| n.len());
            if owner == Some(name)
                && let Some(part) = part_of(file, name)
            {
                one(&context, &variant, file, part, report)?;
            }
        }
        // Statistics stand by themselves too.
        let file = |part: &str| match *name {
            "" => part.to_owned(),
            name => format!("{name}_{part}"),
        };
        let alone =
            |stats: &str, numbers: &str| folder.has(&file(stats)) && !folder.has(&file(numbers));
        if alone("grad_stats.json", "grads.safetensors") {
            gradients(&context, &variant, None, report)?;
        }
        if alone("params_after_stats.json", "params_after.safetensors") {
            let none = Recorded::new(String::new(), StateDict::new());
            steps::params_after(&context, &variant, &file("params_after"), &none, report)?;
        }
    }
    for file in folder.stems(".safetensors") {
        if !names.iter().any(|n| part_of(file, n).is_some()) {
            report.unchecked(format!("{file}.safetensors"), "it belongs to no weights");
        }
    }
    Ok(())
}

/// What follows a variant's name in a file's.
fn part_of<'f>(file: &'f str, variant: &str) -> Option<&'f str> {
    let rest = file.strip_prefix(variant)?;
    if variant.is_empty() {
        Some(rest)
    } else {
        rest.strip_prefix('_')
    }
}

/// Checks one file of a variant.
fn one(
    context: &Context<'_>,
    variant: &Variant<'_>,
    stem: &str,
    part: &str,
    report: &mut Report<'_>,
) -> Result<()> {
    if part == "weights" {
        return Ok(());
    }
    let file = context.folder.tensors(&format!("{stem}.safetensors"))?;
    match part {
        "forward" => forward(context, variant, &file, report),
        "grads" => gradients(context, variant, Some(&file), report),
        "params_after" => steps::params_after(context, variant, stem, &file, report),
        "extras" => extras::check(context, variant, &file, report),
        "drop_masks" => extras::drop_masks(context, variant, &file, report),
        // A run is known by what it holds, whatever it is called.
        _ if ["images_u8", "labels", "gt_BL", "losses"]
            .iter()
            .all(|n| file.has(n)) =>
        {
            steps::run(context, variant, stem, &file, report)
        }
        _ => {
            report.unchecked(format!("{stem}.safetensors"), "no known part of a bundle");
            Ok(())
        }
    }
}

/// Compares weights in and out and what `config.json` says of a variant; the optimizer's groups.
fn describe(context: &Context<'_>, variant: &Variant<'_>, report: &mut Report<'_>) -> Result<()> {
    let var = variant.build(false)?;
    check_var_state(&variant.label(""), &var, variant.dict, report)?;
    let c = &var.config;
    let scale = if c.attn_l2_norm {
        1.0
    } else {
        0.25 / (c.head_dim as f64).sqrt()
    };
    for (key, got) in [
        ("depth", c.depth as f64),
        ("embed_dim", c.width() as f64),
        ("num_heads", c.heads as f64),
        ("head_dim", c.head_dim as f64),
        ("mlp_ratio", c.mlp_ratio),
        ("num_classes", c.classes as f64),
        ("L", c.pyramid.total() as f64),
        ("V", c.vocab as f64),
        ("Cvae", c.cvae as f64),
        ("n_params", var.params.count() as f64),
        ("attn_scale", scale),
    ] {
        if let Some(want) = variant.options[key].as_f64() {
            report.same(variant.label(format!("config.{key}")), &got, &want);
        }
    }
    for (key, got) in [
        ("shared_aln", c.shared_aln),
        ("attn_l2_norm", c.attn_l2_norm),
    ] {
        if let Some(want) = variant.options[key].as_bool() {
            report.same(variant.label(format!("config.{key}")), &got, &want);
        }
    }
    if let (Some(want), Some(sides)) = (variant.options["patch_nums"].as_array(), c.pyramid.sides())
    {
        let got: Vec<Json> = sides.into_iter().map(Json::from).collect();
        report.same(variant.label("config.patch_nums"), &got, want);
    }
    for key in variant
        .options
        .as_object()
        .into_iter()
        .flat_map(|o| o.keys())
    {
        if !OPTIONS.contains(&key.as_str()) && !steps::SMOOTHING.contains(&key.as_str()) {
            report.unchecked(variant.label(format!("config.{key}")), "no known option");
        }
    }
    context.hyper.check_groups(variant, &var, report);
    Ok(())
}

/// The batch that forward pass, gradients and steps share.
fn batch(context: &Context<'_>, variant: &Variant<'_>, var: &Var) -> Result<Batch> {
    let name = format!("{}_forward.safetensors", variant.name);
    if !context.folder.has(&name) {
        return Err(Error::input(format!(
            "{}: lacks {name}, which holds the batch",
            context.folder.path().display()
        )));
    }
    Batch::read(&context.folder.tensors(&name)?, var)
}

/// The tokenizer that fits a transformer, or why there is none.
fn tokenizer_of(context: &Context<'_>, var: &Var) -> Result<Result<Vqvae, &'static str>> {
    let Some(t) = &context.tokenizer else {
        return Ok(Err("it needs the bundle ../vae"));
    };
    let vqvae = t.build(&var.config.pyramid, false)?;
    if vqvae.config.vocab != var.config.vocab || vqvae.config.cvae != var.config.cvae {
        return Ok(Err("the tokenizer of ../vae is of another size"));
    }
    Ok(Ok(vqvae))
}

/// Compares the recorded teacher-forcing input with that of the recorded targets.
fn check_input(
    context: &Context<'_>,
    var: &Var,
    batch: &Batch,
    (label, limit): (String, Limit),
    report: &mut Report<'_>,
) -> Result<()> {
    let Some(input) = &batch.input else {
        return Ok(());
    };
    match tokenizer_of(context, var)? {
        Err(why) => report.unchecked(label, why),
        Ok(vqvae) => {
            let maps = report.machine().all(&batch.maps(var))?;
            let pyramid = &var.config.pyramid;
            let active = maps.len();
            match vqvae
                .quantizer
                .var_input(&vqvae.params, &maps, pyramid, active)?
            {
                Some(got) => report.computed(label, host(&got)?.f32()?, input.f32()?, limit),
                None => report.fact(label, false, "there is no such input"),
            }
        }
    }
    Ok(())
}

/// Compares the token maps of images \[B, H, W, 3\] with recorded ones \[B, L\].
fn check_tokens(
    vqvae: &Vqvae,
    images: &Tensor,
    recorded: &[Tensor],
    label: &str,
    report: &mut Report<'_>,
) -> Result<()> {
    let pyramid = &vqvae.config.pyramid;
    let images = images.to(report.machine().device)?;
    let f = vqvae.features(&ForwardPass::plain(vqvae.math), &images, None)?;
    let code = vqvae
        .quantizer
        .encode(&ForwardPass::off(), &vqvae.params, &f, pyramid)?;
    let maps = Maps {
        vqvae,
        pyramid,
        f: &f,
        recorded,
    };
    maps.compare(
        &code.indices,
        None,
        |k| format!("{label} scale {k}"),
        report,
    )?;
    Ok(())
}

/// The forward pass: everything inside it, the loss, the norm of its gradients.
fn forward(
    context: &Context<'_>,
    variant: &Variant<'_>,
    file: &Recorded,
    report: &mut Report<'_>,
) -> Result<()> {
    let var = variant.build(true)?;
    let batch = Batch::read(file, &var)?;
    let section = [variant.name];
    let outputs = context.floors.section(&section, |n| !n.starts_with("grad"));
    let norm = context.floors.section(&section, |n| n.starts_with("grad"));
    let label = variant.label("x_BLCv_wo_first_l");
    check_input(
        context,
        &var,
        &batch,
        (label, outputs.unwrap_or(OUTPUTS)),
        report,
    )?;
    let pass = pass::Pass::run(&var, &batch, &pass::Options::default())?;
    let limits = Limits {
        outputs: outputs.unwrap_or(OUTPUTS),
        losses: outputs.unwrap_or(LOSSES),
        norm: norm.unwrap_or(GRADIENTS),
        gradients: gradient_limit(context, &section),
    };
    let known = ["gt_BL", "labels", "x_BLCv_wo_first_l"];
    for name in file.names().filter(|n| !known.contains(n)) {
        let label = variant.label(name);
        of_pass((name, file, name), (&pass, &var), &limits, label, report)?;
    }
    Ok(())
}

/// The limits of one section of quantities.
struct Limits {
    outputs: Limit,
    losses: Limit,
    norm: Limit,
    gradients: Limit,
}

/// The limit of a section's gradients.
fn gradient_limit(context: &Context<'_>, path: &[&str]) -> Limit {
    let floor = |lead: &str| context.floors.gradients(path, |n| n.starts_with(lead));
    floor("grad.").unwrap_or(GRADIENTS)
}

/// Compares what a pass gives with the record `name` of it, which is called `what` among the pass's results: its loss and gradients,
/// costs, anything inside it; whole, or a part of it.
fn of_pass(
    (what, file, name): (&str, &Recorded, &str),
    (pass, var): (&Pass, &Var),
    limits: &Limits,
    label: String,
    report: &mut Report<'_>,
) -> Result<()> {
    let (bare, _) = part::bare(what);
    match bare {
        "loss" => report.losses(label, &[pass.loss], &file.f64(name)?, limits.losses),
        "grad_norm" => report.computed(label, &[pass.grad_norm], &file.f64(name)?, limits.norm),
        "ce_BL" => {
            let costs = Tensor::from_vec(pass.costs, pass.ce.clone());
            part::compare(label, &costs, (file, name), limits.outputs, report)?;
        }
        _ => {
            let param = bare.strip_prefix("grad.").and_then(|p| var.params.info(p));
            match (pass.seen.get(bare), param) {
                (Some(got), _) => part::compare(label, got, (file, name), limits.outputs, report)?,
                (None, Some(info)) => {
                    let got = unscaled(&pass.grads, info, pass.scale)?;
                    let got = Tensor::from_vec(info.shape, got);
                    // Convolutions there are none of; a matrix has its rows and columns as they are.
                    part::compare(label, &got, (file, name), limits.gradients, report)?;
                }
                (None, None) => report.unchecked(label, "no known quantity"),
            }
        }
    }
    Ok(())
}

/// The gradient of every parameter.
fn gradients(
    context: &Context<'_>,
    variant: &Variant<'_>,
    file: Option<&Recorded>,
    report: &mut Report<'_>,
) -> Result<()> {
    let var = variant.build(true)?;
    let batch = batch(context, variant, &var)?;
    let pass = pass::Pass::run(&var, &batch, &pass::Options::default())?;
    let limit = gradient_limit(context, &[variant.name]);
    let gradients = super::grads::Gradients {
        params: &var.params,
        grads: &pass.grads,
        limit,
        zero: Vec::new(),
        scale: pass.scale,
        label: variant.label(""),
    };
    if let Some(file) = file {
        gradients.samples(file, "", report)?;
    }
    let stats = format!("{}_grad_stats.json", variant.name);
    if context.folder.has(&stats) {
        gradients.statistics(&context.folder.json(&stats)?, report)?;
    }
    // Above ln 100 the scale is clamped, so nothing flows.
    for info in var
        .params
        .infos()
        .iter()
        .filter(|i| i.name.ends_with("scale_mul_1H11"))
    {
        let values = var.params.export(&info.name)?;
        let grads = pass.grads.export(info)?;
        let clamped: Vec<f32> = values
            .iter()
            .zip(&grads)
            .filter(|(v, _)| **v > 100f32.ln())
            .map(|(_, g)| *g)
            .collect();
        if !clamped.is_empty() {
            let zeros = vec![0.0f32; clamped.len()];
            report.numbers(
                variant.label(format!("grad.{} clamped", info.name)),
                &clamped,
                &zeros,
                Limit::EXACT,
            );
        }
    }
    Ok(())
}
