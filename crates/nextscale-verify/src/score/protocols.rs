//! Two sets of pictures by every protocol.

use super::{Case, formulas};
use nextscale::Result;
use nextscale::model::inception::{FEATURES, Inception};
use nextscale::score::{
    Collector, Features, Method, Metric, PictureBatch, Protocol, Scores, Summary,
};
use nextscale_tensor::Tensor;

/// Pictures that go through the network at a time.
const BATCH: usize = 4;
/// The sets.
const KINDS: [&str; 2] = ["samples", "reference"];

impl Case<'_, '_> {
    /// The first pictures of a set, or all.
    fn set(&self, kind: &str, few: bool) -> Result<Vec<PictureBatch>> {
        let set = self.object("sets")?.get(kind);
        let set = set.ok_or_else(|| self.bad(&format!("lacks the set {kind:?}")))?;
        let size = (self.count(set, "height")?, self.count(set, "width")?);
        let n = self.count(set, if few { "few" } else { "images" })?;
        let noisy = set["noisy"].as_array().filter(|noisy| noisy.len() >= n);
        let noisy = noisy.ok_or_else(|| self.bad("\"noisy\" is no list of a set's length"))?;
        let places: Vec<usize> = (0..n).collect();
        let batch = |places: &[usize]| {
            let picture = |i: &usize| {
                let noisy = self.noisy(&noisy[*i])?;
                Ok(formulas::picture(&format!("{kind}/{i}"), size, noisy))
            };
            Ok(PictureBatch {
                rgb: places
                    .iter()
                    .map(picture)
                    .collect::<Result<Vec<_>>>()?
                    .concat(),
                size,
                places: places.to_vec(),
                labels: Vec::new(),
            })
        };
        places.chunks(BATCH).map(batch).collect()
    }

    /// Holds all protocols' numbers against the packages'.
    pub(super) fn protocols(&mut self, net: &Inception) -> Result<()> {
        // Two protocols show the network the same: what it says is computed once, and so is the Fréchet distance.
        let (adm, fidelity) = (Protocol::Adm, Protocol::TorchFidelity);
        let alike = adm.preparation() == fidelity.preparation();
        let label = format!(
            "{}/adm and torch-fidelity prepare pictures alike",
            self.stem
        );
        self.report.fact(label, alike, "");
        let methods = [adm, fidelity].map(|protocol| Method::Inception(net, protocol));
        let mut sides = Vec::new();
        for kind in KINDS {
            let set = self.set(kind, false)?;
            let found = extract(&methods[0], &set)?;
            self.found(kind, &found)?;
            let [one, other] = &methods;
            sides.push((collect(one, &set, &found)?, collect(other, &set, &found)?));
        }
        if let [samples, reference] = sides.as_slice() {
            let by_adm = Scores::of(&samples.0, Some(&reference.0), adm.metrics())?;
            let rest = [Metric::Is, Metric::Pr];
            let by_fidelity = Scores {
                frechet_distance: by_adm.frechet_distance,
                ..Scores::of(&samples.1, Some(&reference.1), &rest)?
            };
            self.scores(adm, &by_adm);
            self.scores(fidelity, &by_fidelity);
        }
        for protocol in [Protocol::PytorchFid, Protocol::CleanFid] {
            let method = Method::Inception(net, protocol);
            let mut sides = Vec::new();
            for kind in KINDS {
                let set = self.set(kind, true)?;
                let found = extract(&method, &set)?;
                self.found(&format!("{kind}.{protocol}"), &found)?;
                sides.push(collect(&method, &set, &found)?);
            }
            if let [samples, reference] = sides.as_slice() {
                let scores = Scores::of(samples, Some(reference), protocol.metrics())?;
                self.scores(protocol, &scores);
            }
        }
        Ok(())
    }

    /// Compares what the network says of a set, as far as it is recorded.
    fn found(&mut self, lead: &str, found: &[Features]) -> Result<()> {
        let joined = |of: fn(&Features) -> Option<&Vec<f32>>| -> Vec<f32> {
            found.iter().filter_map(of).flatten().copied().collect()
        };
        for (what, values) in [
            ("features", joined(|f| Some(&f.features))),
            ("logits_unbiased", joined(|f| f.logits.as_ref())),
            ("spatial", joined(|f| f.spatial.as_ref())),
        ] {
            let name = format!("{lead}.{what}");
            if self.file.has(&name) {
                let n: usize = found.iter().map(|f| f.features.len() / FEATURES).sum();
                let width = values.len() / n.max(1);
                self.tensor(&name, &Tensor::from_vec([n, width], values))?;
            }
        }
        Ok(())
    }

    /// Compares a protocol's numbers with those that are recorded.
    fn scores(&mut self, protocol: Protocol, scores: &Scores) {
        let recorded = &self.json["scores"][protocol.name()];
        for (key, got) in [
            ("fid", scores.frechet_distance),
            ("fid_float64", scores.frechet_distance),
            ("sfid", scores.spatial_frechet_distance),
            ("sfid_float64", scores.spatial_frechet_distance),
            ("inception_score", scores.inception_score),
            ("inception_score_deviation", scores.inception_score_std),
            ("precision", scores.precision),
            ("recall", scores.recall),
        ] {
            let Some(want) = recorded[key].as_f64() else {
                continue;
            };
            let label = format!("{}/{protocol}.{key}", self.stem);
            match got {
                Some(got) => self.report.computed(label, &[got], &[want], self.limit),
                None => self
                    .report
                    .fact(label, false, "the protocol gives none here"),
            }
        }
    }
}

/// What the network says of all batches.
fn extract(method: &Method<'_>, set: &[PictureBatch]) -> Result<Vec<Features>> {
    set.chunks(1)
        .map(|batch| method.extract(batch, method.metrics()))
        .collect()
}

/// A set summed up.
fn collect(method: &Method<'_>, set: &[PictureBatch], found: &[Features]) -> Result<Summary> {
    let n = set.iter().map(PictureBatch::len).sum();
    let mut all = Collector::new(method, method.metrics(), n);
    for (batch, found) in set.iter().zip(found) {
        all.add(std::slice::from_ref(batch), found)?;
    }
    all.finish()
}
