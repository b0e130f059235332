//! Gradients beside their records: samples in a tensor file, statistics in a JSON file.

use super::compare::{Limit, Stats, difference, sampled};
use super::recorded::Recorded;
use super::report::Report;
use nextscale::Result;
use nextscale_tensor::{GradBuffer, ParamInfo, Params};
use serde_json::Value as Json;

/// Most that an element may be where the true gradient is zero.
const ZERO: f64 = 1e-5;

/// Gradients of a model and what they are compared with.
pub(super) struct Gradients<'a> {
    /// Names and shapes.
    pub(super) params: &'a Params,
    /// The gradients.
    pub(super) grads: &'a GradBuffer,
    /// How far they may be off.
    pub(super) limit: Limit,
    /// Names of parameters whose true gradient is zero: only rounding noise is recorded of them.
    pub(super) zero: Vec<String>,
    /// What the gradients were multiplied by.
    pub(super) scale: f32,
    /// Put before quantities' names.
    pub(super) label: String,
}

impl Gradients<'_> {
    /// A parameter's gradient.
    fn of(&self, info: &ParamInfo) -> Result<Vec<f32>> {
        unscaled(self.grads, info, self.scale)
    }

    /// Compares the tensors of `file` whose names begin with `prefix`, which a parameter's name follows.
    pub(super) fn samples(
        &self,
        file: &Recorded,
        prefix: &str,
        report: &mut Report<'_>,
    ) -> Result<()> {
        for name in file.names() {
            let Some(param) = name.strip_prefix(prefix) else {
                continue;
            };
            let quantity = format!("{}grad.{param}", self.label);
            let Some(info) = self.params.info(param) else {
                report.fact(quantity, false, "the model has no such parameter");
                continue;
            };
            let want = file.f32(name)?;
            let got = sampled(&self.of(info)?, want.len());
            if got.len() == want.len() && self.is_zero(param) {
                let largest = got.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
                let d = difference(&got, &want);
                if report.machine().is_half() {
                    report.shown(quantity, d);
                    continue;
                }
                let limit = format!("the true gradient is 0, found {largest:.1e}");
                let least = ZERO * report.machine().slack();
                report.judged(quantity, largest < least, d, limit);
                continue;
            }
            report.computed(quantity, &got, &want, self.limit);
        }
        let missing = self
            .params
            .infos()
            .iter()
            .find(|i| !file.has(&format!("{prefix}{}", i.name)));
        if let Some(info) = missing {
            report.unchecked(
                format!("{}grad.{}", self.label, info.name),
                "it is not recorded",
            );
        }
        Ok(())
    }

    fn is_zero(&self, param: &str) -> bool {
        self.zero.iter().any(|z| z == param)
    }

    /// Compares statistics of all gradients, recorded under the parameters' names, as one quantity.
    pub(super) fn statistics(&self, stats: &Json, report: &mut Report<'_>) -> Result<()> {
        let quantity = format!("{}grad_stats", self.label);
        let zero = self.params.infos().iter().filter(|i| self.is_zero(&i.name));
        for info in zero {
            let Some(want) = Stats::recorded(&stats[&info.name]) else {
                continue;
            };
            let got = Stats::of(&self.of(info)?);
            let largest = got.absmax.max(want.absmax);
            let name = format!("{quantity}.{}", info.name);
            if !report.machine().is_half() {
                let note = format!("the true gradient is 0, found {:.1e}", got.absmax);
                report.fact(name, largest < ZERO * report.machine().slack(), note);
            }
        }
        let params = self
            .params
            .infos()
            .iter()
            .filter(|i| !self.is_zero(&i.name));
        let tensors = params
            .map(|i| Ok((i.name.as_str(), self.of(i)?, i.shape.dims())))
            .collect::<Result<Vec<_>>>()?;
        let known = |name: &str| self.params.info(name).is_some();
        report_unknown(&quantity, stats, known, report);
        compare_stats(quantity, tensors.into_iter(), stats, |_| self.limit, report);
        Ok(())
    }
}

/// Names entries of statistics that are of nothing known; those that begin with two underscores are notes.
pub(super) fn report_unknown(
    quantity: &str,
    stats: &Json,
    known: impl Fn(&str) -> bool,
    report: &mut Report<'_>,
) {
    let names = stats.as_object().into_iter().flat_map(|o| o.keys());
    for name in names.filter(|n| !n.starts_with("__") && !known(n)) {
        report.unchecked(format!("{quantity}.{name}"), "no known quantity");
    }
}

/// A parameter's gradient in the checkpoint's order, of gradients that are `scale` times as large.
pub(super) fn unscaled(grads: &GradBuffer, info: &ParamInfo, scale: f32) -> Result<Vec<f32>> {
    let mut values = grads.export(info)?;
    if scale != 1.0 {
        values.iter_mut().for_each(|v| *v /= scale);
    }
    Ok(values)
}

/// Compares statistics of tensors (name, values, shape) with their records as one quantity; the tensor that is farthest off
/// is named.
pub(super) fn compare_stats<'n>(
    quantity: String,
    tensors: impl Iterator<Item = (&'n str, Vec<f32>, &'n [usize])>,
    stats: &Json,
    limit: impl Fn(&str) -> Limit,
    report: &mut Report<'_>,
) {
    let (mut worst, mut odd, mut count) = (None, None, 0usize);
    for (name, values, shape) in tensors {
        let Some(want) = Stats::recorded(&stats[name]) else {
            continue;
        };
        count += 1;
        let limit = limit(name).times(report.machine().slack());
        let (holds, d) = Stats::of(&values).hold(&want, values.len(), &limit);
        let recorded: Option<Vec<u64>> = stats[name]["shape"]
            .as_array()
            .and_then(|s| s.iter().map(Json::as_u64).collect());
        let fits = recorded.is_none_or(|r| r.iter().map(|&v| v as usize).eq(shape.iter().copied()));
        if (!holds || !fits) && odd.is_none() {
            odd = Some(name.to_owned());
        }
        if worst
            .as_ref()
            .is_none_or(|w: &super::Difference| d.rel_l2 > w.rel_l2)
        {
            worst = Some(d);
        }
    }
    match worst {
        None => report.unchecked(quantity, "nothing is recorded"),
        Some(d) => {
            if report.machine().is_half() {
                return report.shown(quantity, d);
            }
            let note = odd
                .as_ref()
                .map_or(String::new(), |n| format!("{n} of {count} tensors"));
            report.judged(quantity, odd.is_none(), d, note);
        }
    }
}
