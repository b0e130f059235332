//! The flag of both trainers that says what a person sees of a run.

use clap::ArgAction;
use nextscale::options::values::parse_bool;
use nextscale::run::{Display, Observer};

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

/// A display on standard error; nothing but warnings if `quiet`.
pub fn shown(quiet: bool) -> Vec<Box<dyn Observer>> {
    vec![Box::new(Display::new(quiet))]
}
