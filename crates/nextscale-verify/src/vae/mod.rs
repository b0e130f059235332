//! The tokenizer in use: intermediate results, token maps, reconstructions, the transformer's input.

mod case;
mod statistics;

use super::compare::Limit;
use super::floor::Floors;
use super::folder::Folder;
use super::models::{Tokenizer, check_formats, pyramid_of_lengths};
use super::recorded::Recorded;
use super::report::Report;
use case::Case;
use nextscale::Result;
use nextscale::model::Pyramid;
use nextscale::model::vqvae::Vqvae;
use nextscale_tensor::Tensor;
use serde_json::Value as Json;

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
