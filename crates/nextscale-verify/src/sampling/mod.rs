//! Sampling: filters and whole autoregressive runs.

mod filter;
mod runs;

use super::floor::Floors;
use super::folder::Folder;
use super::models::{self, Tokenizer, weight_stems};
use super::part;
use super::recorded::Recorded;
use super::report::Report;
use nextscale::format::StateDict;
use nextscale::model::ForwardPass;
use nextscale::model::var::Var;
use nextscale::{Error, Result};
use serde_json::Value as Json;

/// Checks every file of the folder.
pub(super) fn check(folder: &Folder, report: &mut Report<'_>) -> Result<()> {
    let mut runs = Vec::new();
    for stem in folder.stems(".safetensors") {
        let file = folder.tensors(&format!("{stem}.safetensors"))?;
        if part::name_of(&file, "guided_logits.0").is_some() {
            runs.push((stem, file));
        } else if file.names().any(|n| n.ends_with(".masked")) {
            filter::check(stem, &file, report)?;
        } else {
            report.unchecked(format!("{stem}.safetensors"), "no known part of a bundle");
        }
    }
    let Some((_, first)) = runs.first() else {
        return Ok(());
    };
    let beside = |name: &str| {
        folder.sibling(name).ok_or_else(|| {
            Error::input(format!(
                "{}: needs the weights of the bundle ../{name}, which is not there",
                folder.path().display()
            ))
        })
    };
    let tokenizer = Tokenizer::open(&beside("vae")?)?;
    let var = transformer(&beside("var")?, first)?;
    let vqvae = tokenizer.build(&var.config.pyramid, false)?;
    let info = if folder.has("info.json") {
        folder.json("info.json")?
    } else {
        Json::Null
    };
    let models = runs::Models {
        var: &var,
        vqvae: &vqvae,
        floors: &Floors::open(folder)?,
        info: &info,
    };
    for (stem, file) in &runs {
        models.check(stem, file, report)?;
    }
    Ok(())
}

/// The transformer of `../var` that the runs were made with. Which variant that is stands in words only: it is the one whose logits of
/// the first scale come nearest.
fn transformer(folder: &Folder, run: &Recorded) -> Result<Var> {
    let config = if folder.has("config.json") {
        folder.json("config.json")?
    } else {
        Json::Null
    };
    let mut best: Option<(f64, Var)> = None;
    for stem in weight_stems(folder) {
        let name = stem
            .strip_suffix("weights")
            .unwrap_or(&stem)
            .trim_end_matches('_');
        let (dict, source): (StateDict, String) = models::weights(folder, &stem)?;
        let var = models::transformer(
            folder.machine,
            &dict,
            &source,
            &config["variants"][name],
            false,
        )?;
        let Some(off) = first_scale(&var, run)? else {
            continue;
        };
        if best.as_ref().is_none_or(|(b, _)| off < *b) {
            best = Some((off, var));
        }
    }
    best.map(|(_, var)| var).ok_or_else(|| {
        Error::input(format!(
            "{}: holds no weights that fit the runs of the bundle",
            folder.path().display()
        ))
    })
}

/// How far a transformer's logits of the first scale are from the recorded ones; `None` where shapes do not fit.
fn first_scale(var: &Var, file: &Recorded) -> Result<Option<f64>> {
    let Some(name) = part::name_of(file, "guided_logits.0") else {
        return Ok(None);
    };
    let Ok(labels) = file.ints("labels", var.config.classes + 1) else {
        return Ok(None);
    };
    let run = ForwardPass::plain(var.math);
    let cond = var.condition(&run.cx.full(), &var.labels(&labels)?)?;
    let conditions = var.conditions(&run, &cond)?;
    let x = var.embed_first(&cond)?;
    let mut caches = var.caches(labels.len())?;
    let logits = var.forward_scale(&run, x, &conditions, &mut caches)?;
    let ((values, dims), want) = (part::as_recorded(&logits)?, file.f32(name)?);
    let got = part::of(&values, &dims, file.shape(name)?, part::bare(name).1);
    Ok(got.map(|got| super::compare::difference(&got, &want).rel_l2))
}
