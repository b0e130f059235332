//! Mean and covariance of features, summed in float64.

use crate::{Error, Result};
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};

/// Sums over rows of features. The first rows' mean is taken off all rows, so that sums of squares stay small beside what they tell.
#[derive(Clone, Debug)]
pub struct Moments {
    width: usize,
    count: usize,
    shift: Vec<f64>,
    sum: Vec<f64>,
    /// Sums of products of what is left, `[width, width]`.
    products: Mat<f64>,
}

/// What tells the distribution of features, as the field keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// How many rows it is of, where that is known.
    pub count: Option<usize>,
    /// `mu`: the mean.
    pub mean: Vec<f64>,
    /// `sigma`: the covariance, `[width, width]`, divided by the number of rows less one.
    pub covariance: Mat<f64>,
}

impl Moments {
    /// Of no rows yet, each of `width` features.
    pub fn new(width: usize) -> Self {
        Self {
            width,
            count: 0,
            shift: Vec::new(),
            sum: vec![0.0; width],
            products: Mat::zeros(width, width),
        }
    }

    /// Rows so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Adds rows, `[n, width]`.
    ///
    /// # Errors
    /// The first of these rows that holds what is no finite number; none is added then.
    pub fn add(&mut self, rows: &[f32]) -> std::result::Result<(), usize> {
        if let Some(at) = rows.iter().position(|v| !v.is_finite()) {
            return Err(at / self.width);
        }
        let n = rows.len() / self.width;
        if n == 0 {
            return Ok(());
        }
        if self.count == 0 {
            let mean = |column: usize| {
                let values = rows.iter().skip(column).step_by(self.width);
                values.map(|v| f64::from(*v)).sum::<f64>() / n as f64
            };
            self.shift = (0..self.width).map(mean).collect();
        }
        let own: Vec<f64> = rows
            .chunks_exact(self.width)
            .flat_map(|row| row.iter().zip(&self.shift).map(|(v, s)| f64::from(*v) - s))
            .collect();
        for row in own.chunks_exact(self.width) {
            for (sum, v) in self.sum.iter_mut().zip(row) {
                *sum += v;
            }
        }
        let own = MatRef::from_row_major_slice(&own, n, self.width);
        matmul(
            self.products.as_mut(),
            Accum::Add,
            own.transpose(),
            own,
            1.0,
            Par::rayon(0),
        );
        self.count += n;
        Ok(())
    }

    /// Mean and covariance.
    ///
    /// # Errors
    /// Of less than two rows.
    pub fn finish(&self) -> Result<Statistics> {
        if self.count < 2 {
            return Err(Error::input(format!(
                "statistics need at least 2 images, not {}",
                self.count
            )));
        }
        let n = self.count as f64;
        let left: Vec<f64> = self.sum.iter().map(|s| s / n).collect();
        let mean = self.shift.iter().zip(&left).map(|(s, l)| s + l).collect();
        let covariance = Mat::from_fn(self.width, self.width, |i, j| {
            (self.products[(i, j)] - n * left[i] * left[j]) / (n - 1.0)
        });
        Ok(Statistics {
            count: Some(self.count),
            mean,
            covariance,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_definition_whatever_the_batches() {
        let value = |i: usize| ((i * 2_654_435_761) % 1009) as f32 / 100.0 + 1e3;
        let (n, width) = (37, 5);
        let rows: Vec<f32> = (0..n * width).map(value).collect();
        let at = |i: usize, j: usize| f64::from(rows[i * width + j]);
        let mean = |j: usize| (0..n).map(|i| at(i, j)).sum::<f64>() / n as f64;
        for batch in [1, 7, 37] {
            let mut moments = Moments::new(width);
            for rows in rows.chunks(batch * width) {
                moments.add(rows).unwrap();
            }
            let s = moments.finish().unwrap();
            assert_eq!(s.count, Some(n));
            for a in 0..width {
                assert!((s.mean[a] - mean(a)).abs() < 1e-9);
                for b in 0..width {
                    let products = (0..n).map(|i| (at(i, a) - mean(a)) * (at(i, b) - mean(b)));
                    let want = products.sum::<f64>() / (n - 1) as f64;
                    assert!((s.covariance[(a, b)] - want).abs() < 1e-9);
                }
            }
        }
    }

    #[test]
    fn what_is_no_number_is_named() {
        let mut moments = Moments::new(2);
        moments.add(&[1.0, 2.0]).unwrap();
        assert!(moments.finish().is_err());
        assert_eq!(moments.add(&[1.0, 2.0, f32::NAN, 0.0]), Err(1));
        assert_eq!(moments.count(), 1);
    }
}
