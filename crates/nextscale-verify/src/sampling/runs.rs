//! Autoregressive runs: greedy, random with recorded noise, smooth with recorded noise.

use crate::compare::{Limit, difference};
use crate::floor::Floors;
use crate::machine::host;
use crate::part;
use crate::recorded::Recorded;
use crate::report::Report;
use nextscale::generate::{Edit, Noise, Region, SampleOptions, Sampled, Sampler, ScaleNoise};
use nextscale::model::var::Var;
use nextscale::model::vqvae::Vqvae;
use nextscale::{Error, Result};
use nextscale_tensor::Tensor;
use nextscale_tensor::ops::{self, Draw, smooth_temperature};
use serde_json::Value as Json;

/// What the README suggests where no floor is recorded.
const SUGGESTED: Limit = Limit::absolute(1e-4);
/// Absolute difference that the README suggests for smooth runs from the third scale on: low temperatures amplify rounding.
const SMOOTH: f64 = 2e-3;
/// Gaps of logits are decided above this share of the largest magnitude.
const DECIDED: f64 = 1e-5;
/// A running probability nearer to the bound than this is not decided.
const BOUND: f64 = 1e-4;

/// The models of the runs.
pub(super) struct Models<'a> {
    pub(super) var: &'a Var,
    pub(super) vqvae: &'a Vqvae,
    pub(super) floors: &'a Floors,
    pub(super) info: &'a Json,
}

/// Strength of guidance, k and p of a name such as `random_cfg1.5_k20_p0.8`.
fn parse(stem: &str) -> Option<(f32, usize, f32)> {
    let number = |lead: &str| {
        stem.split('_')
            .find_map(|part| part.strip_prefix(lead)?.parse::<f32>().ok())
    };
    let greedy = stem.starts_with("greedy");
    let k = match number("k") {
        Some(k) => k as usize,
        None => usize::from(greedy),
    };
    Some((number("cfg")?, k, number("p").unwrap_or(0.0)))
}

/// One run with everything recorded of it.
struct Recording<'a> {
    stem: &'a str,
    file: &'a Recorded,
    labels: Vec<i32>,
    /// Drawn codes \[B, l\] of every scale.
    tokens: Vec<Tensor>,
    options: SampleOptions,
    /// Unit-exponential noise of every scale, where the run was not greedy.
    noise: Vec<Option<Vec<f32>>>,
}

/// Guided logits and f̂ of every scale, and the result.
struct Trace {
    guided: Vec<Tensor>,
    out: Sampled,
}

impl Models<'_> {
    /// Repeats a run and compares.
    pub(super) fn check(&self, stem: &str, file: &Recorded, report: &mut Report<'_>) -> Result<()> {
        let r = self.recording(stem, file)?;
        let mut trace = self.trace(&r, None)?;
        let mut equal = true;
        for (k, want) in r.tokens.iter().enumerate() {
            equal &= match trace.out.tokens.get(k) {
                Some(t) => host(t)?.i32()? == want.i32()?,
                None => false,
            };
        }
        if !equal && !r.options.more_smooth {
            // A token went another way, maybe where noise decides: everything else is compared on the recorded way.
            let edit = Edit {
                source: r.tokens.clone(),
                region: Region::from_mask(1, 1, vec![0.0])?,
            };
            trace = self.trace(&r, Some(&edit))?;
        }
        self.compare_tokens(&r, &trace, report)?;
        self.compare_numbers(&r, &trace, report)
    }

    fn recording<'r>(&self, stem: &'r str, file: &'r Recorded) -> Result<Recording<'r>> {
        let c = &self.var.config;
        let Some((cfg, top_k, top_p)) = parse(stem) else {
            return Err(Error::input(format!(
                "{}: its name does not state the strength of guidance (as in greedy_cfg1.5)",
                file.source()
            )));
        };
        let labels = file.ints("labels", c.classes + 1)?;
        let b = labels.len();
        let (mut tokens, mut noise, mut both) = (Vec::new(), Vec::new(), Vec::new());
        for k in 0..c.pyramid.count() {
            let l = c.pyramid.len_of(k);
            let name = format!("idx.{k}");
            let ints = file.ints(&name, c.vocab)?;
            if ints.len() != b * l {
                return Err(file.bad(
                    &name,
                    format!("has {} tokens, expected {b} maps of {l}", ints.len()),
                ));
            }
            tokens.push(Tensor::from_i32([b, l], ints));
            let given = |lead: &str| -> Result<Option<Vec<f32>>> {
                let name = format!("{lead}.{k}");
                if !file.has(&name) {
                    return Ok(None);
                }
                let values = file.f32(&name)?;
                if values.len() == b * l * c.vocab {
                    Ok(Some(values))
                } else {
                    Err(file.bad(
                        &name,
                        format!("has {} numbers, expected {}", values.len(), b * l * c.vocab),
                    ))
                }
            };
            let (e, g) = (given("exp_noise")?, given("gumbel")?);
            // Without recorded noise a draw is of no interest, but it must be possible.
            let ones = || vec![1.0; b * l * c.vocab];
            both.push(ScaleNoise {
                exponential: Some(e.clone().unwrap_or_else(ones)),
                gumbel: g,
            });
            noise.push(e);
        }
        let more_smooth = both.iter().all(|n| n.gumbel.is_some());
        Ok(Recording {
            stem,
            file,
            labels,
            tokens,
            options: SampleOptions {
                cfg,
                top_k,
                top_p,
                more_smooth,
                noise: Noise::Given(both),
            },
            noise,
        })
    }

    fn trace(&self, r: &Recording<'_>, edit: Option<&Edit>) -> Result<Trace> {
        let sampler = Sampler {
            var: self.var,
            vqvae: self.vqvae,
        };
        let mut guided = Vec::new();
        let mut watch = |_: usize, logits: &Tensor, _: &Tensor| {
            guided.push(logits.clone());
            Ok(())
        };
        let out = sampler.draw(&r.labels, 0, &r.options, edit, Some(&mut watch))?;
        Ok(Trace { guided, out })
    }

    fn limit(&self, r: &Recording<'_>, scale: Option<usize>) -> Limit {
        let smooth = r.options.more_smooth;
        // A smooth run's noise grows from scale to scale: early scales are held to what was recorded up to them.
        let counts = |name: &str| match (smooth, scale, name.rsplit_once('.')) {
            (true, Some(k), Some(("guided_logits", i))) => {
                i.parse::<usize>().is_ok_and(|i| i <= k.max(1))
            }
            (true, Some(_), _) => false,
            _ => true,
        };
        let early = scale.is_some_and(|k| k < 2);
        let floor = self.floors.section(&[r.stem], counts);
        match (smooth && !early, floor) {
            // How much is amplified is so much a matter of chance that two records do not bound it.
            (true, Some(limit)) => limit.or_absolute(SMOOTH),
            (true, None) => Limit::absolute(SMOOTH),
            (false, Some(limit)) => limit,
            (false, None) => SUGGESTED,
        }
    }

    /// Guided logits, f̂, the image, the temperatures.
    fn compare_numbers(
        &self,
        r: &Recording<'_>,
        trace: &Trace,
        report: &mut Report<'_>,
    ) -> Result<()> {
        let last = trace.guided.len().saturating_sub(1);
        for name in r.file.names() {
            let label = format!("{}/{name}", r.stem);
            let (lead, scale) = match part::bare(name).0.split_once('.') {
                Some((lead, k)) => (lead, k.parse::<usize>().ok()),
                None => (name, None),
            };
            match (lead, scale) {
                ("labels", None) | ("idx" | "exp_noise" | "gumbel", Some(_)) => {}
                ("guided_logits", Some(k)) => match trace.guided.get(k) {
                    Some(got) => {
                        part::compare(label, got, (r.file, name), self.limit(r, scale), report)?;
                    }
                    None => report.fact(label, false, "there is no such scale"),
                },
                ("f_hat" | "image", None) => {
                    let got = if lead == "image" {
                        &trace.out.images
                    } else {
                        &trace.out.f_hat
                    };
                    part::compare(label, got, (r.file, name), self.limit(r, None), report)?;
                }
                ("tau", None) => {
                    let ratio = |k: usize| {
                        if last == 0 {
                            0.0
                        } else {
                            k as f64 / last as f64
                        }
                    };
                    let got: Vec<f64> = (0..=last).map(|k| smooth_temperature(ratio(k))).collect();
                    report.numbers(label, &got, &r.file.f64(name)?, Limit::relative(1e-15));
                }
                _ => report.unchecked(label, "no known quantity"),
            }
        }
        Ok(())
    }

    /// Every token beside the recorded one.
    fn compare_tokens(
        &self,
        r: &Recording<'_>,
        trace: &Trace,
        report: &mut Report<'_>,
    ) -> Result<()> {
        let gaps = &self.info["cases"][r.stem]["min_top1_top2_gap_per_scale"];
        for (k, want) in r.tokens.iter().enumerate() {
            let label = format!("{}/idx.{k}", r.stem);
            let want = want.i32()?;
            let Some(logits) = trace.guided.get(k) else {
                report.fact(label, false, "there is no such scale");
                continue;
            };
            let filtered = ops::filter_logits(logits, r.options.top_k, r.options.top_p)?;
            let ones = vec![1.0; filtered.numel()];
            let noise = r.noise[k].as_deref().unwrap_or(&ones);
            let own = host(&ops::draw_tokens(&filtered, &Draw::Given(noise))?)?;
            let own = own.i32()?;
            let d = difference(own, want);
            if report.machine().is_half() {
                report.shown(label, d);
                continue;
            }
            if own == want {
                report.judged(label, true, d, "");
                continue;
            }
            let recorded = r.file.f32(&format!("guided_logits.{k}"))?;
            let v = self.var.config.vocab;
            let largest = recorded
                .iter()
                .fold(0.0f64, |m, x| m.max(f64::from(x.abs())));
            let near = report.machine().slack() * DECIDED * largest;
            let settled = r.options.top_k == 1 && gaps[k].as_f64().is_some_and(|g| g > near);
            let rows = recorded.chunks_exact(v).zip(noise.chunks_exact(v));
            let wrong = rows.zip(own.iter().zip(want)).position(|((x, e), (o, w))| {
                o != w
                    && (settled
                        || !possible(x, e, *o as usize, (r.options.top_k, r.options.top_p, near)))
            });
            let differ = own.iter().zip(want).filter(|(o, w)| o != w).count();
            match wrong {
                Some(i) => report.judged(
                    label,
                    false,
                    d,
                    format!(
                        "{differ} of {} tokens differ; token {i}: code {}, recorded {}",
                        want.len(),
                        own[i],
                        want[i]
                    ),
                ),
                None => report.fact(
                    label,
                    true,
                    format!(
                        "{differ} of {} tokens differ where float noise decides",
                        want.len()
                    ),
                ),
            }
        }
        Ok(())
    }
}

/// Whether code `own` may be drawn from a row of guided logits when each is uncertain by `near`: it may pass the filters, and no code that
/// surely passes them has a clearly higher score.
fn possible(x: &[f32], e: &[f32], own: usize, (k, p, near): (usize, f32, f64)) -> bool {
    let loose = passing(x, k, near, f64::from(p) + BOUND, p > 0.0);
    let strict = passing(x, k, -near, f64::from(p) - BOUND, p > 0.0);
    let score = |i: usize| f64::from(x[i]) - f64::from(e[i]).ln();
    loose[own] && !(0..x.len()).any(|i| strict[i] && score(i) > score(own) + 2.0 * near)
}

/// Which codes pass top-k when logits may be lower by `near`, and top-p.
fn passing(x: &[f32], k: usize, near: f64, p: f64, use_p: bool) -> Vec<bool> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[a].total_cmp(&x[b]));
    let least = if k > 0 && k < x.len() {
        f64::from(x[order[x.len() - k]])
    } else {
        f64::NEG_INFINITY
    };
    let mut keep: Vec<bool> = x.iter().map(|&x| f64::from(x) >= least - near).collect();
    if use_p {
        let max = f64::from(order.last().map_or(0.0, |&i| x[i]));
        let weight = |i: usize| {
            if f64::from(x[i]) >= least {
                (f64::from(x[i]) - max).exp()
            } else {
                0.0
            }
        };
        let sum: f64 = order.iter().map(|&i| weight(i)).sum();
        let mut running = 0.0;
        for &i in order.iter().take(x.len().saturating_sub(1)) {
            running += weight(i) / sum;
            keep[i] &= running > 1.0 - p;
        }
    }
    keep
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(parse("greedy_cfg1.5"), Some((1.5, 1, 0.0)));
        assert_eq!(parse("random_cfg0_k20_p0.8"), Some((0.0, 20, 0.8)));
        assert_eq!(parse("smooth_cfg4_p0.95"), Some((4.0, 0, 0.95)));
        assert_eq!(parse("greedy"), None);
    }

    #[test]
    fn only_near_misses_are_possible() {
        let e = [1.0f32; 4];
        let x = [0.0f32, 3.0, 2.99999, 1.0];
        let with = |own, k, p| possible(&x, &e, own, (k, p, 1e-4));
        assert!(with(1, 0, 0.0) && with(2, 0, 0.0));
        assert!(!with(3, 0, 0.0) && !with(0, 0, 0.0));
        // The second largest is at the bound of k = 1.
        assert!(with(2, 1, 0.0));
        // Noise that favours a code which the filter removes for sure does not help it.
        let e = [1e-6f32, 1.0, 1.0, 1.0];
        assert!(possible(&x, &e, 0, (0, 0.0, 1e-4)));
        assert!(!possible(&x, &e, 0, (2, 0.0, 1e-4)));
        assert!(!possible(&x, &e, 0, (0, 0.5, 1e-4)));
    }
}
