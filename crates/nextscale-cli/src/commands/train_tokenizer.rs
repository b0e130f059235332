//! `nextscale train-tokenizer`: the VQVAE.

use super::command_line;
use super::processes::ProcessArgs;
use super::progress::ProgressArgs;
use nextscale::Result;
use nextscale::options::TokenizerArgs;
use nextscale::run::TokenizerRun;
use std::process::ExitCode;

/// Flags of `train-tokenizer`.
#[derive(clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    #[command(flatten)]
    train: TokenizerArgs,
    #[command(flatten)]
    processes: ProcessArgs,
    #[command(flatten)]
    progress: ProgressArgs,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let threads = args.train.options.machine.threads;
    args.processes.train(threads, |team| {
        let (options, chosen) = &args.train.completed(&team.world)?;
        let told = chosen.iter().filter(|_| team.world.is_first());
        told.for_each(|line| nextscale::tell!("nextscale: {line}"));
        TokenizerRun {
            options,
            cmd: command_line(),
            team,
            observers: args.progress.observers(),
        }
        .run()
    })
}
