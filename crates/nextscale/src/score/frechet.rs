//! The Fréchet distance of two normal distributions.

use super::Statistics;
use crate::{Error, Result};
use faer::{Mat, Side};

/// `|μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2·(Σ₁Σ₂)^½)`, FID where the features are those of the Inception network (Heusel et al. 2017, eq. 6).
///
/// The trace of the root is the sum of the roots of the eigenvalues of `Σ₁Σ₂`, which are those of the symmetric `RᵀΣ₂R` where
/// `RRᵀ = Σ₁`: no singular matrix needs a term on its diagonal.
///
/// # Errors
/// When widths differ, or eigenvalues are not found.
pub fn frechet_distance(a: &Statistics, b: &Statistics) -> Result<f64> {
    let width = a.mean.len();
    if width != b.mean.len() {
        return Err(Error::input(format!(
            "statistics of {width} features can't be held against those of {}",
            b.mean.len()
        )));
    }
    let failed = |_| Error::failed("the eigenvalues of a covariance were not found");
    // Any root of Σ₁ does, and a triangular one is found soonest; a singular covariance has none.
    let inner = match a.covariance.llt(Side::Lower) {
        Ok(root) => root.L().transpose() * &b.covariance * root.L(),
        Err(_) => {
            let eigen = a
                .covariance
                .self_adjoint_eigen(Side::Lower)
                .map_err(failed)?;
            let (u, values) = (eigen.U(), eigen.S().column_vector());
            // Covariances of fewer images than features have eigenvalues that are zero but for rounding.
            let scaled = Mat::from_fn(width, width, |i, j| u[(i, j)] * values[j].max(0.0).sqrt());
            scaled.transpose() * &b.covariance * &scaled
        }
    };
    let symmetric = Mat::from_fn(width, width, |i, j| 0.5 * (inner[(i, j)] + inner[(j, i)]));
    let values = symmetric
        .self_adjoint_eigenvalues(Side::Lower)
        .map_err(failed)?;
    let trace_of_root: f64 = values.iter().map(|v| v.max(0.0).sqrt()).sum();
    let apart: f64 = a
        .mean
        .iter()
        .zip(&b.mean)
        .map(|(a, b)| (a - b).powi(2))
        .sum();
    let trace = |m: &Mat<f64>| (0..width).map(|i| m[(i, i)]).sum::<f64>();
    let own = apart + trace(&a.covariance) + trace(&b.covariance);
    let distance = own - 2.0 * trace_of_root;
    if !distance.is_finite() || distance < -1e-3 * own {
        return Err(Error::input(format!(
            "the Fréchet distance comes out as {distance}: one of the two covariances is none; make the statistics again"
        )));
    }
    Ok(distance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn diagonal(mean: &[f64], variances: &[f64]) -> Statistics {
        let n = mean.len();
        let value = |i: usize, j: usize| if i == j { variances[i] } else { 0.0 };
        Statistics {
            count: None,
            mean: mean.to_vec(),
            covariance: Mat::from_fn(n, n, value),
        }
    }

    #[test]
    fn of_diagonal_covariances_it_is_a_sum_over_features() {
        let a = diagonal(&[0.0, 1.0, 2.0], &[4.0, 0.0, 9.0]);
        let b = diagonal(&[1.0, 1.0, 0.0], &[1.0, 1.0, 16.0]);
        // 1 + 4 apart; (2 - 1)², 1 and (3 - 4)² of the deviations.
        assert!((frechet_distance(&a, &b).unwrap() - 8.0).abs() < 1e-12);
        assert!(frechet_distance(&a, &diagonal(&[0.0], &[1.0])).is_err());
    }

    proptest! {
        #[test]
        fn it_is_symmetric_and_nothing_to_itself(values in proptest::collection::vec(-3.0f64..3.0, 40)) {
            // Rank 3 of 4: singular, as of few images.
            let of = |values: &[f64]| Statistics {
                count: None,
                mean: values[12..16].to_vec(),
                covariance: Mat::from_fn(4, 4, |i, j| {
                    (0..3).map(|k| values[3 * i + k] * values[3 * j + k]).sum()
                }),
            };
            let (a, b) = (of(&values[..20]), of(&values[20..]));
            let (ab, ba) = (frechet_distance(&a, &b).unwrap(), frechet_distance(&b, &a).unwrap());
            prop_assert!((ab - ba).abs() < 1e-6 * (1.0 + ab.abs()), "{ab} {ba}");
            prop_assert!(frechet_distance(&a, &a).unwrap().abs() < 1e-5);
            prop_assert!(ab > -1e-5);
        }
    }
}
