//! From what is kept of samples and reference to rows of numbers, and what is to be known of these.

use super::Args;
use super::pairs::PairScores;
use super::report::Row;
use nextscale::Result;
use nextscale::score::{ENOUGH, Method, Metric, NEIGHBOURS, Scores, Summary};

/// Turns what is kept of samples into rows.
pub struct Judge<'a> {
    pub args: &'a Args,
    pub methods: &'a [Method<'a>],
    pub metrics: &'a [Metric],
    pub reference: Option<&'a [Summary]>,
    pub rows: Vec<Row>,
    /// Samples of a row, where that is known.
    pub count: Option<usize>,
    /// Those of them whose class the network knows.
    pub labelled: Option<usize>,
}

impl Judge<'_> {
    /// Adds a row for every method.
    pub fn judge(
        &mut self,
        found: &[Summary],
        settings: &[(String, f32)],
        pairs: PairScores,
    ) -> Result<()> {
        for (i, (method, own)) in self.methods.iter().zip(found).enumerate() {
            let reference = self.reference.map(|all| &all[i]);
            self.rows.push(Row {
                protocol: method.name().to_owned(),
                settings: settings.to_vec(),
                scores: Scores::of(own, reference, &method.known_of(self.metrics))?,
                pairs,
            });
        }
        self.count = found.first().and_then(|s| s.count);
        self.labelled = found.first().map(|s| s.labelled);
        Ok(())
    }

    /// What is to be known of the numbers.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = self.missing();
        let distances = [Metric::Fid, Metric::Sfid];
        let (true, Some(reference)) = (
            self.metrics.iter().any(|m| distances.contains(m)),
            self.reference,
        ) else {
            return remarks;
        };
        let counts = [
            ("samples", self.count),
            ("images of the reference", reference[0].count),
        ];
        for (what, count) in counts {
            let Some(count) = count else { continue };
            let width = self.methods[0].width();
            if count <= width {
                remarks.push(format!(
                    "{count} {what} for {width} features: the covariance is singular; the distance is computed as the protocol does, and means little"
                ));
            } else if count < ENOUGH {
                remarks.push(format!(
                    "{count} {what}: fewer than {ENOUGH} make the distance too high, by roughly a constant over their number; compare it only with distances of as many"
                ));
            }
        }
        remarks
    }

    /// Numbers that were asked for and are not there, and why.
    fn missing(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        let Some(reference) = self.reference else {
            remarks.push("there is no --reference, so no distance, precision and recall".into());
            return remarks;
        };
        let named = self.args.reference.as_deref().unwrap_or_default();
        let none =
            |of: fn(&Scores) -> Option<f64>| self.rows.iter().all(|r| of(&r.scores).is_none());
        let knows = |metric| {
            let known = self.methods.iter().any(|m| m.metrics().contains(&metric));
            known && self.metrics.contains(&metric)
        };
        if knows(Metric::Pr) && none(|s| s.precision) {
            let kept = reference[0]
                .rows
                .as_ref()
                .map(|rows| rows.len() / self.methods[0].width());
            remarks.push(match kept.zip(self.count) {
                None => "no precision and recall: statistics do not tell of single images".to_owned(),
                Some((kept, count)) => format!(
                    "precision and recall need more than {NEIGHBOURS} images of either side, not {}",
                    kept.min(count)
                ),
            });
        }
        if knows(Metric::Sfid) && none(|s| s.spatial_frechet_distance) {
            remarks.push(format!(
                "no sFID: {named} holds no statistics of spatial features (mu_s, sigma_s)"
            ));
        }
        if self.methods.iter().any(Method::names_classes) && none(|s| s.class_accuracy) {
            remarks.push(
                "no class accuracy: the samples' classes are not known, or none of them is one of the network's".into(),
            );
        }
        let known = self
            .labelled
            .zip(self.count)
            .filter(|(n, of)| *n > 0 && n < of);
        if let Some((labelled, count)) = known {
            remarks.push(format!(
                "class accuracy is that of {labelled} of {count} samples: the network does not know the classes of the others"
            ));
        }
        remarks
    }
}
