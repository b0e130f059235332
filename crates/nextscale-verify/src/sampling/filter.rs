//! Top-k and top-p filters, and draws from what they leave.

use crate::compare::{Limit, difference};
use crate::machine::host;
use crate::recorded::Recorded;
use crate::report::Report;
use nextscale::Result;
use nextscale_tensor::ops::{self, Draw};

/// A running probability nearer to the bound than this may be rounded across it.
const BOUND: f64 = 1e-6;
/// Two scores whose logarithms are nearer than this may change places.
const SCORE: f64 = 1e-5;
/// Probabilities are a handful of float32 operations.
const PROBS: Limit = Limit::relative(1e-6).or_absolute(1e-6);

/// The filter of a name such as `ties.k4_p0.6.masked`: what stands before, k, p, and what is recorded of it.
fn parse(name: &str) -> Option<(&str, usize, f32, &str)> {
    let (head, what) = name.rsplit_once('.')?;
    let at = head.rfind('k')?;
    let (k, p) = head[at + 1..].split_once("_p")?;
    Some((&head[..at], k.parse().ok()?, p.parse().ok()?, what))
}

/// Checks all filters of a file.
pub(super) fn check(stem: &str, file: &Recorded, report: &mut Report<'_>) -> Result<()> {
    for name in file.names() {
        let label = format!("{stem}/{name}");
        let Some((lead, k, p, what)) = parse(name) else {
            if name != "logits" && !name.ends_with(".logits") {
                report.unchecked(label, "no known quantity");
            }
            continue;
        };
        let logits = file.tensor(&format!("{lead}logits"))?;
        let v = logits.shape().last();
        let on_device = ops::filter_logits(&logits.to(report.machine().device)?, k, p)?;
        let filtered = host(&on_device)?;
        match what {
            "masked" => {
                let want = file.f32(name)?;
                masked(
                    label,
                    (logits.f32()?, filtered.f32()?, &want),
                    v,
                    (k, p),
                    report,
                );
            }
            "probs" => {
                let got: Vec<f64> = filtered.f32()?.chunks_exact(v).flat_map(softmax).collect();
                report.numbers(label, &got, &file.f32(name)?, PROBS);
            }
            "idx" => {
                let noise = file.f32(&name.replace(".idx", ".exp_noise"))?;
                let got = host(&ops::draw_tokens(&on_device, &Draw::Given(&noise))?)?;
                let want = file.ints(name, v)?;
                let rows = filtered.f32()?.chunks_exact(v).zip(noise.chunks_exact(v));
                let decided = rows
                    .zip(got.i32()?.iter().zip(&want))
                    .all(|((x, e), (g, w))| {
                        let score =
                            |i: i32| f64::from(x[i as usize]) - f64::from(e[i as usize]).ln();
                        g == w || (score(*g) - score(*w)).abs() <= SCORE
                    });
                let d = difference(got.i32()?, &want);
                report.judged(
                    label,
                    decided && got.numel() == want.len(),
                    d,
                    "another code is drawn",
                );
            }
            "exp_noise" => {}
            _ => report.unchecked(label, "no known quantity"),
        }
    }
    Ok(())
}

/// Probabilities of a row, in float64.
fn softmax(row: &[f32]) -> Vec<f64> {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let e: Vec<f64> = row.iter().map(|&x| f64::from(x - max).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.into_iter().map(|x| x / sum).collect()
}

/// Compares filtered logits. Among equal logits, which of them top-p removes depends on how the sort breaks ties: how many of
/// each value stay is what is compared. So is nothing that rounding decides at the bound of top-p.
fn masked(
    label: String,
    (logits, got, want): (&[f32], &[f32], &[f32]),
    v: usize,
    (k, p): (usize, f32),
    report: &mut Report<'_>,
) {
    if got.len() != want.len() {
        return report.fact(
            label,
            false,
            format!("{} numbers, recorded are {}", got.len(), want.len()),
        );
    }
    let d = difference(got, want);
    if d.max_abs == 0.0 {
        return report.judged(label, true, d, "");
    }
    let mut notes = Vec::new();
    for ((x, g), w) in logits
        .chunks_exact(v)
        .zip(got.chunks_exact(v))
        .zip(want.chunks_exact(v))
    {
        if g == w {
            continue;
        }
        let sorted = |row: &[f32]| {
            let mut r = row.to_vec();
            r.sort_by(f32::total_cmp);
            r
        };
        if p > 0.0 && sorted(g) == sorted(w) {
            notes.push("equal logits were told apart differently");
        } else if p > 0.0 && at_the_bound(x, g, w, (k, p)) {
            notes.push("rounding decides at the bound");
        } else {
            return report.judged(label, false, d, "other codes are removed");
        }
    }
    notes.dedup();
    report.fact(label, true, notes.join("; "));
}

/// Whether all codes that only one of two filtered rows keeps lie at the bound of top-p.
fn at_the_bound(logits: &[f32], got: &[f32], want: &[f32], (k, p): (usize, f32)) -> bool {
    let mut kept: Vec<usize> = (0..logits.len()).collect();
    kept.sort_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    if k > 0 && k < kept.len() {
        let least = logits[kept[kept.len() - k]];
        kept.retain(|&i| logits[i] >= least);
    }
    let rest: Vec<f32> = kept.iter().map(|&i| logits[i]).collect();
    let mut running = 0.0;
    let mut near = vec![false; logits.len()];
    for (&i, q) in kept.iter().zip(softmax(&rest)) {
        running += q;
        near[i] = (running - (1.0 - f64::from(p))).abs() <= BOUND;
    }
    (0..logits.len())
        .all(|i| got[i] == want[i] || (got[i].is_finite() != want[i].is_finite() && near[i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(parse("k20_p0.8.masked"), Some(("", 20, 0.8, "masked")));
        assert_eq!(parse("ties.k4_p0.6.idx"), Some(("ties.", 4, 0.6, "idx")));
        assert_eq!(parse("k0_p0.exp_noise"), Some(("", 0, 0.0, "exp_noise")));
        assert_eq!(parse("logits"), None);
        assert_eq!(parse("ties.logits"), None);
    }

    #[test]
    fn ties_and_bounds_are_told_from_errors() {
        let none = f32::NEG_INFINITY;
        let judge = |x: &[f32], g: &[f32], w: &[f32], k, p| {
            let mut see = |_: &crate::Line| {};
            let mut r = Report::new(crate::Machine::CPU, &mut see);
            masked("m".into(), (x, g, w), x.len(), (k, p), &mut r);
            r.counts.failed == 0
        };
        let x = [1.0, 1.0, 2.0];
        assert!(judge(&x, &[none, 1.0, 2.0], &[1.0, none, 2.0], 0, 0.8));
        assert!(!judge(&x, &[none, 1.0, 2.0], &[1.0, none, 2.0], 2, 0.0));
        assert!(!judge(&x, &[none, none, 2.0], &[none, 1.0, 2.0], 0, 0.8));
        // Running probabilities 1/4, 1/2, 1: the second lies at the bound of p = 1/2.
        let x = [0.0, 0.0, 2f32.ln()];
        let kept = [none, 0.0, x[2]];
        assert!(judge(&x, &[none, none, x[2]], &kept, 0, 0.5));
        assert!(!judge(&x, &[none, none, x[2]], &kept, 0, 0.6));
        assert!(!judge(&x, &[none, 0.5, x[2]], &kept, 0, 0.5));
    }
}
