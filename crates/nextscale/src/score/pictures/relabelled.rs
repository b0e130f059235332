//! Pictures with the labels that a classifier knows their classes by.

use super::Pictures;
use crate::Result;
use crate::score::PictureBatch;

/// The label of a picture whose class the classifier does not know.
pub const UNKNOWN: u32 = u32::MAX;

/// Pictures with other labels.
pub struct RelabelledPictures<'a> {
    inner: Box<dyn Pictures + 'a>,
    /// The new label of each old one; `None` where classes have nothing to do with each other.
    labels: Option<Vec<u32>>,
}

impl<'a> RelabelledPictures<'a> {
    /// Pictures of classes called `names`, for a classifier of classes called `known`: classes go by their names, and where pictures' classes
    /// have none by their numbers if there are as many (`count`).
    pub fn new(
        inner: Box<dyn Pictures + 'a>,
        names: Option<&[String]>,
        count: usize,
        known: &[String],
    ) -> Self {
        let place = |name: &String| known.iter().position(|k| k == name);
        let labels = match names {
            Some(names) => {
                let places: Vec<Option<usize>> = names.iter().map(place).collect();
                let labels = places.iter().map(|p| p.map_or(UNKNOWN, |p| p as u32));
                places.iter().any(Option::is_some).then(|| labels.collect())
            }
            None => (count == known.len()).then(|| (0..count as u32).collect()),
        };
        Self { inner, labels }
    }
}

impl Pictures for RelabelledPictures<'_> {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn next(&mut self) -> Result<Option<Vec<PictureBatch>>> {
        let Some(mut window) = self.inner.next()? else {
            return Ok(None);
        };
        for batch in &mut window {
            match &self.labels {
                Some(labels) => {
                    let known =
                        |label: &u32| labels.get(*label as usize).copied().unwrap_or(UNKNOWN);
                    batch.labels = batch.labels.iter().map(known).collect();
                }
                None => batch.labels.clear(),
            }
        }
        Ok(Some(window))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Three;

    impl Pictures for Three {
        fn len(&self) -> usize {
            3
        }

        fn next(&mut self) -> Result<Option<Vec<PictureBatch>>> {
            Ok(Some(vec![PictureBatch {
                rgb: vec![0; 9],
                size: (1, 1),
                places: vec![0, 1, 2],
                labels: vec![0, 1, 2],
            }]))
        }
    }

    #[test]
    fn classes_go_by_their_names() {
        let names = |all: &[&str]| all.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let labels = |own: Option<&[String]>, count, known: &[&str]| {
            let mut all = RelabelledPictures::new(Box::new(Three), own, count, &names(known));
            all.next().unwrap().unwrap().remove(0).labels
        };
        let own = names(&["cat", "dog", "owl"]);
        assert_eq!(labels(Some(&own), 3, &["owl", "cat"]), [1, UNKNOWN, 0]);
        assert!(labels(Some(&own), 3, &["car", "bus", "tram"]).is_empty());
        assert_eq!(labels(None, 3, &["car", "bus", "tram"]), [0, 1, 2]);
        assert!(labels(None, 3, &["car", "bus"]).is_empty());
    }
}
