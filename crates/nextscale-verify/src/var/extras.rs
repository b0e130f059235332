//! Other labels, label smoothing, progressive stages, stochastic depth.

use super::pass::{Batch, Options, Pass};
use super::{
    Context, GRADIENTS, LOSSES, Limits, OUTPUTS, Variant, batch, check_input, check_tokens,
    gradient_limit, of_pass, tokenizer_of,
};
use crate::compare::difference;
use crate::machine::host;
use crate::part;
use crate::recorded::Recorded;
use crate::report::Report;
use nextscale::Result;
use nextscale::model::var::{DropPath, Var};
use nextscale_tensor::Tensor;
use std::collections::BTreeSet;

impl Limits {
    fn of(context: &Context<'_>, path: &[&str]) -> Self {
        let floor = context.floors.section(path, |_| true);
        Self {
            outputs: floor.unwrap_or(OUTPUTS),
            losses: floor.unwrap_or(LOSSES),
            norm: floor.unwrap_or(GRADIENTS),
            gradients: floor.unwrap_or_else(|| gradient_limit(context, path)),
        }
    }
}

/// Checks the groups of quantities `GROUP.WHAT` of a file.
pub(super) fn check(
    context: &Context<'_>,
    variant: &Variant<'_>,
    file: &Recorded,
    report: &mut Report<'_>,
) -> Result<()> {
    let var = variant.build(true)?;
    let batch = batch(context, variant, &var)?;
    let groups: BTreeSet<&str> = file
        .names()
        .filter_map(|n| Some(n.split_once('.')?.0))
        .collect();
    for group in groups {
        let limits = Limits::of(context, &["extras", group]);
        let group = Group {
            variant,
            file,
            var: &var,
            batch: &batch,
            name: group,
            limits,
        };
        match group.name {
            "uncond" => group.plain(
                &batch.labelled(vec![var.no_class(); batch.labels.len()]),
                report,
            )?,
            "half_uncond" => group.half(report)?,
            "smooth" => group.smooth(report)?,
            other => match other
                .strip_prefix("prog")
                .and_then(|k| k.parse::<usize>().ok())
            {
                Some(k) if k < var.config.pyramid.count() => group.stage(context, k, report)?,
                _ => report.unchecked(variant.label(format!("{other}.*")), "no known group"),
            },
        }
    }
    Ok(())
}

/// One group of quantities.
struct Group<'a> {
    variant: &'a Variant<'a>,
    file: &'a Recorded,
    var: &'a Var,
    batch: &'a Batch,
    name: &'a str,
    limits: Limits,
}

impl Group<'_> {
    fn key(&self, what: &str) -> String {
        format!("{}.{what}", self.name)
    }

    /// Compares what one pass gives: logits, costs, loss, gradient norm, gradients. Quantities that `skip` picks are not its
    /// business.
    fn compare(
        &self,
        pass: &Pass,
        skip: impl Fn(&str) -> bool,
        report: &mut Report<'_>,
    ) -> Result<()> {
        for name in self.file.names() {
            let Some(what) = name
                .strip_prefix(self.name)
                .and_then(|n| n.strip_prefix('.'))
            else {
                continue;
            };
            if !skip(what) {
                let label = self.variant.label(name);
                let pass = (pass, self.var);
                of_pass((what, self.file, name), pass, &self.limits, label, report)?;
            }
        }
        Ok(())
    }

    fn plain(&self, batch: &Batch, report: &mut Report<'_>) -> Result<()> {
        let pass = Pass::run(self.var, batch, &Options::default())?;
        self.compare(&pass, |_| false, report)
    }

    /// Some labels are "no class"; which is not recorded, so it is the choice that comes nearest.
    fn half(&self, report: &mut Report<'_>) -> Result<()> {
        let (labels, none) = (&self.batch.labels, self.var.no_class());
        let b = labels.len();
        let choose = |drop: &dyn Fn(usize) -> bool| -> Vec<i32> {
            labels
                .iter()
                .enumerate()
                .map(|(i, &l)| if drop(i) { none } else { l })
                .collect()
        };
        let choices = [
            choose(&|i| i >= b.div_ceil(2)),
            choose(&|i| i % 2 == 1),
            choose(&|i| i > 0),
            choose(&|i| i < b / 2),
            choose(&|i| i % 2 == 0),
        ];
        let key = self.key("logits");
        let Some(logits) = part::name_of(self.file, &key) else {
            report.unchecked(
                self.variant.label(self.key("*")),
                "which labels are none shows in the logits, which are missing",
            );
            return Ok(());
        };
        let want = self.file.f32(logits)?;
        let mut best: Option<(f64, Batch)> = None;
        for labels in choices {
            let batch = self.batch.labelled(labels);
            let pass = Pass::run(self.var, &batch, &Options::default())?;
            let d = difference(&part_of_logits(&pass, self.file, logits)?, &want).rel_l2;
            if best.as_ref().is_none_or(|(b, _)| d < *b) {
                best = Some((d, batch));
            }
        }
        match best {
            Some((_, batch)) => self.plain(&batch, report),
            None => Ok(()),
        }
    }

    /// Label smoothing. Its strength is not recorded: it is solved from the costs, which it mixes linearly, and rounded to a
    /// ten-thousandth.
    fn smooth(&self, report: &mut Report<'_>) -> Result<()> {
        let run = |smoothing| {
            let options = Options {
                smoothing,
                ..Options::default()
            };
            Pass::run(self.var, self.batch, &options)
        };
        let (plain, even) = (run(0.0)?, run(1.0)?);
        let costs = |p: &Pass| -> (Vec<f64>, f64) {
            (
                p.ce.iter().map(|&v| f64::from(v)).collect(),
                f64::from(p.loss),
            )
        };
        let ((p, pl), (e, el)) = (costs(&plain), costs(&even));
        let key = self.key("ce_BL");
        let strength = if self.file.has(&key) {
            let (mut above, mut below) = (0.0, 0.0);
            for ((p, e), c) in p.iter().zip(&e).zip(self.file.f64(&key)?) {
                above += (c - p) * (e - p);
                below += (e - p) * (e - p);
            }
            above / below
        } else {
            (self.file.scalar(&self.key("loss"))? - pl) / (el - pl)
        };
        let strength = (strength * 1e4).round() / 1e4;
        if !(0.0..=1.0).contains(&strength) {
            let why = format!("no label smoothing explains it (nearest {strength})");
            report.fact(self.variant.label(self.key("*")), false, why);
            return Ok(());
        }
        self.compare(&run(strength as f32)?, |_| false, report)
    }

    /// A progressive stage: the sequence is cut after scale `k`, whose weights have a factor, unless it is the last scale.
    fn stage(&self, context: &Context<'_>, k: usize, report: &mut Report<'_>) -> Result<()> {
        let cut = self.batch.cut(self.var, k)?;
        let last = k + 1 == self.var.config.pyramid.count();
        let lead = "loss_wp";
        let mut ramps: Vec<(String, f64)> = self
            .file
            .names()
            .filter_map(|n| {
                let ramp = n
                    .strip_prefix(self.name)?
                    .strip_prefix('.')?
                    .strip_prefix(lead)?;
                Some((n.to_owned(), ramp.parse().ok()?))
            })
            .collect();
        ramps.sort_by(|a, b| a.1.total_cmp(&b.1));
        let run = |ramp: f64| {
            let options = Options {
                newest: Some((k, if last { 1.0 } else { ramp as f32 })),
                ..Options::default()
            };
            Pass::run(self.var, &cut, &options)
        };
        let x = self.key("x_BLCv_wo_first_l");
        if self.file.has(&x) {
            self.stage_input(context, &cut, &x, report)?;
        }
        // The gradient norm is recorded of one of the ramps without saying which.
        let norm_key = self.key("grad_norm");
        let norm = if self.file.has(&norm_key) {
            Some(self.file.scalar(&norm_key)?)
        } else {
            None
        };
        let mut nearest: Option<(f64, Pass)> = None;
        if ramps.is_empty() {
            nearest = Some((0.0, run(1.0)?));
        }
        for (name, ramp) in &ramps {
            let pass = run(*ramp)?;
            let want = self.file.f64(name)?;
            report.losses(
                self.variant.label(name),
                &[pass.loss],
                &want,
                self.limits.losses,
            );
            let off = norm.map_or(0.0, |n| (n - pass.grad_norm).abs());
            if nearest.as_ref().is_none_or(|(best, _)| off < *best) {
                nearest = Some((off, pass));
            }
        }
        match nearest {
            Some((_, pass)) => self.compare(
                &pass,
                |w| w.starts_with(lead) || w == "x_BLCv_wo_first_l",
                report,
            ),
            None => Ok(()),
        }
    }

    /// The input of a stage: the beginning of the whole one, and what the tokenizer makes of the targets.
    fn stage_input(
        &self,
        context: &Context<'_>,
        cut: &Batch,
        key: &str,
        report: &mut Report<'_>,
    ) -> Result<()> {
        let label = self.variant.label(key);
        let want = self.file.f32(key)?;
        match &cut.input {
            Some(input) => report.numbers(
                format!("{label} cut"),
                input.f32()?,
                &want,
                self.limits.outputs,
            ),
            None => report.fact(
                label.clone(),
                want.is_empty(),
                "the first scale has no input",
            ),
        }
        let Ok(vqvae) = tokenizer_of(context, self.var)? else {
            return Ok(());
        };
        let maps = report.machine().all(&self.batch.maps(self.var))?;
        let end = cut.targets.shape().last();
        let active = self
            .var
            .config
            .pyramid
            .ends()
            .iter()
            .filter(|&&e| e <= end)
            .count();
        if let Some(got) =
            vqvae
                .quantizer
                .var_input(&vqvae.params, &maps, &self.var.config.pyramid, active)?
        {
            report.computed(label, host(&got)?.f32()?, &want, self.limits.outputs);
        }
        Ok(())
    }
}

/// The logits that a record keeps.
fn part_of_logits(pass: &Pass, file: &Recorded, name: &str) -> Result<Vec<f32>> {
    let Some(all) = pass.seen.get("logits") else {
        return Ok(Vec::new());
    };
    let (values, dims) = part::as_recorded(all)?;
    let kept = part::of(&values, &dims, file.shape(name)?, part::bare(name).1);
    kept.ok_or_else(|| file.bad(name, format!("does not fit logits of the shape {dims:?}")))
}

/// Training mode with recorded draws of class dropout and stochastic depth.
pub(super) fn drop_masks(
    context: &Context<'_>,
    variant: &Variant<'_>,
    file: &Recorded,
    report: &mut Report<'_>,
) -> Result<()> {
    let var = variant.build(true)?;
    let batch = Batch::read(file, &var)?;
    let limits = Limits::of(context, &["droppath"]);
    let label = |what: &str| variant.label(format!("drop_masks.{what}"));
    let before = file.ints("labels", var.config.classes + 1)?;
    let fine = before.len() == batch.labels.len()
        && before
            .iter()
            .zip(&batch.labels)
            .all(|(b, a)| a == b || *a == var.no_class());
    report.fact(
        label("labels_after_drop"),
        fine,
        "each label is kept or becomes \"no class\"",
    );
    if file.has("images_u8") {
        match tokenizer_of(context, &var)? {
            Err(why) => report.unchecked(label("gt_BL, images_u8"), why),
            Ok(vqvae) => check_tokens(
                &vqvae,
                &file.images("images_u8")?,
                &batch.maps(&var),
                &label("gt_BL"),
                report,
            )?,
        }
    }
    check_input(
        context,
        &var,
        &batch,
        (label("x_BLCv_wo_first_l"), limits.outputs),
        report,
    )?;

    let mask = file.f32("keep_mask")?;
    let logits = part::name_of(file, "logits").ok_or_else(|| file.bad("logits", "is missing"))?;
    let want = file.f32(logits)?;
    let b = batch.labels.len();
    // The rate of the last block is not recorded. Four tenths is what the recorded bundle used; another one is the hundredth that
    // explains the logits best.
    let mut best: Option<(f64, Pass)> = None;
    let mut rates: Vec<f64> = vec![0.4];
    rates.extend((1..100).map(|i| f64::from(i) / 100.0));
    for rate in rates {
        let Some(drop_path) = drop_path_of(&var, &mask, b, rate)? else {
            return Err(file.bad(
                "keep_mask",
                format!(
                    "{} numbers do not make two rows a block for a batch of {b}",
                    mask.len()
                ),
            ));
        };
        let options = Options {
            drop_path: Some(&drop_path),
            ..Options::default()
        };
        let pass = Pass::run(&var, &batch, &options)?;
        let d = difference(&part_of_logits(&pass, file, logits)?, &want);
        let fits = limits.outputs.times(report.machine().slack()).holds(&d);
        if best.as_ref().is_none_or(|(off, _)| d.rel_l2 < *off) {
            best = Some((d.rel_l2, pass));
        }
        if fits {
            break;
        }
    }
    let Some((_, pass)) = best else {
        return Ok(());
    };
    let given = [
        "images_u8",
        "labels",
        "labels_after_drop",
        "gt_BL",
        "x_BLCv_wo_first_l",
        "keep_mask",
    ];
    for name in file.names().filter(|n| !given.contains(n)) {
        of_pass(
            (name, file, name),
            (&pass, &var),
            &limits,
            label(name),
            report,
        )?;
    }
    Ok(())
}

/// Factors of stochastic depth from recorded rows \[2·n, B\] of ones and zeros, attention and feed-forward of the last n blocks, when the
/// rate rises from 0 at the first block to `rate` at the last.
fn drop_path_of(var: &Var, mask: &[f32], b: usize, rate: f64) -> Result<Option<DropPath>> {
    let depth = var.config.depth;
    let rows = mask.len() / b.max(1);
    if b == 0 || mask.len() != rows * b || !rows.is_multiple_of(2) || rows / 2 > depth {
        return Ok(None);
    }
    // Blocks before the recorded ones leave nothing out.
    let mut factors = vec![1.0; (2 * depth - rows) * b];
    let first = depth - rows / 2;
    for (row, kept) in mask.chunks_exact(b).enumerate() {
        let i = first + row / 2;
        let keep = 1.0 - rate * i as f64 / (depth.max(2) - 1) as f64;
        factors.extend(kept.iter().map(|&k| (f64::from(k) / keep) as f32));
    }
    let factors = Tensor::from_vec([2 * depth, b], factors).to(var.device())?;
    DropPath::new(&var.config, factors).map(Some)
}
