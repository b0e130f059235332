//! What a model's predictions of known tokens come to. On a GPU the figures are made there and read later, so that nobody waits.

use crate::Result;
use crate::world::{Number, Summed};
use nextscale_tensor::PendingTensor;

/// Cross entropy and accuracy by scale and over all tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measures {
    /// Sum of the cross entropies (without smoothing) by scale.
    pub loss: Vec<f64>,
    /// Right predictions by scale.
    pub correct: Vec<u64>,
    /// Tokens by scale.
    pub tokens: Vec<u64>,
}

impl Measures {
    /// Adds another batch.
    pub fn add(&mut self, other: &Self) {
        for (k, n) in other.tokens.iter().enumerate() {
            if self.tokens.len() <= k {
                self.loss.push(0.0);
                self.correct.push(0);
                self.tokens.push(0);
            }
            self.loss[k] += other.loss[k];
            self.correct[k] += other.correct[k];
            self.tokens[k] += n;
        }
    }

    /// As many scales as a model has, the ones that took no part being empty.
    pub(crate) fn with_scales(mut self, scales: usize) -> Self {
        self.loss.resize(scales, 0.0);
        self.correct.resize(scales, 0);
        self.tokens.resize(scales, 0);
        self
    }

    /// Mean loss over all tokens (Lm).
    pub fn loss_mean(&self) -> f64 {
        self.loss.iter().sum::<f64>() / self.tokens.iter().sum::<u64>().max(1) as f64
    }

    /// Refuses sums that are no numbers.
    ///
    /// # Errors
    /// [`NotNumbers`](nextscale_tensor::Error::NotNumbers).
    pub fn check(&self) -> Result<()> {
        let bad = self.loss.iter().filter(|x| !x.is_finite()).count();
        if bad == 0 {
            return Ok(());
        }
        Err(crate::Error::Tensor(nextscale_tensor::Error::NotNumbers {
            what: "scales' losses",
            bad,
            of: self.loss.len(),
        }))
    }

    /// Accuracy over all tokens in percent (Accm).
    pub fn acc_mean(&self) -> f64 {
        let all = self.tokens.iter().sum::<u64>().max(1);
        100.0 * self.correct.iter().sum::<u64>() as f64 / all as f64
    }

    /// Mean loss of scale `k`; `None` when it took no part.
    pub fn loss_of(&self, k: usize) -> Option<f64> {
        let n = *self.tokens.get(k)?;
        (n > 0).then(|| self.loss[k] / n as f64)
    }

    /// Accuracy of scale `k` in percent; `None` when it took no part.
    pub fn acc_of(&self, k: usize) -> Option<f64> {
        let n = *self.tokens.get(k)?;
        (n > 0).then(|| 100.0 * self.correct[k] as f64 / n as f64)
    }
}

impl Summed for Measures {
    fn numbers(&mut self) -> Vec<&mut dyn Number> {
        let loss = self.loss.iter_mut().map(|n| n as &mut dyn Number);
        let correct = self.correct.iter_mut().map(|n| n as &mut dyn Number);
        let tokens = self.tokens.iter_mut().map(|n| n as &mut dyn Number);
        loss.chain(correct).chain(tokens).collect()
    }
}

/// [`Measures`] on their way.
#[derive(Debug)]
pub struct PendingMeasures {
    /// Sum of costs and right predictions by scale, \[K, 2\].
    pub(super) sums: PendingTensor,
    /// Tokens by scale.
    pub(super) tokens: Vec<u64>,
}

impl PendingMeasures {
    /// The figures; waits until they are made.
    ///
    /// # Errors
    /// When the GPU failed.
    pub fn read(self) -> Result<Measures> {
        let sums = self.sums.wait()?;
        let (rows, _) = sums.f32()?.as_chunks::<2>();
        Ok(Measures {
            loss: rows.iter().map(|r| f64::from(r[0])).collect(),
            correct: rows.iter().map(|r| r[1] as u64).collect(),
            tokens: self.tokens,
        })
    }
}
