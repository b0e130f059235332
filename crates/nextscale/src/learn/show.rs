//! What trained models are shown and judged by: reconstructions, drawn pictures, pictures of noise.

use crate::checkpoint::open::{OpenPair, open_pair, open_tokenizer};
use crate::data::{Feed, LoaderConfig};
use crate::eval::{Judge, Reconstruction, evaluate_reconstruction};
use crate::generate::{BatchSampler, SampleOptions, Sampler};
use crate::log::LongWork;
use crate::model::vqvae::Vqvae;
use crate::pictures::before_after;
use crate::run::{Dataset, StopSignal};
use crate::{Error, Result, Team};
use nextscale_tensor::rng::{Purpose, Stream};
use nextscale_tensor::{Device, Math, Tensor, ops};
use std::path::Path;

/// Images drawn or sent through the tokenizer at once.
pub(crate) const BATCH: usize = 25;
/// Reconstructions in a picture, and a row of it.
const SHOWN: usize = 24;
const ROW: usize = 12;

/// Figures of a tokenizer on validation images; a picture of the first of them before and after.
///
/// # Errors
/// When a file can't be read or written, or a stop was asked for.
pub(crate) fn reconstruct(
    tokenizer: &Path,
    (data, config): (&Dataset, LoaderConfig),
    (device, math): (Device, Math),
    picture: &Path,
    (stop, say): (&StopSignal, fn(&str)),
) -> Result<Reconstruction> {
    let mut tok = open_tokenizer(tokenizer, None, None)?;
    tok.vqvae.to_device(device, math)?;
    let pyramid = tok.vqvae.config.pyramid.clone();
    let side = data.side;
    let mut all = data.val_loader(BATCH, config)?;
    let team = Team::of_one(stop.clone());
    let mut work = LongWork::new(data.val.len());
    let mut seen = |done| {
        if let Some(line) = work.line(done) {
            say(&format!("     {line}"));
        }
    };
    let figures = evaluate_reconstruction(&tok.vqvae, &pyramid, &mut all, side, &team, &mut seen)?;
    let mut first = data.val_loader(SHOWN, config)?;
    if let Some(batch) = first.next_batch()? {
        let (x, _) = Feed::new(device)?.batch(&batch, side)?;
        let (back, _) = tok.vqvae.reconstruct(&x, &pyramid)?;
        let back = ops::to_pixels(&ops::to_unit_range(&back)?);
        let back = back.map_err(|e| Error::from(e).of_run())?;
        before_after(&batch.images, &back, side, ROW).save(picture)?;
    }
    Ok(figures)
}

/// Images as training sees them, with their labels: `count` of them or a few more.
///
/// # Errors
/// When they can't be read, or a stop was asked for.
pub(crate) fn some_images(
    data: &Dataset,
    count: usize,
    config: LoaderConfig,
    stop: &StopSignal,
) -> Result<(Vec<u8>, Vec<u32>)> {
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    let mut loader = data.train_loader(BATCH, (0, 0), config)?;
    while labels.len() < count {
        stop.check()?;
        let batch = loader.next_batch()?;
        images.extend_from_slice(&batch.images);
        labels.extend_from_slice(&batch.labels);
    }
    Ok((images, labels))
}

/// How many validation images a judge names as their labels do, and these labels.
///
/// # Errors
/// When images can't be read, or a stop was asked for.
pub(crate) fn judge_real(
    judge: &Judge,
    data: &Dataset,
    config: LoaderConfig,
    stop: &StopSignal,
) -> Result<(usize, Vec<u32>)> {
    let (mut hits, mut labels) = (0, Vec::new());
    let mut val = data.val_loader(BATCH, config)?;
    while let Some(batch) = val.next_batch()? {
        stop.check()?;
        hits += judge.right(&batch.images, &batch.labels)?;
        labels.extend_from_slice(&batch.labels);
    }
    Ok((hits, labels))
}

/// Draws an image a label from the checkpoint `model`, numbered from 0 on; `each` takes them, batch by batch, with their labels.
///
/// # Errors
/// When the file can't be used, drawing fails, or a stop was asked for.
pub(crate) fn draw(
    model: &Path,
    labels: &[i32],
    options: SampleOptions,
    (device, math): (Device, Math),
    stop: &StopSignal,
    mut each: impl FnMut(&[u8], &[i32]) -> Result<()>,
) -> Result<()> {
    let OpenPair {
        mut var,
        tokenizer: mut tok,
        ..
    } = open_pair(model, None, None)?;
    var.to_device(device, math)?;
    tok.vqvae.to_device(device, math)?;
    let sampler = Sampler {
        var: &var,
        vqvae: &tok.vqvae,
    };
    let mut batches = BatchSampler::new(sampler, options, BATCH);
    for (b, labels) in labels.chunks(BATCH).enumerate() {
        stop.check()?;
        let drawn = batches.draw(labels, (b * BATCH) as u64)?;
        each(&drawn.pixels().map_err(Error::of_run)?, labels)?;
    }
    Ok(())
}

/// What a tokenizer's decoder makes of codes that are drawn with equal probability: pictures of nothing.
///
/// # Errors
/// When the decoder fails, or a stop was asked for.
pub(crate) fn noise(vqvae: &Vqvae, count: usize, seed: u64, stop: &StopSignal) -> Result<Vec<u8>> {
    let pyramid = &vqvae.config.pyramid;
    let vocab = vqvae.config.vocab as u32;
    let mut pixels = Vec::new();
    for first in (0..count).step_by(BATCH) {
        stop.check()?;
        let n = BATCH.min(count - first);
        let mut maps = vec![Vec::new(); pyramid.count()];
        for image in first..first + n {
            let mut draws = Stream::new(seed, Purpose::Noise, 0, image as u64);
            for (k, map) in maps.iter_mut().enumerate() {
                let codes = (0..pyramid.len_of(k)).map(|_| draws.below(vocab) as i32);
                map.extend(codes);
            }
        }
        let device = vqvae.device();
        let maps: Vec<Tensor> = maps
            .into_iter()
            .enumerate()
            .map(|(k, map)| Ok(Tensor::from_i32([n, pyramid.len_of(k)], map).to(device)?))
            .collect::<Result<_>>()?;
        let f_hats = vqvae.quantizer.f_hats(&vqvae.params, &maps, pyramid)?;
        let Some(f_hat) = f_hats.last() else { break };
        let image = ops::to_unit_range(&vqvae.decode_clamped(f_hat)?)?;
        pixels.extend(ops::to_pixels(&image)?);
    }
    Ok(pixels)
}
