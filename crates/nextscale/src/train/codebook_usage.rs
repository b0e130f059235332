//! How much of the codebook is in use, by scale: running averages of hit counts, as the reference keeps them in
//! `quantize.ema_vocab_hit_SV`.

use crate::Result;
use nextscale_tensor::{Device, Tensor};

/// Running hit averages \[scale\]\[code\] and how many records went into them.
#[derive(Clone, Debug, PartialEq)]
pub struct HitAverages {
    /// The averages.
    pub ema: Vec<Vec<f32>>,
    /// Records so far: one for every scale of every batch. Only the very first copies; below 100 the decay is 0.9,
    /// then 0.99.
    pub records: u64,
}

impl HitAverages {
    /// Nothing recorded yet.
    pub fn new(scales: usize, vocab: usize) -> Self {
        Self {
            ema: vec![vec![0.0; vocab]; scales],
            records: 0,
        }
    }

    /// Records a batch's hit counts, coarse to fine: integers \[V\] a scale. Waits for those that are on a GPU.
    ///
    /// # Errors
    /// When they are floats or can't be brought here.
    pub fn record(&mut self, hits: &[Tensor]) -> Result<()> {
        for (ema, hits) in self.ema.iter_mut().zip(hits) {
            let hits = hits.to(Device::Cpu)?;
            let decay: f32 = match self.records {
                0 => 0.0,
                1..100 => 0.9,
                _ => 0.99,
            };
            let share: f32 = match self.records {
                0 => 1.0,
                1..100 => 0.1,
                _ => 0.01,
            };
            for (e, &h) in ema.iter_mut().zip(hits.i32()?) {
                *e = *e * decay + h as f32 * share;
            }
            self.records += 1;
        }
        Ok(())
    }

    /// Percent of codes, by scale, whose average reaches `positions`/V·0.08, with `positions` the feature vectors of a
    /// batch (over all processes).
    pub fn usage(&self, positions: usize) -> Vec<f64> {
        self.ema
            .iter()
            .map(|ema| {
                // The averages are float32, and so is the comparison in the reference.
                let margin = (positions as f64 / ema.len().max(1) as f64 * 0.08) as f32;
                let used = ema.iter().filter(|&&e| e >= margin).count();
                100.0 * used as f64 / ema.len().max(1) as f64
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(x: &[i32]) -> Tensor {
        Tensor::from_i32([x.len()], x.to_vec())
    }

    #[test]
    fn first_record_copies_and_decay_changes_at_100() {
        let mut h = HitAverages::new(2, 2);
        h.record(&[counts(&[10, 0]), counts(&[10, 0])]).unwrap();
        assert_eq!(h.ema[0], [10.0, 0.0]);
        // The counter is one for all scales: the second scale is already averaged.
        assert!((h.ema[1][0] - 1.0).abs() < 1e-6);
        for _ in 0..49 {
            h.record(&[counts(&[0, 0]), counts(&[0, 0])]).unwrap();
        }
        assert_eq!(h.records, 100);
        let before = h.ema[0][0];
        h.record(&[counts(&[0, 0]), counts(&[0, 0])]).unwrap();
        assert!((h.ema[0][0] / before - 0.99).abs() < 1e-5);
    }

    #[test]
    fn usage_counts_codes_above_the_margin() {
        let mut h = HitAverages::new(1, 4);
        h.record(&[counts(&[100, 8, 7, 0])]).unwrap();
        // 400 positions over 4 codes: the margin is 8.
        assert_eq!(h.usage(400), [50.0]);
    }
}
