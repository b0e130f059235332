//! How the pictures of a side are looked at, and what is kept of them.

use super::super::progress::progress;
use super::sides::{Reading, Side};
use nextscale::score::pictures::RelabelledPictures;
use nextscale::score::{
    Method, Metric, Pictures, Summary, read_statistics, statistics_made_by, summarize,
};
use nextscale::{Error, Result};
use std::path::Path;

/// The labels by which the network knows classes, where it knows pictures' own.
#[derive(Clone, Copy)]
pub struct Labels<'a>(pub Option<&'a [String]>);

impl Labels<'_> {
    /// Pictures of classes called `names`, with these labels.
    pub fn of<'p>(
        self,
        pictures: Box<dyn Pictures + 'p>,
        names: Option<&[String]>,
        count: usize,
    ) -> RelabelledPictures<'p> {
        RelabelledPictures::new(pictures, names, count, self.0.unwrap_or_default())
    }
}

/// By what pictures are looked at.
pub struct Looking<'a> {
    pub methods: &'a [Method<'a>],
    pub metrics: &'a [Metric],
    pub reading: Reading,
    pub labels: Labels<'a>,
    /// Of the network's file.
    pub sha256: &'a str,
}

impl Looking<'_> {
    /// Goes through the pictures of `text` with a line of progress.
    pub fn at(&self, text: &str, pictures: &mut dyn Pictures) -> Result<Vec<Summary>> {
        if pictures.len() < 2 {
            return Err(Error::input(format!(
                "{text}: there is {} image; at least two are needed to tell how images differ",
                pictures.len()
            )));
        }
        let mut seen = progress(pictures.len(), true);
        summarize(pictures, self.methods, self.metrics, &mut seen)
    }

    /// The pictures of a side that is no model, with the network's labels.
    pub fn pictures(&self, side: &Side, text: &str) -> Result<RelabelledPictures<'static>> {
        let pictures = side.pictures(text, self.reading)?;
        let count = self.labels.0.map_or(0, <[String]>::len);
        Ok(self.labels.of(pictures, side.class_names(), count))
    }

    /// What is kept of a side that is no model: from statistics in its file, if these count and as far as there are some, else from its
    /// pictures.
    pub fn summaries(
        &self,
        side: &Side,
        text: &str,
        statistics_count: bool,
    ) -> Result<Vec<Summary>> {
        let (pictures, statistics) = match side {
            Side::Npz {
                pictures,
                statistics,
            } => (*pictures, *statistics && statistics_count),
            Side::Stored(_) | Side::Model(_) | Side::Tokenizer(_) => (true, false),
        };
        if !statistics {
            return self.at(text, &mut self.pictures(side, text)?);
        }
        let kept = self.kept(text, pictures)?;
        let lacks = self
            .methods
            .iter()
            .zip(&kept)
            .any(|(m, k)| self.lacks(m, k));
        let found: Vec<Option<Summary>> = match pictures && lacks {
            true => {
                let found = self.at(text, &mut self.pictures(side, text)?)?;
                found.into_iter().map(Some).collect()
            }
            false => vec![None; kept.len()],
        };
        kept.into_iter()
            .zip(found)
            .map(|both| match both {
                // Statistics are those of all images, of which the file may hold some for precision and recall.
                (Some(kept), Some(found)) => Ok(Summary {
                    spatial: kept.spatial.or(found.spatial),
                    rows: found.rows,
                    accuracy: found.accuracy,
                    labelled: found.labelled,
                    ..kept
                }),
                (Some(one), None) | (None, Some(one)) => Ok(one),
                (None, None) => Err(Error::failed(format!("{text}: has lost its statistics"))),
            })
            .collect()
    }

    /// The statistics in a file for each method; `None` where there are none for it, and pictures to look at instead.
    fn kept(&self, text: &str, has_pictures: bool) -> Result<Vec<Option<Summary>>> {
        let path = Path::new(text);
        let made_by = statistics_made_by(path)?;
        if made_by.is_none() && self.methods.len() > 1 && !has_pictures {
            return Err(Error::input(format!(
                "{text}: its statistics are those of one protocol; give one with --protocol"
            )));
        }
        let of = |method: &Method<'_>| -> Result<Option<Summary>> {
            let foreign = match &made_by {
                None => false,
                Some(by) => by.protocol != method.name() || by.network != self.sha256,
            };
            if foreign && has_pictures {
                return Ok(None);
            }
            if let (true, Some(by)) = (foreign, &made_by) {
                return Err(Error::input(format!(
                    "{text}: its statistics were made by {} with the network {}…, and these numbers are by {} with {}…; give the same, or the images",
                    by.protocol,
                    by.network.get(..8).unwrap_or_default(),
                    method.name(),
                    self.sha256.get(..8).unwrap_or_default()
                )));
            }
            match read_statistics(path, method.width(), method.spatial_width()) {
                Err(Error::Input(_)) if has_pictures => Ok(None),
                read => read,
            }
        };
        self.methods.iter().map(of).collect()
    }

    /// Whether pictures would give numbers that kept statistics do not.
    fn lacks(&self, method: &Method<'_>, kept: &Option<Summary>) -> bool {
        let Some(kept) = kept else { return true };
        let wanted = method.known_of(self.metrics);
        wanted.contains(&Metric::Pr)
            || (wanted.contains(&Metric::Sfid) && kept.spatial.is_none())
            || method.names_classes()
    }
}
