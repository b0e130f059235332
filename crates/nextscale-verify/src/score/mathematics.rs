//! The numbers of features and logits by formulas, with more rows than features.

use super::{Case, formulas};
use crate::compare::Limit;
use nextscale::score::{
    InceptionScore, Moments, frechet_distance, permutation, pieces, precision_recall, runs,
};
use nextscale::{Error, Result};

/// Rows of logits, and the seed of their order.
const LOGITS: usize = 173;
const SEED: u32 = 2020;
/// How much farther apart logits are than the formula's numbers.
const AMPLITUDE: f64 = 6.0;
/// Neighbours.
const K: usize = 3;
/// How far sums in float64 may be off.
const FLOAT64: Limit = Limit::relative(1e-7);

impl Case<'_, '_> {
    /// Compares what is recorded under `formula_scores`.
    pub(super) fn mathematics(&mut self) -> Result<()> {
        let made = &self.json["formula_features"];
        let (width, classes) = (self.count(made, "width")?, self.count(made, "classes")?);
        let mut sides = Vec::new();
        for (kind, change) in [("samples", (0.9, 1.0)), ("reference", (1.0, 0.0))] {
            let rows = self.count(&made["rows"], kind)?;
            let values = formulas::features(kind, rows, width, change);
            let name = format!("formula.{kind}");
            self.values(&name, &values, &[rows, width], Limit::EXACT)?;
            sides.push(values);
        }
        let numbers = formulas::uniform("formula/logits").take(LOGITS * classes);
        let logits: Vec<f32> = numbers.map(|u| (AMPLITUDE * u) as f32).collect();
        let order = permutation(SEED, LOGITS);
        let score = |split_of: Vec<u32>| {
            let mut score = InceptionScore::new(classes, split_of);
            for (i, row) in logits.chunks_exact(classes.max(1)).enumerate() {
                score.add(i, row);
            }
            let (mean, deviation) = score.finish();
            vec![mean, deviation]
        };
        let [samples, reference] = sides.as_slice() else {
            return Ok(());
        };
        let statistics = |rows: &[f32]| {
            let mut moments = Moments::new(width);
            moments
                .add(rows)
                .map_err(|row| Error::failed(format!("row {row} holds what is no number")))?;
            moments.finish()
        };
        let fid = frechet_distance(&statistics(samples)?, &statistics(reference)?)?;
        let found = precision_recall(samples, reference, width, K)?;
        let places = order.iter().map(|i| *i as f64).collect();
        for (key, got) in [
            ("fid_torch-fidelity", vec![fid]),
            ("fid_pytorch-fid", vec![fid]),
            ("fid_clean-fid", vec![fid]),
            ("fid_adm", vec![fid]),
            ("precision", vec![found.precision]),
            ("recall", vec![found.recall]),
            (
                "inception_score_10_shuffled",
                score(pieces(LOGITS, 10, Some(&order))),
            ),
            ("inception_score_7_in_order", score(pieces(LOGITS, 7, None))),
            (
                "inception_score_adm_50",
                score(runs(LOGITS, 50))[..1].to_vec(),
            ),
            ("permutation_2020_of_173", places),
        ] {
            let recorded = &self.json["formula_scores"][key];
            let want: Option<Vec<f64>> = match recorded.as_array() {
                Some(all) => all.iter().map(|v| v.as_f64()).collect(),
                None => recorded.as_f64().map(|v| vec![v]),
            };
            let label = format!("{}/formula.{key}", self.stem);
            match want {
                Some(want) => self.report.numbers(label, &got, &want, FLOAT64),
                None => self.report.unchecked(label, "it is not recorded"),
            }
        }
        Ok(())
    }
}
