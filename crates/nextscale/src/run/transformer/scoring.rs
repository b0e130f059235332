//! Samples that are drawn and judged during a run.

use super::source::Data;
use crate::data::{ImageSource, Subset, Transform};
use crate::generate::{Noise, SampleOptions, Sampler};
use crate::memory::{self, Workload};
use crate::options::values::BadImages;
use crate::options::{ScoreOptions, TransformerOptions};
use crate::run::event::Metrics;
use crate::score::pictures::{DrawnPictures, RelabelledPictures, StoredPictures};
use crate::score::{
    ENOUGH, Metric, Network, OpenNetwork, PictureBatch, Pictures, Protocol, Scores, Summary,
    summarize,
};
use crate::stop::StopSignal;
use crate::{Error, Result};
use nextscale_tensor::{Device, Precision};
use std::sync::Arc;

/// What judges samples.
pub(super) struct Scoring {
    options: ScoreOptions,
    network: Network,
    images: Arc<dyn ImageSource>,
    transform: Transform,
    batch: usize,
    bad_images: BadImages,
    /// What is to be known of the numbers.
    pub(super) notes: Vec<String>,
    /// Of the validation images, once they were looked at.
    reference: Option<Summary>,
}

impl Scoring {
    /// What the options ask for, if anything.
    ///
    /// # Errors
    /// One line about the network's file, or where there are no images to compare with.
    pub(super) fn open(
        o: &TransformerOptions,
        data: &Data,
        (device, batch): (Device, usize),
    ) -> Result<Option<Self>> {
        let options = &o.score;
        if options.score_every == 0 {
            return Ok(None);
        }
        let Data::Images(images) = data else {
            let why = "samples are held against validation images; a run of --tokens has none";
            return Err(Error::field("score_every", options.score_every, why));
        };
        let Some(file) = &options.score_features else {
            let why = "give the network with `score_features`: a file of `nextscale train-features`, or of the Inception network";
            return Err(Error::field("score_every", options.score_every, why));
        };
        if options.score_samples < 8 {
            let why = "too few to be judged; give at least 8, and thousands to compare numbers";
            return Err(Error::field("score_samples", options.score_samples, why));
        }
        let every = o.output.eval_every.max(1);
        if !options.score_every.is_multiple_of(every) {
            let why = format!(
                "samples are judged with evaluations, which are made every {every} epochs (`eval_every`); give a multiple of that"
            );
            return Err(Error::field("score_every", options.score_every, why));
        }
        if images.val.len() < 2 {
            let why = format!(
                "samples are held against validation images, of which there is {}; two are the fewest",
                images.val.len()
            );
            return Err(Error::field("score_every", options.score_every, why));
        }
        let OpenNetwork { mut network, facts } = OpenNetwork::open(file)?;
        if network.is_own() && options.score_protocol != Protocol::default() {
            let why = format!(
                "{} is {}; protocols are ways to use the Inception network",
                facts.file, facts.kind
            );
            return Err(Error::field("score_protocol", options.score_protocol, why));
        }
        network.to_device(device, Precision::Tf32.math())?;
        let workload = Workload::Score {
            network: &network,
            math: network.math(),
        };
        memory::check(device, "bs", batch, workload)?;
        let mut notes: Vec<String> = facts.remark.into_iter().collect();
        if options.score_samples < ENOUGH && !network.is_own() {
            notes.push(format!(
                "`score_samples`={}: of fewer than {ENOUGH} samples FID is too large; its course tells more than its value",
                options.score_samples
            ));
        }
        Ok(Some(Self {
            options: options.clone(),
            network,
            images: Arc::clone(&images.val),
            transform: images.transform,
            batch,
            bad_images: o.data.bad_images,
            notes,
            reference: None,
        }))
    }

    /// Whether an evaluation after so many epochs draws and judges samples.
    pub(super) fn is_due(&self, epoch: u64, at_end: bool) -> bool {
        at_end || epoch.is_multiple_of(self.options.score_every)
    }

    /// Draws samples and judges them.
    ///
    /// # Errors
    /// [`Error::Stopped`] where a stop was asked for; what drawing or the network say.
    pub(super) fn score(
        &mut self,
        sampler: Sampler<'_>,
        names: &[String],
        seed: u64,
        stop: &StopSignal,
    ) -> Result<Scores> {
        let methods = self.network.methods(&[self.options.score_protocol]);
        let known = self.network.class_names().unwrap_or_default();
        let look = |pictures: Box<dyn Pictures + '_>| -> Result<Summary> {
            let pictures = RelabelledPictures::new(pictures, Some(names), names.len(), known);
            let mut pictures = Stoppable { pictures, stop };
            let found = summarize(&mut pictures, &methods, &Metric::ALL, &mut |_| {})?;
            let first = found.into_iter().next();
            first.ok_or_else(|| Error::failed("there is no method to judge samples by"))
        };
        let reference = match self.reference.take() {
            Some(reference) => reference,
            None => {
                let mut images = Arc::clone(&self.images);
                if self.bad_images == BadImages::Skip {
                    // The evaluation has named the others.
                    images = Arc::new(Subset::readable(images, 0)?.0);
                }
                let cut = Some(self.transform);
                look(Box::new(StoredPictures::new(images, self.batch, cut)?))?
            }
        };
        let classes = (0..sampler.var.config.classes as u32).collect();
        let options = SampleOptions {
            noise: Noise::Seed(seed),
            ..SampleOptions::default()
        };
        let count = (self.options.score_samples, self.batch);
        let drawn = look(Box::new(DrawnPictures::new(
            sampler, options, classes, count,
        )?));
        let scores = drawn.and_then(|drawn| Scores::of(&drawn, Some(&reference), &Metric::ALL));
        self.reference = Some(reference);
        scores
    }

    /// Figures of an evaluation, under names that end in `suffix`.
    pub(super) fn figures(&self, scores: &Scores, suffix: &str) -> Metrics {
        let distance = match self.network.is_own() {
            true => "feature_distance".to_owned(),
            // Numbers of different protocols can't be compared.
            false => format!(
                "fid_{}",
                self.options.score_protocol.name().replace('-', "_")
            ),
        };
        let mut figures = Metrics::new();
        for (name, value) in [
            (&*distance, scores.frechet_distance),
            ("sfid", scores.spatial_frechet_distance),
            ("inception_score", scores.inception_score),
            ("precision", scores.precision),
            ("recall", scores.recall),
            ("class_accuracy", scores.class_accuracy),
        ] {
            if value.is_some() {
                figures.push(format!("{name}{suffix}"), value);
            }
        }
        figures
    }
}

/// Pictures that end where a stop was asked for.
struct Stoppable<'a> {
    pictures: RelabelledPictures<'a>,
    stop: &'a StopSignal,
}

impl Pictures for Stoppable<'_> {
    fn len(&self) -> usize {
        self.pictures.len()
    }

    fn next(&mut self) -> Result<Option<Vec<PictureBatch>>> {
        self.stop.check()?;
        self.pictures.next()
    }
}
