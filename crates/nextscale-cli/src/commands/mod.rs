//! The subcommands, one file each.

use clap::Subcommand;
use nextscale::Result;
use std::process::ExitCode;

/// What to do.
#[derive(Subcommand)]
pub enum Command {}

/// Runs a subcommand; the exit code is 0, or 1 where a check did not pass.
pub fn run(command: Command) -> Result<ExitCode> {
    match command {}
}
