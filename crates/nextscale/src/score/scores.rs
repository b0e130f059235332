//! The numbers of a set of pictures beside another.

use super::{Metric, Summary, frechet_distance, precision_recall};
use crate::Result;
use serde::{Deserialize, Serialize};

/// Neighbours of precision and recall (Kynkäänniemi et al. 2019, and all protocols here).
pub const NEIGHBOURS: usize = 3;

/// With fewer samples than this the Fréchet distance of Inception's features is too large by much.
pub const ENOUGH: usize = 10_000;

/// Numbers of samples; those that were not asked for or can't be had are `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Fréchet distance to the reference.
    pub frechet_distance: Option<f64>,
    /// The same of spatial features (sFID).
    pub spatial_frechet_distance: Option<f64>,
    /// Mean of the Inception score over splits.
    pub inception_score: Option<f64>,
    /// Its standard deviation over splits.
    pub inception_score_std: Option<f64>,
    /// Share of samples among real pictures.
    pub precision: Option<f64>,
    /// Share of real pictures among samples.
    pub recall: Option<f64>,
    /// Share of samples that a classifier names as intended.
    pub class_accuracy: Option<f64>,
    /// The same share of the reference's pictures.
    pub reference_class_accuracy: Option<f64>,
}

impl Scores {
    /// Of samples beside a reference, where there is one.
    ///
    /// # Errors
    /// When the two are of different networks.
    pub fn of(samples: &Summary, reference: Option<&Summary>, metrics: &[Metric]) -> Result<Self> {
        let mut scores = Self {
            inception_score: samples.inception_score.map(|(mean, _)| mean),
            inception_score_std: samples.inception_score.map(|(_, std)| std),
            class_accuracy: samples.accuracy,
            ..Self::default()
        };
        let Some(reference) = reference else {
            return Ok(scores);
        };
        scores.reference_class_accuracy = reference.accuracy;
        if metrics.contains(&Metric::Fid) {
            let distance = frechet_distance(&samples.features, &reference.features)?;
            scores.frechet_distance = Some(distance);
        }
        if let (true, Some(own), Some(other)) = (
            metrics.contains(&Metric::Sfid),
            &samples.spatial,
            &reference.spatial,
        ) {
            scores.spatial_frechet_distance = Some(frechet_distance(own, other)?);
        }
        if let (true, Some(own), Some(other)) = (
            metrics.contains(&Metric::Pr),
            &samples.rows,
            &reference.rows,
        ) {
            let width = samples.features.mean.len();
            // Too few for neighbours are no reason to have no distance either.
            if own.len().min(other.len()) / width.max(1) > NEIGHBOURS {
                let found = precision_recall(own, other, width, NEIGHBOURS)?;
                scores.precision = Some(found.precision);
                scores.recall = Some(found.recall);
            }
        }
        Ok(scores)
    }
}
