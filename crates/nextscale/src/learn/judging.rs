//! Whether samples can be recognised, and the picture of them.

use super::{Judged, Learn, SAMPLES_FILE, show};
use crate::Result;
use crate::checkpoint::open::open_tokenizer;
use crate::data::LoaderConfig;
use crate::eval::Judge;
use crate::generate::{Noise, SampleOptions};
use crate::pictures::labelled_rows;
use crate::run::Dataset;
use nextscale_tensor::{Device, Math};
use std::path::Path;

/// Samples that are judged, and pictures of noise.
const JUDGED: usize = 200;
/// Real images that the judge learns from, and pictures of noise.
const LEARNT: usize = 2400;
const NOISE: usize = 200;
/// Classes in the picture of samples, and rows at least; in a row so many real images and so many samples.
const CLASSES: usize = 24;
const ROWS: usize = 4;
const REAL: usize = 3;
const SAMPLES: usize = 7;

impl Learn {
    /// What a judge of the folder's own classes makes of real images, samples and noise; the picture of samples.
    pub(super) fn judge(
        &self,
        tokenizer: &Path,
        model: &Path,
        data: &Dataset,
        target: (Device, Math),
    ) -> Result<Judged> {
        let config = LoaderConfig::patient();
        let count = LEARNT.min(4 * data.train.len());
        let (images, labels) = show::some_images(data, count, config, &self.stop)?;
        let mut vqvae = open_tokenizer(tokenizer, None, None)?.vqvae;
        vqvae.to_device(target.0, target.1)?;
        let noise = show::noise(&vqvae, 2 * NOISE, self.asked.seed, &self.stop)?;
        drop(vqvae);
        let pixels = data.side * data.side * 3;
        let (known, unknown) = noise.split_at(NOISE * pixels);
        (self.say)(&format!(
            "     a classifier learns the classes from {} images, and noise",
            labels.len()
        ));
        let judge = Judge::fit(&images, &labels, known, data.side)?;
        let (hits, of) = show::judge_real(&judge, data, config, &self.stop)?;
        // As many of each class as validation has, so that figures can be compared.
        let spread = |i: usize| of[i * of.len() / JUDGED];
        let wanted: Vec<u32> = (0..JUDGED).map(spread).collect();
        let noise_hits = judge.right(unknown, &wanted)?;
        let shown = rows(&labels, data.classes());
        let drawn = shown.iter().flat_map(|&(class, _)| [class as i32; SAMPLES]);
        let asked: Vec<i32> = drawn.chain(wanted.iter().map(|&l| l as i32)).collect();
        (self.say)(&format!("     drawing {} samples", asked.len()));
        let options = SampleOptions {
            cfg: 2.0,
            top_k: 0,
            top_p: 0.92,
            more_smooth: false,
            noise: Noise::Seed(self.asked.seed),
        };
        let mut samples = Vec::with_capacity(asked.len() * pixels);
        let keep = |images: &[u8], _: &[i32]| {
            samples.extend_from_slice(images);
            Ok(())
        };
        show::draw(model, &asked, options, target, &self.stop, keep)?;
        let (pictures, judged) = samples.split_at(shown.len() * SAMPLES * pixels);
        let sample_hits = judge.right(judged, &wanted)?;
        let names = data.train.class_names();
        let rows: Vec<(String, Vec<u8>)> = shown
            .iter()
            .zip(pictures.chunks_exact(SAMPLES * pixels))
            .map(|(&(class, row), drawn)| {
                let mut tiles = real(&images, &labels, (class, row), pixels);
                tiles.extend(vec![255; pixels]);
                tiles.extend_from_slice(drawn);
                let name = names[class as usize].clone();
                (if row == 0 { name } else { String::new() }, tiles)
            })
            .collect();
        let rows: Vec<(&str, &[u8])> = rows.iter().map(|(n, t)| (n.as_str(), &t[..])).collect();
        labelled_rows(&rows, data.side).save(&self.out.join(SAMPLES_FILE))?;
        let share = |hits: usize, of: usize| hits as f64 / of.max(1) as f64;
        Ok(Judged {
            real: share(hits, of.len()),
            samples: share(sample_hits, JUDGED),
            noise: share(noise_hits, JUDGED),
            guessed: largest_share(&of),
            judged: JUDGED,
        })
    }
}

/// The share of the most frequent label.
fn largest_share(labels: &[u32]) -> f64 {
    let mut counts = std::collections::HashMap::<u32, usize>::new();
    for label in labels {
        *counts.entry(*label).or_default() += 1;
    }
    let most = counts.into_values().max().unwrap_or(0);
    most as f64 / labels.len().max(1) as f64
}

/// The rows of the picture: classes with the most images, in the order of their labels, and the number of the row within the class.
fn rows(labels: &[u32], classes: usize) -> Vec<(u32, usize)> {
    let mut counts = vec![0usize; classes];
    for &label in labels {
        if let Some(count) = counts.get_mut(label as usize) {
            *count += 1;
        }
    }
    let mut all: Vec<u32> = (0..classes as u32).collect();
    all.sort_by_key(|&class| std::cmp::Reverse(counts[class as usize]));
    all.truncate(CLASSES);
    all.sort_unstable();
    let each = ROWS.div_ceil(all.len().max(1));
    let rows = |class| (0..each).map(move |row| (class, row));
    all.into_iter().flat_map(rows).collect()
}

/// Real images of a class, for a row of it, filled up with white.
fn real(images: &[u8], labels: &[u32], (class, row): (u32, usize), pixels: usize) -> Vec<u8> {
    let own = images.chunks_exact(pixels).zip(labels);
    let own = own.filter(|(_, label)| **label == class);
    let own = own.skip(row * REAL).take(REAL);
    let mut tiles: Vec<u8> = own.flat_map(|(image, _)| image).copied().collect();
    tiles.resize(REAL * pixels, 255);
    tiles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_share_is_found() {
        assert_eq!(largest_share(&[1, 2, 2, 9]), 0.5);
        assert_eq!(largest_share(&[]), 0.0);
    }

    #[test]
    fn the_most_frequent_classes_are_shown_in_order() {
        assert_eq!(rows(&[2, 2, 0, 1, 1, 9], 3).len(), 6);
        assert_eq!(rows(&[0], 1), [(0, 0), (0, 1), (0, 2), (0, 3)]);
        let labels: Vec<u32> = (0..40).chain(10..30).collect();
        let shown = rows(&labels, 40);
        assert_eq!(shown.len(), CLASSES);
        assert!(shown.is_sorted() && (10..30).all(|class| shown.contains(&(class, 0))));
        let tiles = |row| real(&[1, 2, 3, 4, 5], &[0, 1, 1, 1, 1], (1, row), 1);
        assert_eq!((tiles(0), tiles(1)), (vec![2, 3, 4], vec![5, 255, 255]));
    }
}
