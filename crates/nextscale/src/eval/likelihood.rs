//! How likely a transformer holds given images, and which class it would name them by that.
//!
//! An image's tokens x come from the tokenizer; the transformer gives p(x | y) as a product over tokens, each given the class y and all
//! coarser scales. Its negative logarithm in nats is the sum of the cross entropies that [`evaluate_losses`](super::evaluate_losses)
//! takes the mean of. Divided by ln 2 and by the number of an image's values (height · width · 3) it is bits per dimension. That is the
//! likelihood of the tokens. It is no bound on the likelihood of the pixels: a tokenizer keeps a part of an image only.
//!
//! Zero-shot classification takes the class under which an image is likeliest, all classes being as frequent
//! (Li et al. 2023, "Your diffusion model is secretly a zero-shot classifier").

mod file;
#[cfg(test)]
mod tests;

use super::TeacherForcing;
use super::teacher_forcing::Inputs;
use crate::data::{Feed, ValLoader};
use crate::{Result, Team, world};
use nextscale_tensor::{PendingTensor, Tensor, Values};
use std::f64::consts::LN_2;

pub use file::LikelihoodFile;

/// How likely one image is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImageLikelihood {
    /// Its place in the source.
    pub index: usize,
    /// Its class, as the model numbers them.
    pub label: u32,
    /// −ln p(tokens | its class).
    pub nats: f64,
    /// What zero-shot classification makes of it, where that was asked for.
    pub guess: Option<Guess>,
}

/// The class under which an image is likeliest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guess {
    /// The class; of several the first that was compared.
    pub class: u32,
    /// Its share of the likelihoods of all classes that were compared, 0 to 1.
    pub probability: f64,
    /// How many classes come before the image's own: 0 where the guess is right.
    pub rank: usize,
}

/// How likely a set of images is.
#[derive(Clone, Debug, PartialEq)]
pub struct Likelihood {
    /// Every image, in the order of the source.
    pub images: Vec<ImageLikelihood>,
    /// Tokens of an image.
    pub tokens: usize,
    /// Values of an image: height · width · 3.
    pub values: usize,
    /// Classes that were compared; 0 where none were.
    pub compared: usize,
}

/// A mean with its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimated {
    /// The mean.
    pub mean: f64,
    /// The sample's standard deviation over the root of its size; no number for a single value.
    pub error: f64,
}

impl Estimated {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let n = values.clone().count() as f64;
        let mean = values.clone().sum::<f64>() / n;
        let squares: f64 = values.map(|v| (v - mean).powi(2)).sum();
        Self {
            mean,
            error: (squares / (n - 1.0) / n).sqrt(),
        }
    }

    /// The same in a unit that is `by` times as large.
    pub fn over(self, by: f64) -> Self {
        Self {
            mean: self.mean / by,
            error: self.error / by,
        }
    }
}

impl Likelihood {
    /// Nats an image, over all images.
    pub fn nats(&self) -> Estimated {
        Estimated::of(self.images.iter().map(|image| image.nats))
    }

    /// Nats that are a bit for each of an image's values.
    pub fn nats_per_bit(&self) -> f64 {
        LN_2 * self.values as f64
    }

    /// Share of the images whose class is among the `k` likeliest; `None` where no classes were compared.
    pub fn top(&self, k: usize) -> Option<Estimated> {
        let hits = self.images.iter().map(|image| {
            let guess = image.guess?;
            Some(f64::from(u8::from(guess.rank < k)))
        });
        let hits = hits.collect::<Option<Vec<f64>>>()?;
        Some(Estimated::of(hits.into_iter()))
    }

    /// Share of the images that are of the most frequent class: what naming always that one would reach.
    pub fn most_frequent(&self) -> f64 {
        let mut counts = std::collections::BTreeMap::<u32, usize>::new();
        for image in &self.images {
            *counts.entry(image.label).or_default() += 1;
        }
        let most = counts.values().max().copied().unwrap_or(0);
        most as f64 / self.images.len().max(1) as f64
    }

    /// Refuses likelihoods that are no numbers.
    ///
    /// # Errors
    /// [`NotNumbers`](nextscale_tensor::Error::NotNumbers).
    pub fn check(&self) -> Result<()> {
        let is_number = |image: &ImageLikelihood| {
            image.nats.is_finite() && image.guess.is_none_or(|g| g.probability.is_finite())
        };
        let bad = self.images.iter().filter(|image| !is_number(image)).count();
        if bad == 0 {
            return Ok(());
        }
        Err(crate::Error::Tensor(nextscale_tensor::Error::NotNumbers {
            what: "images' likelihoods",
            bad,
            of: self.images.len(),
        }))
    }
}

/// The likelihood of every image of a team's loaders, the same on all its processes; with `compared`, under each of those classes too,
/// which takes a pass of the transformer for each. `seen` is told at first and after every batch how many images this process has seen.
///
/// # Errors
/// When an image can't be loaded, a class is none of the model's or shapes do not fit; [`Stopped`](crate::Error::Stopped) where a stop
/// was asked for.
pub fn evaluate_likelihood(
    model: TeacherForcing<'_>,
    loader: &mut ValLoader,
    side: usize,
    compared: &[u32],
    team: &Team,
    seen: &mut dyn FnMut(usize),
) -> Result<Likelihood> {
    let own = team.agree(own_images(model, loader, side, compared, team, seen))?;
    let mut images = of_all(team, &own)?;
    images.sort_by_key(|image| image.index);
    super::some_images(images.len(), loader)?;
    Ok(Likelihood {
        images,
        tokens: model.var.config.pyramid.total(),
        values: side * side * 3,
        compared: compared.len(),
    })
}

/// An image as it is sent: what JSON would not give back, infinities and what is no number, as bits.
type Sent = (usize, u32, u64, Option<(u32, u64, usize)>);

fn of_all(team: &Team, own: &[ImageLikelihood]) -> Result<Vec<ImageLikelihood>> {
    let sent = own.iter().map(|image| -> Sent {
        let guess = image.guess;
        let guess = guess.map(|g| (g.class, g.probability.to_bits(), g.rank));
        (image.index, image.label, image.nats.to_bits(), guess)
    });
    let all = world::of_all(&team.world, sent.collect::<Vec<_>>())?;
    let got = all
        .into_iter()
        .flatten()
        .map(|(index, label, nats, guess)| {
            let guess = guess.map(|(class, probability, rank)| Guess {
                class,
                probability: f64::from_bits(probability),
                rank,
            });
            ImageLikelihood {
                index,
                label,
                nats: f64::from_bits(nats),
                guess,
            }
        });
    Ok(got.collect())
}

fn own_images(
    model: TeacherForcing<'_>,
    loader: &mut ValLoader,
    side: usize,
    compared: &[u32],
    team: &Team,
    seen: &mut dyn FnMut(usize),
) -> Result<Vec<ImageLikelihood>> {
    let classes: Vec<i32> = compared.iter().map(|&c| c as i32).collect();
    model.var.check_labels(&classes)?;
    let mut feed = Feed::new(model.var.device())?;
    let mut all = Vec::new();
    seen(0);
    while let Some(batch) = loader.next_batch()? {
        let labels: Vec<i32> = batch.labels.iter().map(|&l| l as i32).collect();
        model.var.check_labels(&labels)?;
        let images = feed.images([batch.len(), side, side, 3], &batch.images)?;
        // The tokens are the same under every class.
        let inputs = model.of_images(&images, model.var.config.pyramid.count())?;
        drop(images);
        let mut passes = Passes {
            model,
            inputs: &inputs,
            feed: &mut feed,
            pending: None,
            nats: Vec::new(),
        };
        // Where every class is compared its own is among them.
        let alone = labels.iter().any(|label| !classes.contains(label));
        if alone {
            passes.begin(&labels)?;
        }
        for &class in &classes {
            team.stop.check()?;
            passes.begin(&vec![class; labels.len()])?;
        }
        let nats = passes.end()?;
        let (own, by_class) = nats.split_at(usize::from(alone));
        for (i, (&index, &label)) in batch.indices.iter().zip(&batch.labels).enumerate() {
            let of_image: Vec<f64> = by_class.iter().map(|nats| nats[i]).collect();
            let place = compared.iter().position(|&class| class == label);
            let nats = match (own.first(), place) {
                (Some(own), _) => own[i],
                (None, Some(place)) => of_image[place],
                (None, None) => f64::NAN,
            };
            all.push(ImageLikelihood {
                index: index as usize,
                label,
                nats,
                guess: guess(&of_image, compared, label),
            });
        }
        seen(all.len());
        team.stop.check()?;
    }
    Ok(all)
}

/// Passes of the transformer over one batch. On a GPU the costs of one are read when the next was begun, so that it never waits.
struct Passes<'a> {
    model: TeacherForcing<'a>,
    inputs: &'a Inputs,
    feed: &'a mut Feed,
    pending: Option<PendingTensor>,
    /// By pass and image.
    nats: Vec<Vec<f64>>,
}

impl Passes<'_> {
    fn begin(&mut self, labels: &[i32]) -> Result<()> {
        let shape = [labels.len()].into();
        let [labels] = self.feed.together([(shape, Values::Integers(labels))])?;
        let costs = self.model.token_costs(self.inputs, &labels)?;
        match self.pending.replace(costs.copy_to_host()?) {
            Some(before) => self.read(before),
            None => Ok(()),
        }
    }

    fn read(&mut self, costs: PendingTensor) -> Result<()> {
        self.nats.push(sums(&costs.wait()?)?);
        Ok(())
    }

    fn end(mut self) -> Result<Vec<Vec<f64>>> {
        if let Some(last) = self.pending.take() {
            self.read(last)?;
        }
        Ok(self.nats)
    }
}

/// Costs \[B, L\] summed over tokens, in float64 and in their order.
fn sums(costs: &Tensor) -> Result<Vec<f64>> {
    let rows = costs.f32()?.chunks_exact(costs.shape().last());
    let sum = |row: &[f32]| row.iter().map(|&cost| f64::from(cost)).sum();
    Ok(rows.map(sum).collect())
}

/// The class that an image is named by, from its nats under every class; `None` where there are none.
fn guess(nats: &[f64], classes: &[u32], label: u32) -> Option<Guess> {
    // Of equals the first is taken, and comes first.
    let best = (0..nats.len()).min_by(|&a, &b| nats[a].total_cmp(&nats[b]))?;
    let all: f64 = nats.iter().map(|n| (nats[best] - n).exp()).sum();
    let place = classes.iter().position(|&class| class == label);
    let rank = match place {
        Some(own) => {
            let before = |c: &usize| nats[*c] < nats[own] || (nats[*c] == nats[own] && *c < own);
            (0..nats.len()).filter(before).count()
        }
        None => nats.len(),
    };
    Some(Guess {
        class: classes[best],
        probability: 1.0 / all,
        rank,
    })
}
