//! `nextscale train`: the transformer.

use super::command_line;
use super::processes::ProcessArgs;
use super::progress::ProgressArgs;
use nextscale::Result;
use nextscale::options::TransformerArgs;
use nextscale::run::TransformerRun;
use std::process::ExitCode;

/// Flags of `train`.
#[derive(clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    #[command(flatten)]
    train: TransformerArgs,
    #[command(flatten)]
    processes: ProcessArgs,
    #[command(flatten)]
    progress: ProgressArgs,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let threads = args.train.options.machine.threads;
    args.processes.train(threads, |team| {
        let (options, chosen) = &args.train.completed(&team.world)?;
        let told = args.train.does_nothing.iter().chain(chosen);
        told.filter(|_| team.world.is_first())
            .for_each(|line| nextscale::tell!("nextscale: {line}"));
        TransformerRun {
            options,
            cmd: command_line(),
            team,
            observers: args.progress.observers(),
        }
        .run()
    })
}
