//! What is kept of a set of pictures.

use super::extract::{Features, Method, count_of};
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
    /// The share of pictures that a classifier names as their labels do, where there are labels that it knows.
    pub accuracy: Option<f64>,
    /// Pictures with such a label.
    pub labelled: usize,
}

/// Adds up what is kept, batch by batch.
#[derive(Debug)]
pub struct Collector {
    count: usize,
    features: Moments,
    spatial: Option<Moments>,
    inception_score: Option<InceptionScore>,
    rows: Option<Vec<f32>>,
    /// Pictures that were named as their labels do, and those with a label.
    named: Option<(usize, usize)>,
}

impl Collector {
    /// For `n` pictures; `metrics` are the numbers that are asked for, of which the method gives those that it knows.
    pub fn new(method: &Method<'_>, metrics: &[Metric], n: usize) -> Self {
        let known = method.known_of(metrics);
        let wanted = |metric| known.contains(&metric);
        let spatial = method.spatial_width().filter(|_| wanted(Metric::Sfid));
        let splits = wanted(Metric::Is).then(|| method.splits(n)).flatten();
        Self {
            count: 0,
            features: Moments::new(method.width()),
            spatial: spatial.map(Moments::new),
            inception_score: splits.map(|s| InceptionScore::new(method.logits(), s)),
            rows: wanted(Metric::Pr).then(Vec::new),
            named: method.names_classes().then_some((0, 0)),
        }
    }

    /// Adds the features of some pictures.
    ///
    /// # Errors
    /// Where features are no finite numbers.
    pub fn add(&mut self, pictures: &[PictureBatch], found: &Features) -> Result<()> {
        let places: Vec<usize> = all_of(pictures, |batch| &batch.places);
        self.features
            .add(&found.features)
            .map_err(|row| not_finite(&places, row))?;
        if let (Some(moments), Some(spatial)) = (&mut self.spatial, &found.spatial) {
            moments
                .add(spatial)
                .map_err(|row| not_finite(&places, row))?;
        }
        if let (Some(score), Some(logits)) = (&mut self.inception_score, &found.logits) {
            let width = logits.len() / places.len().max(1);
            for (place, row) in places.iter().zip(logits.chunks_exact(width.max(1))) {
                score.add(*place, row);
            }
        }
        if let Some(rows) = &mut self.rows {
            rows.extend_from_slice(&found.features);
        }
        if let (Some((right, of)), Some(predicted)) = (&mut self.named, &found.predicted) {
            let labels: Vec<u32> = all_of(pictures, |batch| &batch.labels);
            let known = labels.iter().zip(predicted);
            for (label, predicted) in known.filter(|(label, _)| **label != UNKNOWN) {
                *right += usize::from(label == predicted);
                *of += 1;
            }
        }
        self.count += places.len();
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
            accuracy: self.named.and_then(share),
            labelled: self.named.map_or(0, |(_, of)| of),
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
    while let Some(window) = pictures.next()? {
        // Methods that see pictures alike look at them once, for the numbers of all of them.
        let mut looked: Vec<(&Method<'_>, Features)> = Vec::new();
        for (method, collector) in methods.iter().zip(&mut collectors) {
            let like = |(other, _): &(&Method<'_>, _)| method.sees_like(other);
            let at = match looked.iter().position(like) {
                Some(at) => at,
                None => {
                    let alike = methods.iter().filter(|other| method.sees_like(other));
                    let wanted: Vec<Metric> =
                        alike.flat_map(|other| other.known_of(metrics)).collect();
                    looked.push((method, method.extract(&window, &wanted)?));
                    looked.len() - 1
                }
            };
            collector.add(&window, &looked[at].1)?;
        }
        count += count_of(&window);
        seen(count);
    }
    if count != n {
        return Err(Error::failed(format!("{count} of {n} pictures came")));
    }
    collectors.into_iter().map(Collector::finish).collect()
}

/// What batches have for each picture, one after the other.
fn all_of<T: Copy>(batches: &[PictureBatch], of: impl Fn(&PictureBatch) -> &Vec<T>) -> Vec<T> {
    batches
        .iter()
        .flat_map(|batch| of(batch).iter().copied())
        .collect()
}

/// Names the picture whose row of features is at fault.
fn not_finite(places: &[usize], row: usize) -> Error {
    let place = places
        .get(row)
        .map_or_else(|| "?".to_owned(), usize::to_string);
    Error::input(format!(
        "the features of image {place} (counted from 0) are no finite numbers; the network's weights are damaged, or made for other images"
    ))
}
