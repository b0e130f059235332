//! Scores of pictures: the Inception network, how protocols prepare pictures for it, and their numbers.
//!
//! Recorded are the public packages on weights and pictures by formulas (`formulas.rs`), so no file of weights is needed: torch-fidelity,
//! pytorch-fid and clean-fid themselves, guided diffusion's definitions in float64. Everything keeps within a relative difference of 1e-4 on
//! a CPU and 1e-3 on a GPU. A Fréchet distance is held against what the package gives, whose root of a singular matrix is a little off,
//! and against its exact value on the package's features.

mod formulas;
mod mathematics;
mod protocols;

use super::compare::{Limit, Stats, difference, sampled};
use super::folder::Folder;
use super::part::as_recorded;
use super::recorded::Recorded;
use super::report::Report;
use nextscale::format::{HostTensor, StateDict};
use nextscale::model::ForwardPass;
use nextscale::model::inception::{Inception, LOGITS, SIDE, state_dict};
use nextscale::score::{PictureBatch, Preparation, prepare};
use nextscale::{Error, Result};
use nextscale_tensor::{Cx, Tensor};
use serde_json::Value as Json;
use std::cell::RefCell;
use std::collections::HashMap;

/// How far numbers may be off, as a share.
const ON_THE_CPU: f64 = 1e-4;
const ON_A_GPU: f64 = 1e-3;
/// Largest side of a picture and most pictures and rows that a bundle may ask for.
const MOST: u64 = 4096;

/// Whether a file's names are those of this kind.
pub(super) fn is_known(name: &str) -> bool {
    name.starts_with("resize.tf1.") || name == "samples.logits_unbiased"
}

/// Checks every file of the folder.
pub(super) fn check(folder: &Folder, report: &mut Report<'_>) -> Result<()> {
    for stem in folder.stems(".json") {
        let json = folder.json(&format!("{stem}.json"))?;
        if super::kind_of_json(&json) != Some(super::Kind::Score) {
            continue;
        }
        let file = folder.tensors(&format!("{stem}.safetensors"))?;
        let machine = report.machine();
        let share = match machine.device.is_async() {
            true => ON_A_GPU / machine.slack(),
            false => ON_THE_CPU,
        };
        let mut case = Case {
            stem,
            json: &json,
            file: &file,
            limit: Limit::relative(share),
            report,
        };
        case.mathematics()?;
        let mut net = case.network()?;
        let bias = net.params.export("fc.bias")?;
        net.to_device(machine.device, machine.math)?;
        for (name, made) in case.object("images")? {
            case.image(&net, &bias, name, made)?;
        }
        case.protocols(&net)?;
    }
    Ok(())
}

/// A file of facts and the tensors beside it.
struct Case<'a, 'r> {
    stem: &'a str,
    json: &'a Json,
    file: &'a Recorded,
    limit: Limit,
    report: &'a mut Report<'r>,
}

impl<'a> Case<'a, '_> {
    fn bad(&self, what: &str) -> Error {
        Error::input(format!("{}.json: {what}", self.stem))
    }

    /// An object among the facts.
    fn object(&self, key: &str) -> Result<&'a serde_json::Map<String, Json>> {
        let found = self.json.get(key).and_then(Json::as_object);
        found.ok_or_else(|| self.bad(&format!("lacks the object {key:?}")))
    }

    /// A whole number of a fact, at most [`MOST`].
    fn count(&self, of: &Json, key: &str) -> Result<usize> {
        let found = of.get(key).and_then(Json::as_u64).filter(|n| *n <= MOST);
        let found = found.ok_or_else(|| self.bad(&format!("{key:?} is no number up to {MOST}")))?;
        Ok(found as usize)
    }

    /// How noisy a picture is.
    fn noisy(&self, value: &Json) -> Result<i64> {
        let found = value.as_i64().filter(|n| (0..=16).contains(n));
        found.ok_or_else(|| self.bad("\"noisy\" is no number from 0 to 16"))
    }

    /// The network with the formula's weights, by way of the names and shapes that the package's class saves.
    fn network(&self) -> Result<Inception> {
        let fc = self.json.get("fc_amplitude").and_then(Json::as_f64);
        let fc = fc.ok_or_else(|| self.bad("lacks \"fc_amplitude\""))?;
        let mut dict = StateDict::new();
        for (name, shape) in self.object("weights")? {
            let shape: Option<Vec<usize>> = shape.as_array().and_then(|extents| {
                let small = |v: &Json| v.as_u64().filter(|n| *n <= MOST);
                extents
                    .iter()
                    .map(|v| small(v).map(|n| n as usize))
                    .collect()
            });
            let shape = shape.filter(|s| s.len() <= 4 && s.iter().product::<usize>() < 1 << 24);
            let shape =
                shape.ok_or_else(|| self.bad(&format!("{name:?} has no shape of a weight")))?;
            let tensor = match name.ends_with(".num_batches_tracked") {
                true => HostTensor::from_i64(&shape, &vec![0; shape.iter().product()])?,
                false => HostTensor::from_f32(&shape, &formulas::weight(name, &shape, fc))?,
            };
            dict.insert(name, tensor);
        }
        let mut net = Inception::new()?;
        state_dict::load(&mut net, &dict, &format!("{}.json", self.stem))?;
        Ok(net)
    }

    /// Compares a tensor, of which the file holds a part spread evenly over all, and the statistics of all of it.
    fn tensor(&mut self, name: &str, got: &Tensor) -> Result<()> {
        let (values, dims) = as_recorded(got)?;
        self.values(name, &values, &dims, self.limit)
    }

    /// The same of numbers with extents.
    fn values(&mut self, name: &str, got: &[f32], dims: &[usize], limit: Limit) -> Result<()> {
        let label = format!("{}/{name}", self.stem);
        let want = self.file.f32(name)?;
        let stats = &self.json["tensors"][name];
        let shape = stats["shape"].as_array();
        let shape: Option<Vec<u64>> = shape.and_then(|s| s.iter().map(Json::as_u64).collect());
        let fits = |r: &Vec<u64>| r.iter().copied().eq(dims.iter().map(|d| *d as u64));
        if !shape.as_ref().is_none_or(fits) {
            let recorded = shape.unwrap_or_default();
            let note = format!("has the shape {dims:?}, recorded is {recorded:?}");
            self.report.fact(label, false, note);
            return Ok(());
        }
        let part = sampled(got, want.len());
        let rest = Stats::recorded(stats).filter(|_| !self.report.machine().is_half());
        // Sums are of another order, also where the numbers are the same.
        let wide = limit.times(self.report.machine().slack());
        let wide = Limit {
            rel_l2: wide.rel_l2 + 1e-12,
            ..wide
        };
        let found = Stats::of(got);
        match rest.map(|want| found.hold(&want, got.len(), &wide).0) {
            Some(false) => {
                let note = "norm, sum or largest magnitude of all of it is off";
                let d = difference(&part, &want);
                self.report.judged(label, false, d, note);
            }
            _ => self.report.computed(label, &part, &want, limit),
        }
        Ok(())
    }

    /// Prepares a picture in every way, and compares all that the network makes of it.
    fn image(&mut self, net: &Inception, bias: &[f32], name: &str, made: &Json) -> Result<()> {
        let size = (self.count(made, "height")?, self.count(made, "width")?);
        let noisy = self.noisy(&made["noisy"])?;
        let rgb = formulas::picture(name, size, noisy);
        let pixels: Vec<f32> = rgb.iter().copied().map(f32::from).collect();
        self.values(
            &format!("image.{name}"),
            &pixels,
            &[size.0, size.1, 3],
            Limit::EXACT,
        )?;
        let batch = PictureBatch {
            rgb,
            size,
            places: vec![0],
            labels: Vec::new(),
        };
        let device = self.report.machine().device;
        let mut seen = None;
        for (way, preparation, scale, shift) in [
            ("half_pixel", Preparation::Bilinear, 0.5, 0.5),
            ("clean", Preparation::FloatBicubic, 128.0, 128.0),
            ("tf1", Preparation::AsymmetricBilinear, 128.0, 128.0),
        ] {
            let x = prepare(preparation, &batch, device)?;
            // As recorded, before the network's range.
            let (values, _) = as_recorded(&x)?;
            let values: Vec<f32> = values.iter().map(|v| v * scale + shift).collect();
            let dims = [1, 3, SIDE, SIDE];
            self.values(&format!("resize.{way}.{name}"), &values, &dims, self.limit)?;
            seen = Some(x);
        }
        let Some(x) = seen else { return Ok(()) };
        let maps = RefCell::new(HashMap::new());
        let probe = |layer: &str, value: &Tensor| {
            maps.borrow_mut().insert(layer.to_owned(), value.clone());
        };
        let pass = ForwardPass {
            cx: Cx::off().with(net.math),
            probe: Some(&probe),
        };
        let found = net.forward(&pass, &x)?;
        let maps = maps.into_inner();
        let (logits, _) = as_recorded(&found.logits)?;
        let logits: Vec<f32> = logits.iter().zip(bias).map(|(l, b)| l + b).collect();
        let lead = format!("{name}.");
        let file = self.file;
        for recorded in file.names().filter(|n| n.starts_with(&lead)) {
            match &recorded[lead.len()..] {
                "features" => self.tensor(recorded, &found.features)?,
                "spatial" => self.tensor(recorded, &found.spatial)?,
                "logits_unbiased" => self.tensor(recorded, &found.logits)?,
                "logits" => self.values(recorded, &logits, &[1, LOGITS], self.limit)?,
                layer => {
                    if let Some(map) = maps.get(layer) {
                        self.tensor(recorded, map)?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
