//! Time of a run's steps: how long they took, how much of it went into waiting for images, and how long the rest will take.

use crate::log::clock::seconds;
use crate::log::meters::Smoothed;
use std::time::{Duration, Instant};

/// Steps and seconds that must have been timed before they say how long the rest will take: the first steps take longer.
const TIMED_STEPS: u64 = 5;
const TIMED_SECONDS: f64 = 3.0;

/// Measures steps one after the other.
pub(super) struct StepClock {
    start: Instant,
    waited: Duration,
}

/// One step's time.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepTime {
    pub(super) seconds: f64,
    pub(super) data_seconds: f64,
    pub(super) images: u64,
}

impl StepClock {
    /// Starts now; `waited` is what the loader has waited so far.
    pub(super) fn new(waited: Duration) -> Self {
        Self {
            start: Instant::now(),
            waited,
        }
    }

    /// Ends a step of so many images and starts the next.
    pub(super) fn lap(&mut self, waited: Duration, images: u64) -> StepTime {
        let now = Instant::now();
        let time = StepTime {
            seconds: (now - self.start).as_secs_f64(),
            data_seconds: waited.saturating_sub(self.waited).as_secs_f64(),
            images,
        };
        *self = Self { start: now, waited };
        time
    }

    /// Leaves out the time since the last lap (evaluation, saving).
    pub(super) fn restart(&mut self, waited: Duration) {
        *self = Self::new(waited);
    }
}

/// How fast steps go.
#[derive(Debug, Default)]
pub(super) struct Pace(Smoothed);

impl Pace {
    /// Takes in the seconds of a step.
    pub(super) fn push(&mut self, seconds: f64) {
        self.0.push(seconds);
    }

    /// Time that so many more steps will take, by the median of the last ones; `None` until it can be known.
    pub(super) fn remaining(&self, rest: u64) -> Option<Duration> {
        if rest == 0 {
            return Some(Duration::ZERO);
        }
        let (steps, time) = self.0.totals();
        if steps < TIMED_STEPS || time < TIMED_SECONDS {
            return None;
        }
        Some(seconds(self.0.median()? * rest as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_told_once_it_is_known() {
        let mut pace = Pace::default();
        pace.push(16.0);
        (2..5).for_each(|_| pace.push(0.5));
        assert_eq!(pace.remaining(996), None);
        pace.push(0.5);
        // By the usual step, not the first.
        assert_eq!(pace.remaining(995), Some(Duration::from_millis(497_500)));
        // Steps too fast to be timed by five of them.
        let mut pace = Pace::default();
        (0..23).for_each(|_| pace.push(0.125));
        assert_eq!(pace.remaining(977), None);
        pace.push(0.125);
        assert_eq!(pace.remaining(976), Some(Duration::from_secs(122)));
        assert_eq!(pace.remaining(0), Some(Duration::ZERO));
    }
}
