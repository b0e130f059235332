//! An axis: from where to where, and the values that are written beside it.

/// A range that is cut into equal parts of a round length: 1, 2 or 5 times a power of ten.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axis {
    /// The first and the last tick, in steps.
    first: f64,
    last: f64,
    /// Mantissa and exponent of a step.
    step: (f64, i32),
}

impl Axis {
    /// The axis around these values, with about `parts` parts at most; from 0 to 1 where there are none.
    pub(super) fn of(values: impl Iterator<Item = f64>, parts: usize) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            low = low.min(value);
            high = high.max(value);
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let largest = low.abs().max(high.abs());
        if largest < 1e-280 {
            (low, high) = (-1.0, 1.0);
        } else if high - low < 1e-9 * largest {
            // All but one value: it comes to stand in the middle.
            (low, high) = (low - 0.1 * largest, high + 0.1 * largest);
        } else if low > 0.0 && low < 0.3 * high {
            // Zero is near, and then it is worth being seen.
            low = 0.0;
        }
        let step = round_up((high - low) / parts.max(1) as f64);
        let length = value_of(step, 1.0);
        Self {
            first: (low / length).floor(),
            last: (high / length).ceil(),
            step,
        }
    }

    /// The values that are written.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let count = (self.last - self.first) as usize;
        let at = |i: usize| value_of(self.step, self.first + i as f64);
        (0..=count).map(at).collect()
    }

    /// The same as texts.
    pub(super) fn labels(&self) -> Vec<String> {
        let ticks = self.ticks();
        let largest = ticks.iter().map(|t| t.abs()).fold(0.0, f64::max);
        let exponent = self.step.1;
        let is_plain = largest < 1e7 && exponent >= -6;
        let text = |&tick: &f64| {
            if is_plain {
                let digits = usize::try_from(-exponent).unwrap_or(0);
                return format!("{tick:.digits$}");
            }
            if tick == 0.0 {
                return "0".to_owned();
            }
            let digits = tick.abs().log10().floor() as i32 - exponent;
            format!("{tick:.*e}", usize::try_from(digits).unwrap_or(0))
        };
        ticks.iter().map(text).collect()
    }

    /// Where a value lies between the ends of the axis, 0 to 1.
    pub(super) fn share(&self, value: f64) -> f64 {
        let place = value / value_of(self.step, 1.0) - self.first;
        (place / (self.last - self.first)).clamp(0.0, 1.0)
    }
}

/// So many steps. Powers of ten below one divide, as they have no exact value: 3 steps of 0.1 are 0.3.
fn value_of((mantissa, exponent): (f64, i32), steps: f64) -> f64 {
    match exponent < 0 {
        true => steps * mantissa / 10f64.powi(-exponent),
        false => steps * mantissa * 10f64.powi(exponent),
    }
}

/// The least 1, 2 or 5 times a power of ten that is not below a positive length.
fn round_up(length: f64) -> (f64, i32) {
    let exponent = length.log10().floor() as i32;
    // One lower and one higher than the logarithm says, which is rounded.
    let candidates =
        (exponent - 1..=exponent + 1).flat_map(|e| [1.0, 2.0, 5.0].map(|mantissa| (mantissa, e)));
    let mut candidates = candidates.filter(|&step| value_of(step, 1.0) >= length * (1.0 - 1e-9));
    candidates.next().unwrap_or((1.0, exponent + 2))
}
