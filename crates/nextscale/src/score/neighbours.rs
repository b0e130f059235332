//! Precision and recall by nearest neighbours (Kynkäänniemi et al. 2019).

use crate::Result;
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
use rayon::prelude::*;

/// Rows held against all others at a time.
const ROWS: usize = 512;

/// Shares of samples that lie among real images, and of real images that lie among samples: within the distance of any of the others to
/// its `k`-th neighbour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrecisionRecall {
    /// Of samples among real images, 0 to 1.
    pub precision: f64,
    /// Of real images among samples, 0 to 1.
    pub recall: f64,
}

/// Features as rows, with the squares of their lengths.
struct Rows<'a> {
    rows: MatRef<'a, f32>,
    squares: Vec<f32>,
}

impl<'a> Rows<'a> {
    fn new(features: &'a [f32], width: usize) -> Self {
        let squares = features
            .par_chunks_exact(width)
            .map(|row| row.iter().map(|v| v * v).sum())
            .collect();
        Self {
            rows: MatRef::from_row_major_slice(features, features.len() / width, width),
            squares,
        }
    }

    fn count(&self) -> usize {
        self.squares.len()
    }

    /// Squares of the distances of some rows to all of `others`, a row each.
    fn distances(&self, first: usize, n: usize, others: &Self) -> Vec<Vec<f32>> {
        let mut products = Mat::<f32>::zeros(others.count(), n);
        matmul(
            products.as_mut(),
            Accum::Replace,
            others.rows,
            self.rows.subrows(first, n).transpose(),
            1.0,
            Par::rayon(0),
        );
        let row = |i: usize| {
            let own = self.squares[first + i];
            let of = |j: usize| (own + others.squares[j] - 2.0 * products[(j, i)]).max(0.0);
            (0..others.count()).map(of).collect()
        };
        (0..n).into_par_iter().map(row).collect()
    }

    /// The square of each row's distance to its `k`-th neighbour, itself not counted.
    fn radii(&self, k: usize) -> Vec<f32> {
        self.pieces(self, |_, mut distances| {
            let k = k.min(distances.len() - 1);
            *distances.select_nth_unstable_by(k, f32::total_cmp).1
        })
    }

    /// Calls `f` with each row's number and distances to `others`.
    fn pieces<T: Send>(&self, others: &Self, f: impl Fn(usize, Vec<f32>) -> T + Sync) -> Vec<T> {
        let mut all = Vec::with_capacity(self.count());
        for first in (0..self.count()).step_by(ROWS) {
            let n = ROWS.min(self.count() - first);
            let distances = self.distances(first, n, others);
            let found = distances.into_par_iter().enumerate();
            all.par_extend(found.map(|(i, d)| f(first + i, d)));
        }
        all
    }

    /// The share of rows that lie within the radius of any of `others`.
    fn among(&self, others: &Self, radii: &[f32]) -> f64 {
        let inside = self.pieces(others, |_, d| d.iter().zip(radii).any(|(d, r)| d <= r));
        inside.iter().filter(|i| **i).count() as f64 / self.count().max(1) as f64
    }
}

/// Of features `[n, width]` of samples and of real images.
///
/// # Errors
/// Where there are too few of either for `k` neighbours.
pub fn precision_recall(
    samples: &[f32],
    real: &[f32],
    width: usize,
    k: usize,
) -> Result<PrecisionRecall> {
    let [samples, real] = [samples, real].map(|features| Rows::new(features, width));
    let fewest = samples.count().min(real.count());
    if fewest <= k {
        return Err(crate::Error::input(format!(
            "precision and recall need more than {k} images of either side, not {fewest}"
        )));
    }
    Ok(PrecisionRecall {
        precision: samples.among(&real, &real.radii(k)),
        recall: real.among(&samples, &samples.radii(k)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition, in float64.
    fn naive(samples: &[f32], real: &[f32], width: usize, k: usize) -> PrecisionRecall {
        let rows = |all: &[f32]| -> Vec<Vec<f64>> {
            all.chunks(width)
                .map(|row| row.iter().map(|v| f64::from(*v)).collect())
                .collect()
        };
        let apart =
            |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum() };
        let among = |a: &[Vec<f64>], b: &[Vec<f64>]| {
            let radius = |row: &Vec<f64>| {
                let mut all: Vec<f64> = b.iter().map(|other| apart(row, other)).collect();
                all.sort_by(f64::total_cmp);
                all[k]
            };
            let radii: Vec<f64> = b.iter().map(radius).collect();
            let inside = |row: &&Vec<f64>| {
                b.iter()
                    .zip(&radii)
                    .any(|(other, r)| apart(row, other) <= *r)
            };
            a.iter().filter(inside).count() as f64 / a.len() as f64
        };
        let (samples, real) = (rows(samples), rows(real));
        PrecisionRecall {
            precision: among(&samples, &real),
            recall: among(&real, &samples),
        }
    }

    #[test]
    fn shares_are_those_of_the_definition() {
        let value = |i: usize, seed: usize| ((i * 7919 + seed * 104_729) % 2003) as f32 / 2003.0;
        for (n, m, width) in [(40, 60, 3), (700, 530, 5)] {
            let real: Vec<f32> = (0..m * width).map(|i| value(i, 1)).collect();
            let samples: Vec<f32> = (0..n * width).map(|i| 0.4 + 0.7 * value(i, 2)).collect();
            for k in [1, 3] {
                let found = precision_recall(&samples, &real, width, k).unwrap();
                assert_eq!(found, naive(&samples, &real, width, k), "{n} {m} {k}");
            }
        }
        assert!(precision_recall(&[0.0; 6], &[0.0; 9], 3, 3).is_err());
    }
}
