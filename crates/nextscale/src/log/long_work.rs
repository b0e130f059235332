//! Word of work that takes long.

use super::clock::format_duration;
use std::time::{Duration, Instant};

/// Between two lines, and before the first.
const PAUSE: Duration = Duration::from_secs(10);

/// How far some work has come, in words: every ten seconds, from the tenth on.
#[derive(Clone, Debug)]
pub struct LongWork {
    begun: Instant,
    next: Duration,
    of: usize,
}

impl LongWork {
    /// Work on so many things, which begins now.
    pub fn new(of: usize) -> Self {
        Self {
            begun: Instant::now(),
            next: PAUSE,
            of,
        }
    }

    /// A line, where one is due now that so many are done.
    pub fn line(&mut self, done: usize) -> Option<String> {
        self.line_at(self.begun.elapsed(), done)
    }

    fn line_at(&mut self, elapsed: Duration, done: usize) -> Option<String> {
        if elapsed < self.next || done == 0 || done >= self.of {
            return None;
        }
        self.next = elapsed + PAUSE;
        let left = elapsed.mul_f64((self.of - done) as f64 / done as f64);
        Some(format!(
            "{done} of {}, about {} left",
            self.of,
            format_duration(left)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_seldom_and_tell_the_time_that_is_left() {
        let mut work = LongWork::new(100);
        let mut at = |seconds, done| work.line_at(Duration::from_secs(seconds), done);
        assert_eq!(at(9, 30), None);
        assert_eq!(at(12, 40).unwrap(), "40 of 100, about 0:00:18 left");
        assert_eq!(at(21, 70), None);
        assert!(at(22, 80).is_some());
        assert_eq!(at(40, 100), None);
        assert_eq!(at(50, 0), None);
    }
}
