//! Optimizer steps and runs.

use super::pass::{Options, Pass};
use super::runs::{report_losses, report_norms, report_same_weights};
use super::{Context, LOSSES, Variant, batch, check_tokens, same_weights, tokenizer_of};
use crate::compare::{Difference, Limit, difference, sampled};
use crate::folder::Folder;
use crate::grads::{compare_stats, report_unknown};
use crate::recorded::{Recorded, split_tokens};
use crate::report::Report;
use nextscale::eval::Measures;
use nextscale::model::var::Var;
use nextscale::model::var::state_dict::{is_decayed, param_groups};
use nextscale::train::loss_scale::scaler_of;
use nextscale::train::optimizer::{ADAM_EPS, BETAS, Optimizer};
use nextscale::train::progressive::Stage;
use nextscale::train::var_trainer::{TransformerStep, VarTrainer};
use nextscale::{Error, Result};
use nextscale_tensor::Tensor;
use serde_json::Value as Json;

/// Parameters after steps, by the READMEs' tolerance (see the crate's documentation).
const AFTER_STEPS: f64 = 5e-5;
/// Most steps that are repeated.
const MOST_STEPS: usize = 100_000;

/// The optimizer's settings.
pub(super) struct Hyper {
    lr: f64,
    wd: f64,
    betas: (f64, f64),
    clip: f64,
    /// Groups of parameter names with their factor on the weight decay.
    groups: Vec<(f64, Vec<String>)>,
    /// All that is stated.
    json: Json,
}

impl Hyper {
    /// `param_groups.json`, or what the README states.
    pub(super) fn read(folder: &Folder) -> Result<Self> {
        let name = "param_groups.json";
        let json = if folder.has(name) {
            folder.json(name)?
        } else {
            Json::Null
        };
        let bad = |why: String| Error::input(format!("{}: {why}", folder.file(name).display()));
        let number = |key: &str, default: f64| json[key].as_f64().unwrap_or(default);
        let eps = number("eps", ADAM_EPS);
        if eps != ADAM_EPS {
            return Err(bad(format!(
                "eps is {eps}; only {ADAM_EPS}, the reference's value, is supported"
            )));
        }
        let mut groups = Vec::new();
        for g in json["order"].as_array().into_iter().flatten() {
            let names: Option<Vec<String>> = g["params"]
                .as_array()
                .and_then(|l| l.iter().map(|v| v.as_str().map(str::to_owned)).collect());
            let (Some(names), Some(scale)) = (names, g["wd_sc"].as_f64()) else {
                return Err(bad(
                    "each group under \"order\" needs params and wd_sc".into()
                ));
            };
            if g["lr_sc"].as_f64().is_some_and(|s| s != 1.0) || (scale != 0.0 && scale != 1.0) {
                return Err(bad(
                    "lr_sc must be 1 and wd_sc 0 or 1, as in the reference".into()
                ));
            }
            groups.push((scale, names));
        }
        Ok(Self {
            lr: number("lr", 1e-3),
            wd: number("weight_decay", 0.05),
            betas: (
                json["betas"][0].as_f64().unwrap_or(BETAS.0),
                json["betas"][1].as_f64().unwrap_or(BETAS.1),
            ),
            clip: number("clip", 2.0),
            groups,
            json,
        })
    }

    /// Compares the groups with ours where they are of this variant.
    pub(super) fn check_groups(&self, variant: &Variant<'_>, var: &Var, report: &mut Report<'_>) {
        let infos = var.params.infos();
        let listed: usize = self.groups.iter().map(|g| g.1.len()).sum();
        let known = |name: &String| var.params.info(name).is_some();
        if listed != infos.len() || !self.groups.iter().flat_map(|g| &g.1).all(known) {
            return;
        }
        let ours = param_groups(
            infos
                .iter()
                .map(|i| (i.name.as_str(), i.shape.dims().len())),
        );
        let ours: Vec<(f64, Vec<String>)> = ours
            .into_iter()
            .map(|g| (f64::from(u8::from(g.decayed)), g.names))
            .collect();
        report.same(variant.label("param_groups"), &ours, &self.groups);
    }

    fn clip(&self) -> Option<f64> {
        (self.clip > 0.0).then_some(self.clip)
    }

    pub(super) fn optimizer(&self, var: &Var) -> Result<Optimizer> {
        let decayed = |name: &str, shape: &[usize]| is_decayed(name, shape.len());
        Optimizer::new(&var.params, self.betas, decayed, scaler_of(var.math))
    }
}

/// The parameters after so many steps on the same batch.
pub(super) fn params_after(
    context: &Context<'_>,
    variant: &Variant<'_>,
    stem: &str,
    file: &Recorded,
    report: &mut Report<'_>,
) -> Result<()> {
    let hyper = &context.hyper;
    let mut var = variant.build(true)?;
    let batch = batch(context, variant, &var)?;
    let mut opt = hyper.optimizer(&var)?;
    let section = ["opt_fixed_batch"];
    let limit = context.floors.section(&section, |n| n.starts_with("step"));
    let floors =
        |which: fn(&str) -> bool| context.floors.section(&section, which).unwrap_or(LOSSES);
    // Losses have a floor of their own. Gradient norms follow the parameters that the steps left, so what is stated for
    // those bounds them too.
    let limits = [floors(|n| !n.starts_with("step")), floors(|_| true)];
    let recorded: Vec<(usize, &str, &str)> = file
        .names()
        .filter_map(|n| {
            let (step, param) = n.strip_prefix("step")?.split_once('.')?;
            Some((step.parse().ok()?, param, n))
        })
        .collect();
    let steps = if file.has("losses") {
        file.f64("losses")?.len()
    } else {
        0
    };
    let stats_name = format!("{stem}_stats.json");
    let stats = match context.folder.has(&stats_name) {
        true => context.folder.json(&stats_name)?,
        false => Json::Null,
    };
    let of_stats = stats.as_object().into_iter().flat_map(|o| o.keys());
    let of_stats = of_stats.filter_map(|k| k.strip_prefix("step")?.parse().ok());
    let recorded_steps = recorded.iter().map(|r| r.0).chain(of_stats);
    let steps = recorded_steps.fold(steps, usize::max);
    if steps > MOST_STEPS {
        return Err(Error::input(format!(
            "{}: {steps} steps are too many to repeat; at most {MOST_STEPS}",
            file.source()
        )));
    }
    let machine = report.machine();
    let slack = machine.slack();
    let holds = |d: &Difference| {
        limit.is_some_and(|l| l.times(slack).holds(d)) || after_steps(d, hyper.lr, slack)
    };
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    for step in 1..=steps {
        let options = Options {
            scale: Some(opt.scaler()?.map_or(1.0, |s| s.scale as f32)),
            ..Options::default()
        };
        let pass = Pass::run(&var, &batch, &options)?;
        losses.push(pass.loss);
        opt.grads = pass.grads;
        let numbers = opt.step(&mut var.params, hyper.lr, hyper.wd, hyper.clip())?;
        norms.push(numbers.read()?.norm);
        for (_, param, name) in recorded.iter().filter(|r| r.0 == step) {
            let want = file.f32(name)?;
            let got = sampled(&var.params.export(param)?, want.len());
            let label = variant.label(name);
            if got.len() != want.len() {
                report.fact(
                    label,
                    false,
                    format!("{} numbers, recorded are {}", got.len(), want.len()),
                );
                continue;
            }
            let d = difference(&got, &want);
            if machine.is_half() {
                report.shown(label, d);
                continue;
            }
            report.judged(
                label,
                holds(&d),
                d,
                format!("limit rel {AFTER_STEPS:e}, {} elements off", d.over_1e5),
            );
        }
        let of_step = &stats[format!("step{step}")];
        let known = |name: &str| var.params.info(name).is_some();
        let of_this = format!("{stem}_stats.step{step}");
        report_unknown(&variant.label(of_this), of_step, known, report);
        if of_step.is_object() {
            let tensors = var.params.infos().iter().map(|i| {
                (
                    i.name.as_str(),
                    var.params.export(&i.name).unwrap_or_default(),
                    i.shape.dims(),
                )
            });
            let limit = |_: &str| Limit {
                rel_l2: AFTER_STEPS.max(limit.map_or(0.0, |l| l.rel_l2)),
                // One element of a small tensor may be off by a step.
                abs: 0.0,
                peak: limit.map_or(0.0, |l| l.peak),
            };
            compare_stats(
                variant.label(format!("{stats_name} step{step}")),
                tensors,
                of_step,
                limit,
                report,
            );
        }
    }
    let losses: Vec<f64> = losses.into_iter().map(f64::from).collect();
    for ((name, got), limit) in [("losses", losses), ("grad_norms", norms)]
        .into_iter()
        .zip(limits)
    {
        if !file.has(name) {
            continue;
        }
        let (label, want) = (
            variant.label(format!("params_after.{name}")),
            file.f64(name)?,
        );
        if name == "losses" {
            report.losses(label, &got, &want, limit);
        } else {
            report.computed(label, &got, &want, limit);
        }
    }
    Ok(())
}

/// Whether parameters keep within the READMEs' tolerance: few elements, whose gradient is all but zero, may be off by a
/// step.
fn after_steps(d: &Difference, lr: f64, slack: f64) -> bool {
    let few = (d.count / 1000).max(1);
    d.rel_l2 <= slack * AFTER_STEPS && d.over_1e5 <= few && d.max_abs <= lr
}

/// A run over recorded images: tokens, losses, gradient norms, logged figures.
pub(super) fn run(
    context: &Context<'_>,
    variant: &Variant<'_>,
    stem: &str,
    file: &Recorded,
    report: &mut Report<'_>,
) -> Result<()> {
    let hyper = &context.hyper;
    let part = stem
        .strip_prefix(variant.name)
        .unwrap_or(stem)
        .trim_start_matches('_');
    let label = |what: &str| variant.label(format!("{part}.{what}"));
    let var = variant.build(true)?;
    let vqvae = match tokenizer_of(context, &var)? {
        Ok(v) => v,
        Err(why) => {
            report.unchecked(label("*"), why);
            file.pass_over();
            context.folder.pass_over(&format!("{stem}.json"));
            return Ok(());
        }
    };
    let batches = Batches::read(file, var.config.classes)?;
    let maps = batches.maps(file, &var)?;
    for (i, recorded) in maps.iter().enumerate() {
        let name = label(&format!("gt_BL batch {i}"));
        check_tokens(&vqvae, &batches.images_of(i)?, recorded, &name, report)?;
    }
    let want = file.f64("losses")?;
    let last = var.config.pyramid.count() - 1;
    let maps = maps
        .iter()
        .map(|m| report.machine().all(m))
        .collect::<Result<Vec<_>>>()?;
    let json_name = format!("{stem}.json");
    let json = match context.folder.has(&json_name) {
        true => context.folder.json(&json_name)?,
        false => Json::Null,
    };
    let first = (&maps[0][..], &batches.labels[0][..]);
    let smoothing = match stated_smoothing(&[&json, variant.options, &hyper.json]) {
        Some(stated) => stated,
        None => smoothing_of(context, variant, first, want.first())?,
    };
    let mut trainer = VarTrainer::new(vqvae, var, smoothing as f32, 0)?;
    trainer.opt = hyper.optimizer(&trainer.var)?;
    let mut steps = Vec::new();
    for it in 0..want.len() {
        let i = it % batches.count();
        let plan = plan(it as u64, hyper);
        steps.push(
            trainer
                .step_tokens(&maps[i], &batches.labels[i], &plan)?
                .read()?,
        );
    }
    let losses: Vec<f64> = steps.iter().map(|s| s.loss).collect();
    let norms: Vec<f64> = steps
        .iter()
        .map(|s| s.grad_norm.unwrap_or(f64::NAN))
        .collect();
    // The section of this run, or of the only run that there is one of.
    let mut runs = context.floors.sections().filter(|s| s.starts_with("run"));
    let only = runs.next().filter(|_| runs.next().is_none());
    let sections = [Some(stem), Some(part), only];
    let section = sections
        .into_iter()
        .flatten()
        .find(|name| context.floors.section(&[name], |_| true).is_some());
    let floor = section.and_then(|name| context.floors.section(&[name], |_| true));
    let of_losses = section.and_then(|name| context.floors.absolute(&[name], |n| n == "losses"));
    report_losses(label("losses"), &losses, &want, of_losses, report);
    if report.machine().is_half()
        && let Some(l) = same_weights::losses(
            context,
            variant,
            (&maps, &batches.labels),
            want.len(),
            smoothing,
        )?
    {
        report_same_weights(label, &l, &want, report);
    }
    if file.has("grad_norms") {
        report_norms(
            label("grad_norms"),
            &norms,
            &file.f64("grad_norms")?,
            floor,
            report,
        );
    }
    if let Some(other) = json.as_object() {
        for key in other.keys().filter(|k| !of_run(k)) {
            report.unchecked(label(&format!("json {key}")), "no known quantity");
        }
    }
    let list =
        |json: &Json| -> Option<Vec<f64>> { json.as_array()?.iter().map(Json::as_f64).collect() };
    if let Some(want) = list(&json["losses"]) {
        report_losses(label("json losses"), &losses, &want, of_losses, report);
    }
    if let Some(want) = list(&json["grad_norms"]) {
        report_norms(label("json grad_norms"), &norms, &want, floor, report);
    }
    let Some(rows) = json["metrics"].as_array() else {
        return Ok(());
    };
    let column = |key: &str| -> Option<Vec<f64>> { rows.iter().map(|r| r[key].as_f64()).collect() };
    let of = |f: &dyn Fn(&Measures) -> f64| -> Vec<f64> {
        steps.iter().map(|s| f(&s.measures)).collect()
    };
    if let Some(want) = column("Lm") {
        report_losses(
            label("metrics.Lm"),
            &of(&|m| m.loss_mean()),
            &want,
            of_losses,
            report,
        );
    }
    if let Some(want) = column("Lt") {
        let got = of(&|m| m.loss_of(last).unwrap_or(f64::NAN));
        report_losses(label("metrics.Lt"), &got, &want, of_losses, report);
    }
    let tokens = |m: &Measures, k: Option<usize>| match k {
        Some(k) => m.tokens.get(k).copied().unwrap_or(0),
        None => m.tokens.iter().sum(),
    };
    for (key, scale) in [("Accm", None), ("Acct", Some(last))] {
        if let (Some(want), Some(first)) = (column(key), steps.first()) {
            let got = of(&|m| match scale {
                Some(k) => m.acc_of(k).unwrap_or(f64::NAN),
                None => m.acc_mean(),
            });
            // Noise may flip the likeliest code of one token, where two are as good.
            let one = 100.0 / tokens(&first.measures, scale).max(1) as f64;
            report.computed(
                label(&format!("metrics.{key}")),
                &got,
                &want,
                Limit::absolute(1.01 * one),
            );
        }
    }
    if let Some(want) = column("tnm") {
        report_norms(label("metrics.tnm"), &norms, &want, floor, report);
    }
    Ok(())
}

/// Names under which label smoothing is stated.
pub(super) const SMOOTHING: [&str; 5] = [
    "ls",
    "label_smooth",
    "label_smoothing",
    "smoothing",
    "smooth",
];

/// Whether a key of a run's JSON file is looked at.
fn of_run(key: &str) -> bool {
    ["losses", "grad_norms", "metrics"].contains(&key) || SMOOTHING.contains(&key)
}

/// The label smoothing that one of these states.
fn stated_smoothing(places: &[&Json]) -> Option<f64> {
    let stated = |place: &&Json| SMOOTHING.iter().find_map(|key| place[*key].as_f64());
    places
        .iter()
        .find_map(stated)
        .filter(|s| (0.0..1.0).contains(s))
}

/// The label smoothing of a run that states none: without where the first loss agrees, else what explains that loss, which it mixes
/// linearly, rounded to a thousandth; where nothing explains it, none.
fn smoothing_of(
    context: &Context<'_>,
    variant: &Variant<'_>,
    batch: (&[Tensor], &[i32]),
    first: Option<&f64>,
) -> Result<f64> {
    const NEAR: f64 = 1e-4;
    let loss = |smoothing| same_weights::first_loss(context, variant, batch, smoothing);
    let (Some(first), Some(plain)) = (first, loss(0.0)?) else {
        return Ok(0.0);
    };
    let near = |loss: f64| (first - loss).abs() <= variant.machine.slack() * NEAR * first.abs();
    let Some(even) = loss(1.0)?.filter(|_| !near(plain)) else {
        return Ok(0.0);
    };
    let found = ((first - plain) / (even - plain) * 1e3).round() / 1e3;
    let explained = (0.0..1.0).contains(&found) && near(plain + found * (even - plain));
    Ok(if explained { found } else { 0.0 })
}

/// A plain step of all scales.
pub(super) fn plan(it: u64, hyper: &Hyper) -> TransformerStep {
    TransformerStep {
        it,
        lr: hyper.lr,
        wd: hyper.wd,
        clip: hyper.clip(),
        accumulate: 1,
        update: true,
        stage: Stage::ALL,
    }
}

/// The recorded images and labels of a run.
pub(crate) struct Batches {
    /// All images, \[batches·B, H, W, 3\].
    images: Tensor,
    /// Labels of every batch.
    pub(crate) labels: Vec<Vec<i32>>,
    /// Images of a batch.
    size: usize,
}

impl Batches {
    /// Reads `images_u8` \[batches, B, 3, H, W\] and `labels` \[batches, B\].
    pub(crate) fn read(file: &Recorded, classes: usize) -> Result<Self> {
        let shape = file.shape("images_u8")?;
        let &[n, b, 3, _, _] = shape else {
            return Err(file.bad(
                "images_u8",
                format!("has the shape {shape:?}, expected [batches, B, 3, H, W]"),
            ));
        };
        let labels = file.shape("labels")?;
        if n * b == 0 || labels != [n, b] {
            return Err(file.bad(
                "labels",
                format!("has the shape {labels:?}, expected [{n}, {b}]"),
            ));
        }
        Ok(Self {
            images: file.images("images_u8")?,
            labels: file
                .ints("labels", classes + 1)?
                .chunks_exact(b)
                .map(<[i32]>::to_vec)
                .collect(),
            size: b,
        })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.labels.len()
    }

    /// The images of batch `i`, \[B, H, W, 3\].
    pub(crate) fn images_of(&self, i: usize) -> Result<Tensor> {
        Ok(self.images.narrow(i * self.size, self.size)?)
    }

    /// The token maps of every batch from `gt_BL` \[batches, B, L\].
    fn maps(&self, file: &Recorded, var: &Var) -> Result<Vec<Vec<Tensor>>> {
        let p = &var.config.pyramid;
        let want = [self.count(), self.size, p.total()];
        let shape = file.shape("gt_BL")?;
        if shape != want {
            return Err(file.bad(
                "gt_BL",
                format!("has the shape {shape:?}, expected {want:?}"),
            ));
        }
        let lengths: Vec<usize> = (0..p.count()).map(|k| p.len_of(k)).collect();
        let tokens = file.ints("gt_BL", var.config.vocab)?;
        let batches = tokens.chunks_exact(self.size * p.total());
        Ok(batches.map(|t| split_tokens(t, &lengths)).collect())
    }
}
