//! Stopping on request: the first SIGINT, SIGTERM or SIGHUP asks for a clean end and is answered on the terminal at once, a second
//! SIGINT or SIGTERM ends the process.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::stop::{SIGNALS, StopSignal, name};
use crate::{Error, Result};
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::Signals;

/// Signals this close to the first belong to it: `timeout` sends its signal to the process and to its group.
const SAME: Duration = Duration::from_millis(100);

impl StopSignal {
    /// Watches SIGINT, SIGTERM and SIGHUP from now on, for the rest of the process. The first one asks for the stop and is answered on
    /// standard error; while nothing would be lost, as before a run's first step, it ends the process. A second SIGINT or SIGTERM ends the process with the shell's code for it (130 or 143) without cleaning up. SIGHUP
    /// is left alone where it is ignored (`nohup`), and never ends the process: a closed terminal sends several.
    ///
    /// # Errors
    /// [`Error::Failed`] if the system refuses a handler or a thread.
    pub fn install() -> Result<Self> {
        let failed = |cause| Error::failed(format!("can't watch signals: {cause}"));
        let stop = Self::detached();
        let mut signals = Signals::new(watched()).map_err(failed)?;
        let asked = stop.clone();
        let watch = move || {
            let mut first = None;
            for signal in signals.forever() {
                if asked.ask_with(signal) {
                    asked.if_all_is_saved(|| {
                        answer(signal, NOTHING_LOST);
                        crate::format::atomic::leave(128 + signal);
                    });
                    answer(signal, SAVES);
                }
                let since = first.get_or_insert_with(Instant::now).elapsed();
                if signal != SIGHUP && since > SAME {
                    signal_hook::low_level::exit(128 + signal);
                }
            }
        };
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(watch)
            .map_err(failed)?;
        Ok(stop)
    }
}

const SAVES: &str = "stopping after the step under way, which is saved; again to quit now";
const NOTHING_LOST: &str = "stopped at once, as all that was done is saved, or nothing was done yet; the same command goes on from there";

/// Says that a signal was heard, also while a long step goes on.
fn answer(signal: i32, what: &str) {
    let mut out = std::io::stderr();
    // A bar may stand on this line of a terminal.
    let clear = if out.is_terminal() { "\r\x1b[2K" } else { "" };
    let _ = writeln!(out, "{clear}{}: {what}", name(signal));
}

/// The signals to watch.
fn watched() -> Vec<i32> {
    SIGNALS
        .iter()
        .map(|(signal, _)| *signal)
        .filter(|&signal| signal != SIGHUP || may_hang_up())
        .collect()
}

/// Whether SIGHUP may be watched: not where the process was started with it ignored, nor where that can't be known.
fn may_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    is_ignored(&status, SIGHUP) == Some(false)
}

/// Whether a signal is ignored, by the text of `/proc/PID/status`.
fn is_ignored(status: &str, signal: i32) -> Option<bool> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    Some(mask >> (signal - 1) & 1 == 1)
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

/// For commands that have nothing to save: SIGINT, SIGTERM or SIGHUP removes what is half written and ends the process with
/// the shell's code for it (130, 143 or 129); a second one ends it whatever hangs. SIGHUP is left alone where it is
/// ignored (`nohup`).
///
/// # Errors
/// [`Error::Failed`] if the system refuses a handler or a thread.
pub fn end_cleanly() -> Result<()> {
    let failed = |cause| Error::failed(format!("can't watch signals: {cause}"));
    let watched = watched();
    let heard = Arc::new(AtomicBool::new(false));
    for &signal in &watched {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, heard.clone())
            .map_err(failed)?;
    }
    let mut signals = Signals::new(watched).map_err(failed)?;
    let watch = move || {
        if let Some(signal) = signals.forever().next() {
            heard.store(true, Ordering::SeqCst);
            crate::format::atomic::leave(128 + signal);
        }
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(watch)
        .map(|_| ())
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use signal_hook::low_level::raise;
    use std::process::Command;

    use super::*;
    use signal_hook::consts::SIGINT;

    const COUNT: &str = "NEXTSCALE_TEST_SIGNALS";
    const NOTHING: &str = "NEXTSCALE_TEST_NOTHING_UNSAVED";

    /// Not a test of its own: the process that the tests below start and that signals itself. A pause stands between signals
    /// joined by commas, none between those joined by plus signs.
    #[test]
    fn child() {
        let Ok(signals) = std::env::var(COUNT) else {
            return;
        };
        let stop = StopSignal::install().unwrap();
        assert!(!stop.is_asked());
        stop.set_unsaved(std::env::var(NOTHING).is_err());
        for together in signals.split(',') {
            for signal in together.split('+') {
                raise(signal.parse().unwrap()).unwrap();
            }
            let start = Instant::now();
            while !stop.is_asked() {
                assert!(start.elapsed() < Duration::from_secs(30), "not heard");
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(4 * SAME);
        }
        // Time for the other thread to end this process, also on a busy machine.
        std::thread::sleep(20 * SAME);
        let code = stop.exit_code();
        println!("alive, asked: {}, code {code}", stop.is_asked());
    }

    fn run(signals: &str) -> (Option<i32>, String) {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["run::signal::tests::child", "--exact", "--nocapture"])
            .env(COUNT, signals)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }

    /// Whether this child of a test can be asked to stop by its first signal: by a hang-up not under `nohup`.
    fn is_heard(signals: &str) -> bool {
        !signals.starts_with("1,") && signals != "1" || may_hang_up()
    }

    #[test]
    fn the_first_signal_only_asks_and_is_answered() {
        let all = [("2", "SIGINT"), ("15", "SIGTERM"), ("1", "SIGHUP")];
        for (signal, name) in all.into_iter().filter(|(signal, _)| is_heard(signal)) {
            let (code, text) = run(signal);
            assert_eq!(code, Some(0), "{text}");
            let code = 128 + signal.parse::<i32>().unwrap();
            assert!(
                text.contains(&format!("asked: true, code {code}")),
                "{text}"
            );
            assert!(text.contains(&format!("{name}: stopping")), "{text}");
        }
    }

    #[test]
    fn a_signal_ends_at_once_what_has_nothing_to_save() {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["run::signal::tests::child", "--exact", "--nocapture"])
            .envs([(COUNT, "2"), (NOTHING, "1")])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{text}");
        assert!(text.contains("SIGINT: stopped at once"), "{text}");
    }

    #[test]
    fn the_second_signal_ends_at_once() {
        let all = [("2,2", 130), ("15,15", 143), ("15,2", 130), ("1,15", 143)];
        for (signals, expected) in all.into_iter().filter(|(signals, _)| is_heard(signals)) {
            let (code, text) = run(signals);
            assert_eq!(code, Some(expected), "{text}");
            assert!(!text.contains("alive"), "{text}");
        }
    }

    const LEAVES: &str = "NEXTSCALE_TEST_SIGNAL_LEAVES";

    /// Not a test of its own: the process of the next test.
    #[test]
    fn child_that_ends_cleanly() {
        let Ok(signal) = std::env::var(LEAVES) else {
            return;
        };
        end_cleanly().unwrap();
        raise(signal.parse().unwrap()).unwrap();
        std::thread::sleep(std::time::Duration::from_secs(60));
    }

    #[test]
    fn a_signal_ends_with_the_code_that_shells_give() {
        // A test under `nohup` has none.
        let hang_up = may_hang_up().then_some(("1", 129));
        for (signal, code) in [("2", 130), ("15", 143)].into_iter().chain(hang_up) {
            let status = Command::new(std::env::current_exe().unwrap())
                .args(["run::signal::tests::child_that_ends_cleanly", "--exact"])
                .env(LEAVES, signal)
                .stdout(std::process::Stdio::null())
                .status()
                .unwrap();
            assert_eq!(status.code(), Some(code), "signal {signal}");
        }
    }

    #[test]
    fn signals_that_come_together_are_one_and_hang_ups_end_nothing() {
        let all = [("15+15", 143), ("2+2", 130), ("1,1,1", 129), ("2,1", 130)];
        for (signals, first) in all.into_iter().filter(|(signals, _)| is_heard(signals)) {
            let (code, text) = run(signals);
            assert_eq!(code, Some(0), "{text}");
            assert!(text.contains(&format!("code {first}")), "{text}");
        }
    }

    #[test]
    fn what_is_ignored_shows_in_the_status() {
        let status = "Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\n";
        assert_eq!(is_ignored(status, SIGHUP), Some(true));
        assert_eq!(is_ignored(status, SIGINT), Some(false));
        assert_eq!(is_ignored("", SIGHUP), None);
    }
}
