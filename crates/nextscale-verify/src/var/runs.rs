//! What is asked of the losses and gradient norms of a run of steps, in which rounding grows.

use super::same_weights::Losses;
use crate::compare::{Limit, difference};
use crate::machine::HALF_LOSSES;
use crate::report::Report;

/// First steps of a run, in which gradient norms must be near, and losses in half precision.
const EARLY: usize = 5;

/// How far off a loss in float32 may be.
const EACH: f64 = 1e-4;

/// How many times the bundle's own floor a late loss may be off. Rounding grows in a run, so that two records of it tell its size only.
const LATE: f64 = 4.0;

/// How many first steps there are, and how far off the farthest of them is.
fn first_steps(got: &[f64], want: &[f64]) -> (usize, f64) {
    let early = EARLY.min(got.len()).min(want.len());
    (early, difference(&got[..early], &want[..early]).max_rel)
}

/// Losses of a run: each within 1e-4 of its value, late ones within four times the bundle's own floor where that is wider; in half
/// precision the first of them and the run's mean within 1 %. `floor` is the largest absolute difference that the bundle records.
pub(super) fn report_losses(
    label: String,
    got: &[f64],
    want: &[f64],
    floor: Option<f64>,
    report: &mut Report<'_>,
) {
    let machine = report.machine();
    let d = difference(got, want);
    if machine.is_half() {
        // Rounding grows from step to step: late losses of the reference's own autocast are up to 11 % off its record.
        let (early, start) = first_steps(got, want);
        let mean = (got.iter().sum::<f64>() / want.iter().sum::<f64>() - 1.0).abs();
        let holds = got.len() == want.len() && start <= HALF_LOSSES && mean <= HALF_LOSSES;
        let note = format!(
            "limit {HALF_LOSSES:e} of the first {early} and of the mean: {start:.1e} and {mean:.1e}; largest {:.1e}",
            d.max_rel
        );
        return report.judged(label, holds, d, note);
    }
    let each = machine.slack() * EACH;
    let late = machine.slack() * LATE * floor.unwrap_or(0.0);
    let (_, start) = first_steps(got, want);
    let off = |(g, w): (&f64, &f64)| {
        let by = (g - w).abs();
        by.is_finite() && (by <= each * w.abs() || by <= late)
    };
    let holds = got.len() == want.len() && start <= each && got.iter().zip(want).all(off);
    let wider = match floor {
        Some(floor) => {
            format!(", of late ones or abs {late:.1e} by the bundle's own floor of {floor:.1e}")
        }
        None => String::new(),
    };
    let note = format!("limit {each:e} of each{wider}; largest {:.1e}", d.max_rel);
    report.judged(label, holds, d, note);
}

/// Losses in half precision from the weights of the run in float32: each within 1 %. That run itself has to be the recorded one.
pub(super) fn report_same_weights(
    label: impl Fn(&str) -> String,
    losses: &Losses,
    want: &[f64],
    report: &mut Report<'_>,
) {
    let slack = report.machine().slack();
    let name = label("losses of float32");
    report_each(name, &losses.full, want, slack * EACH, report);
    let name = label("losses from float32's weights");
    report_each(name, &losses.half, want, HALF_LOSSES, report);
}

fn report_each(label: String, got: &[f64], want: &[f64], each: f64, report: &mut Report<'_>) {
    let d = difference(got, want);
    let holds = got.len() == want.len() && d.max_rel <= each;
    let note = format!("limit {each:e} of each, largest {:.1e}", d.max_rel);
    report.judged(label, holds, d, note);
}

/// Gradient norms of a run: near in the first steps, then within the growing noise.
pub(super) fn report_norms(
    label: String,
    got: &[f64],
    want: &[f64],
    floor: Option<Limit>,
    report: &mut Report<'_>,
) {
    let d = difference(got, want);
    if report.machine().is_half() {
        return report.shown(label, d);
    }
    let slack = report.machine().slack();
    let (_, start) = first_steps(got, want);
    let each = start <= slack * 1e-3 && d.max_rel <= slack * 2e-2;
    let holds =
        got.len() == want.len() && (each || floor.is_some_and(|f| f.times(slack).holds(&d)));
    report.judged(
        label,
        holds,
        d,
        format!(
            "limit {:e} of each in the first {EARLY} steps, then {:e}; largest {:.1e}",
            slack * 1e-3,
            slack * 2e-2,
            d.max_rel
        ),
    );
}
