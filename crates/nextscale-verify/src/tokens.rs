//! Token maps: equal wherever they are decided.

use super::compare::difference;
use super::machine::host;
use super::report::Report;
use nextscale::Result;
use nextscale::model::Pyramid;
use nextscale::model::vqvae::Vqvae;
use nextscale_tensor::{Cx, Tensor, ops};
use rayon::prelude::*;

/// A gap between the two best codes is decided above this share of the numbers that it is the difference of.
const DECIDED: f64 = 1e-5;

/// The search for one token, in float64.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search {
    /// Squared distance to the nearest code; with normalisation, minus the cosine.
    pub(super) best: f64,
    /// How much farther the second nearest is.
    pub(super) gap: f64,
    /// The gap up to which float noise may decide.
    pub(super) noise: f64,
}

/// What the quantizer searches codes for at scale `k`, \[B·l, Cvae\], when the scales before were given by `f_hats`.
fn wanted(f: &Tensor, f_hats: &[Tensor], k: usize, pyramid: &Pyramid) -> Result<Tensor> {
    let cx = Cx::off();
    let rest = match k.checked_sub(1).and_then(|j| f_hats.get(j)) {
        Some(done) => ops::sub(&cx, f, done)?,
        None => f.clone(),
    };
    let z = ops::area(&cx, &rest, pyramid.scales()[k])?;
    let c = z.shape().last();
    Ok(z.reshape([z.numel() / c.max(1), c])?)
}

/// Searches the codes of every row of `z` in float64.
fn search(z: &[f32], codebook: &[f32], c: usize, znorm: bool) -> Vec<Search> {
    let norm = |v: &[f32]| v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
    let codes: Vec<(&[f32], f64)> = codebook.chunks_exact(c).map(|e| (e, norm(e))).collect();
    z.par_chunks_exact(c)
        .map(|z| {
            let zz = norm(z);
            let (mut best, mut second, mut size) = (f64::INFINITY, f64::INFINITY, 0.0);
            for &(e, ee) in &codes {
                let dot: f64 = z
                    .iter()
                    .zip(e)
                    .map(|(&a, &b)| f64::from(a) * f64::from(b))
                    .sum();
                let d = if znorm {
                    -dot / (zz.sqrt().max(1e-12) * ee.sqrt().max(1e-12))
                } else {
                    zz + ee - 2.0 * dot
                };
                if d < best {
                    (second, best) = (best, d);
                    size = if znorm { 1.0 } else { zz + ee };
                } else {
                    second = second.min(d);
                }
            }
            Search {
                best,
                gap: second - best,
                noise: DECIDED * size,
            }
        })
        .collect()
}

/// Token maps of the feature f beside the recorded ones.
pub(super) struct Maps<'a> {
    /// The tokenizer.
    pub(super) vqvae: &'a Vqvae,
    /// The scales.
    pub(super) pyramid: &'a Pyramid,
    /// \[B, h, w, Cvae\].
    pub(super) f: &'a Tensor,
    /// Recorded token maps \[B, l\] of every scale.
    pub(super) recorded: &'a [Tensor],
}

impl Maps<'_> {
    /// The search of every token of scale `k` after the recorded coarser scales.
    pub(super) fn search(&self, f_hats: &[Tensor], k: usize) -> Result<Vec<Search>> {
        let z = host(&wanted(self.f, f_hats, k, self.pyramid)?)?;
        let codebook = host(&self.vqvae.quantizer.codebook(&self.vqvae.params))?;
        let c = codebook.shape().last();
        Ok(search(
            z.f32()?,
            codebook.f32()?,
            c,
            self.vqvae.config.using_znorm,
        ))
    }

    /// Compares `got` with the recorded maps, a quantity a scale. `gaps` are the smallest gaps of the scales that the bundle
    /// records. Returns whether all are equal.
    pub(super) fn compare(
        &self,
        got: &[Tensor],
        gaps: Option<&[f64]>,
        label: impl Fn(usize) -> String,
        report: &mut Report<'_>,
    ) -> Result<bool> {
        let got = got.iter().map(host).collect::<Result<Vec<_>>>()?;
        if report.machine().is_half() {
            for (k, want) in self.recorded.iter().enumerate() {
                match got.get(k) {
                    Some(g) => report.shown(label(k), difference(g.i32()?, want.i32()?)),
                    None => report.fact(label(k), false, "there is no such scale"),
                }
            }
            return Ok(false);
        }
        let slack = report.machine().slack();
        let equal = |k: usize| -> Result<bool> {
            Ok(match got.get(k) {
                Some(g) => g.i32()? == self.recorded[k].i32()?,
                None => false,
            })
        };
        let mut all = true;
        for k in 0..self.recorded.len() {
            all &= equal(k)?;
        }
        if all {
            for (k, want) in self.recorded.iter().enumerate() {
                let d = difference(want.i32()?, want.i32()?);
                report.judged(label(k), true, d, "");
            }
            return Ok(true);
        }
        // Some scale went another way: look at each by itself, after the recorded coarser ones.
        let params = &self.vqvae.params;
        let recorded = report.machine().all(self.recorded)?;
        let f_hats = self
            .vqvae
            .quantizer
            .f_hats(params, &recorded, self.pyramid)?;
        let codebook = self.vqvae.quantizer.codebook(params).detach();
        for (k, want) in self.recorded.iter().enumerate() {
            let z = wanted(self.f, &f_hats, k, self.pyramid)?;
            let own = host(&ops::nearest_code(
                &z,
                &codebook,
                self.vqvae.config.using_znorm,
            )?)?;
            let (own, want) = (own.i32()?, want.i32()?);
            let searches = self.search(&f_hats, k)?;
            let noise = slack * searches.iter().map(|s| s.noise).fold(0.0, f64::max);
            let settled = gaps.and_then(|g| g.get(k)).is_some_and(|&g| g > noise);
            let mut other = 0;
            let mut worst: Option<(usize, f64)> = None;
            for (i, s) in searches.iter().enumerate() {
                if own[i] == want[i] {
                    continue;
                }
                other += 1;
                if (settled || s.gap > slack * s.noise) && worst.is_none_or(|(_, g)| s.gap > g) {
                    worst = Some((i, s.gap));
                }
            }
            let d = difference(own, want);
            let note = match worst {
                Some((i, gap)) => format!(
                    "{other} of {} tokens differ; token {i}: code {}, recorded {}, though the next code is {gap:.1e} farther",
                    want.len(),
                    own[i],
                    want[i]
                ),
                None if other > 0 => format!(
                    "{other} of {} tokens differ where float noise decides",
                    want.len()
                ),
                None => String::new(),
            };
            if worst.is_none() && other > 0 {
                report.fact(label(k), true, note);
            } else {
                report.judged(label(k), worst.is_none(), d, note);
            }
        }
        Ok(false)
    }
}
