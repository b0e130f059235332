//! What is kept of a set of pictures.

use super::extract::{Features, Method};
use super::inception_score::InceptionScore;
use super::pictures::UNKNOWN;
use super::{Metric, Moments, PictureBatch, Pictures, Statistics};
use crate::{Error, Result};

/// What tells a set of pictures, as one method sees it.
#[derive(Clone, Debug)]
pub struct Summary {
    /// How many pictures it is of, where that is known.
    pub count: Option<usize>,
    /// Mean and covariance of the features.
    pub features: Statistics,
    /// The same of the spatial features.
    pub spatial: Option<Statistics>,
    /// Mean and standard deviation of the Inception score.
    pub inception_score: Option<(f64, f64)>,
    /// All features, `[count, width]`: what precision and recall need.
    pub rows: Option<Vec<f32>>,
    /// The share of pictures that a classifier names as their labels do.
    pub right: Option<f64>,
}

/// Adds up what is kept, batch by batch.
#[derive(Debug)]
pub struct Collector {
    count: usize,
    features: Moments,
    spatial: Option<Moments>,
    inception_score: Option<InceptionScore>,
    rows: Option<Vec<f32>>,
    /// Right ones, and those with a label.
    named: Option<(usize, usize)>,
}

impl Collector {
    /// For `n` pictures; `metrics` are the numbers that are asked for, of which the method gives those that it knows.
    pub fn new(method: &Method<'_>, metrics: &[Metric], n: usize) -> Self {
        let wanted = |metric| metrics.contains(&metric) && method.metrics().contains(&metric);
        let spatial = method.spatial_width().filter(|_| wanted(Metric::Sfid));
        let splits = wanted(Metric::Is).then(|| method.splits(n)).flatten();
        Self {
            count: 0,
            features: Moments::new(method.width()),
            spatial: spatial.map(Moments::new),
            inception_score: splits.map(|s| InceptionScore::new(method.logits(), s)),
            rows: wanted(Metric::Pr).then(|| Vec::with_capacity(n * method.width())),
            named: method.names_classes().then_some((0, 0)),
        }
    }

    /// Adds the features of some pictures.
    ///
    /// # Errors
    /// Where features are no finite numbers.
    pub fn add(&mut self, pictures: &PictureBatch, found: &Features) -> Result<()> {
        let image = |e: Error| match pictures.places.first() {
            Some(first) => Error::failed(format!("in a batch from image {first} on: {e}")),
            None => e,
        };
        self.features.add(&found.features).map_err(image)?;
        if let (Some(moments), Some(spatial)) = (&mut self.spatial, &found.spatial) {
            moments.add(spatial).map_err(image)?;
        }
        if let (Some(score), Some(logits)) = (&mut self.inception_score, &found.logits) {
            let width = logits.len() / pictures.len().max(1);
            for (place, row) in pictures.places.iter().zip(logits.chunks_exact(width)) {
                score.add(*place, row);
            }
        }
        if let Some(rows) = &mut self.rows {
            rows.extend_from_slice(&found.features);
        }
        if let (Some((right, of)), Some(named)) = (&mut self.named, &found.named) {
            let known = pictures.labels.iter().zip(named);
            for (label, name) in known.filter(|(label, _)| **label != UNKNOWN) {
                *right += usize::from(label == name);
                *of += 1;
            }
        }
        self.count += pictures.len();
        Ok(())
    }

    /// What came together.
    ///
    /// # Errors
    /// Of fewer than two pictures.
    pub fn finish(self) -> Result<Summary> {
        let share = |(right, of): (usize, usize)| (of > 0).then(|| right as f64 / of as f64);
        Ok(Summary {
            count: Some(self.count),
            features: self.features.finish()?,
            spatial: self.spatial.as_ref().map(Moments::finish).transpose()?,
            inception_score: self.inception_score.as_ref().map(InceptionScore::finish),
            rows: self.rows,
            right: self.named.and_then(share),
        })
    }
}

/// Goes through a set of pictures once, and sums it up as each of the methods sees it. `seen` is told how many pictures there were so far.
///
/// # Errors
/// What the pictures or the network say.
pub fn summarize(
    pictures: &mut dyn Pictures,
    methods: &[Method<'_>],
    metrics: &[Metric],
    seen: &mut dyn FnMut(usize),
) -> Result<Vec<Summary>> {
    let n = pictures.len();
    let mut collectors: Vec<Collector> = methods
        .iter()
        .map(|method| Collector::new(method, metrics, n))
        .collect();
    let mut count = 0;
    while let Some(batch) = pictures.next()? {
        for (method, collector) in methods.iter().zip(&mut collectors) {
            collector.add(&batch, &method.extract(&batch)?)?;
        }
        count += batch.len();
        seen(count);
    }
    collectors.into_iter().map(Collector::finish).collect()
}
