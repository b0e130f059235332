//! The flag of both trainers that says what a person sees of a run.

use clap::ArgAction;
use nextscale::log::LongWork;
use nextscale::options::values::parse_bool;
use nextscale::run::{Display, Event, Observer};
use nextscale::{Result, tell};

/// Whether progress is shown.
#[derive(clap::Args)]
pub struct ProgressArgs {
    /// No progress on the terminal
    #[arg(long, value_name = "0|1", value_parser = parse_bool, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "1", default_value_t = false, help_heading = "Output")]
    quiet: bool,
}

impl ProgressArgs {
    /// Who shows it.
    pub fn observers(&self) -> Vec<Box<dyn Observer>> {
        shown(self.quiet)
    }
}

/// Tells on standard error how far a pass over so many images is, where it takes long.
pub fn progress(of: usize, tells: bool) -> impl FnMut(usize) {
    let mut work = LongWork::new(of);
    move |done| {
        if let Some(line) = work.line(done).filter(|_| tells) {
            tell!("{line}");
        }
    }
}

/// A display without the advice on images and options, for a command that chooses these itself.
pub fn without_advice() -> Vec<Box<dyn Observer>> {
    vec![Box::new(WithoutAdvice(Display::new(false)))]
}

struct WithoutAdvice(Display);

impl Observer for WithoutAdvice {
    fn see(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Remark(_) => Ok(()),
            event => self.0.see(event),
        }
    }
}

/// A display on standard error; nothing but warnings if `quiet`.
pub fn shown(quiet: bool) -> Vec<Box<dyn Observer>> {
    vec![Box::new(Display::new(quiet))]
}
