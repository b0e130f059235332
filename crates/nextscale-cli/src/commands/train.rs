//! `nextscale train`: the transformer.

use super::command_line;
use super::progress::ProgressArgs;
use nextscale::Result;
use nextscale::options::TransformerArgs;
use nextscale::run::StopSignal;
use nextscale::run::{TransformerRun, init_threads};
use std::process::ExitCode;

/// Flags of `train`.
#[derive(clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    #[command(flatten)]
    train: TransformerArgs,
    #[command(flatten)]
    progress: ProgressArgs,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let options = &args.train.options;
    for line in &args.train.does_nothing {
        nextscale::tell!("nextscale: {line}");
    }
    init_threads(options.machine.threads)?;
    let outcome = TransformerRun {
        options,
        cmd: command_line(),
        stop: StopSignal::install()?,
        observers: args.progress.observers(),
    }
    .run()?;
    super::ended(&outcome.message, outcome.exit_code)
}
