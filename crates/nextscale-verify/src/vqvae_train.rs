//! The tokenizer's training pass: reconstruction, losses, gradients, codebook usage.

use super::compare::{Limit, difference};
use super::floor::Floors;
use super::folder::Folder;
use super::grads::Gradients;
use super::machine::host;
use super::models::Tokenizer;
use super::part;
use super::recorded::Recorded;
use super::report::Report;
use super::vae;
use nextscale::model::state::hit_averages;
use nextscale::model::{ForwardPass, Pyramid};
use nextscale::train::codebook_usage::HitAverages;
use nextscale::{Error, Result};
use nextscale_tensor::{Cx, Device, Tape, Tensor, ops};
use serde_json::Value as Json;
use std::collections::BTreeSet;

/// What the README suggests where no floor is recorded.
const LOSSES: Limit = Limit::relative(1e-5);
const GRADIENTS: Limit = Limit::relative(1e-4);
const IMAGES: Limit = Limit::relative(2e-5).or_absolute(1e-4);
/// Percentages are means of zeros and ones in float32; one code more or less is a millionth only of a million.
const USAGES: Limit = Limit::relative(1e-6);
/// Averages are a product and a sum a record, in float32.
const AVERAGES: Limit = Limit::relative(1e-6);
/// Most training passes whose averages are followed.
const MOST_PASSES: u64 = 1_000_000;

/// Checks every file of the folder.
pub(super) fn check(folder: &Folder, report: &mut Report<'_>) -> Result<()> {
    let Some(models) = folder.sibling("vae") else {
        return Err(Error::input(format!(
            "{}: needs the weights and images of the bundle ../vae, which is not there",
            folder.path().display()
        )));
    };
    let floors = Floors::open(folder)?;
    let tokenizer = Tokenizer::open(&models)?;
    for stem in folder.stems(".safetensors") {
        let name = format!("{stem}.safetensors");
        if super::kind_of_tensors(&folder.tensor_names(&name)?) == Some(super::Kind::VqvaeTrain) {
            one(
                folder,
                (stem, &folder.tensors(&name)?),
                &models,
                (&tokenizer, &floors),
                report,
            )?;
        }
    }
    Ok(())
}

/// The images that the pass was run on, and their scales: the case of `../vae` of the reconstruction's size and, where known, the
/// number of scales; among several the one whose reconstruction comes nearest.
fn batch(models: &Folder, tokenizer: &Tokenizer, file: &Recorded) -> Result<(Tensor, Pyramid)> {
    let rec = part::name_of(file, "rec").ok_or_else(|| file.bad("rec", "is missing"))?;
    let (shape, want) = (file.shape(rec)?, file.f32(rec)?);
    let scales = if file.has("usages") {
        file.shape("usages")?.first().copied()
    } else {
        None
    };
    let mut best: Option<(f64, Tensor, Pyramid)> = None;
    for stem in models.stems(".safetensors") {
        let name = format!("{stem}.safetensors");
        let names = models.tensor_names(&name)?;
        if super::kind_of_tensors(&names) != Some(super::Kind::Vae) {
            continue;
        }
        let case = models.tensors(&name)?;
        let pyramid = vae::scales(tokenizer, stem, &case)?;
        if scales.is_some_and(|n| n != pyramid.count()) {
            continue;
        }
        let kept = |t: &Tensor| -> Result<Option<Vec<f32>>> {
            let (values, dims) = part::as_recorded(t)?;
            Ok(part::of(&values, &dims, shape, part::bare(rec).1))
        };
        let images = vae::images(&case)?.to(models.machine.device)?;
        // Fewer samples than the case has are another batch.
        let all = images.dims()[0];
        if kept(&images)?.is_none() || shape.len() == 4 && shape[0] != all {
            continue;
        }
        let vqvae = tokenizer.build(&pyramid, false)?;
        let run = ForwardPass::plain(vqvae.math);
        let rec = vqvae.train_forward(&run, &images, None)?.image;
        let got = kept(&rec)?.unwrap_or_default();
        let off = difference(&got, &want).rel_l2;
        if best.as_ref().is_none_or(|(b, ..)| off < *b) {
            best = Some((off, images, pyramid));
        }
    }
    match best {
        Some((_, images, pyramid)) => Ok((images, pyramid)),
        None => Err(Error::input(format!(
            "{}: no case of ../vae has images of the shape {shape:?}",
            file.source()
        ))),
    }
}

fn one(
    folder: &Folder,
    (stem, file): (&str, &Recorded),
    models: &Folder,
    (tokenizer, floors): (&Tokenizer, &Floors),
    report: &mut Report<'_>,
) -> Result<()> {
    let (images, pyramid) = batch(models, tokenizer, file)?;
    let vqvae = tokenizer.build(&pyramid, true)?;
    let mut grads = vqvae.params.buffer()?;
    let tape = Tape::new();
    let run = ForwardPass::on(Cx::on(&tape).with(vqvae.math));
    let out = vqvae.train_forward(&run, &images, None)?;
    let mse = ops::mse(&run.cx, &out.image, &images)?;
    let loss = ops::weighted_sum(&run.cx, &[(out.vq_loss.clone(), 1.0), (mse, 1.0)])?;
    let (rec, vq_loss) = (host(&out.image)?, out.vq_loss.scalar()?);
    let counts = |hits: &Tensor| -> Result<Vec<u32>> {
        Ok(hits
            .to(Device::Cpu)?
            .i32()?
            .iter()
            .map(|&n| n as u32)
            .collect())
    };
    let hits: Vec<Vec<u32>> = out.hits.iter().map(counts).collect::<Result<_>>()?;
    drop(out.image);
    tape.backward(&loss, 1.0, Some((&vqvae.params, &mut grads)), &[])?;

    let own = [format!("{stem}_grad_stats.json"), "grad_stats.json".into()];
    let stats = match own.iter().find(|name| folder.has(name)) {
        Some(name) => folder.json(name)?,
        None => Json::Null,
    };
    let zero: Vec<String> = stats["__zero_gradient__"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect();
    let of_grad = |n: &str| {
        n.strip_prefix("grad.")
            .map(|n| !zero.iter().any(|z| z == n))
    };
    let outputs = floors.section(&[], |n| of_grad(n).is_none());
    if let Some(name) = part::name_of(file, "rec") {
        let limit = outputs.unwrap_or(IMAGES);
        part::compare(format!("{stem}/{name}"), &rec, (file, name), limit, report)?;
    }
    for (name, got) in [("vq_loss", vq_loss), ("total_loss", loss.scalar()?)] {
        if file.has(name) {
            report.losses(
                format!("{stem}/{name}"),
                &[got],
                &file.f64(name)?,
                outputs.unwrap_or(LOSSES),
            );
        }
    }
    let limit = floors
        .gradients(&[], |n| of_grad(n) == Some(true))
        .unwrap_or(GRADIENTS);
    let gradients = Gradients {
        params: &vqvae.params,
        grads: &grads,
        limit,
        zero,
        scale: 1.0,
        label: format!("{stem}/"),
    };
    gradients.samples(file, "grad.", report)?;
    if stats.is_object() {
        gradients.statistics(&stats, report)?;
    }
    let start = HitAverages {
        ema: hit_averages(&tokenizer.dict, pyramid.count(), tokenizer.vocab()),
        records: 0,
    };
    let (h, w) = pyramid.finest();
    let positions = images.dims()[0] * h * w;
    usage(stem, file, start, (&hits, positions), report)?;
    for name in file.names() {
        let known = ["rec", "vq_loss", "total_loss", "usages"].contains(&part::bare(name).0);
        if !known && !name.starts_with("grad.") && !name.starts_with("dist.") {
            report.unchecked(format!("{stem}/{name}"), "no known quantity");
        }
    }
    Ok(())
}

/// Codebook usage: as stored, and after so many passes over the same batch.
fn usage(
    stem: &str,
    file: &Recorded,
    mut averages: HitAverages,
    (hits, positions): (&[Vec<u32>], usize),
    report: &mut Report<'_>,
) -> Result<()> {
    if file.has("usages") {
        let got = averages.usage(positions);
        report.computed(format!("{stem}/usages"), &got, &file.f64("usages")?, USAGES);
    }
    let after: BTreeSet<u64> = file
        .names()
        .filter_map(|n| n.strip_prefix("dist.")?.rsplit_once('.')?.1.parse().ok())
        .filter(|n| *n <= MOST_PASSES)
        .collect();
    let mut done = 0;
    for n in after {
        while done < n {
            averages.record(hits);
            done += 1;
        }
        let (ema, usages) = (
            format!("dist.ema_after.{n}"),
            format!("dist.usages_after.{n}"),
        );
        if file.has(&ema) {
            let got: Vec<f32> = averages.ema.concat();
            report.computed(format!("{stem}/{ema}"), &got, &file.f32(&ema)?, AVERAGES);
        }
        if file.has(&usages) {
            let got = averages.usage(positions);
            report.computed(
                format!("{stem}/{usages}"),
                &got,
                &file.f64(&usages)?,
                USAGES,
            );
        }
    }
    Ok(())
}
