//! A training run with an observer of one's own: `cargo run --release --example custom_observer`.
//!
//! Trains a small tokenizer for a few steps on built-in pictures, into a folder that is removed again, and draws the losses as a row
//! of bars.

use nextscale::options::{DataOptions, OutputOptions, ScheduleOptions, TokenizerOptions};
use nextscale::run::{BUILTIN_SHAPES, Event, Observer, TokenizerRun};
use nextscale::{Result, Team, say};
use std::sync::{Arc, Mutex};

/// Keeps the loss of every step.
struct Losses(Arc<Mutex<Vec<f64>>>);

impl Observer for Losses {
    fn see(&mut self, event: &Event<'_>) -> Result<()> {
        if let Event::Step(step) = event
            && let (Some(loss), Ok(mut losses)) = (step.metrics.get("loss"), self.0.lock())
        {
            losses.push(loss);
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    let out = std::env::temp_dir().join(format!("custom-observer-{}", std::process::id()));
    let options = TokenizerOptions {
        pn: "1_2".into(),
        ch: 32,
        vocab: 64,
        data: DataOptions {
            data_path: Some(BUILTIN_SHAPES.into()),
            mid_reso: 1.0,
            ..DataOptions::default()
        },
        schedule: ScheduleOptions {
            steps: Some(20),
            bs: 8,
            ..ScheduleOptions::default()
        },
        output: OutputOptions {
            out: out.clone(),
            // Ends before the evaluation of 1,200 images.
            stop_after: Some(16),
            ..OutputOptions::default()
        },
        ..TokenizerOptions::default()
    };
    let losses = Arc::new(Mutex::new(Vec::new()));
    let run = TokenizerRun {
        options: &options,
        cmd: "the example custom_observer".into(),
        team: Team::alone(),
        observers: vec![Box::new(Losses(Arc::clone(&losses)))],
    };
    let outcome = run.run();
    // Of what it left nothing is needed; if it can't be removed the system's cleaning will.
    let _ = std::fs::remove_dir_all(&out);
    let outcome = outcome?;
    let losses = losses.lock().map_or_else(|_| Vec::new(), |l| l.clone());
    let most = losses.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let bars: Vec<char> = "▁▂▃▄▅▆▇█".chars().collect();
    let bar = |loss: &f64| bars[((loss / most * 7.0).round() as usize).min(7)];
    let drawn: String = losses.iter().map(bar).collect();
    say!("{} steps: {drawn}", outcome.steps)
}
