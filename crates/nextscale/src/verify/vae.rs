//! The tokenizer in use: intermediate results, token maps, reconstructions, the transformer's input.

use super::compare::Limit;
use super::floor::Floors;
use super::folder::Folder;
use super::models::{Tokenizer, check_formats, pyramid_of_lengths};
use super::recorded::Recorded;
use super::report::Report;
use super::tokens::{Maps, Search};
use crate::model::vqvae::Vqvae;
use crate::model::{Pyramid, Run};
use crate::{Error, Result};
use nextscale_tensor::{Cx, Tensor, ops};
use serde_json::Value as Json;
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

/// What the README suggests where no floor is recorded: features and images.
const SUGGESTED: Limit = Limit::relative(2e-5).or_absolute(1e-4);

/// Checks every case of the folder.
pub(super) fn check(folder: &Folder, report: &mut Report<'_>) -> Result<()> {
    check_formats(folder, report)?;
    let floors = Floors::open(folder)?;
    let tokenizer = Tokenizer::open(folder)?;
    let mut described = false;
    for stem in folder.stems(".safetensors") {
        let name = format!("{stem}.safetensors");
        if super::kind_of_tensors(&folder.tensor_names(&name)?) != Some(super::Kind::Vae) {
            continue;
        }
        let file = folder.tensors(&name)?;
        let pyramid = scales(&tokenizer, stem, &file)?;
        let vqvae = tokenizer.build(&pyramid, false)?;
        if !described {
            describe(&tokenizer, &vqvae, report)?;
            described = true;
        }
        let limit = floors.section(&[stem], |_| true).unwrap_or(SUGGESTED);
        Case {
            stem,
            file: &file,
            tokenizer: &tokenizer,
            vqvae: &vqvae,
            pyramid: &pyramid,
            limit,
        }
        .check(report)?;
    }
    Ok(())
}

/// The scales of a case: as `config.json` states them, or square maps of the recorded lengths.
pub(super) fn scales(tokenizer: &Tokenizer, stem: &str, file: &Recorded) -> Result<Pyramid> {
    if let Some(p) = tokenizer.scales_of(stem)? {
        return Ok(p);
    }
    let mut lengths = Vec::new();
    while file.has(&format!("idx.{}", lengths.len())) {
        let shape = file.shape(&format!("idx.{}", lengths.len()))?;
        lengths.push(shape.last().copied().unwrap_or(0));
    }
    pyramid_of_lengths(&lengths, file.source())
}

/// The images of a case, \[B, H, W, 3\].
pub(super) fn images(file: &Recorded) -> Result<Tensor> {
    if file.has("image") {
        file.channels_last("image")
    } else {
        file.images("image_u8")
    }
}

/// Compares what `config.json` says of the whole model.
fn describe(tokenizer: &Tokenizer, vqvae: &Vqvae, report: &mut Report<'_>) -> Result<()> {
    tokenizer.check_state(vqvae, report)?;
    let config = &tokenizer.config;
    for (key, got) in [
        ("n_params", vqvae.params.count()),
        ("key_count", tokenizer.dict.len()),
    ] {
        if let Some(want) = config[key].as_u64() {
            report.same(key, &(got as u64), &want);
        }
    }
    let options = tokenizer.options();
    let c = &vqvae.config;
    for (key, got) in [
        ("vocab_size", Json::from(c.vocab)),
        ("z_channels", Json::from(c.cvae)),
        ("ch", Json::from(c.ch)),
        ("ch_mult", Json::from(c.ch_mult.clone())),
        ("num_res_blocks", Json::from(c.num_res_blocks)),
        ("quant_conv_ks", Json::from(c.quant_conv_ks)),
    ] {
        if let Some(want) = options.get(key) {
            report.same(format!("vae.{key}"), &got, want);
        }
    }
    Ok(())
}

/// One file of recorded numbers.
struct Case<'a> {
    stem: &'a str,
    file: &'a Recorded,
    tokenizer: &'a Tokenizer,
    vqvae: &'a Vqvae,
    pyramid: &'a Pyramid,
    limit: Limit,
}

impl Case<'_> {
    fn label(&self, what: impl std::fmt::Display) -> String {
        format!("{}/{what}", self.stem)
    }

    fn check(&self, report: &mut Report<'_>) -> Result<()> {
        let (file, vqvae) = (self.file, self.vqvae);
        if file.has("image") && file.has("image_u8") {
            let got = file.images("image_u8")?;
            let want = file.channels_last("image")?;
            report.numbers(self.label("image"), got.f32()?, want.f32()?, Limit::EXACT);
        }
        let image = images(file)?;
        let (seen, f) = probed(|run| vqvae.features(run, &image, None))?;
        let mut done: BTreeSet<String> = ["image", "image_u8"].map(str::to_owned).into();

        let (seen_f_hats, code) =
            probed(|run| vqvae.quantizer.encode(run, &vqvae.params, &f, self.pyramid))?;
        let recorded = self.recorded_maps(&image)?;
        let mut f_hats: Vec<Tensor> = Vec::new();
        match &recorded {
            None => f_hats.extend(
                (0..self.pyramid.count())
                    .filter_map(|k| seen_f_hats.get(&format!("f_hat.{k}")).cloned()),
            ),
            Some(recorded) => {
                let gaps = self.gaps();
                let maps = Maps {
                    vqvae,
                    pyramid: self.pyramid,
                    f: &f,
                    recorded,
                };
                let label = |k: usize| self.label(format!("idx.{k}"));
                if maps.compare(&code.indices, gaps.as_deref(), label, report)? {
                    f_hats.extend(
                        (0..recorded.len())
                            .filter_map(|k| seen_f_hats.get(&format!("f_hat.{k}")).cloned()),
                    );
                } else {
                    f_hats = vqvae
                        .quantizer
                        .f_hats(&vqvae.params, recorded, self.pyramid)?;
                }
                done.extend((0..recorded.len()).map(|k| format!("idx.{k}")));
                self.statistics(&maps, &f_hats, report)?;
            }
        }
        let Some(f_hat) = f_hats.last() else {
            return Err(Error::input(format!("{}: has no scales", file.source())));
        };
        let (decoded, plain) = probed(|run| vqvae.decode(run, f_hat, None))?;
        let recon = ops::clamp(&plain, -1.0, 1.0)?;
        self.clamped(&plain, report)?;

        for name in file.names() {
            if done.contains(name) {
                continue;
            }
            self.quantity(
                name,
                recorded.as_deref(),
                report,
                |bare| match bare {
                    "recon" => Some(recon.clone()),
                    "dec.conv_out_preclamp" => Some(plain.clone()),
                    _ => match bare
                        .strip_prefix("f_hat.")
                        .and_then(|k| k.parse::<usize>().ok())
                    {
                        Some(k) => f_hats.get(k).cloned(),
                        None => seen.get(bare).or_else(|| decoded.get(bare)).cloned(),
                    },
                },
                &f_hats,
            )?;
        }
        Ok(())
    }

    /// Recorded token maps, one a scale.
    fn recorded_maps(&self, image: &Tensor) -> Result<Option<Vec<Tensor>>> {
        if !self.file.has("idx.0") {
            return Ok(None);
        }
        let b = image.dims().first().copied().unwrap_or(0);
        let maps = (0..self.pyramid.count()).map(|k| {
            let name = format!("idx.{k}");
            let l = self.pyramid.len_of(k);
            if self.file.shape(&name)? != [b, l] {
                return Err(self.file.bad(
                    &name,
                    format!(
                        "has the shape {:?}, expected [{b}, {l}]",
                        self.file.shape(&name)?
                    ),
                ));
            }
            Ok(Tensor::from_i32(
                [b, l],
                self.file.ints(&name, self.tokenizer.vocab())?,
            ))
        });
        maps.collect::<Result<_>>().map(Some)
    }

    fn codes(&self) -> &Json {
        &self.tokenizer.config[self.stem]["codes"]
    }

    /// The smallest gap of each scale that `config.json` records.
    fn gaps(&self) -> Option<Vec<f64>> {
        let list = self.codes()["per_scale_margin_min"].as_array()?;
        list.iter().map(Json::as_f64).collect()
    }

    /// The statistics of the codes in `config.json`.
    fn statistics(
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
            ("f_rms", rms(maps.f.f32()?)),
            ("rest_rms", rms(rest.f32()?)),
        ] {
            if let Some(want) = codes[key].as_f64() {
                report.numbers(
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
                report.numbers(self.label(format!("codes.{key}")), &[got], &[want], limit);
            }
        }
        if let Some(want) = self.gaps() {
            report.numbers(
                self.label("codes.per_scale_margin_min"),
                &per_scale,
                &want,
                limit,
            );
        }
    }

    /// The share of values that clamping changes.
    fn clamped(&self, plain: &Tensor, report: &mut Report<'_>) -> Result<()> {
        let key = format!("clamped_fraction_{}", self.stem);
        if let Some(want) = self.tokenizer.config[&key].as_f64() {
            let over = plain.f32()?.iter().filter(|v| v.abs() > 1.0).count();
            let n = plain.numel() as f64;
            // Two values may lie so near to ±1 that noise moves them across.
            report.numbers(key, &[over as f64 / n], &[want], Limit::absolute(2.0 / n));
        }
        Ok(())
    }

    /// Compares one recorded tensor.
    fn quantity(
        &self,
        name: &str,
        recorded: Option<&[Tensor]>,
        report: &mut Report<'_>,
        find: impl Fn(&str) -> Option<Tensor>,
        f_hats: &[Tensor],
    ) -> Result<()> {
        let (file, vqvae) = (self.file, self.vqvae);
        let label = self.label(name);
        let number = |lead: &str| {
            name.strip_prefix(lead)
                .and_then(|k| k.parse::<usize>().ok())
        };
        let recorded = recorded.unwrap_or_default();
        let first = file.shape(name)?.first().copied().unwrap_or(0);
        if name == "idx_cat" {
            if recorded.is_empty() {
                report.unchecked(label, "the maps of the scales are not recorded");
                return Ok(());
            }
            let parts: Vec<&Tensor> = recorded.iter().collect();
            let got = ops::concat_tokens(&parts)?;
            report.numbers(
                label,
                got.i32()?,
                &file.ints(name, self.tokenizer.vocab())?,
                Limit::EXACT,
            );
            return Ok(());
        }
        if name == "var_input" {
            let got =
                vqvae
                    .quantizer
                    .var_input(&vqvae.params, recorded, self.pyramid, recorded.len())?;
            match got {
                Some(got) => report.numbers(label, got.f32()?, &file.f32(name)?, self.limit),
                None => report.unchecked(label, "it needs token maps of two scales"),
            }
            return Ok(());
        }
        if let Some(k) = number("idx_to_img_growing.") {
            let maps = recorded
                .iter()
                .take(k + 1)
                .map(|m| m.narrow(0, first.min(m.dims()[0])))
                .collect::<nextscale_tensor::Result<Vec<_>>>()?;
            let grown = vqvae
                .quantizer
                .f_hats_growing(&vqvae.params, &maps, self.pyramid)?;
            return match grown.get(k) {
                Some(f) => self.map(name, &vqvae.decode_clamped(f)?, report),
                None => {
                    report.unchecked(label, "there is no such scale");
                    Ok(())
                }
            };
        }
        if let Some(k) = number("idx_to_img.") {
            return match f_hats.get(k) {
                Some(f) => {
                    let f = f.narrow(0, first.min(f.dims()[0]))?;
                    self.map(name, &vqvae.decode_clamped(&f)?, report)
                }
                None => {
                    report.unchecked(label, "there is no such scale");
                    Ok(())
                }
            };
        }
        let (bare, step) = subsampled(name);
        match find(bare) {
            Some(got) => self.map(name, &every(&got, step)?, report),
            None => {
                report.unchecked(label, "no known quantity");
                Ok(())
            }
        }
    }

    /// Compares a feature map or image batch, of which only the first samples may be recorded.
    fn map(&self, name: &str, got: &Tensor, report: &mut Report<'_>) -> Result<()> {
        let want = self.file.channels_last(name)?;
        let n = want.dims()[0].min(got.dims()[0]);
        let got = got.narrow(0, n)?;
        let label = self.label(name);
        if got.dims() != want.dims() {
            report.fact(
                label,
                false,
                format!(
                    "has the shape {}, recorded is {}",
                    got.shape(),
                    want.shape()
                ),
            );
            return Ok(());
        }
        report.numbers(label, got.f32()?, want.f32()?, self.limit);
        Ok(())
    }
}

/// Runs `f` with a probe and returns all that it saw.
fn probed<T>(f: impl FnOnce(&Run<'_>) -> Result<T>) -> Result<(HashMap<String, Tensor>, T)> {
    let seen = RefCell::new(HashMap::new());
    let probe = |name: &str, value: &Tensor| {
        seen.borrow_mut().insert(name.to_owned(), value.clone());
    };
    let run = Run {
        cx: Cx::off(),
        probe: Some(&probe),
    };
    let out = f(&run)?;
    Ok((seen.into_inner(), out))
}

/// A name such as `enc.conv_in_sub4` without what says that only every fourth row and column is kept, and that number.
fn subsampled(name: &str) -> (&str, usize) {
    match name.rsplit_once("_sub") {
        Some((bare, n)) => match n.parse() {
            Ok(n) if n > 0 => (bare, n),
            _ => (name, 1),
        },
        None => (name, 1),
    }
}

/// Every `step`-th row and column of a map \[B, h, w, C\].
fn every(map: &Tensor, step: usize) -> Result<Tensor> {
    let &[b, h, w, c] = map.dims() else {
        return Ok(map.clone());
    };
    if step == 1 {
        return Ok(map.clone());
    }
    let values = map.f32()?;
    let mut out = Vec::new();
    for s in 0..b {
        for y in (0..h).step_by(step) {
            for x in (0..w).step_by(step) {
                let at = ((s * h + y) * w + x) * c;
                out.extend_from_slice(&values[at..at + c]);
            }
        }
    }
    Ok(Tensor::from_vec(
        [b, h.div_ceil(step), w.div_ceil(step), c],
        out,
    ))
}
