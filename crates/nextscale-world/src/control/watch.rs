//! The thread that says that this process is alive, and sees which others are not.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{AFTER_REPORT, BEFORE_REPORT, Shared, State};
use crate::Error;
use crate::link::Frame;

/// How often a member says that it is alive.
const BEAT: Duration = Duration::from_secs(1);

impl Shared {
    /// Sends signs of life, and sees what stands still, until the end.
    pub fn watch(self: &Arc<Self>) {
        let shared = self.clone();
        thread::spawn(move || shared.keep_watch());
    }

    fn keep_watch(&self) {
        let tick = (self.limits.silence / 8).clamp(Duration::from_millis(20), BEAT / 4);
        let mut beaten: Option<Instant> = None;
        let mut last = Instant::now();
        loop {
            {
                let state = self.lock();
                let waiting = |state: &mut State| !state.closed;
                let (state, _) = self
                    .changed
                    .wait_timeout_while(state, tick, waiting)
                    .unwrap_or_else(|e| e.into_inner());
                if state.closed {
                    return;
                }
            }
            let links = self.links();
            // This process itself was stopped for a while: what others said lies unread.
            if last.elapsed() > (tick * 4).max(self.limits.silence / 2) {
                links.iter().for_each(|(_, link)| link.touch());
            }
            last = Instant::now();
            if beaten.is_none_or(|at| at.elapsed() >= BEAT.min(tick * 4)) {
                beaten = Some(last);
                for (_, link) in &links {
                    let _ = link.try_send(Frame::Beat, &[], Duration::ZERO);
                }
            }
            if self.lock().failing {
                continue;
            }
            if let Some((rank, _)) = links
                .iter()
                .find(|(_, link)| link.silence() > self.limits.silence)
            {
                let quiet = self.limits.silence.as_secs_f64();
                self.fail(self.lost(
                    *rank,
                    format!("nothing was heard of it for {quiet} s (stopped, or cut off)"),
                ));
            }
            self.look_at_calls();
        }
    }

    /// Ends collectives that are past their deadline.
    fn look_at_calls(&self) {
        let overdue = self.lock().calls.overdue();
        if let Some((missing, first, call, limit)) = overdue {
            let first = self.name(first);
            let limit = limit.as_secs_f64();
            self.fail(self.lost(
                missing,
                format!("it has not called {call} within {limit} s, for which {first} waits"),
            ));
        }
        let late = {
            let mut state = self.lock();
            let Some(current) = state.current.as_mut() else {
                return;
            };
            // Rank 0 knows more: it has the first word.
            let slack = match self.rank {
                0 => BEFORE_REPORT,
                _ => AFTER_REPORT,
            };
            if current.told || current.since.elapsed() <= current.limit + slack {
                return;
            }
            current.told = true;
            Error::Late(format!(
                "{} did not come to its end within {} s",
                current.call,
                current.limit.as_secs_f64()
            ))
        };
        self.fail(late);
    }
}
