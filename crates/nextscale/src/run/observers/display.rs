//! What a person sees of a running training: a bar on a terminal, plain lines elsewhere, or nothing.
//!
//! Everything goes to the standard error stream, so that a command's results can be piped. A display that
//! can't be written to (a closed terminal) never ends a run.

use super::Observer;
use crate::Result;
use crate::console::on_terminal;
use crate::log::LongWork;
use crate::log::clock::format_duration;
use crate::log::meters::Smoothed;
use crate::run::event::{Event, Step};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// The live display of one run.
#[derive(Debug)]
pub struct Display {
    sink: Sink,
    steps: u64,
    epochs: u64,
    started: Instant,
    loss: Smoothed,
    accuracy: Smoothed,
    usage: Smoothed,
    psnr: Smoothed,
    images: Smoothed,
    step_seconds: Smoothed,
    data_seconds: Smoothed,
    /// The evaluation that goes on.
    evaluation: Option<LongWork>,
}

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
    /// A bar where standard error is a terminal, else plain lines; nothing but warnings if `quiet`.
    pub fn new(quiet: bool) -> Self {
        Self::on(if quiet {
            Sink::Quiet
        } else if std::io::stderr().is_terminal() {
            Sink::Bar(bar(ProgressDrawTarget::stderr()))
        } else {
            Sink::Plain(Plain::new(Box::new(std::io::stderr())))
        })
    }

    fn on(sink: Sink) -> Self {
        Self {
            sink,
            steps: 0,
            epochs: 0,
            started: Instant::now(),
            loss: Smoothed::default(),
            accuracy: Smoothed::default(),
            usage: Smoothed::default(),
            psnr: Smoothed::default(),
            images: Smoothed::default(),
            step_seconds: Smoothed::default(),
            data_seconds: Smoothed::default(),
            evaluation: None,
        }
    }

    fn step(&mut self, elapsed: Duration, step: &Step<'_>) {
        for (name, smoothed) in [
            ("loss", &mut self.loss),
            ("accuracy", &mut self.accuracy),
            ("usage", &mut self.usage),
            ("psnr_db", &mut self.psnr),
        ] {
            if let Some(value) = step.metrics.get(name) {
                smoothed.push(value);
            }
        }
        self.images.push(step.images as f64);
        self.step_seconds.push(step.seconds);
        self.data_seconds.push(step.data_seconds);
        if matches!(self.sink, Sink::Quiet) {
            return;
        }
        let values = self.values(step);
        match &mut self.sink {
            Sink::Quiet => {}
            Sink::Bar(bar) => {
                bar.set_message(values);
                bar.set_position(step.number);
            }
            Sink::Plain(plain) => {
                let line = format!("step {}/{}  {values}", step.number, self.steps);
                plain.step(elapsed, step.number >= self.steps, line);
            }
        }
    }

    fn values(&self, step: &Step<'_>) -> String {
        let mut words = vec![format!("epoch {}/{}", step.epoch, self.epochs)];
        if let (Some(now), Some(all)) = (self.loss.median(), self.loss.global_mean()) {
            words.push(format!("loss {now:.4} ({all:.4})"));
        }
        if let Some(accuracy) = self.accuracy.median() {
            words.push(format!("acc {accuracy:.2} %"));
        }
        if let Some(psnr) = self.psnr.median() {
            words.push(format!("{psnr:.1} dB"));
        }
        if let Some(usage) = self.usage.median() {
            words.push(format!("codes in use {usage:.1} %"));
        }
        // Over the last steps.
        if let Some(seconds) = self.step_seconds.mean().filter(|s| *s > 0.0) {
            if let Some(images) = self.images.mean() {
                words.push(format!("{:.1} img/s", images / seconds));
            }
            if let Some(waited) = self.data_seconds.mean() {
                let share = (waited / seconds).clamp(0.0, 1.0);
                words.push(format!("data {:.0} %", share * 100.0));
            }
        }
        if let Some(remaining) = step.remaining {
            words.push(format!("eta {}", format_duration(remaining)));
        }
        words.join("  ")
    }

    /// Shows a line above the bar, or among the plain lines; nothing if quiet.
    fn note(&mut self, line: &str) {
        match &mut self.sink {
            Sink::Quiet => {}
            Sink::Bar(bar) => bar.println(on_terminal(line)),
            Sink::Plain(plain) => plain.line(&on_terminal(line)),
        }
    }

    /// Shows a line that must not be missed, also if quiet.
    fn warn(&mut self, line: &str) {
        let line = format!("warning: {line}");
        match &mut self.sink {
            Sink::Quiet => {
                // A terminal that has gone away ends nothing.
                let _ = writeln!(std::io::stderr(), "{}", on_terminal(&line));
            }
            Sink::Bar(_) | Sink::Plain(_) => self.note(&line),
        }
    }
}

impl Observer for Display {
    fn see(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Started(started) => {
                (self.steps, self.epochs) = (started.steps, started.epochs);
                if let Sink::Bar(bar) = &self.sink {
                    bar.set_length(started.steps);
                    bar.set_position(started.done);
                }
            }
            Event::Step(step) => self.step(self.started.elapsed(), step),
            Event::Evaluating { done, of } => {
                let work = self.evaluation.get_or_insert_with(|| LongWork::new(*of));
                if let Some(line) = work.line(*done) {
                    self.note(&format!("evaluating: {line}"));
                }
            }
            Event::Evaluated(evaluated) => {
                self.evaluation = None;
                self.note(evaluated.text);
            }
            Event::Note(line) | Event::Remark(line) => self.note(line),
            Event::Warning(line) => self.warn(line),
            // The last step stays in sight.
            Event::Finished(_) => match &mut self.sink {
                Sink::Quiet => {}
                Sink::Bar(bar) => bar.abandon(),
                Sink::Plain(plain) => {
                    if let Some(line) = plain.unseen.take() {
                        plain.line(&line);
                    }
                }
            },
            _ => {}
        }
        Ok(())
    }
}

fn bar(target: ProgressDrawTarget) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), target);
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
    use crate::run::Outcome;
    use crate::run::event::{Metrics, Started};

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

    /// A display of a run of so many steps that has begun.
    fn started(sink: Sink, steps: u64) -> Display {
        let mut display = Display::on(sink);
        let begins = Started {
            steps,
            epochs: 5,
            done: 300,
            iteration: 300,
            options: "",
        };
        display.see(&Event::Started(begins)).unwrap();
        display
    }

    fn plain(steps: u64) -> (Display, Paper) {
        let paper = Paper::default();
        let sink = Sink::Plain(Plain::new(Box::new(paper.clone())));
        (started(sink, steps), paper)
    }

    fn usual() -> Metrics {
        Metrics::new().with("loss", 8.0).with("accuracy", 1.25)
    }

    fn step(number: u64, metrics: &Metrics) -> Step<'_> {
        Step {
            number,
            epoch: 2,
            metrics,
            images: 96,
            seconds: 0.5,
            data_seconds: 0.05,
            remaining: None,
        }
    }

    #[test]
    fn a_plain_line_tells_all() {
        let (mut display, paper) = plain(1000);
        let metrics = usual();
        (394..400).for_each(|n| display.step(Duration::ZERO, &step(n, &metrics)));
        let last = Step {
            remaining: Some(Duration::from_secs(300)),
            ..step(400, &metrics)
        };
        display.step(Duration::from_secs(9), &last);
        assert_eq!(
            paper.lines()[1],
            "step 400/1000  epoch 2/5  loss 8.0000 (8.0000)  acc 1.25 %  192.0 img/s  data 10 %  eta 0:05:00"
        );
    }

    #[test]
    fn plain_lines_are_few_and_the_last_one_is_shown() {
        let (mut display, paper) = plain(7200);
        let metrics = usual();
        // Two steps a second for an hour.
        for n in 1..=7200 {
            display.step(Duration::from_millis(500 * n), &step(n, &metrics));
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
        let metrics = usual();
        display.step(Duration::ZERO, &step(1, &metrics));
        display.step(Duration::from_secs(1), &step(2, &metrics));
        assert_eq!(paper.lines().len(), 1);
        let outcome = Outcome {
            steps: 2,
            complete: false,
            exit_code: 0,
            checkpoint: "last".into(),
            message: String::new(),
        };
        display.see(&Event::Finished(&outcome)).unwrap();
        assert!(paper.lines()[1].starts_with("step 2/100  "));
    }

    #[test]
    fn steps_without_a_loss_show_what_is_known() {
        let (mut display, paper) = plain(10);
        let metrics = Metrics::new();
        let blind = Step {
            seconds: 0.0,
            ..step(1, &metrics)
        };
        display.step(Duration::ZERO, &blind);
        assert_eq!(paper.lines(), ["step 1/10  epoch 2/5"]);
    }

    #[test]
    fn a_tokenizers_line_tells_how_much_of_the_codebook_is_in_use() {
        let (mut display, paper) = plain(10);
        let metrics = Metrics::new().with("loss", 8.0);
        let metrics = metrics.with("usage", 42.5).with("psnr_db", 21.25);
        display.step(Duration::ZERO, &step(1, &metrics));
        let line = &paper.lines()[0];
        assert!(
            line.contains("  21.2 dB  codes in use 42.5 %  ") && !line.contains("acc"),
            "{line}"
        );
    }

    #[test]
    fn a_broken_stream_ends_nothing() {
        let mut display = started(Sink::Plain(Plain::new(Box::new(Broken))), 10);
        let metrics = usual();
        display.step(Duration::ZERO, &step(1, &metrics));
        display.see(&Event::Note("lost")).unwrap();
        display.step(Duration::from_secs(1), &step(2, &metrics));
    }

    #[test]
    fn the_bar_shows_the_same_values() {
        let paper = Paper::default();
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(paper.clone()), 255);
        let mut display = started(Sink::Bar(bar(target)), 1000);
        let metrics = usual();
        for n in 394..=400 {
            let remaining = Some(Duration::from_secs(300));
            let step = Step {
                remaining,
                ..step(n, &metrics)
            };
            display.see(&Event::Step(step)).unwrap();
        }
        display.see(&Event::Note("saved")).unwrap();
        display.see(&Event::Warning("slow")).unwrap();
        drop(display);
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
