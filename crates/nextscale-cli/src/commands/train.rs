//! `nextscale train`: the transformer.

use super::command_line;
use nextscale::Result;
use nextscale::session::{VarRun, init_threads};
use nextscale::train::options::TrainArgs;
use nextscale::train::signal::StopSignal;
use std::process::ExitCode;

/// Flags of `train`.
#[derive(clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    #[command(flatten)]
    train: TrainArgs,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let options = &args.train.options;
    for line in &args.train.does_nothing {
        nextscale::tell!("nextscale: {line}");
    }
    init_threads(options.threads)?;
    let outcome = VarRun {
        options,
        cmd: command_line(),
        stop: StopSignal::install()?,
    }
    .run()?;
    super::ended(&outcome.message, outcome.exit_code)
}
