//! The Inception score.

/// Mean and standard deviation over `splits` of `exp(E KL(p(y|x) ‖ p(y)))` (Salimans et al. 2016), of logits `[n, classes]`, in float64.
/// Rows are taken in `order` where there is one.
pub fn inception_score(
    logits: &[f32],
    classes: usize,
    splits: usize,
    order: Option<&[usize]>,
) -> (f64, f64) {
    let n = logits.len() / classes.max(1);
    let row = |i: usize| {
        let i = order.map_or(i, |order| order[i]);
        &logits[i * classes..(i + 1) * classes]
    };
    let scores: Vec<f64> = (0..splits)
        .map(|split| score(split * n / splits..(split + 1) * n / splits, classes, row))
        .collect();
    let mean = scores.iter().sum::<f64>() / splits as f64;
    let variance = scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / splits as f64;
    (mean, variance.sqrt())
}

/// Of some rows.
fn score<'a>(
    rows: std::ops::Range<usize>,
    classes: usize,
    row: impl Fn(usize) -> &'a [f32],
) -> f64 {
    let n = rows.len() as f64;
    let mut all = vec![0.0f64; classes];
    // The sum of p log p, which does not depend on the others.
    let mut own = 0.0;
    for i in rows {
        let logits = row(i);
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let shifted = || logits.iter().map(|v| f64::from(*v) - f64::from(most));
        let log_sum = shifted().map(f64::exp).sum::<f64>().ln();
        for (sum, v) in all.iter_mut().zip(shifted()) {
            let log_p = v - log_sum;
            let p = log_p.exp();
            *sum += p;
            own += p * log_p;
        }
    }
    let of_all: f64 = all
        .iter()
        .map(|sum| sum / n)
        .filter(|q| *q > 0.0)
        .map(|q| q * q.ln())
        .sum();
    (own / n - of_all).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sure_and_different_is_the_number_of_classes_and_the_same_is_one() {
        let one_hot = |i: usize| (0..4).map(move |c| if c == i % 4 { 40.0f32 } else { 0.0 });
        let logits: Vec<f32> = (0..16).flat_map(one_hot).collect();
        let (mean, deviation) = inception_score(&logits, 4, 2, None);
        assert!((mean - 4.0).abs() < 1e-9 && deviation < 1e-9);
        let (mean, _) = inception_score(&[1.0, 2.0, 1.0, 2.0], 2, 1, None);
        assert!((mean - 1.0).abs() < 1e-12);
        // In another order splits see one class each.
        let order: Vec<usize> = (0..4)
            .flat_map(|c| (0..4).map(move |i| 4 * i + c))
            .collect();
        let (mean, _) = inception_score(&logits, 4, 4, Some(&order));
        assert!((mean - 1.0).abs() < 1e-9);
    }
}
