//! A moving average of the weights in training, which is what is evaluated and drawn from.

use crate::Result;
use nextscale_tensor::{GradBuffer, Params, ops};

/// The average of a model's weights over its steps.
#[derive(Debug)]
pub struct Average {
    /// The averaged weights; while they are exchanged, the trained ones.
    pub weights: GradBuffer,
    decay: f64,
    /// Steps that it has seen.
    steps: u64,
    exchanged: bool,
}

impl Average {
    /// An average that begins with the first step: zeros until then.
    ///
    /// # Errors
    /// When the GPU's memory is full.
    pub fn new(params: &Params, decay: f64) -> Result<Self> {
        Ok(Self {
            weights: params.update_buffer()?,
            decay,
            steps: 0,
            exchanged: false,
        })
    }

    /// Goes on after so many steps. Without an average from then the present weights take its place.
    ///
    /// # Errors
    /// When the GPU refuses.
    pub fn resume(&mut self, params: &Params, steps: u64, is_loaded: bool) -> Result<()> {
        if !is_loaded && steps > 0 {
            ops::average(&mut self.weights, params, 0.0)?;
        }
        self.steps = steps;
        Ok(())
    }

    /// Takes a step's weights in. The share that the average keeps of itself rises from 0 to the decay, n/(n + 9) after n steps, so
    /// that it does not remember weights that were never trained. A step that the loss scale left out counts as another of the same
    /// weights.
    ///
    /// # Errors
    /// When the GPU refuses.
    pub fn step(&mut self, params: &Params) -> Result<()> {
        let n = self.steps as f64;
        let decay = self.decay.min(n / (n + 9.0));
        ops::average(&mut self.weights, params, decay)?;
        self.steps += 1;
        Ok(())
    }

    /// Whether it has seen a step: before, it is no model.
    pub fn has_begun(&self) -> bool {
        self.steps > 0
    }

    /// Puts the average in place of the weights, or the weights back.
    ///
    /// # Errors
    /// While a tensor holds the weights, or when the GPU's memory is full; nothing is exchanged then.
    pub fn exchange(&mut self, params: &mut Params) -> Result<()> {
        if self.has_begun() {
            params.swap(&mut self.weights)?;
            self.exchanged = !self.exchanged;
        }
        Ok(())
    }

    /// Whether the average is in place of the weights.
    pub fn is_exchanged(&self) -> bool {
        self.exchanged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nextscale_tensor::ParamsBuilder;
    use nextscale_tensor::params::Layout;

    fn one(value: f32) -> Params {
        let mut b = ParamsBuilder::new();
        b.add("w", [1], Layout::Same);
        let mut params = b.build(true);
        params.import("w", &[value]).unwrap();
        params
    }

    fn value(average: &Average, params: &Params) -> f32 {
        average.weights.export(&params.infos()[0]).unwrap()[0]
    }

    #[test]
    fn it_begins_with_the_first_step_and_slows_down() {
        let mut average = Average::new(&one(7.0), 0.5).unwrap();
        let mut want = 0.0;
        for n in 0..30 {
            let params = one(n as f32);
            average.step(&params).unwrap();
            let decay = 0.5_f32.min(n as f32 / (n as f32 + 9.0));
            want = decay * want + (1.0 - decay) * n as f32;
            assert!((value(&average, &params) - want).abs() < 1e-5);
        }
    }

    #[test]
    fn it_changes_places_with_the_weights_once_it_has_begun() {
        let mut params = one(3.0);
        let mut average = Average::new(&params, 0.9).unwrap();
        average.exchange(&mut params).unwrap();
        assert_eq!(params.export("w").unwrap(), [3.0]);
        average.resume(&one(5.0), 4, false).unwrap();
        average.exchange(&mut params).unwrap();
        assert!(average.is_exchanged());
        assert_eq!(params.export("w").unwrap(), [5.0]);
        average.exchange(&mut params).unwrap();
        assert_eq!(
            (params.export("w").unwrap()[0], value(&average, &params)),
            (3.0, 5.0)
        );
    }
}
