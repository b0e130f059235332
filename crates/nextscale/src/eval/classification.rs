//! How many images a classifier names rightly.

use crate::data::{Feed, ValLoader};
use crate::model::ForwardPass;
use crate::model::classifier::Classifier;
use crate::stop::StopSignal;
use crate::{Error, Result};

/// What came of naming a set of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classification {
    /// Images of each class.
    pub images: Vec<usize>,
    /// Those of each class that were named rightly.
    pub right: Vec<usize>,
    /// Images whose logits were no numbers.
    pub not_numbers: usize,
}

impl Classification {
    fn new(classes: usize) -> Self {
        Self {
            images: vec![0; classes],
            right: vec![0; classes],
            not_numbers: 0,
        }
    }

    /// Adds an image of a class by its logits; the first of several that are largest is the class that it is named.
    fn add(&mut self, label: usize, logits: &[f32]) {
        let (Some(images), Some(right)) = (self.images.get_mut(label), self.right.get_mut(label))
        else {
            return;
        };
        *images += 1;
        if logits.iter().any(|v| v.is_nan()) {
            self.not_numbers += 1;
            return;
        }
        *right += usize::from(largest(logits) == Some(label));
    }

    /// Number of all images.
    pub fn count(&self) -> usize {
        self.images.iter().sum()
    }

    /// Share of the images that were named rightly, 0 to 1.
    pub fn accuracy(&self) -> f64 {
        self.right.iter().sum::<usize>() as f64 / self.count().max(1) as f64
    }

    /// Share that is right where every image is taken for the class that has most, 0 to 1.
    pub fn chance(&self) -> f64 {
        let most = self.images.iter().copied().max().unwrap_or(0);
        most as f64 / self.count().max(1) as f64
    }
}

/// The place of the largest number, the first where several are.
pub(crate) fn largest(logits: &[f32]) -> Option<usize> {
    let mut best: Option<(usize, f32)> = None;
    for (i, &v) in logits.iter().enumerate() {
        if best.is_none_or(|(_, most)| v > most) {
            best = Some((i, v));
        }
    }
    best.map(|(i, _)| i)
}

/// Names all images of a loader. `seen` is told after every batch how many images were named.
///
/// # Errors
/// When an image can't be loaded, a label is none of the classifier's, what it gives is not a number, or none can be read;
/// [`Error::Stopped`] where a stop was asked for.
pub fn evaluate_classification(
    classifier: &Classifier,
    loader: &mut ValLoader,
    stop: &StopSignal,
    seen: &mut dyn FnMut(usize),
) -> Result<Classification> {
    let (side, classes) = (classifier.config.side, classifier.config.classes);
    let mut found = Classification::new(classes);
    let mut feed = Feed::new(classifier.device())?;
    // A batch is read while the next one is computed.
    let mut coming = None;
    loop {
        let next = loader.next_batch()?;
        let launched = match &next {
            Some(batch) => {
                if let Some(&label) = batch.labels.iter().find(|&&l| l as usize >= classes) {
                    let text = format!("an image has class {label}; there are {classes}");
                    return Err(Error::failed(text));
                }
                let images = feed.images([batch.len(), side, side, 3], &batch.images)?;
                let pass = ForwardPass::plain(classifier.math);
                let logits = classifier.forward(&pass, &images)?.logits;
                Some((logits.copy_to_host()?, batch.labels.clone()))
            }
            None => None,
        };
        let ended = launched.is_none();
        if let Some((logits, labels)) = std::mem::replace(&mut coming, launched) {
            let logits = logits.wait()?;
            let rows = logits.f32()?.chunks_exact(classes);
            for (row, label) in rows.zip(labels) {
                found.add(label as usize, row);
            }
            seen(found.count());
        }
        if ended {
            break;
        }
        stop.check()?;
    }
    super::some_images(found.count(), loader)?;
    if found.not_numbers > 0 {
        return Err(Error::Tensor(nextscale_tensor::Error::NotNumbers {
            what: "logits of the classifier",
            bad: found.not_numbers,
            of: found.count(),
        }));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_by_their_class() {
        let mut c = Classification::new(3);
        c.add(0, &[2.0, 1.0, 2.0]);
        c.add(2, &[0.0, 1.0, 0.5]);
        c.add(2, &[0.0, 1.0, 1.5]);
        c.add(1, &[f32::NAN, 1.0, 0.0]);
        c.add(9, &[0.0, 0.0, 0.0]);
        assert_eq!(
            (&c.images[..], &c.right[..]),
            (&[1, 1, 2][..], &[1, 0, 1][..])
        );
        assert_eq!((c.count(), c.not_numbers), (4, 1));
        assert_eq!((c.accuracy(), c.chance()), (0.5, 0.5));
        assert_eq!(largest(&[]), None);
        assert_eq!(largest(&[f32::NEG_INFINITY; 2]), Some(0));
    }
}
