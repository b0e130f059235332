//! The Inception score, added up image by image.

use std::ops::Range;

/// `exp(E KL(p(y|x) ‖ p(y)))` of logits (Salimans et al. 2016) in float64, as mean and standard deviation over splits of the images.
#[derive(Clone, Debug)]
pub struct InceptionScore {
    classes: usize,
    /// The split of every image.
    split_of: Vec<u32>,
    splits: Vec<Split>,
}

/// Sums over a split's images.
#[derive(Clone, Debug)]
struct Split {
    count: usize,
    /// Σ p(y|x), by class.
    p: Vec<f64>,
    /// Σ p log p, which does not depend on the other images.
    p_log_p: f64,
}

impl InceptionScore {
    /// For images of which number i belongs to split `split_of[i]`.
    pub fn new(classes: usize, split_of: Vec<u32>) -> Self {
        let count = split_of.iter().max().map_or(0, |last| *last as usize + 1);
        let empty = Split {
            count: 0,
            p: vec![0.0; classes],
            p_log_p: 0.0,
        };
        Self {
            classes,
            split_of,
            splits: vec![empty; count],
        }
    }

    /// Adds image number `image`; one that belongs to no split is passed over.
    pub fn add(&mut self, image: usize, logits: &[f32]) {
        let split = self.split_of.get(image).map(|s| *s as usize);
        let Some(split) = split.and_then(|s| self.splits.get_mut(s)) else {
            return;
        };
        debug_assert_eq!(logits.len(), self.classes);
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let shifted = || logits.iter().map(|v| f64::from(*v) - f64::from(most));
        let log_sum = shifted().map(f64::exp).sum::<f64>().ln();
        for (sum, v) in split.p.iter_mut().zip(shifted()) {
            let log_p = v - log_sum;
            let p = log_p.exp();
            *sum += p;
            // A probability that is no float any more has no part in the sum.
            if p > 0.0 {
                split.p_log_p += p * log_p;
            }
        }
        split.count += 1;
    }

    /// Mean and standard deviation (of the population) over the splits that have images.
    pub fn finish(&self) -> (f64, f64) {
        let with_images = self.splits.iter().filter(|s| s.count > 0);
        let scores: Vec<f64> = with_images.map(Split::score).collect();
        let n = scores.len().max(1) as f64;
        let mean = scores.iter().sum::<f64>() / n;
        let variance = scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / n;
        (mean, variance.sqrt())
    }
}

impl Split {
    fn score(&self) -> f64 {
        let n = self.count as f64;
        let of_all: f64 = self
            .p
            .iter()
            .map(|sum| sum / n)
            .filter(|q| *q > 0.0)
            .map(|q| q * q.ln())
            .sum();
        (self.p_log_p / n - of_all).exp()
    }
}

/// The split of each of `n` images, dealt to `splits` pieces of one length (the last ones longer by one where it does not divide) in
/// `order`, where there is one: place i of the order is in piece i·splits/n.
pub fn pieces(n: usize, splits: usize, order: Option<&[usize]>) -> Vec<u32> {
    let mut split_of = vec![0; n];
    for split in 0..splits {
        let places: Range<usize> = split * n / splits..(split + 1) * n / splits;
        for place in places {
            let image = order.map_or(place, |order| order[place]);
            split_of[image] = split as u32;
        }
    }
    split_of
}

/// The split of each of `n` images in runs of `size`.
pub fn runs(n: usize, size: usize) -> Vec<u32> {
    (0..n).map(|i| (i / size.max(1)) as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(logits: &[f32], classes: usize, split_of: Vec<u32>) -> (f64, f64) {
        let mut all = InceptionScore::new(classes, split_of);
        for (i, row) in logits.chunks_exact(classes).enumerate() {
            all.add(i, row);
        }
        all.finish()
    }

    #[test]
    fn sure_and_different_is_the_number_of_classes_and_the_same_is_one() {
        let one_hot = |i: usize| (0..4).map(move |c| if c == i % 4 { 40.0f32 } else { 0.0 });
        let logits: Vec<f32> = (0..16).flat_map(one_hot).collect();
        let (mean, deviation) = score(&logits, 4, pieces(16, 2, None));
        assert!((mean - 4.0).abs() < 1e-9 && deviation < 1e-9);
        let (mean, _) = score(&[1.0, 2.0, 1.0, 2.0], 2, pieces(2, 1, None));
        assert!((mean - 1.0).abs() < 1e-12);
        // In another order splits see one class each.
        let order: Vec<usize> = (0..4)
            .flat_map(|c| (0..4).map(move |i| 4 * i + c))
            .collect();
        let (mean, _) = score(&logits, 4, pieces(16, 4, Some(&order)));
        assert!((mean - 1.0).abs() < 1e-9);
        // Logits that are far apart leave no probability for the others.
        let (mean, _) = score(&[0.0, 1e6, 1e6, 0.0], 2, runs(2, 5000));
        assert!((mean - 2.0).abs() < 1e-12);
    }

    #[test]
    fn it_is_the_definition_in_each_split() {
        let (n, classes, splits) = (23, 7, 3);
        let value = |i: usize| ((i * 7919) % 1009) as f32 / 200.0;
        let logits: Vec<f32> = (0..n * classes).map(value).collect();
        let p: Vec<Vec<f64>> = logits
            .chunks(classes)
            .map(|row| {
                let sum: f64 = row.iter().map(|v| f64::from(*v).exp()).sum();
                row.iter().map(|v| f64::from(*v).exp() / sum).collect()
            })
            .collect();
        let of = |rows: Range<usize>| {
            let m = rows.len() as f64;
            let q = |c: usize| rows.clone().map(|r| p[r][c]).sum::<f64>() / m;
            let kl = |r: usize| {
                (0..classes)
                    .map(|c| p[r][c] * (p[r][c] / q(c)).ln())
                    .sum::<f64>()
            };
            (rows.clone().map(kl).sum::<f64>() / m).exp()
        };
        let scores: Vec<f64> = (0..splits)
            .map(|s| of(s * n / splits..(s + 1) * n / splits))
            .collect();
        let want = scores.iter().sum::<f64>() / splits as f64;
        let (mean, deviation) = score(&logits, classes, pieces(n, splits, None));
        assert!((mean - want).abs() < 1e-12);
        let variance = scores.iter().map(|s| (s - want).powi(2)).sum::<f64>() / splits as f64;
        assert!((deviation - variance.sqrt()).abs() < 1e-12);
        // Runs: all in one, and the rest in another.
        let (mean, _) = score(&logits, classes, runs(n, 20));
        assert!((mean - (of(0..20) + of(20..n)) / 2.0).abs() < 1e-12);
    }
}
