//! How long processes wait for each other.

use std::time::Duration;

/// How long processes wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Until all have come. 10 minutes.
    pub rendezvous: Duration,
    /// Without a sign of life, after which a member counts as lost. 30 seconds.
    pub silence: Duration,
    /// For the first collective of each kind, before which programs get ready. 1 hour.
    pub first_collective: Duration,
    /// For every other collective, from the first member that calls it. 10 minutes.
    pub collective: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rendezvous: Duration::from_secs(600),
            silence: Duration::from_secs(30),
            first_collective: Duration::from_secs(3600),
            collective: Duration::from_secs(600),
        }
    }
}
