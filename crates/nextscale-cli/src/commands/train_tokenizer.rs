//! `nextscale train-tokenizer`: the VQVAE.

use super::command_line;
use nextscale::Result;
use nextscale::run::signal::StopSignal;
use nextscale::run::{TokenizerRun, init_threads};
use nextscale::train::tokenizer_options::TokenizerOptions;
use std::process::ExitCode;

/// Flags of `train-tokenizer`.
#[derive(clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    #[command(flatten)]
    options: TokenizerOptions,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    init_threads(args.options.threads)?;
    let outcome = TokenizerRun {
        options: &args.options,
        cmd: command_line(),
        stop: StopSignal::install()?,
        observers: Vec::new(),
    }
    .run()?;
    super::ended(&outcome.message, outcome.exit_code)
}
