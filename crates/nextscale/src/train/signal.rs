//! Stopping on request: SIGINT and SIGTERM ask for a clean end, a second one ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::{Error, Result};

/// Whether the process was asked to stop.
#[derive(Debug, Clone)]
pub struct StopSignal {
    asked: Arc<AtomicBool>,
}

impl StopSignal {
    /// Watches SIGINT and SIGTERM from now on, for the rest of the process. The first one sets the flag;
    /// the next ends the process with the shell's code for it (130 or 143) without cleaning up.
    ///
    /// # Errors
    /// [`Error::Failed`] if the system refuses a handler.
    pub fn install() -> Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Handlers run in this order: the exit looks at the flag before this signal sets it.
            signal_hook::flag::register_conditional_shutdown(
                signal,
                128 + signal,
                Arc::clone(&asked),
            )
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&asked)))
            .map_err(|cause| Error::failed(format!("can't watch signal {signal}: {cause}")))?;
        }
        Ok(Self { asked })
    }

    /// A flag that no signal sets, for runs inside other programs and tests.
    pub fn detached() -> Self {
        Self {
            asked: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Asks for the stop, as a signal would.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
    }

    /// Whether a stop was asked for.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Lets a reader that has gone away (`| head`) end the process quietly, as command line tools do. Not for training: a
/// closed terminal must not end a run.
///
/// # Errors
/// [`Error::Failed`] if the system refuses a handler.
pub fn end_with_the_reader() -> Result<()> {
    let always = Arc::new(AtomicBool::new(true));
    signal_hook::flag::register_conditional_default(signal_hook::consts::SIGPIPE, always)
        .map(|_| ())
        .map_err(|cause| Error::failed(format!("can't watch closed pipes: {cause}")))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use signal_hook::low_level::raise;

    use super::*;

    const COUNT: &str = "NEXTSCALE_TEST_SIGNALS";

    /// Not a test of its own: the process that the tests below start and that signals itself.
    #[test]
    fn child() {
        let Ok(signals) = std::env::var(COUNT) else {
            return;
        };
        let stop = StopSignal::install().unwrap();
        assert!(!stop.is_asked());
        for signal in signals.split(',') {
            raise(signal.parse().unwrap()).unwrap();
        }
        println!("alive, asked: {}", stop.is_asked());
    }

    fn run(signals: &str) -> (Option<i32>, String) {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["train::signal::tests::child", "--exact", "--nocapture"])
            .env(COUNT, signals)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    }

    #[test]
    fn the_first_signal_only_asks() {
        for signal in ["2", "15"] {
            let (code, text) = run(signal);
            assert_eq!(code, Some(0), "{text}");
            assert!(text.contains("alive, asked: true"), "{text}");
        }
    }

    #[test]
    fn the_second_signal_ends_at_once() {
        for (signals, expected) in [("2,2", 130), ("15,15", 143), ("15,2", 130)] {
            let (code, text) = run(signals);
            assert_eq!(code, Some(expected), "{text}");
            assert!(!text.contains("alive"), "{text}");
        }
    }

    #[test]
    fn clones_share_the_flag() {
        let stop = StopSignal::detached();
        let other = stop.clone();
        assert!(!other.is_asked());
        stop.ask();
        assert!(other.is_asked());
    }
}
