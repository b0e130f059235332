//! Time of a run's steps: how long they took and how much of it went into waiting for images.

use std::time::{Duration, Instant};

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

impl StepTime {
    pub(super) fn images_per_s(&self) -> f64 {
        self.images as f64 / self.seconds.max(1e-9)
    }

    pub(super) fn data_wait(&self) -> f64 {
        (self.data_seconds / self.seconds.max(1e-9)).clamp(0.0, 1.0)
    }
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
