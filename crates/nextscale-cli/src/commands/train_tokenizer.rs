//! `nextscale train-tokenizer`: the VQVAE.

use super::command_line;
use super::progress::ProgressArgs;
use nextscale::Result;
use nextscale::options::TokenizerArgs;
use nextscale::run::StopSignal;
use nextscale::run::{TokenizerRun, init_threads};
use std::process::ExitCode;

/// Flags of `train-tokenizer`.
#[derive(clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    #[command(flatten)]
    train: TokenizerArgs,
    #[command(flatten)]
    progress: ProgressArgs,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let options = &args.train.options;
    init_threads(options.machine.threads)?;
    let outcome = TokenizerRun {
        options,
        cmd: command_line(),
        stop: StopSignal::install()?,
        observers: args.progress.observers(),
    }
    .run()?;
    super::ended(&outcome.message, outcome.exit_code)
}
