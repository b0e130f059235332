//! Smoothed values: a window for what happens now, a sum for the whole epoch.

use std::collections::VecDeque;

/// A series of values, of which the last few and the sum of all are kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Smoothed {
    window: VecDeque<f64>,
    size: usize,
    total: f64,
    count: u64,
}

impl Default for Smoothed {
    /// A window of 30 values.
    fn default() -> Self {
        Self::new(30)
    }
}

impl Smoothed {
    /// A series with a window of `size` values, at least one.
    pub fn new(size: usize) -> Self {
        let size = size.max(1);
        Self {
            window: VecDeque::with_capacity(size),
            size,
            total: 0.0,
            count: 0,
        }
    }

    /// Adds one value.
    pub fn push(&mut self, value: f64) {
        if self.window.len() == self.size {
            self.window.pop_front();
        }
        self.window.push_back(value);
        self.total += value;
        self.count += 1;
    }

    /// The last value.
    pub fn last(&self) -> Option<f64> {
        self.window.back().copied()
    }

    /// The window's median; the mean of the middle two for an even number of values.
    pub fn median(&self) -> Option<f64> {
        let mut sorted: Vec<f64> = self.window.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        if sorted.len() % 2 == 1 {
            Some(upper)
        } else {
            Some((sorted.get(middle - 1)? + upper) / 2.0)
        }
    }

    /// The window's mean.
    pub fn mean(&self) -> Option<f64> {
        let count = self.window.len();
        (count > 0).then(|| self.window.iter().sum::<f64>() / count as f64)
    }

    /// The mean of all values since the start.
    pub fn global_mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.total / self.count as f64)
    }

    /// The number and the sum of all values: what is added up over processes before [`Self::set_totals`].
    pub fn totals(&self) -> (u64, f64) {
        (self.count, self.total)
    }

    /// Replaces the number and the sum of all values; the window stays this process's own.
    pub fn set_totals(&mut self, count: u64, total: f64) {
        self.count = count;
        self.total = total;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_series_has_no_values() {
        let series = Smoothed::default();
        assert_eq!(
            (
                series.last(),
                series.median(),
                series.mean(),
                series.global_mean()
            ),
            (None, None, None, None)
        );
    }

    #[test]
    fn the_window_forgets_and_the_sum_does_not() {
        let mut series = Smoothed::new(4);
        for value in [100.0, 5.0, 1.0, 3.0] {
            series.push(value);
        }
        assert_eq!(series.median(), Some(4.0));
        series.push(2.0);
        // Window: 5, 1, 3, 2.
        assert_eq!(series.median(), Some(2.5));
        assert_eq!(series.mean(), Some(2.75));
        assert_eq!(series.last(), Some(2.0));
        assert_eq!(series.global_mean(), Some(111.0 / 5.0));
        let mut odd = Smoothed::new(3);
        odd.push(9.0);
        assert_eq!(odd.median(), Some(9.0));
    }

    #[test]
    fn totals_of_several_processes() {
        let (mut a, mut b) = (Smoothed::new(2), Smoothed::new(2));
        a.push(1.0);
        b.push(2.0);
        b.push(6.0);
        let (count, total) = (a.totals().0 + b.totals().0, a.totals().1 + b.totals().1);
        a.set_totals(count, total);
        assert_eq!(a.global_mean(), Some(3.0));
        assert_eq!(a.median(), Some(1.0));
    }

    #[test]
    fn a_value_that_is_not_a_number_does_not_hide_the_others() {
        let mut series = Smoothed::new(3);
        for value in [1.0, f64::NAN, 2.0] {
            series.push(value);
        }
        assert_eq!(series.median(), Some(2.0));
    }

    #[test]
    fn a_window_of_none_holds_one() {
        let mut series = Smoothed::new(0);
        series.push(1.0);
        series.push(2.0);
        assert_eq!(
            (series.median(), series.global_mean()),
            (Some(2.0), Some(1.5))
        );
    }
}
