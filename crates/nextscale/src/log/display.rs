//! What a person sees of a running training: a bar on a terminal, plain lines elsewhere, or nothing.
//!
//! Everything goes to the standard error stream, so that a command's results can be piped. A display that
//! can't be written to (a closed terminal) never ends a run.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::console::shown;

use super::clock::{format_duration, seconds};
use super::meters::Smoothed;
use super::speaker::Speaker;

/// One optimizer step as the display needs it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Optimizer steps done, this one included.
    pub step: u64,
    /// The epoch, counted from 1.
    pub epoch: u64,
    /// Training loss, in steps that look at it.
    pub loss: Option<f64>,
    /// Accuracy in percent, in steps that look at it.
    pub accuracy: Option<f64>,
    /// Of the tokenizer: share of the codebook in use, in percent.
    pub usage: Option<f64>,
    /// Images of the step, over all processes.
    pub images: u64,
    /// Seconds that the step took, waiting included.
    pub seconds: f64,
    /// Seconds of them spent waiting for images.
    pub data_seconds: f64,
}

/// The live display of one run.
#[derive(Debug)]
pub struct Display {
    sink: Sink,
    total_steps: u64,
    epochs: u64,
    started: Instant,
    loss: Smoothed,
    accuracy: Smoothed,
    usage: Smoothed,
    images: Smoothed,
    step_seconds: Smoothed,
    data_seconds: Smoothed,
}

/// Steps and seconds that must have been timed before they say how long the rest will take: the first steps take longer.
const TIMED_STEPS: u64 = 5;
const TIMED_SECONDS: f64 = 3.0;

#[derive(Debug)]
enum Sink {
    Quiet,
    Bar(ProgressBar),
    Plain(Plain),
}

/// Lines at moments that grow apart.
struct Plain {
    out: Box<dyn Write + Send>,
    /// When the next line is due.
    next: Duration,
    /// The last step's line, if it was not shown.
    unseen: Option<String>,
}

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plain")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl Plain {
    fn new(out: Box<dyn Write + Send>) -> Self {
        Self {
            out,
            next: Duration::ZERO,
            unseen: None,
        }
    }

    fn line(&mut self, line: &str) {
        let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
    }

    /// Shows `line` if `elapsed` says that one is due: at once, then every 5 seconds, and more and more
    /// rarely down to one a minute.
    fn step(&mut self, elapsed: Duration, is_last: bool, line: String) {
        if elapsed < self.next && !is_last {
            self.unseen = Some(line);
            return;
        }
        self.unseen = None;
        self.line(&line);
        let pause = (elapsed / 20).clamp(Duration::from_secs(5), Duration::from_secs(60));
        self.next = elapsed + pause;
    }
}

impl Display {
    /// A display for a run of `total_steps` steps in `epochs` epochs that has done `done` steps before: a
    /// bar where standard error is a terminal, else plain lines; nothing if `quiet`.
    pub fn new(quiet: bool, total_steps: u64, epochs: u64, done: u64) -> Self {
        let sink = if quiet {
            Sink::Quiet
        } else if std::io::stderr().is_terminal() {
            Sink::Bar(bar(ProgressDrawTarget::stderr(), total_steps, done))
        } else {
            Sink::Plain(Plain::new(Box::new(std::io::stderr())))
        };
        Self::with_sink(sink, total_steps, epochs)
    }

    /// Plain lines to `out`.
    #[cfg(test)]
    pub(crate) fn plain(out: Box<dyn Write + Send>, total_steps: u64) -> Self {
        Self::with_sink(Sink::Plain(Plain::new(out)), total_steps, 1)
    }

    fn with_sink(sink: Sink, total_steps: u64, epochs: u64) -> Self {
        Self {
            sink,
            total_steps,
            epochs,
            started: Instant::now(),
            loss: Smoothed::default(),
            accuracy: Smoothed::default(),
            usage: Smoothed::default(),
            images: Smoothed::default(),
            step_seconds: Smoothed::default(),
            data_seconds: Smoothed::default(),
        }
    }

    /// Takes one step in.
    pub fn step(&mut self, sample: &Sample) {
        self.step_at(self.started.elapsed(), sample);
    }

    fn step_at(&mut self, elapsed: Duration, sample: &Sample) {
        if let Some(loss) = sample.loss {
            self.loss.push(loss);
        }
        if let Some(accuracy) = sample.accuracy {
            self.accuracy.push(accuracy);
        }
        if let Some(usage) = sample.usage {
            self.usage.push(usage);
        }
        self.images.push(sample.images as f64);
        self.step_seconds.push(sample.seconds);
        self.data_seconds.push(sample.data_seconds);
        if matches!(self.sink, Sink::Quiet) {
            return;
        }
        let values = self.values(sample);
        match &mut self.sink {
            Sink::Quiet => {}
            Sink::Bar(bar) => {
                bar.set_message(values);
                bar.set_position(sample.step);
            }
            Sink::Plain(plain) => {
                let line = format!("step {}/{}  {values}", sample.step, self.total_steps);
                plain.step(elapsed, sample.step >= self.total_steps, line);
            }
        }
    }

    /// Images per second, over all processes and the last steps.
    pub fn images_per_second(&self) -> Option<f64> {
        let seconds = self.step_seconds.mean()?;
        (seconds > 0.0).then_some(self.images.mean()? / seconds)
    }

    /// Share of the last steps' time spent waiting for images, from 0 to 1.
    pub fn data_wait(&self) -> Option<f64> {
        let seconds = self.step_seconds.mean()?;
        (seconds > 0.0).then_some((self.data_seconds.mean()? / seconds).clamp(0.0, 1.0))
    }

    /// Time that the steps after `step` will take, by the median of the last ones; `None` until it can be known.
    pub fn remaining(&self, step: u64) -> Option<Duration> {
        let rest = self.total_steps.saturating_sub(step);
        if rest == 0 {
            return Some(Duration::ZERO);
        }
        let (steps, time) = self.step_seconds.totals();
        if steps < TIMED_STEPS || time < TIMED_SECONDS {
            return None;
        }
        Some(seconds(self.step_seconds.median()? * rest as f64))
    }

    fn values(&self, sample: &Sample) -> String {
        let mut words = vec![format!("epoch {}/{}", sample.epoch, self.epochs)];
        if let (Some(now), Some(all)) = (self.loss.median(), self.loss.global_mean()) {
            words.push(format!("loss {now:.4} ({all:.4})"));
        }
        if let Some(accuracy) = self.accuracy.median() {
            words.push(format!("acc {accuracy:.2} %"));
        }
        if let Some(usage) = self.usage.median() {
            words.push(format!("codes in use {usage:.1} %"));
        }
        if let Some(rate) = self.images_per_second() {
            words.push(format!("{rate:.1} img/s"));
        }
        if let Some(share) = self.data_wait() {
            words.push(format!("data {:.0} %", share * 100.0));
        }
        if let Some(remaining) = self.remaining(sample.step) {
            words.push(format!("eta {}", format_duration(remaining)));
        }
        words.join("  ")
    }

    /// Shows a line above the bar, or among the plain lines; nothing if quiet.
    pub fn note(&mut self, line: &str) {
        match &mut self.sink {
            Sink::Quiet => {}
            Sink::Bar(bar) => bar.println(shown(line)),
            Sink::Plain(plain) => plain.line(&shown(line)),
        }
    }

    /// Shows a line that must not be missed, also if quiet.
    pub fn warn(&mut self, line: &str) {
        let line = format!("warning: {line}");
        match &mut self.sink {
            Sink::Quiet => {
                let _ = writeln!(std::io::stderr(), "{}", shown(&line));
            }
            Sink::Bar(_) | Sink::Plain(_) => self.note(&line),
        }
    }

    /// For warnings from another thread.
    pub fn speaker(&self) -> Speaker {
        Speaker::new(match &self.sink {
            Sink::Bar(bar) => Some(bar),
            Sink::Quiet | Sink::Plain(_) => None,
        })
    }

    /// Ends the display: the last step stays in sight.
    pub fn finish(mut self) {
        match &mut self.sink {
            Sink::Quiet => {}
            Sink::Bar(bar) => bar.abandon(),
            Sink::Plain(plain) => {
                if let Some(line) = plain.unseen.take() {
                    plain.line(&line);
                }
            }
        }
    }
}

fn bar(target: ProgressDrawTarget, total_steps: u64, done: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total_steps), target).with_position(done);
    // The template is a constant; were it wrong, the plain bar would do.
    if let Ok(style) = ProgressStyle::with_template("{bar:20} {pos}/{len}  {wide_msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use indicatif::TermLike;

    use super::*;

    /// Takes down what is written to it.
    #[derive(Debug, Clone, Default)]
    struct Paper(Arc<Mutex<String>>);

    impl Paper {
        fn text(&self) -> String {
            self.0.lock().unwrap().clone()
        }

        fn lines(&self) -> Vec<String> {
            self.text().lines().map(str::to_owned).collect()
        }
    }

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .unwrap()
                .push_str(str::from_utf8(bytes).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl TermLike for Paper {
        fn width(&self) -> u16 {
            200
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)?;
            self.write_str("\n")
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A pen that always breaks.
    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn sample(step: u64) -> Sample {
        Sample {
            step,
            epoch: 2,
            loss: Some(8.0),
            accuracy: Some(1.25),
            usage: None,
            images: 96,
            seconds: 0.5,
            data_seconds: 0.05,
        }
    }

    fn plain(total: u64) -> (Display, Paper) {
        let paper = Paper::default();
        let sink = Sink::Plain(Plain::new(Box::new(paper.clone())));
        (Display::with_sink(sink, total, 5), paper)
    }

    #[test]
    fn a_plain_line_tells_all() {
        let (mut display, paper) = plain(1000);
        (394..400).for_each(|step| display.step_at(Duration::ZERO, &sample(step)));
        display.step_at(Duration::from_secs(9), &sample(400));
        assert_eq!(
            paper.lines()[1],
            "step 400/1000  epoch 2/5  loss 8.0000 (8.0000)  acc 1.25 %  192.0 img/s  data 10 %  eta 0:05:00"
        );
        assert_eq!(display.images_per_second(), Some(192.0));
        assert!((display.data_wait().unwrap() - 0.1).abs() < 1e-12);
        assert_eq!(display.remaining(400), Some(Duration::from_secs(300)));
    }

    #[test]
    fn the_time_left_is_told_once_it_is_known() {
        let (mut display, paper) = plain(1000);
        let slow = Sample {
            seconds: 16.0,
            ..sample(1)
        };
        display.step_at(Duration::ZERO, &slow);
        assert!(!paper.text().contains("eta"), "{}", paper.text());
        (2..5).for_each(|step| display.step(&sample(step)));
        assert_eq!(display.remaining(4), None);
        display.step(&sample(5));
        // By the usual step, not the first.
        assert_eq!(display.remaining(5), Some(Duration::from_millis(497_500)));
        // Steps too fast to be timed by five of them.
        let (mut display, _) = plain(1000);
        let fast = Sample {
            seconds: 0.125,
            ..sample(1)
        };
        (0..23).for_each(|_| display.step(&fast));
        assert_eq!(display.remaining(23), None);
        display.step(&fast);
        assert_eq!(display.remaining(24), Some(Duration::from_secs(122)));
        assert_eq!(display.remaining(1000), Some(Duration::ZERO));
    }

    #[test]
    fn plain_lines_are_few_and_the_last_one_is_shown() {
        let (mut display, paper) = plain(7200);
        // Two steps a second for an hour.
        for step in 1..=7200 {
            display.step_at(Duration::from_millis(500 * step), &sample(step));
        }
        let lines = paper.lines();
        assert!((60..160).contains(&lines.len()), "{}", lines.len());
        assert!(lines[0].starts_with("step 1/7200  "));
        assert!(lines[1].starts_with("step 11/7200  "));
        assert!(lines[lines.len() - 1].starts_with("step 7200/7200  "));
    }

    #[test]
    fn a_run_stopped_early_shows_its_last_step() {
        let (mut display, paper) = plain(100);
        display.step_at(Duration::ZERO, &sample(1));
        display.step_at(Duration::from_secs(1), &sample(2));
        assert_eq!(paper.lines().len(), 1);
        display.finish();
        assert!(paper.lines()[1].starts_with("step 2/100  "));
    }

    #[test]
    fn steps_without_a_loss_show_what_is_known() {
        let (mut display, paper) = plain(10);
        let blind = Sample {
            loss: None,
            accuracy: None,
            seconds: 0.0,
            ..sample(1)
        };
        display.step_at(Duration::ZERO, &blind);
        assert_eq!(paper.lines(), ["step 1/10  epoch 2/5"]);
    }

    #[test]
    fn a_tokenizers_line_tells_how_much_of_the_codebook_is_in_use() {
        let (mut display, paper) = plain(10);
        let of_tokenizer = Sample {
            accuracy: None,
            usage: Some(42.5),
            ..sample(1)
        };
        display.step_at(Duration::ZERO, &of_tokenizer);
        let line = &paper.lines()[0];
        assert!(
            line.contains("  codes in use 42.5 %  ") && !line.contains("acc"),
            "{line}"
        );
    }

    #[test]
    fn a_quiet_display_keeps_the_numbers() {
        let mut display = Display::new(true, 10, 5, 0);
        display.step(&sample(1));
        display.note("not shown");
        assert_eq!(display.images_per_second(), Some(192.0));
        display.finish();
    }

    #[test]
    fn a_broken_stream_ends_nothing() {
        let mut display = Display::with_sink(Sink::Plain(Plain::new(Box::new(Broken))), 10, 5);
        display.step_at(Duration::ZERO, &sample(1));
        display.note("lost");
        display.step_at(Duration::from_secs(1), &sample(2));
        display.finish();
    }

    #[test]
    fn the_bar_shows_the_same_values() {
        let paper = Paper::default();
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(paper.clone()), 255);
        let mut display = Display::with_sink(Sink::Bar(bar(target, 1000, 300)), 1000, 5);
        (394..=400).for_each(|step| display.step(&sample(step)));
        display.note("saved");
        display.warn("slow");
        display.finish();
        let text = paper.text();
        for part in [
            "=======>",
            "400/1000",
            "loss 8.0000",
            "192.0 img/s",
            "eta 0:05:00",
            "saved",
            "warning: slow",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
