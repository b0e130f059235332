//! Resizing of feature maps, its gradients, and the choice of φ.
//!
//! The noise floor is stated in words only: the largest absolute difference between float32 and float64 is 9.5e-7 for maps of up to 4×4,
//! 2.6e-6 up to 16×16 and 3.0e-6 up to 32×32, of normal random numbers (largest about 4). For larger maps it is taken to grow in
//! proportion to the side, and for larger numbers in proportion to the largest magnitude.

use super::compare::Limit;
use super::folder::Folder;
use super::machine::host;
use super::recorded::Recorded;
use super::report::Report;
use nextscale::model::vqvae::quantizer::{nearest_tick, ticks};
use nextscale::{Error, Result};
use nextscale_tensor::ops::{self, Conv};
use nextscale_tensor::{Cx, Tape, Tensor};
use serde_json::Value as Json;

/// Largest magnitude of the numbers of which the floor was measured.
const MAGNITUDE: f64 = 4.0;

/// Twice the floor of maps with this side.
fn limit(side: usize) -> Limit {
    let floor = match side {
        0..=4 => 9.5e-7,
        5..=16 => 2.6e-6,
        17..=32 => 3.0e-6,
        n => 3.0e-6 * n as f64 / 32.0,
    };
    Limit {
        rel_l2: 0.0,
        abs: 2.0 * floor,
        peak: 2.0 * floor / MAGNITUDE,
    }
}

/// Checks every file of the folder.
pub(super) fn check(folder: &Folder, report: &mut Report<'_>) -> Result<()> {
    for stem in folder.stems(".safetensors") {
        let file = folder.tensors(&format!("{stem}.safetensors"))?;
        for name in file.names() {
            resize(stem, &file, name, report)?;
        }
    }
    for stem in folder.stems(".json") {
        let json = folder.json(&format!("{stem}.json"))?;
        if super::kind_of_json(&json) == Some(super::Kind::Interpolate) {
            phi_choice(stem, &json, report)?;
        }
    }
    Ok(())
}

/// Compares the tensor `name` if it is a result.
fn resize(stem: &str, file: &Recorded, name: &str, report: &mut Report<'_>) -> Result<()> {
    let quantity = format!("{stem}/{name}");
    let Some((op, rest)) = name.split_once('_') else {
        return Ok(());
    };
    if op != "area" && op != "bicubic" {
        if op != "in" {
            report.unchecked(quantity, "no known quantity");
        }
        return Ok(());
    }
    let apply = |cx: &Cx<'_>, x: &Tensor, size: (usize, usize)| {
        if op == "area" {
            ops::area(cx, x, size)
        } else {
            ops::bicubic(cx, x, size)
        }
    };
    let maps = |name: &str| -> Result<(Tensor, (usize, usize))> {
        let t = file.channels_last(name)?;
        let (h, w) = match t.dims() {
            &[_, h, w, _] => (h, w),
            _ => (0, 0),
        };
        Ok((t, (h, w)))
    };
    if rest.starts_with("x_") || rest.starts_with("gy_") {
        return Ok(());
    }
    if let Some(pair) = rest.strip_prefix("gx_") {
        let (want, from) = maps(name)?;
        let (x, _) = maps(&format!("{op}_x_{pair}"))?;
        let (gy, to) = maps(&format!("{op}_gy_{pair}"))?;
        if x.dims()[0] != gy.dims()[0] || x.dims() != want.dims() {
            return Err(file.bad(name, "the recorded gradients do not fit each other"));
        }
        let mut got = Vec::with_capacity(want.numel());
        for sample in 0..x.dims()[0] {
            let device = report.machine().device;
            let (x, gy) = (x.narrow(sample, 1)?, gy.narrow(sample, 1)?);
            let (x, gy) = (x.to(device)?, gy.to(device)?);
            let tape = Tape::new();
            let cx = Cx::on(&tape);
            let (x, key) = cx.leaf(&x);
            let y = apply(&cx, &x, to)?;
            // Σ y·gy as a convolution with one position: its gradient towards y is gy.
            let whole = Conv {
                stride: 1,
                pad: [0; 4],
            };
            let sum = ops::conv2d(&cx, &y, &gy, &Tensor::zeros([1]).to(device)?, whole, None)?;
            drop(y);
            let back = tape.backward(&sum, 1.0, None, &[key])?;
            if let Some(Some(g)) = back.first() {
                got.extend_from_slice(host(g)?.f32()?);
            }
        }
        let side = from.0.max(from.1).max(to.0).max(to.1);
        report.numbers(quantity, &got, want.f32()?, limit(side));
    } else if let Some((from, _)) = rest.split_once("_to_") {
        let (want, to) = maps(name)?;
        let (x, from) = maps(&format!("in_{from}"))?;
        let x = x.to(report.machine().device)?;
        let got = host(&apply(&Cx::off(), &x, to)?)?;
        let side = from.0.max(from.1).max(to.0).max(to.1);
        report.numbers(quantity, got.f32()?, want.f32()?, limit(side));
    } else {
        report.unchecked(quantity, "no known quantity");
    }
    Ok(())
}

/// Numbers under `key`.
fn numbers(json: &Json, stem: &str, key: &str) -> Result<Vec<f64>> {
    json.get(key)
        .and_then(Json::as_array)
        .and_then(|list| list.iter().map(Json::as_f64).collect())
        .ok_or_else(|| {
            Error::input(format!(
                "{stem}.json: expected a list of numbers under {key:?}"
            ))
        })
}

fn phi_choice(stem: &str, json: &Json, report: &mut Report<'_>) -> Result<()> {
    let count_of = |text: &str| {
        text.parse::<usize>()
            .ok()
            .filter(|n| (1..=1 << 16).contains(n))
            .ok_or_else(|| {
                Error::input(format!(
                    "{stem}.json: {text:?} is no number of convolutions"
                ))
            })
    };
    let Some(top) = json.as_object() else {
        return Ok(());
    };
    // The shared φ of the tuples: as many as the ticks beside them.
    let mut shared = 4;
    for key in top.keys() {
        if let Some(n) = key.strip_prefix("ticks_") {
            shared = count_of(n)?;
            let want = numbers(json, stem, key)?;
            report.numbers(format!("{stem}/{key}"), &ticks(shared), &want, Limit::EXACT);
        }
    }
    let ticks_n = ticks(shared);
    for (name, t) in top
        .get("tuples")
        .and_then(Json::as_object)
        .into_iter()
        .flatten()
    {
        let count = numbers(t, stem, "patch_nums")?.len();
        let at = |k: usize| {
            if count > 1 {
                k as f64 / (count - 1) as f64
            } else {
                1.0
            }
        };
        let positions: Vec<f64> = (0..count).map(at).collect();
        let label = |what: &str| format!("{stem}/{name}.{what}");
        if t.get("position").is_some() {
            let want = numbers(t, stem, "position")?;
            report.numbers(label("position"), &positions, &want, Limit::EXACT);
        }
        let got: Vec<f64> = (0..count)
            .map(|k| nearest_tick(&ticks_n, k, count) as f64)
            .collect();
        report.numbers(
            label("phi_index"),
            &got,
            &numbers(t, stem, "phi_index")?,
            Limit::EXACT,
        );
        if let Some(rows) = t.get("distance_to_ticks").and_then(Json::as_array) {
            let want: Option<Vec<f64>> = rows
                .iter()
                .flat_map(|r| r.as_array().into_iter().flatten())
                .map(Json::as_f64)
                .collect();
            let got: Vec<f64> = positions
                .iter()
                .flat_map(|p| ticks_n.iter().map(move |t| (t - p).abs()))
                .collect();
            report.numbers(
                label("distance_to_ticks"),
                &got,
                &want.unwrap_or_default(),
                Limit::EXACT,
            );
        }
    }
    for (n, entry) in top
        .get("non_shared")
        .and_then(Json::as_object)
        .into_iter()
        .flatten()
    {
        let own = ticks(count_of(n)?);
        let index = numbers(entry, stem, "index")?;
        let got: Vec<f64> = (0..index.len())
            .map(|k| nearest_tick(&own, k, index.len()) as f64)
            .collect();
        report.numbers(
            format!("{stem}/non_shared.{n}.index"),
            &got,
            &index,
            Limit::EXACT,
        );
        report.numbers(
            format!("{stem}/non_shared.{n}.ticks"),
            &own,
            &numbers(entry, stem, "ticks")?,
            Limit::EXACT,
        );
    }
    let key = "partially_shared_ticks_by_count";
    for n in top
        .get(key)
        .and_then(Json::as_object)
        .into_iter()
        .flat_map(|o| o.keys())
    {
        let want = numbers(&json[key], stem, n)?;
        report.numbers(
            format!("{stem}/{key}.{n}"),
            &ticks(count_of(n)?),
            &want,
            Limit::EXACT,
        );
    }
    Ok(())
}
