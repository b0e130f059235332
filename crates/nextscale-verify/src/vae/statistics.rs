//! What `config.json` says of the codes and values of a case.

use super::SUGGESTED;
use super::case::Case;
use crate::compare::Limit;
use crate::machine::host;
use crate::report::Report;
use crate::tokens::{Maps, Search};
use nextscale::Result;
use nextscale_tensor::{Cx, Tensor, ops};
use serde_json::Value as Json;
use std::collections::BTreeSet;

impl Case<'_> {
    fn codes(&self) -> &Json {
        &self.tokenizer.config[self.stem]["codes"]
    }

    /// The smallest gap of each scale that `config.json` records.
    pub(super) fn gaps(&self) -> Option<Vec<f64>> {
        let list = self.codes()["per_scale_margin_min"].as_array()?;
        list.iter().map(Json::as_f64).collect()
    }

    /// The statistics of the codes in `config.json`.
    pub(super) fn statistics(
        &self,
        maps: &Maps<'_>,
        f_hats: &[Tensor],
        report: &mut Report<'_>,
    ) -> Result<()> {
        let codes = self.codes();
        if !codes.is_object() {
            return Ok(());
        }
        let mut used = BTreeSet::new();
        let mut tokens = 0u64;
        for map in maps.recorded {
            tokens += map.numel() as u64;
            used.extend(map.i32()?.iter().copied());
        }
        let usage = used.len() as f64 / self.tokenizer.vocab() as f64;
        for (key, got) in [
            ("tokens", tokens as f64),
            ("distinct", used.len() as f64),
            ("usage", usage),
        ] {
            if let Some(want) = codes[key].as_f64() {
                report.numbers(
                    self.label(format!("codes.{key}")),
                    &[got],
                    &[want],
                    Limit::EXACT,
                );
            }
        }
        let rms = |t: &[f32]| {
            let sum: f64 = t.iter().map(|&v| f64::from(v).powi(2)).sum();
            (sum / t.len().max(1) as f64).sqrt()
        };
        let rest = match f_hats.last() {
            Some(h) => ops::sub(&Cx::off(), maps.f, h)?,
            None => maps.f.clone(),
        };
        for (key, got) in [
            ("f_rms", rms(host(maps.f)?.f32()?)),
            ("rest_rms", rms(host(&rest)?.f32()?)),
        ] {
            if let Some(want) = codes[key].as_f64() {
                report.computed(
                    self.label(format!("codes.{key}")),
                    &[got],
                    &[want],
                    SUGGESTED,
                );
            }
        }
        if self.tokenizer.znorm() {
            // Gaps of cosines are recorded differently from gaps of distances, if at all.
            return Ok(());
        }
        let searches = (0..self.pyramid.count())
            .map(|k| maps.search(f_hats, k))
            .collect::<Result<Vec<_>>>()?;
        self.margins(&searches, report);
        Ok(())
    }

    /// Gaps and distances of the search.
    fn margins(&self, searches: &[Vec<Search>], report: &mut Report<'_>) {
        let codes = self.codes();
        let least = |s: &[Search]| s.iter().map(|s| s.gap).fold(f64::INFINITY, f64::min);
        // The lower of the two middle values, as the reference's framework takes it.
        let median = |what: fn(&Search) -> f64| {
            let mut all: Vec<f64> = searches.iter().flatten().map(what).collect();
            all.sort_by(f64::total_cmp);
            all.get(all.len().saturating_sub(1) / 2)
                .copied()
                .unwrap_or(0.0)
        };
        let per_scale: Vec<f64> = searches.iter().map(|s| least(s)).collect();
        // A gap is the difference of two distances and as noisy as these.
        let noise = searches
            .iter()
            .flatten()
            .map(|s| s.noise)
            .fold(0.0, f64::max);
        let limit = Limit::absolute(noise);
        for (key, got) in [
            (
                "margin_min",
                per_scale.iter().copied().fold(f64::INFINITY, f64::min),
            ),
            ("margin_median", median(|s| s.gap)),
            ("best_median", median(|s| s.best)),
        ] {
            if let Some(want) = codes[key].as_f64() {
                report.computed(self.label(format!("codes.{key}")), &[got], &[want], limit);
            }
        }
        if let Some(want) = self.gaps() {
            report.computed(
                self.label("codes.per_scale_margin_min"),
                &per_scale,
                &want,
                limit,
            );
        }
    }

    /// The share of values that clamping changes.
    pub(super) fn clamped(&self, plain: &Tensor, report: &mut Report<'_>) -> Result<()> {
        let key = format!("clamped_fraction_{}", self.stem);
        if let Some(want) = self.tokenizer.config[&key].as_f64() {
            let over = host(plain)?.f32()?.iter().filter(|v| v.abs() > 1.0).count();
            let n = plain.numel() as f64;
            // Two values may lie so near to ±1 that noise moves them across.
            report.computed(key, &[over as f64 / n], &[want], Limit::absolute(2.0 / n));
        }
        Ok(())
    }
}
